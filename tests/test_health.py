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
from tests.conftest import SQLITE_ALONE
from tests.people import SECRET
from tests.servers import closed_port, silent_server

OK = {"status": "ok"}
HEAD = str(ScriptDirectory(str(MIGRATIONS)).get_current_head())
NOT_CURRENT = {"error": "The database schema is not current. Run: flask db upgrade", "code": "DATABASE_ERROR"}
NOT_AVAILABLE = {"error": "The database is not available. Try again.", "code": "DATABASE_ERROR"}


def execute(app: Flask, *statements: str) -> None:
    """Change the database directly."""
    with app.app_context(), db.session.begin():
        for statement in statements:
            db.session.execute(text(statement))


def ready(app: Flask) -> tuple[int, object]:
    """Return what /readyz answers."""
    response = app.test_client().get("/readyz")
    return response.status_code, response.json


@SQLITE_ALONE
def test_healthz_touches_no_database(make_app: Callable[..., Flask]) -> None:
    """A process without its database is healthy: a restart would not help."""
    app, connections = make_app(), []
    with app.app_context():
        for engine in db.engines.values():
            event.listen(engine, "checkout", lambda *args: connections.append(args))

    response = app.test_client().get("/healthz")

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


@pytest.mark.own_database
def test_readyz_answers_503_for_another_schema(app: Flask) -> None:
    """A schema of other code, of two branches or of none is not current. No answer is kept in the process."""
    for statement in (
        "UPDATE alembic_version SET version_num = 'other'",
        "INSERT INTO alembic_version VALUES ('other')",
        "DELETE FROM alembic_version",
        "ALTER TABLE alembic_version RENAME TO hidden",
    ):
        execute(app, statement)
        assert ready(app) == (503, NOT_CURRENT), statement
        if "hidden" in statement:
            execute(app, "ALTER TABLE hidden RENAME TO alembic_version")
        execute(app, "DELETE FROM alembic_version", f"INSERT INTO alembic_version VALUES ('{HEAD}')")
        assert ready(app) == (200, OK)


@pytest.mark.own_database
def test_readyz_takes_the_next_schema(app: Flask) -> None:
    """An upgrade comes before its code: the running code stays in service, for one step."""
    statuses = {}
    for steps in (-1, 0, 1, 2):
        execute(app, f"UPDATE alembic_version SET version_num = '{int(HEAD) + steps:04}'")
        statuses[steps] = ready(app)[0]

    assert statuses == {-1: 503, 0: 200, 1: 200, 2: 503}


@SQLITE_ALONE
def test_readyz_answers_503_before_a_stop(make_app: Callable[..., Flask]) -> None:
    """It does so while the database answers: a load balancer looks for another instance."""
    app = make_app()
    app.config["DRAINING"] = draining = bytearray(1)
    assert ready(app)[0] == 200
    draining[0] = 1

    assert ready(app) == (503, {"error": "This process is about to stop.", "code": "INTERNAL_ERROR"})


@SQLITE_ALONE
@pytest.mark.own_database
def test_answer_is_kept_in_no_cache(app: Flask, client: FlaskClient) -> None:
    """The next answer may be another."""
    good = [client.get(path) for path in ("/healthz", "/readyz")]
    execute(app, "DELETE FROM alembic_version")
    bad = client.get("/readyz")

    assert [answer.status_code for answer in (*good, bad)] == [200, 200, 503]
    assert {answer.headers["Cache-Control"] for answer in (*good, bad)} == {"no-store"}


def test_readyz_answers_503_without_server() -> None:
    """No server listens where the database should be."""
    with closed_port() as port:
        app = create_app({"DATABASE_URL": f"postgresql://127.0.0.1:{port}/taskapi", "JWT_SECRET": SECRET})

        response = app.test_client().get("/readyz")

    assert (response.status_code, response.json) == (503, NOT_AVAILABLE)
    assert response.headers["Retry-After"] == "1"


def test_readyz_answers_within_3_seconds() -> None:
    """A load balancer that gives up at 3 s gets its answer, even if the database server never answers."""
    with silent_server() as port:
        app = create_app({"DATABASE_URL": f"postgresql://127.0.0.1:{port}/taskapi", "JWT_SECRET": SECRET})
        began = time.monotonic()

        answer = ready(app)
        seconds = time.monotonic() - began

    assert answer == (503, NOT_AVAILABLE)
    assert seconds < 3


@pytest.mark.own_database
def test_readyz_waits_no_longer_for_a_locked_file(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is the same for a SQLite file that another process has locked."""
    monkeypatch.setattr("taskapi.health.READY_LIMIT", 0.2)
    app = create_app({"DATABASE_URL": sqlite_url, "JWT_SECRET": SECRET})
    with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()

        answer = ready(app)
        seconds = time.monotonic() - began

    assert answer == (503, NOT_AVAILABLE)
    assert 0.2 <= seconds < 2


def test_readyz_answers_503_for_a_database_that_is_gone(postgresql: Callable[[str], str]) -> None:
    """A missing database is not available either."""
    app = create_app({"DATABASE_URL": postgresql("does_not_exist"), "JWT_SECRET": SECRET})

    assert ready(app) == (503, NOT_AVAILABLE)
