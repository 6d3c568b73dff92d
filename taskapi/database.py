"""The database: how it is connected to, and the one way a request runs a statement."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from sqlite3 import Connection as SQLiteConnection
from time import sleep
from typing import Any, NamedTuple

from flask import Flask, g
from flask_migrate import Migrate
from psycopg2 import extensions
from sqlalchemy import Executable, Row, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DBAPIError

from taskapi.deadline import milliseconds_left
from taskapi.errors import database_code
from taskapi.models import db
from taskapi.postgresql import DeadlineExceeded, connect

# Seconds that a request waits for a free connection.
POOL_TIMEOUT = 2.0
# Seconds between a request's tries while somebody else is at it. SQLite's own wait for a lock would keep a gevent
# worker from serving anybody.
PAUSE = 0.01
# How codes begin that say so, and that nothing was done: somebody writes to SQLite; PostgreSQL's serialization_failure
# and deadlock_detected.
CONTENTION = ("SQLITE_BUSY", "40001", "40P01")
# Connections per process: under gunicorn times its workers, so well under PostgreSQL's default of 100.
POOL_SIZE = 10

# The engine of requests. Its connections stay in autocommit: to switch one back would be a round trip, and a SET that a
# pooler in transaction mode does not keep. The default engine, with transactions, is for the shell and commands.
AUTOCOMMIT = "autocommit"
UUID_OID = 2950  # in PostgreSQL's pg_type
READ_ONLY = "25006"  # read_only_sql_transaction: what a primary answers once it has become a standby
MIGRATIONS = Path(__file__).parent / "migrations"


class Answer(NamedTuple):
    """What a statement gave, and whether it had to be run twice."""

    rows: Sequence[Row[Any]]
    repeated: bool


def run(statement: Executable, **parameters: Any) -> Answer:
    """Run a statement in autocommit.

    Every statement of a request is safe to run twice, so where the connection turns out to be dead it runs once more on
    a fresh one; where it got in somebody's way, it runs until it gets through. Raises sqlalchemy.exc.SQLAlchemyError.
    """
    g.statements = g.get("statements", 0) + 1
    milliseconds_left()  # the time begins now: waiting for a free connection counts
    repeated = False
    while True:
        try:
            with db.engines[AUTOCOMMIT].connect() as connection:
                result = connection.execute(statement, parameters)
                return Answer(result.all() if result.returns_rows else (), repeated)
        except DBAPIError as error:
            if (database_code(error) or "").startswith(CONTENTION) and milliseconds_left() != 0:
                sleep(PAUSE)
                continue
            dead = error.connection_invalidated and not isinstance(error.orig, DeadlineExceeded)
            if repeated or not dead:
                raise
            repeated, g.retries = True, g.get("retries", 0) + 1


def init_app(app: Flask) -> None:
    """Give the app its engines; nothing connects yet."""
    options = _engine_options(app.config["DATABASE_URL"])
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = options
    # The timeout is SQLite's, for locks.
    of_requests = {"isolation_level": "AUTOCOMMIT", "connect_args": {"timeout": 0}}
    app.config["SQLALCHEMY_BINDS"] = {AUTOCOMMIT: options | of_requests}
    db.init_app(app)
    Migrate(app, db, directory=str(MIGRATIONS))
    with app.app_context():
        for engine in db.engines.values():
            event.listen(engine, "connect", _on_connect)
            event.listen(engine, "handle_error", _on_error)


def _engine_options(url: str) -> dict[str, Any]:
    # LIFO keeps few connections busy, and lets a pooler close the others.
    options = {"pool_size": POOL_SIZE, "max_overflow": 0, "pool_timeout": POOL_TIMEOUT, "pool_use_lifo": True}
    if url.startswith("sqlite:"):
        return options | {"url": url}
    return options | {"url": "postgresql+psycopg2://", "creator": partial(connect, url)}


def _on_connect(connection: Any, record: object) -> None:
    if isinstance(connection, SQLiteConnection):
        connection.execute("PRAGMA foreign_keys = ON")  # SQLite ignores them unless told
        connection.execute("PRAGMA journal_mode = WAL")  # readers and the one writer don't block each other
        # Looks at the time every thousand steps, a millisecond's work, and interrupts if it is over.
        connection.set_progress_handler(lambda: milliseconds_left() == 0, 1000)
    else:
        # Ids are text throughout: SQLAlchemy has psycopg2 make UUID objects, only to make text of them again.
        extensions.register_type(extensions.new_type((UUID_OID,), "UUID", lambda text, cursor: text), connection)


def _on_error(context: ExceptionContext) -> None:
    if isinstance(context.original_exception, DeadlineExceeded):
        context.invalidate_pool_on_disconnect = False
    elif getattr(context.original_exception, "pgcode", None) == READ_ONLY:
        context.is_disconnect = True
