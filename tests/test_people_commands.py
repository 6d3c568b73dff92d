"""flask user show, export and delete."""

import json
import os
import re
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import click
import psycopg2
import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import event, insert, select

from taskapi.database import db
from taskapi.models import Task, User
from taskapi.people import user
from tests.people import SECRET, Person
from tests.servers import BIN, PATIENCE, Proxy, copy_project, environment

QUESTION = b"Delete all of this, for good? [y/N]: "
# SQLite has no cursor on a server, and no connection that somebody else could end.
POSTGRESQL_ALONE = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def flask(tmp_path: Path, database_url: str) -> Callable[..., subprocess.Popen[bytes]]:
    """Start `flask user …` as a process of its own, with pipes."""
    (tmp_path / "project").mkdir()
    folder = copy_project(tmp_path / "project")

    def start(*args: str, stdout: int | IO[bytes] = subprocess.PIPE) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [BIN / "flask", "user", *args],
            cwd=folder,
            env=environment({"DATABASE_URL": database_url, "JWT_SECRET": SECRET}),
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
            bufsize=0,  # what has been read ahead would be missing from communicate()
        )

    return start


def invoke(app: Flask, *args: str, answer: str = "") -> Result:
    """Run `flask user …` here, and answer its question."""
    with app.app_context():
        return app.test_cli_runner().invoke(args=["user", *args], input=answer)


def give(owner: Person, count: int, description: str | None = None) -> None:
    """Give her that many tasks more at once."""
    rows = [{"user_id": owner.id, "title": f"Task {number}", "description": description} for number in range(count)]
    with owner.app.app_context(), db.session.begin():
        db.session.execute(insert(Task), rows)


def users(app: Flask) -> dict[str, str | None]:
    """Return each user's address."""
    with app.app_context():
        return {found.id: found.email for found in db.session.scalars(select(User))}


def oldest_first(owner: Person) -> list[dict[str, Any]]:
    """Return all her tasks as the API lists them."""
    tasks: list[dict[str, Any]] = []
    link = "</api/tasks?sort=created_at&limit=100>"
    while link:
        response = owner.call("GET", link[1 : link.index(">")])
        tasks += response.json
        link = response.headers.get("Link", "")
    return tasks


def read_question(process: subprocess.Popen[bytes]) -> bytes:
    """Return what it says until it waits for an answer."""
    assert process.stdout
    said = b""
    while not said.endswith(QUESTION) and (byte := process.stdout.read(1)):
        said += byte
    return said


@contextmanager
def before(app: Flask, statement: str, act: Callable[[], object]) -> Iterator[None]:
    """Act right before a statement of the command that begins like this."""

    def listen(connection: Any, cursor: Any, text: str, *_: Any) -> None:
        if text.startswith(statement):
            act()

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", listen)
    yield
    event.remove(engine, "before_cursor_execute", listen)


def test_show(ana: Person, ben: Person) -> None:
    """It counts the tasks and tells when she began and when she last changed anything."""
    first, *_ = ana.make(), ana.make(), ana.make()
    changed = ana.call("PUT", f"/api/tasks/{first['id']}", json={"is_completed": True}).json
    ben.make()

    result = invoke(ana.app, "show", "ana@example.com")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"id: {ana.id}\n"
        "e-mail: ana@example.com\n"
        "tasks: 3 (2 open, 1 completed)\n"
        f"first created: {first['created_at']}\n"
        f"last updated: {changed['updated_at']}\n"
    )


def test_show_of_a_user_without_anything(app: Flask) -> None:
    """Neither an address nor a task."""
    nobody = Person(app, email=None)
    nobody.call("DELETE", f"/api/tasks/{nobody.make()['id']}")

    result = invoke(app, "show", nobody.id)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"id: {nobody.id}\ne-mail: none\ntasks: 0 (0 open, 0 completed)\nfirst created: never\nlast updated: never\n"
    )


def test_a_user_has_an_id_in_either_case(ana: Person) -> None:
    """As everywhere."""
    ana.make()

    lower, upper = invoke(ana.app, "show", ana.id.lower()), invoke(ana.app, "show", ana.id.upper())

    assert (lower.exit_code, lower.stdout) == (upper.exit_code, upper.stdout) == (0, lower.stdout)
    assert lower.stdout.startswith(f"id: {ana.id}\n")


