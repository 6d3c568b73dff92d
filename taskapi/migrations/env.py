"""Alembic's entry point: on the app's own engine, in one transaction, while the service goes on."""

from alembic import context
from sqlalchemy import event

from taskapi.models import db

# How a migration begins. On PostgreSQL it gives up (nothing has changed: try again) rather than have requests queue up
# behind it for longer than they may wait, which is 4.5 s. On SQLite nobody else writes from the first statement on.
BEGIN = {"postgresql": "SET LOCAL lock_timeout = '2s'", "sqlite": "BEGIN IMMEDIATE"}

# Encodings that hold all of Unicode; the second holds bytes, and has been initdb's choice where it found no locale.
CAPACIOUS = ("UTF8", "SQL_ASCII")


def number(context, revision, directives):
    """Give a new migration the number after the newest one's: /readyz knows by it which comes next."""
    for script in directives:
        script.rev_id = f"{int(context.script.get_current_head() or 0) + 1:04}"


with db.engine.connect() as connection:
    kind = connection.dialect.name
    if kind == "postgresql":
        encoding = connection.connection.dbapi_connection.info.parameter_status("server_encoding")
        if encoding not in CAPACIOUS:
            raise SystemExit(f"The database's encoding is {encoding}, which can't hold every title: make one in UTF8.")
    else:
        # SQLite alters a table by making a new one and dropping the old, which would delete every task of every user
        # in it. Detached, the connection is closed at the end rather than handed on like this.
        connection.detach()
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.commit()
    event.listen(connection, "begin", lambda begun: begun.exec_driver_sql(BEGIN[kind]))
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=kind == "sqlite",
        transactional_ddl=True,  # which Alembic does not take SQLite to have
        process_revision_directives=number,
    )
    with context.begin_transaction():
        context.run_migrations()
