"""Alembic's entry point: on the app's own engine, in one transaction where the database has such for its schema."""

from alembic import context

from taskapi.database import db

with db.engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=connection.dialect.name == "sqlite",  # which can't alter a table in place
    )
    with context.begin_transaction():
        context.run_migrations()
