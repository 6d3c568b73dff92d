"""Alembic's entry point: migrate in one transaction while the service runs."""

from alembic import context
from sqlalchemy import event
from sqlalchemy.types import TypeDecorator

from taskapi.database.models import db
from taskapi.errors import in_one_line

# How a migration begins. On PostgreSQL one upgrade runs at a time: the others wait for this lock, whose number is
# arbitrary, and find nothing to do. It waits for a table for at most 2 s, then fails without a change: requests that
# queue behind it wait only 4.5 s. On SQLite no other connection writes meanwhile.
BEGIN = {
    "postgresql": "SELECT pg_advisory_xact_lock(7305104); SET LOCAL lock_timeout = '2s'",
    "sqlite": "BEGIN IMMEDIATE",
}

# Encodings that hold all of Unicode. SQL_ASCII holds bytes; initdb chooses it where it finds no locale.
UNICODE_ENCODINGS = ("UTF8", "SQL_ASCII")


def number(context, revision, directives):
    """Give a new migration the number after the newest one's: /readyz accepts the next number."""
    for script in directives:
        script.rev_id = f"{int(context.script.get_current_head() or 0) + 1:04}"


# Write model types as plain SQLAlchemy types: a migration must not import code that may change.
RENDER = lambda kind, item, _: f"sa.{item.impl!r}" if kind == "type" and isinstance(item, TypeDecorator) else False  # noqa

with in_one_line(), db.engine.connect() as connection:
    kind = connection.dialect.name
    if kind == "postgresql":
        encoding = connection.connection.dbapi_connection.info.parameter_status("server_encoding")
        if encoding not in UNICODE_ENCODINGS:
            raise SystemExit(f"The database's encoding is {encoding}, which can't hold every title: make one in UTF8.")
    else:
        # SQLite alters a table by replacing it, and dropping the old users table would delete every task. Detached, the
        # connection is closed at the end and no request gets it.
        connection.detach()
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.commit()
    event.listen(connection, "begin", lambda begun: begun.exec_driver_sql(BEGIN[kind]))
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=kind == "sqlite",
        transactional_ddl=True,  # Alembic assumes that SQLite has none
        process_revision_directives=number,
        render_item=RENDER,
    )
    with context.begin_transaction():
        context.run_migrations()
