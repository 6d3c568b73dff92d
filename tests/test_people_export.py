"""flask user export."""

import json
import os
import tracemalloc
from collections.abc import Callable
from contextlib import closing, redirect_stdout
from pathlib import Path
from uuid import uuid4

import click
import psycopg2
import pytest
from flask import Flask

from taskapi.people import user
from tests.commands import before, give, invoke, oldest_first, start, users
from tests.conftest import POSTGRESQL_ALONE
from tests.people import Person
from tests.servers import PATIENCE, Proxy


def test_export(ana: Person, ben: Person) -> None:
    """A line for her and one for each task, oldest first, byte for byte as the API has it."""
    ana.make(title="Déjà vu 🌍", description='a\tb\n"c" \\ \u2028')
    task = ana.make(id=str(uuid4()).upper(), is_completed=True)
    ana.make(description=None)
    ana.call("PUT", f"/api/tasks/{task['id']}", json={"title": "Changed"})
    ben.make()

    result = invoke(ana.app, "export", ana.id)

    tasks = [ana.call("GET", f"/api/tasks/{task['id']}").text for task in oldest_first(ana)]
    user = f'{{"id":"{ana.id}","email":"ana@example.com"}}'
    assert (result.exit_code, result.stderr) == (0, "3 tasks\n")
    assert result.stdout_bytes == "".join(f"{line}\n" for line in [user, *tasks]).encode()


def test_export_of_a_user_without_anything(app: Flask) -> None:
    """Is one line."""
    nobody = Person(app, email=None)
    nobody.call("DELETE", f"/api/tasks/{nobody.make()['id']}")

    result = invoke(app, "export", nobody.id)

    assert (result.exit_code, result.stderr) == (0, "0 tasks\n")
    assert json.loads(result.stdout) == {"id": nobody.id, "email": None}


def test_export_is_of_one_moment(ana: Person, make_app: Callable[..., Flask]) -> None:
    """What is committed between its two statements is not in it, not even in part."""
    tasks = [ana.make(), ana.make(), ana.make()]
    elsewhere = Person(make_app(), sub=ana.id, email="new@example.com")

    def change() -> None:
        elsewhere.make(title="Late")
        elsewhere.call("PUT", f"/api/tasks/{tasks[0]['id']}", json={"title": "Changed"})
        elsewhere.call("DELETE", f"/api/tasks/{tasks[1]['id']}")

    with before(ana.app, "SELECT tasks.id", change):
        result = invoke(ana.app, "export", ana.id)

    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"id": ana.id, "email": "ana@example.com"},
        *tasks,
    ]
    assert (users(ana.app), len(oldest_first(ana))) == ({ana.id: "new@example.com"}, 3)


def test_export_that_is_being_read_shows_no_change(ana: Person, tmp_path: Path) -> None:
    """However slowly it is read: 1 MB is more than the pipe and the first fetch hold."""
    ana.make()
    give(ana, 3000, "d" * 200)
    tasks = oldest_first(ana)

    with start(ana.app, tmp_path, "export", ana.id) as process:
        assert process.stdout
        lines = [process.stdout.readline(), process.stdout.readline()]
        ana.make(title="Late")
        ana.call("DELETE", f"/api/tasks/{tasks[-1]['id']}")
        ana.call("PUT", f"/api/tasks/{tasks[-2]['id']}", json={"title": "Changed"})
        rest, stderr = process.communicate(timeout=PATIENCE)

    assert (process.returncode, stderr) == (0, b"3001 tasks\n")
    exported = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    assert exported == [{"id": ana.id, "email": "ana@example.com"}, *tasks]


def test_export_needs_no_more_memory_for_more_tasks(ana: Person, ben: Person) -> None:
    """6,000 tasks of 1 KB take what 2,000 take."""
    peaks = []
    for owner, count in ((ben, 2000), (ana, 6000)):
        owner.make()
        give(owner, count, "d" * 1000)
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), owner.app.app_context():
            tracemalloc.start()
            user.main(["export", owner.id], standalone_mode=False)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()

    assert peaks[1] < 1.2 * peaks[0]


@POSTGRESQL_ALONE
def test_export_fetches_a_thousand_at_a_time(make_app: Callable[..., Flask], database_url: str) -> None:
    """Counted on the wire: without a cursor on the server, libpq would take in all of them at once."""
    with Proxy(database_url, b"", run_it=True, times=0) as proxy:
        ana = Person(make_app(DATABASE_URL=proxy.url))
        ana.make()
        costs = []
        for count in (1499, 4000):
            give(ana, count)
            so_far = proxy.round_trips
            assert invoke(ana.app, "export", ana.id).exit_code == 0
            costs.append(proxy.round_trips - so_far)

    assert costs[1] - costs[0] == 4


def test_reader_who_leaves_early(ana: Person, tmp_path: Path) -> None:
    """As in `| head -1`: what follows the line that he wanted is no traceback."""
    ana.make()
    give(ana, 1000, "d" * 500)

    with start(ana.app, tmp_path, "export", ana.id) as process:
        assert process.stdout and process.stderr
        assert json.loads(process.stdout.readline())["id"] == ana.id
        process.stdout.close()
        stderr = process.stderr.read()

    assert (process.returncode, stderr) == (1, b"Error: the export is not complete: Broken pipe\n")


def test_full_disk_fails_the_export(ana: Person, tmp_path: Path) -> None:
    """Even one that is small enough to be found out about at its end."""
    ana.make()

    with open("/dev/full", "wb") as full, start(ana.app, tmp_path, "export", ana.id, stdout=full) as process:
        _, stderr = process.communicate(timeout=PATIENCE)

    assert (process.returncode, stderr) == (1, b"Error: the export is not complete: No space left on device\n")


def test_failed_export_says_why(ana: Person) -> None:
    """And keeps nothing back that could fail once more later."""
    ana.make()

    with open("/dev/full", "w") as full, redirect_stdout(full), ana.app.app_context():
        with pytest.raises(click.ClickException, match="the export is not complete: No space left on device"):
            user.main(["export", ana.id], standalone_mode=False)
        assert full.closed


@POSTGRESQL_ALONE
@pytest.mark.own_database
def test_lost_database_fails_the_export(
    ana: Person, tmp_path: Path, database_url: str
) -> None:
    """What has been written by then is lines, and the exit status tells that some are missing."""
    ana.make()
    give(ana, 3000, "d" * 200)

    with closing(psycopg2.connect(database_url)) as other, start(ana.app, tmp_path, "export", ana.id) as process:
        assert process.stdout
        lines = [process.stdout.readline()]
        other.cursor().execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        rest, stderr = process.communicate(timeout=PATIENCE)

    exported = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    whole = [{"id": ana.id, "email": "ana@example.com"}, *oldest_first(ana)]
    assert exported == whole[: len(exported)]
    assert len(exported) < len(whole)
    assert (process.returncode, b" tasks\n" in stderr) == (1, False)
