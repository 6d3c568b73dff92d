"""The statements on the caller's tasks; a request usually runs one."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Dialect, Executable, Row, Text, bindparam, delete, or_, update
from sqlalchemy.types import TypeDecorator

from taskapi.database.engine import run
from taskapi.database.models import TASKS
from taskapi.database.rows import OwnedRows
from taskapi.errors import ApiError
from taskapi.paging import Listing
from taskapi.tasks.schemas import CREATE, LIST

TaskRow = Row[Any]
TICK = timedelta(microseconds=1)  # the resolution of both databases


class Containing(TypeDecorator[str]):
    """Text as a LIKE pattern that matches texts containing it; its wildcards are escaped."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return the pattern, escaped by !."""
        return value and "%" + re.sub("([!%_])", r"!\1", value) + "%"


COLUMNS = [TASKS.c[name] for name in CREATE.fields]  # what a task shows
TASK_ROWS = OwnedRows(COLUMNS)
SOUGHT = bindparam("q", type_=Containing)
TASK_LIST = Listing(
    COLUMNS,
    LIST,
    {
        "is_completed": TASKS.c.is_completed == bindparam("is_completed"),
        "q": or_(*[column.ilike(SOUGHT, escape="!") for column in (TASKS.c.title, TASKS.c.description)]),
    },
)

AT_VERSION = TASKS.c.updated_at.in_(bindparam("versions", expanding=True))
DELETE_TASK = delete(TASKS).where(TASK_ROWS.named).returning(*COLUMNS)
DELETE_VERSION = DELETE_TASK.where(AT_VERSION)


@cache
def _update(fields: Collection[str], conditional: bool) -> Executable:
    values: dict[str, Any] = {field: bindparam(f"new_{field}") for field in fields}
    statement = update(TASKS).where(TASK_ROWS.named, TASKS.c.updated_at < bindparam("now")).returning(*COLUMNS)
    return (statement.where(AT_VERSION) if conditional else statement).values(updated_at=bindparam("now"), **values)


def change_task(task_id: str, changes: Mapping[str, Any], versions: Sequence[datetime] | None) -> TaskRow:
    """Set the fields in changes, if the task is at one of versions (None: at any); raise the 404 or 412.

    updated_at always grows: if the row's is not before now, run again with a later time.
    """
    now = datetime.now(UTC)
    statement = _update(tuple(changes), versions is not None)
    parameters: dict[str, Any] = {f"new_{name}": value for name, value in changes.items()}
    if versions is not None:
        parameters["versions"] = versions
    while True:
        rows, repeated = run(statement, row_id=task_id, now=now, **parameters)
        if rows:
            return rows[0]
        task = TASK_ROWS.require(task_id)
        if repeated and task.updated_at == now:
            return task  # the first run had made the change before its connection died
        if versions is not None and task.updated_at not in versions:
            raise ApiError(412)
        now = max(datetime.now(UTC), task.updated_at + TICK)


def remove_task(task_id: str, versions: Sequence[datetime] | None) -> TaskRow:
    """Delete the task, if it is at one of versions (None: at any), and return it as it was; raise the 404 or 412."""
    if versions is None:
        rows = run(DELETE_TASK, row_id=task_id).rows
    else:
        rows = run(DELETE_VERSION, row_id=task_id, versions=versions).rows
    if rows:
        return rows[0]
    if versions is not None:
        TASK_ROWS.require(task_id)
        raise ApiError(412)
    raise ApiError(404)
