"""GET /healthz and GET /readyz."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

import pytest
from alembic.script import ScriptDirectory
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import event, text

from taskapi import create_app
from taskapi.database.engine import MIGRATIONS
from taskapi.database.models import db
from tests.people import SECRET
from tests.servers import closed_port, silent_server

pytestmark = pytest.mark.own_database

OK = {"status": "ok"}
HEAD = str(ScriptDirectory(str(MIGRATIONS)).get_current_head())
NOT_CURRENT = {"error": "The database schema is not current. Run: flask db upgrade", "code": "DATABASE_ERROR"}
NOT_AVAILABLE = {"error": "The database is not available. Try again.", "code": "DATABASE_ERROR"}


def execute(app: Flask, *statements: str) -> None:
    """Change the database behind the service's back."""
    with app.app_context(), db.session.begin():
        for statement in statements:
            db.session.execute(text(statement))


def ready(app: Flask) -> tuple[int, object]:
    """Return what /readyz answers."""
    response = app.test_client().get("/readyz")
    return response.status_code, response.json


def test_healthz_touches_no_database(app: Flask, client: FlaskClient) -> None:
    """A process without its database is healthy: a restart would not help."""
    connections: list[object] = []
    with app.app_context():
        for engine in db.engines.values():
            event.listen(engine, "checkout", lambda *args: connections.append(args))

    response = client.get("/healthz")

    assert (response.status_code, response.json) == (200, OK)
    assert connections == []


def test_healthz_answers_without_database() -> None:
    """The same where there is no database server."""
    with closed_port() as port:
        app = create_app({"DATABASE_URL": f"postgresql://127.0.0.1:{port}/taskapi", "JWT_SECRET": SECRET})

        response = app.test_client().get("/healthz")

    assert (response.status_code, response.json) == (200, OK)


def test_readyz_answers_200(app: Flask) -> None:
    """The database answers and has the schema of this code."""
    assert ready(app) == (200, OK)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE alembic_version SET version_num = 'other'",
        "INSERT INTO alembic_version VALUES ('other')",
        "DELETE FROM alembic_version",
    ],
)
def test_readyz_answers_503_for_another_schema(app: Flask, statement: str) -> None:
    """Older, newer, between two branches or downgraded to nothing: this code does not fit."""
    execute(app, statement)

    assert ready(app) == (503, NOT_CURRENT)


@pytest.mark.parametrize(("steps", "status"), [(-1, 503), (0, 200), (1, 200), (2, 503)])
def test_readyz_takes_the_next_schema(app: Flask, steps: int, status: int) -> None:
    """An upgrade comes before its code: the code that serves meanwhile stays in service, for one step."""
    execute(app, f"UPDATE alembic_version SET version_num = '{int(HEAD) + steps:04}'")

    assert ready(app)[0] == status


def test_readyz_answers_503_before_a_stop(app: Flask) -> None:
    """Also while the database answers: a load balancer is to look for another instance."""
    app.config["DRAINING"] = draining = bytearray(1)
    assert ready(app)[0] == 200
    draining[0] = 1

    assert ready(app) == (503, {"error": "This process is about to stop.", "code": "INTERNAL_ERROR"})


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_answer_is_kept_in_no_cache(app: Flask, path: str) -> None:
    """Good or bad: it may change any moment."""
    execute(app, "DELETE FROM alembic_version")

    assert app.test_client().get(path).headers["Cache-Control"] == "no-store"


def test_readyz_follows_the_database(app: Flask) -> None:
    """Ready, then not, then ready again: no answer is kept in the process."""
    answers = [ready(app)]
    for statement in ("DELETE FROM alembic_version", f"INSERT INTO alembic_version VALUES ('{HEAD}')"):
        execute(app, statement)
        answers.append(ready(app))

    assert answers == [(200, OK), (503, NOT_CURRENT), (200, OK)]


def test_readyz_answers_503_without_migrations(app: Flask) -> None:
    """A database that no migration has touched is not ready: there is not even the table that would say so."""
    answers = [ready(app)]
    execute(app, "ALTER TABLE alembic_version RENAME TO hidden")
    answers.append(ready(app))
    execute(app, "ALTER TABLE hidden RENAME TO alembic_version")
    answers.append(ready(app))

    assert [status for status, _ in answers] == [200, 503, 200]
    assert answers[1][1] == NOT_CURRENT


def test_readyz_answers_503_without_server() -> None:
    """No server listens where the database should be."""
    with closed_port() as port:
        app = create_app({"DATABASE_URL": f"postgresql://127.0.0.1:{port}/taskapi", "JWT_SECRET": SECRET})

        response = app.test_client().get("/readyz")

    assert (response.status_code, response.json) == (503, NOT_AVAILABLE)
    assert response.headers["Retry-After"] == "1"


def test_readyz_answers_within_3_seconds() -> None:
    """A server that accepts and never answers: a load balancer that gives up at 3 s gets its answer before."""
    with silent_server() as port:
        app = create_app({"DATABASE_URL": f"postgresql://127.0.0.1:{port}/taskapi", "JWT_SECRET": SECRET})
        began = time.monotonic()

        answer = ready(app)
        seconds = time.monotonic() - began

    assert answer == (503, NOT_AVAILABLE)
    assert seconds < 3


def test_readyz_answers_within_3_seconds_of_a_locked_file(sqlite_url: str) -> None:
    """SQLite's own wait, for a file that another process has to itself, ends as early."""
    app = create_app({"DATABASE_URL": sqlite_url, "JWT_SECRET": SECRET})
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()

        answer = ready(app)
        seconds = time.monotonic() - began

    assert answer == (503, NOT_AVAILABLE)
    assert seconds < 3


def test_readyz_answers_503_for_a_database_that_is_gone(postgresql: Callable[[str], str]) -> None:
    """A server that knows no such database is not available either."""
    app = create_app({"DATABASE_URL": postgresql("does_not_exist"), "JWT_SECRET": SECRET})

    assert ready(app) == (503, NOT_AVAILABLE)
