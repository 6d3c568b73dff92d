"""The statements on tasks, each within one owner's rows; a request runs one, unless something is unusual."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from psycopg2.errors import ForeignKeyViolation
from sqlalchemy import Executable, Row, and_, bindparam, delete, exists, or_, select, update
from sqlalchemy.dialects.postgresql import insert  # SQLite's ON CONFLICT is the same
from sqlalchemy.exc import IntegrityError

from taskapi.database import run
from taskapi.errors import ApiError
from taskapi.models import TASKS, USERS
from taskapi.owners import Identity, save_owner
from taskapi.schemas import CREATE

TaskRow = Row[Any]
COLUMNS = [TASKS.c[name] for name in CREATE.fields]  # what a task shows

OWNED = TASKS.c.user_id == bindparam("owner")
NAMED = and_(OWNED, TASKS.c.id == bindparam("task_id"))
AT_VERSION = TASKS.c.updated_at.in_(bindparam("versions", expanding=True))
TICK = timedelta(microseconds=1)  # the resolution of both databases

SELECT_TASK = select(*COLUMNS).where(NAMED)
DELETE_TASK = delete(TASKS).where(NAMED).returning(*COLUMNS)
DELETE_VERSION = DELETE_TASK.where(AT_VERSION)

# A new task inserts nothing where it exists already, and nothing where the owner's row is missing or shows another
# address than the token: what would otherwise need a look at users first.
EMAIL = bindparam("email", type_=USERS.c.email.type)
OWNER_IS_CURRENT = exists().where(USERS.c.id == bindparam("new_user_id"), or_(EMAIL.is_(None), USERS.c.email == EMAIL))
NEW_TASK = select(*[bindparam(f"new_{column.name}", type_=column.type) for column in COLUMNS]).where(OWNER_IS_CURRENT)
INSERT_TASK = (
    insert(TASKS)
    .from_select([column.name for column in COLUMNS], NEW_TASK)
    .on_conflict_do_nothing(index_elements=TASKS.primary_key)
    .returning(*COLUMNS)
)


@cache
def _update(fields: Collection[str], conditional: bool) -> Executable:
    values: dict[str, Any] = {field: bindparam(f"new_{field}") for field in fields}
    statement = update(TASKS).where(NAMED, TASKS.c.updated_at < bindparam("now")).returning(*COLUMNS)
    return (statement.where(AT_VERSION) if conditional else statement).values(updated_at=bindparam("now"), **values)


def find_task(owner: str, task_id: str) -> TaskRow | None:
    """Return the owner's task, or None."""
    rows = run(SELECT_TASK, owner=owner, task_id=task_id).rows
    return rows[0] if rows else None


def get_task(owner: str, task_id: str) -> TaskRow:
    """Return the owner's task; raise the 404."""
    task = find_task(owner, task_id)
    if task is None:
        raise ApiError(404, "NOT_FOUND")
    return task


def create_task(owner: Identity, task_id: str, values: Mapping[str, Any]) -> tuple[TaskRow, bool]:
    """Return the owner's task of that id, and whether it was this call that made it."""
    now = datetime.now(UTC)
    row = {"id": task_id, "user_id": owner.id, **values, "created_at": now, "updated_at": now}
    parameters = {f"new_{name}": value for name, value in row.items()}
    email = owner.email
    while True:
        try:
            rows, repeated = run(INSERT_TASK, email=email, **parameters)
        except IntegrityError as error:
            if not isinstance(error.orig, ForeignKeyViolation):
                raise
            rows, repeated = (), False  # the owner's row was deleted while this waited for it
        if rows:
            return rows[0], True
        task = find_task(owner.id, task_id)
        if task is not None:
            return task, repeated and task.created_at == now
        save_owner(owner)
        email = None  # whatever address the row has got by now, it is not for this task to wait for


def update_task(owner: str, task_id: str, changes: Mapping[str, Any], versions: Sequence[datetime] | None) -> TaskRow:
    """Set the fields in changes, if the task is at one of versions (None: whatever it is at); raise the 404 or 412.

    updated_at always grows, whatever the clocks do: where the row is not older than now, now moves on and the
    statement runs again.
    """
    now = datetime.now(UTC)
    statement = _update(tuple(changes), versions is not None)
    parameters: dict[str, Any] = {f"new_{name}": value for name, value in changes.items()}
    if versions is not None:
        parameters["versions"] = versions
    while True:
        rows, repeated = run(statement, owner=owner, task_id=task_id, now=now, **parameters)
        if rows:
            return rows[0]
        task = get_task(owner, task_id)
        if repeated and task.updated_at == now:
            return task  # the first run had done it before its connection died
        if versions is not None and task.updated_at not in versions:
            raise ApiError(412, "INVALID_REQUEST")
        now = max(datetime.now(UTC), task.updated_at + TICK)


def delete_task(owner: str, task_id: str, versions: Sequence[datetime] | None) -> TaskRow:
    """Delete the task, if it is at one of versions, and return it as it was; raise the 404 or 412."""
    statement = DELETE_TASK if versions is None else DELETE_VERSION
    rows = run(statement, owner=owner, task_id=task_id, versions=versions).rows
    if rows:
        return rows[0]
    if versions is None:
        raise ApiError(404, "NOT_FOUND")
    get_task(owner, task_id)
    raise ApiError(412, "INVALID_REQUEST")
