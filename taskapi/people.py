"""flask user: show, export or delete what is kept of one person."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup
from sqlalchemy import ColumnElement, Connection, Row, Select, delete, func, select
from sqlalchemy.exc import DBAPIError

from taskapi.fields import UUID_FORM
from taskapi.models import TASKS, USERS, db
from taskapi.schemas import show_task
from taskapi.store import COLUMNS
from taskapi.wire import write_timestamp

# Tasks that an export has in memory at once, 10 MB at most; PostgreSQL keeps the others back, behind a cursor.
_STREAMED = {"yield_per": 1000}

_COUNT = func.count(TASKS.c.id)
_COUNTS = [_COUNT.label("tasks"), _COUNT.filter(TASKS.c.is_completed).label("completed")]
_TIMES = [func.min(TASKS.c.created_at).label("first"), func.max(TASKS.c.updated_at).label("last")]
_SUMMARY = select(USERS, *_COUNTS, *_TIMES).join_from(USERS, TASKS, isouter=True).group_by(USERS.c.id)


def _condition(context: click.Context, parameter: click.Parameter, value: str) -> ColumnElement[bool]:
    # A UUID is always an id: whoever shows an address of that form must not be taken for the one whose id it is.
    return USERS.c.id == value.lower() if UUID_FORM.fullmatch(value) else USERS.c.email == value


_argument = click.argument("named", metavar="EMAIL-OR-ID", callback=_condition)


@click.group(cls=AppGroup)
def user() -> None:
    """Show, export or delete what is kept of one person."""
    if sys.stdout is None:  # closed, as by >&-
        raise click.ClickException("stdout is closed")


@user.command()
@_argument
def show(named: ColumnElement[bool]) -> None:
    """Print the person's id, address and number of tasks."""
    with database_errors(), db.engine.connect() as connection:
        found = _find(connection, _SUMMARY.where(named))
    click.echo(f"id: {found.id}")
    click.echo(f"e-mail: {found.email or 'none'}")
    click.echo(f"tasks: {found.tasks} ({found.tasks - found.completed} open, {found.completed} completed)")
    click.echo(f"first created: {write_timestamp(found.first) if found.tasks else 'never'}")
    click.echo(f"last updated: {write_timestamp(found.last) if found.tasks else 'never'}")


@user.command()
@_argument
def export(named: ColumnElement[bool]) -> None:
    """Write JSON lines: the person, then each task as the API gives it, oldest first, all as of one moment."""
    stdout, count = sys.stdout.buffer, 0
    with _transaction("REPEATABLE READ", "BEGIN") as connection:
        found = _find(connection, select(USERS).where(named))
        tasks = select(*COLUMNS).where(TASKS.c.user_id == found.id).order_by(TASKS.c.created_at, TASKS.c.id)
        try:
            stdout.write(_line(found._asdict()))
            for count, task in enumerate(connection.execute(tasks, execution_options=_STREAMED), 1):
                stdout.write(_line(show_task(task)))
            stdout.flush()
        except OSError as error:
            with suppress(OSError):
                stdout.close()  # or Python would try to write the rest at its exit, and complain
            raise click.ClickException(f"the export is not complete: {error.strerror}") from None
    click.echo(f"{count} tasks", err=True)


@user.command("delete")
@_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
def delete_user(named: ColumnElement[bool], yes: bool) -> None:
    """Delete the person and all their tasks, for good."""
    with database_errors(), db.engine.connect() as connection:
        found = _find(connection, _SUMMARY.where(named))
    click.echo(f"{found.id}, e-mail {found.email or 'none'}, {found.tasks} tasks")
    if not yes:
        click.confirm("Delete all of this, for good?", abort=True)
    this = USERS.c.id == found.id  # and not named: since the question, the address may have gone to somebody else
    locked = select(TASKS.c.id).where(TASKS.c.user_id == found.id).with_for_update(read=True, key_share=True)
    # What is counted is what goes: with these locks nobody adds a task meanwhile, and nobody else deletes one. SQLite
    # has no such locks, and no other writer.
    with _transaction("READ COMMITTED", "BEGIN IMMEDIATE") as connection:
        _find(connection, select(USERS.c.id).where(this).with_for_update())
        count = connection.scalar(select(func.count()).select_from(locked.subquery()))
        connection.execute(delete(USERS).where(this))
    click.echo(f"deleted, with {count} tasks")


@contextmanager
def database_errors() -> Iterator[None]:
    """Say in a line what the database says: that it is away, has no tables, or grants fewer rights than this needs."""
    try:
        yield
    except DBAPIError as error:
        raise click.ClickException(str(error.orig).strip()) from None


@contextmanager
def _transaction(level: str, begin: str) -> Iterator[Connection]:
    with database_errors(), db.engine.connect() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql(begin)  # Python's sqlite3 begins no transaction for a SELECT
        else:
            connection.execution_options(isolation_level=level)
        yield connection
        connection.commit()


def _find(connection: Connection, statement: Select[Any]) -> Row[Any]:
    with suppress(ValueError):  # the argument has NUL or is not UTF-8: no text that a database could hold
        if found := connection.execute(statement).one_or_none():
            return found
    raise click.ClickException("no such user")


def _line(shown: dict[str, Any]) -> bytes:
    return f"{current_app.json.dumps(shown)}\n".encode()
