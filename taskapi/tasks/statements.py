"""The statements on tasks and on their owner's row, each within the caller's rows; a request usually runs one."""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from psycopg2.errors import ForeignKeyViolation
from sqlalchemy import Dialect, Executable, Row, Text, and_, bindparam, delete, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert  # SQLite's ON CONFLICT is the same
from sqlalchemy.exc import IntegrityError
from sqlalchemy.types import TypeDecorator

from taskapi.database.engine import Answer, run
from taskapi.database.models import TASKS, USERS, owned
from taskapi.errors import ApiError
from taskapi.paging import Listing
from taskapi.tasks.schemas import CREATE, LIST

TaskRow = Row[Any]
TICK = timedelta(microseconds=1)  # the resolution of both databases


class Containing(TypeDecorator[str]):
    """Text as the LIKE pattern of what contains it; the wildcards in it stand for themselves."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the pattern, whose escape is !."""
        return value and "%" + re.sub("([!%_])", r"!\1", value) + "%"


COLUMNS = [TASKS.c[name] for name in CREATE.fields]  # what a task shows
NAMED = and_(owned(TASKS), TASKS.c.id == bindparam("task_id"))
AT_VERSION = TASKS.c.updated_at.in_(bindparam("versions", expanding=True))

SELECT_TASK = select(*COLUMNS).where(NAMED)
DELETE_TASK = delete(TASKS).where(NAMED).returning(*COLUMNS)
DELETE_VERSION = DELETE_TASK.where(AT_VERSION)

# The INSERT adds nothing if the task exists, or if the owner's row is missing or lacks the token's email. The owner's
# id comes from that row, so that Citus runs the statement on one shard.
EMAIL = bindparam("shown_email", type_=USERS.c.email.type)
VALUES = {column.name: bindparam(f"new_{column.name}", type_=column.type) for column in COLUMNS}
OWNER_IS_CURRENT = and_(USERS.c.id == bindparam("owner"), or_(EMAIL.is_(None), USERS.c.email == EMAIL))
INSERT_TASK = (
    insert(TASKS)
    .from_select([*VALUES], select(*(VALUES | {"user_id": USERS.c.id}).values()).where(OWNER_IS_CURRENT))
    .on_conflict_do_nothing(index_elements=TASKS.primary_key)
    .returning(*COLUMNS)
)

# An email belongs to the user whose token presented it last.
RELEASE_EMAIL = update(USERS).where(USERS.c.email == EMAIL, USERS.c.id != bindparam("owner")).values(email=None)
INSERT_USER = insert(USERS).values(id=bindparam("owner"), email=EMAIL)
SAVE_USER = INSERT_USER.on_conflict_do_update(
    index_elements=USERS.primary_key, set_={"email": func.coalesce(INSERT_USER.excluded.email, USERS.c.email)}
)

SOUGHT = bindparam("q", type_=Containing)
TASK_LIST = Listing(
    COLUMNS,
    LIST,
    {
        "is_completed": TASKS.c.is_completed == bindparam("is_completed"),
        "q": or_(*[column.ilike(SOUGHT, escape="!") for column in (TASKS.c.title, TASKS.c.description)]),
    },
)


def select_task(task_id: str) -> TaskRow | None:
    """Return the caller's task, or None."""
    rows = run(SELECT_TASK, task_id=task_id).rows
    return rows[0] if rows else None


def require_task(task_id: str) -> TaskRow:
    """Return the caller's task; raise the 404."""
    task = select_task(task_id)
    if task is None:
        raise ApiError(404)
    return task


def insert_task(values: Mapping[str, Any], email: str | None) -> tuple[TaskRow, bool]:
    """Return the caller's task with the id in values, and whether this call made it."""
    now = datetime.now(UTC)
    row = {**values, "created_at": now, "updated_at": now}
    parameters = {f"new_{name}": value for name, value in row.items()}
    shown = email
    while True:
        rows, repeated = _insert(parameters, shown)
        if rows:
            return rows[0], True
        task = select_task(values["id"])
        if task is not None:
            return task, repeated and task.created_at == now
        save_owner(email)
        shown = None  # another user may have presented the email since; this task does not wait for it


def _insert(parameters: Mapping[str, Any], email: str | None) -> Answer:
    try:
        return run(INSERT_TASK, shown_email=email, **parameters)
    except IntegrityError as error:
        if not isinstance(error.orig, ForeignKeyViolation):
            raise
        return Answer((), False)  # the owner's row was deleted while the statement waited for it


def save_owner(email: str | None) -> None:
    """Write the caller's row, with the email that the token shows."""
    # Not one transaction: two users who swap emails would wait for each other. A fault between the statements leaves an
    # email with no user, which is true: a token has shown that its old holder has lost it.
    for statement in (SAVE_USER, RELEASE_EMAIL, SAVE_USER):
        with suppress(IntegrityError):  # another user holds the email
            run(statement, shown_email=email)
            if statement is SAVE_USER:
                return
    run(SAVE_USER, shown_email=None)


@cache
def _update(fields: Collection[str], conditional: bool) -> Executable:
    values: dict[str, Any] = {field: bindparam(f"new_{field}") for field in fields}
    statement = update(TASKS).where(NAMED, TASKS.c.updated_at < bindparam("now")).returning(*COLUMNS)
    return (statement.where(AT_VERSION) if conditional else statement).values(updated_at=bindparam("now"), **values)


def change_task(task_id: str, changes: Mapping[str, Any], versions: Sequence[datetime] | None) -> TaskRow:
    """Set the fields in changes, if the task is at one of versions (None: at any); raise the 404 or 412.

    updated_at always grows, with any clock: if the row is not older than now, it runs again with a later now.
    """
    now = datetime.now(UTC)
    statement = _update(tuple(changes), versions is not None)
    parameters: dict[str, Any] = {f"new_{name}": value for name, value in changes.items()}
    if versions is not None:
        parameters["versions"] = versions
    while True:
        rows, repeated = run(statement, task_id=task_id, now=now, **parameters)
        if rows:
            return rows[0]
        task = require_task(task_id)
        if repeated and task.updated_at == now:
            return task  # the first run had made the change before its connection died
        if versions is not None and task.updated_at not in versions:
            raise ApiError(412)
        now = max(datetime.now(UTC), task.updated_at + TICK)


def remove_task(task_id: str, versions: Sequence[datetime] | None) -> TaskRow:
    """Delete the task, if it is at one of versions (None: at any), and return it as it was; raise the 404 or 412."""
    if versions is None:
        rows = run(DELETE_TASK, task_id=task_id).rows
    else:
        rows = run(DELETE_VERSION, task_id=task_id, versions=versions).rows
    if rows:
        return rows[0]
    if versions is not None:
        require_task(task_id)
        raise ApiError(412)
    raise ApiError(404)
