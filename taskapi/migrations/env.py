"""Alembic's entry point: on the app's own engine, in one transaction where the database has such for its schema."""

from alembic import context

from taskapi.database import db

with db.engine.connect() as connection:
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite:
        # SQLite alters a table by making a new one and dropping the old, which would delete every task of every user
        # in it. Detached, the connection is closed at the end rather than handed on like this.
        connection.detach()
        connection.exec_driver_sql("PRAGMA foreign_keys = OFF")
        connection.commit()
    context.configure(connection=connection, target_metadata=db.metadata, render_as_batch=is_sqlite)
    with context.begin_transaction():
        context.run_migrations()