def test_an_address_in_the_form_of_an_id_names_nobody(app: Flask, ana: Person) -> None:
    """Who shows somebody's id as an address is not taken for them, nor they for him."""
    ana.make()
    mallory = Person(app, email=ana.id)
    mallory.make()
    stray = Person(app, email=str(uuid4()).upper())
    stray.make()

    assert invoke(app, "show", ana.id).stdout.startswith(f"id: {ana.id}\n")
    assert invoke(app, "show", users(app)[stray.id] or "").exit_code == 1


NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("command", ["show", "export", "delete", "delete --yes"])
@pytest.mark.parametrize("named", [NOBODY, "ANA@example.com", "%@example.com", "", "a\0", "a\udcff@example.com"])
def test_unknown_users(ana: Person, command: str, named: str) -> None:
    """It says so and no more; addresses count as stored."""
    ana.make()

    result = invoke(ana.app, *command.split(), named, answer="y\n")

    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: no such user\n")
    assert users(ana.app) == {ana.id: "ana@example.com"}


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


def test_export_that_is_being_read_shows_no_change(ana: Person, flask: Callable[..., subprocess.Popen[bytes]]) -> None:
    """However slowly it is read: 1 MB is more than the pipe and the first fetch hold."""
    ana.make()
    give(ana, 3000, "d" * 200)
    tasks = oldest_first(ana)

    with flask("export", ana.id) as process:
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


def test_reader_who_leaves_early(ana: Person, flask: Callable[..., subprocess.Popen[bytes]]) -> None:
    """As in `| head -1`: what follows the line that he wanted is no traceback."""
    ana.make()
    give(ana, 1000, "d" * 500)

    with flask("export", ana.id) as process:
        assert process.stdout and process.stderr
        assert json.loads(process.stdout.readline())["id"] == ana.id
        process.stdout.close()
        stderr = process.stderr.read()

    assert (process.returncode, stderr) == (1, b"Error: the export is not complete: Broken pipe\n")


def test_full_disk_fails_the_export(ana: Person, flask: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Even one that is small enough to be found out about at its end."""
    ana.make()

    with open("/dev/full", "wb") as full, flask("export", ana.id, stdout=full) as process:
        _, stderr = process.communicate(timeout=PATIENCE)

    assert (process.returncode, stderr) == (1, b"Error: the export is not complete: No space left on device\n")


def test_failed_export_says_why(ana: Person) -> None:
    """And keeps nothing back that could fail once more later."""
    ana.make()

    with open("/dev/full", "w") as full, redirect_stdout(full), ana.app.app_context():
        with pytest.raises(click.ClickException, match="the export is not complete: No space left on device"):
            user.main(["export", ana.id], standalone_mode=False)
        assert full.closed


@pytest.mark.own_database
@pytest.mark.parametrize("command", ["show", "export", "delete --yes"])
def test_database_without_tables_is_an_error(app: Flask, command: str) -> None:
    """Told in a line, not in a stack trace."""
    with app.app_context():
        db.drop_all()

    result = invoke(app, *command.split(), "ana@example.com")

    assert (result.exit_code, result.stdout) == (1, "")
    assert re.match(r'Error: (no such table: users|relation "users" does not exist)', result.stderr)


@pytest.mark.parametrize("command", ["show", "export", "delete --yes"])
def test_closed_stdout_is_an_error(ana: Person, command: str) -> None:
    """Nothing is read or deleted with nobody to tell, as by >&-."""
    ana.make()

    with redirect_stdout(None), ana.app.app_context(), pytest.raises(click.ClickException, match="stdout is closed"):
        user.main([*command.split(), ana.id], standalone_mode=False)

    assert len(ana.stored()) == 1


@POSTGRESQL_ALONE
@pytest.mark.own_database
def test_lost_database_fails_the_export(
    ana: Person, flask: Callable[..., subprocess.Popen[bytes]], database_url: str
) -> None:
    """What has been written by then is lines, and the exit status tells that some are missing."""
    ana.make()
    give(ana, 3000, "d" * 200)

    with closing(psycopg2.connect(database_url)) as other, flask("export", ana.id) as process:
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


def test_delete(app: Flask, ana: Person, ben: Person) -> None:
    """She and her tasks are gone, by the thousand; Ben's stay, and she may come back as anybody new."""
    ana.make(), ben.make()
    give(ana, 4999)
    bens = ben.call("GET").json

    result = invoke(app, "delete", "ana@example.com", answer="y\n")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"{ana.id}, e-mail ana@example.com, 5000 tasks\n{QUESTION.decode()}y\ndeleted, with 5000 tasks\n"
    )
    assert (users(app), ana.stored(), ben.call("GET").json) == ({ben.id: "ben@example.com"}, [], bens)
    ana.make()
    assert (len(ana.stored()), users(app)) == (1, {ana.id: "ana@example.com", ben.id: "ben@example.com"})


