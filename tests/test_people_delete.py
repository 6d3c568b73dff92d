"""flask user delete."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event

from taskapi.models import db
from tests.commands import before, give, invoke, start, users
from tests.people import Person
from tests.servers import PATIENCE

QUESTION = b"Delete all of this, for good? [y/N]: "


def read_question(process: subprocess.Popen[bytes]) -> bytes:
    """Return what it says until it waits for an answer."""
    assert process.stdout
    said = b""
    while not said.endswith(QUESTION) and (byte := process.stdout.read(1)):
        said += byte
    return said


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


def test_delete_counts_what_goes(ana: Person, ben: Person, tmp_path: Path) -> None:
    """Tasks made between question and answer too; and who has been shown goes, whoever has the address by then."""
    ana.make()

    with start(ana.app, tmp_path, "delete", "ana@example.com") as process:
        asked = read_question(process)
        ana.make(), ana.make()
        Person(ben.app, sub=ben.id, email="ana@example.com").make()
        stdout, stderr = process.communicate(b"y\n", timeout=PATIENCE)

    assert asked == f"{ana.id}, e-mail ana@example.com, 1 tasks\n".encode() + QUESTION
    assert (process.returncode, stdout, stderr) == (0, b"deleted, with 3 tasks\n", b"")
    assert (users(ben.app), len(ben.stored())) == ({ben.id: "ana@example.com"}, 1)


def test_delete_of_a_user_who_has_gone_meanwhile(ana: Person, tmp_path: Path) -> None:
    """Two operators may be asked the same question."""
    ana.make()

    with start(ana.app, tmp_path, "delete", ana.id) as process:
        read_question(process)
        assert invoke(ana.app, "delete", "--yes", ana.id).exit_code == 0
        stdout, stderr = process.communicate(b"y\n", timeout=PATIENCE)

    assert (process.returncode, stdout, stderr) == (1, b"", b"Error: no such user\n")


def test_nobody_changes_what_has_been_counted(
    ana: Person, make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the count to the commit she can neither make nor delete a task; what she reads is as before."""
    task, _ = ana.make(), ana.make()
    monkeypatch.setattr("taskapi.deadline.REQUEST_LIMIT", 0.3)
    elsewhere = Person(make_app(), sub=ana.id)
    answers = []

    def change() -> None:
        for method, path in (("GET", f"/{task['id']}"), ("POST", ""), ("DELETE", f"/{task['id']}")):
            answer = elsewhere.call(method, f"/api/tasks{path}", json={"title": "Late"})
            answers.append((method, answer.status_code))

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
