"""The engines, and run(), which executes every statement of a request."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from queue import Full, Queue
from sqlite3 import Connection as SQLiteConnection
from time import monotonic, sleep
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from flask import Flask, g
from flask_migrate import Migrate
from psycopg2 import extensions
from sqlalchemy import Executable, Row, event
from sqlalchemy.engine.interfaces import ExceptionContext
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from taskapi.database.models import db
from taskapi.database.postgresql import DEADLINE, DeadlineExceeded, connect, seconds_left
from taskapi.errors import is_contention

REQUEST_LIMIT = 4.5  # seconds that all statements of a request get together, repeats included
POOL_SIZE = 10  # connections per process; with a process per core this stays under PostgreSQL's default of 100
POOL_TIMEOUT = 2.0  # seconds that a statement waits for a free connection
SHARE = POOL_SIZE // 2  # connections that one user's requests may hold at once
PAUSE = 0.01  # seconds between two tries on contention; SQLite's own wait would block a gevent worker

# Requests use this engine. Its connections stay in autocommit: to switch one back would cost a round trip. The default
# engine has ordinary transactions, for flask shell and commands.
AUTOCOMMIT = "autocommit"
MIGRATIONS = Path(__file__).parent / "migrations"

UUID_OID = 2950  # in PostgreSQL's pg_type
READ_ONLY = "25006"  # read_only_sql_transaction: what a primary answers once it has become a standby

# A semaphore per user: put() takes a place, get() frees it. Under gevent a Queue costs a tenth of a Semaphore.
_shares: WeakValueDictionary[str, Queue[None]] = WeakValueDictionary()


class Answer(NamedTuple):
    """What a statement returned, and whether it was run twice."""

    rows: Sequence[Row[Any]]
    repeated: bool


def run(statement: Executable, **parameters: Any) -> Answer:
    """Execute a statement in autocommit; :owner in it is the user who asks.

    Every statement of a request is safe to run twice: on a dead connection it runs once more on a fresh one, and on
    contention it runs until the deadline. Raises sqlalchemy.exc.SQLAlchemyError.
    """
    request = g._get_current_object()
    request.statements = request.get("statements", 0) + 1
    owner = request.user.id if "user" in request else ""
    deadline = DEADLINE.set(request.setdefault("database_deadline", monotonic() + REQUEST_LIMIT))
    share = _shares.get(owner) or _shares.setdefault(owner, Queue(SHARE))
    try:
        share.put(None, timeout=POOL_TIMEOUT)
        try:
            return _execute(statement, parameters | {"owner": owner}, request)
        finally:
            share.get()
    except Full:
        raise PoolTimeoutError("This user's requests hold their share of the connections.") from None
    finally:
        DEADLINE.reset(deadline)


def _execute(statement: Executable, parameters: dict[str, Any], request: Any) -> Answer:
    repeated = False
    while True:
        try:
            with db.engines[AUTOCOMMIT].connect() as connection:
                result = connection.execute(statement, parameters)
                return Answer(result.all() if result.returns_rows else (), repeated)
        except DBAPIError as error:
            if is_contention(error) and seconds_left():
                sleep(PAUSE)
                continue
            is_dead = error.connection_invalidated and not isinstance(error.orig, DeadlineExceeded)
            if repeated or not is_dead:
                raise
            repeated, request.retries = True, request.get("retries", 0) + 1


def init_app(app: Flask) -> None:
    """Give the app its engines, without connecting."""
    options = _engine_options(app.config["DATABASE_URL"])
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = options
    # timeout: how long SQLite waits for locks.
    request_options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "connect_args": {"timeout": 0}}
    request_options |= {"skip_autocommit_rollback": True, "pool_reset_on_return": None}  # there is nothing to roll back
    app.config["SQLALCHEMY_BINDS"] = {AUTOCOMMIT: options | request_options}
    db.init_app(app)
    Migrate(app, db, directory=str(MIGRATIONS))
    with app.app_context():
        for engine in db.engines.values():
            event.listen(engine, "connect", _on_connect)
            event.listen(engine, "handle_error", _on_error)


def _engine_options(url: str) -> dict[str, Any]:
    # LIFO keeps few connections busy, so that a pooler can close the others.
    options: dict[str, Any] = {"pool_size": POOL_SIZE, "max_overflow": 0, "pool_timeout": POOL_TIMEOUT}
    options["pool_use_lifo"] = True
    if url.startswith("sqlite:"):
        return options | {"url": url}
    return options | {"url": "postgresql+psycopg2://", "creator": partial(connect, url)}


def _on_connect(connection: Any, record: object) -> None:
    if isinstance(connection, SQLiteConnection):
        connection.execute("PRAGMA foreign_keys = ON")  # SQLite ignores them by default
        connection.execute("PRAGMA journal_mode = WAL")  # readers and the one writer don't block each other
        # Every thousand steps, about a millisecond, SQLite asks whether to interrupt.
        connection.set_progress_handler(lambda: seconds_left() == 0, 1000)
    else:
        # Read ids as text: psycopg2 would make UUID objects, and SQLAlchemy would make text of them.
        extensions.register_type(extensions.new_type((UUID_OID,), "UUID", lambda text, cursor: text), connection)


def _on_error(context: ExceptionContext) -> None:
    if isinstance(context.original_exception, DeadlineExceeded):
        context.invalidate_pool_on_disconnect = False
    elif getattr(context.original_exception, "pgcode", None) == READ_ONLY:
        context.is_disconnect = True
