"""`flask user`, run here or as a process of its own, and what it works on."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from click.testing import Result
from flask import Flask
from sqlalchemy import event, insert, select

from taskapi.models import Task, User, db
from tests.people import SECRET, Person
from tests.servers import BIN, copy_project, environment


def invoke(app: Flask, *args: str, answer: str = "") -> Result:
    """Run `flask user …` here, and answer its question."""
    with app.app_context():
        return app.test_cli_runner().invoke(args=["user", *args], input=answer)


def start(app: Flask, folder: Path, *args: str, stdout: int | IO[bytes] = subprocess.PIPE) -> subprocess.Popen[bytes]:
    """Start `flask user …` on the app's database as a process of its own, with pipes."""
    return subprocess.Popen(
        [BIN / "flask", "user", *args],
        cwd=copy_project(folder),
        env=environment({"DATABASE_URL": app.config["DATABASE_URL"], "JWT_SECRET": SECRET}),
        stdin=subprocess.PIPE,
        stdout=stdout,
        stderr=subprocess.PIPE,
        bufsize=0,  # what has been read ahead would be missing from communicate()
    )


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