def test_delete_asks_nothing_with_yes(app: Flask) -> None:
    """And still tells what goes."""
    nobody = Person(app, email=None)
    nobody.make()

    result = invoke(app, "delete", nobody.id, "--yes")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"{nobody.id}, e-mail none, 1 tasks\ndeleted, with 1 tasks\n"
    assert users(app) == {}


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_delete_without_a_yes_deletes_nothing(ana: Person, answer: str) -> None:
    """No, nothing, or the end of the input."""
    ana.make()

    result = invoke(ana.app, "delete", ana.id, answer=answer)

    assert (result.exit_code, result.stderr.strip()) == (1, "Aborted!")
    assert (users(ana.app), len(ana.stored())) == ({ana.id: "ana@example.com"}, 1)


def test_delete_counts_what_goes(ana: Person, ben: Person, flask: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Tasks made between question and answer too; and who has been shown goes, whoever has the address by then."""
    ana.make()

    with flask("delete", "ana@example.com") as process:
        asked = read_question(process)
        ana.make(), ana.make()
        Person(ben.app, sub=ben.id, email="ana@example.com").make()
        stdout, stderr = process.communicate(b"y\n", timeout=PATIENCE)

    assert asked == f"{ana.id}, e-mail ana@example.com, 1 tasks\n".encode() + QUESTION
    assert (process.returncode, stdout, stderr) == (0, b"deleted, with 3 tasks\n", b"")
    assert (users(ben.app), len(ben.stored())) == ({ben.id: "ana@example.com"}, 1)


def test_delete_of_a_user_who_has_gone_meanwhile(ana: Person, flask: Callable[..., subprocess.Popen[bytes]]) -> None:
    """Two operators may be asked the same question."""
    ana.make()

    with flask("delete", ana.id) as process:
        read_question(process)
        assert invoke(ana.app, "delete", "--yes", ana.id).exit_code == 0
        stdout, stderr = process.communicate(b"y\n", timeout=PATIENCE)

    assert (process.returncode, stdout, stderr) == (1, b"", b"Error: no such user\n")


def test_nobody_changes_what_has_been_counted(
    ana: Person, make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the count to the commit she can neither make nor delete a task; what she reads is as before."""
    task, _ = ana.make(), ana.make()
    monkeypatch.setattr("taskapi.database.SQLITE_LIMIT", 0.1)
    elsewhere = Person(make_app(), sub=ana.id)
    answers = []

    def change() -> None:
        for method, path in (("GET", f"/{task['id']}"), ("POST", ""), ("DELETE", f"/{task['id']}")):
            answer = elsewhere.call(method, f"/api/tasks{path}", json={"title": "Late"})
            answers.append((method, answer.status_code))
            monkeypatch.setattr("taskapi.deadline.REQUEST_LIMIT", 0.3)

    with before(ana.app, "DELETE FROM users", change):
        result = invoke(ana.app, "delete", "--yes", ana.id)

    assert (result.exit_code, result.stdout.splitlines()[1:]) == (0, ["deleted, with 2 tasks"])
    assert answers == [("GET", 200), ("POST", 503), ("DELETE", 503)]
    assert (users(ana.app), ana.stored()) == ({}, [])


def test_failed_delete_leaves_everything(ana: Person, ben: Person) -> None:
    """It is one transaction: halfway is no result."""
    ana.make(), ana.make(), ben.make()

    def fail(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("DELETE"):
            raise RuntimeError("the power went off")

    with ana.app.app_context():
        event.listen(db.engine, "after_cursor_execute", fail)

    result = invoke(ana.app, "delete", "--yes", ana.id)

    assert (result.exit_code, str(result.exception)) == (1, "the power went off")
    assert (len(ana.stored()), len(ben.stored())) == (2, 1)
    assert users(ana.app) == {ana.id: "ana@example.com", ben.id: "ben@example.com"}
