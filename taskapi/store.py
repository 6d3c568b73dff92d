"""The statements on tasks, each within one owner's rows; a request runs one, unless something is unusual."""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from psycopg2.errors import ForeignKeyViolation
from sqlalchemy import Executable, Row, Table, and_, bindparam, delete, exists, or_, select, tuple_, update

# SQLite took ON CONFLICT over from PostgreSQL, and SQLAlchemy renders this one for both.
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from taskapi.auth import Identity
from taskapi.database import run
from taskapi.errors import ApiError
from taskapi.models import Task, User
from taskapi.schemas import CREATE

TaskRow = Row[Any]

TASKS: Table = Task.__table__
USERS: Table = User.__table__

COLUMNS = [TASKS.c[name] for name in CREATE.fields]  # what a task shows

OWNED = TASKS.c.user_id == bindparam("owner")
NAMED = and_(OWNED, TASKS.c.id == bindparam("task_id"))
TICK = timedelta(microseconds=1)  # the resolution of both databases

SELECT_TASK = select(*COLUMNS).where(NAMED)

# Inserts nothing where the task exists already, and nothing where the owner's row is missing or shows another address
# than the token: what would otherwise need a look at users first.
INSERT_TASK = (
    insert(TASKS)
    .from_select(
        [column.name for column in COLUMNS],
        select(*[bindparam(f"new_{column.name}", type_=column.type) for column in COLUMNS]).where(
            exists().where(
                USERS.c.id == bindparam("new_user_id"),
                or_(bindparam("email", type_=USERS.c.email.type).is_(None), USERS.c.email == bindparam("email")),
            )
        ),
    )
    .on_conflict_do_nothing(index_elements=TASKS.primary_key)
    .returning(*COLUMNS)
)

# An address identifies nobody: who shows it last has it.
RELEASE_EMAIL = (
    update(USERS)
    .where(USERS.c.email == bindparam("address"), USERS.c.id != bindparam("owner"))
    .values(email=None)
)
INSERT_USER = insert(USERS).values(id=bindparam("owner"), email=bindparam("address"))
SAVE_USER = INSERT_USER.on_conflict_do_update(
    index_elements=USERS.primary_key, set_={"email": INSERT_USER.excluded.email}
)
SAVE_USER_ID = insert(USERS).values(id=bindparam("owner")).on_conflict_do_nothing(index_elements=USERS.primary_key)


def list_tasks(
    owner: str,
    *,
    sort: str,
    limit: int,
    is_completed: bool | None = None,
    q: str | None = None,
    after: tuple[Any, str] | None = None,
) -> Sequence[TaskRow]:
    """Return at most limit tasks in order of sort (a column, behind - if descending) and then id.

    after is the sort key and id of the task behind which to begin; q is sought in titles and descriptions.
    """
    filters: dict[str, Any] = {}
    if is_completed is not None:
        filters["is_completed"] = is_completed
    if q is not None:
        filters["pattern"] = "%" + re.sub(r"([\\%_])", r"\\\1", q) + "%"
    if after is not None:
        filters["after_key"], filters["after_id"] = after
    statement = _select_page(sort, frozenset(filters))
    return run(statement, owner=owner, limit=limit, **filters).rows


@cache
def _select_page(sort: str, filters: Collection[str]) -> Executable:
    descending = sort.startswith("-")
    key = TASKS.c[sort.removeprefix("-")]
    statement = select(*COLUMNS).where(OWNED).limit(bindparam("limit"))
    if "is_completed" in filters:
        statement = statement.where(TASKS.c.is_completed == bindparam("is_completed"))
    if "pattern" in filters:
        text = [column.ilike(bindparam("pattern"), escape="\\") for column in (TASKS.c.title, TASKS.c.description)]
        statement = statement.where(or_(*text))
    if "after_key" in filters:
        here = tuple_(key, TASKS.c.id)
        last = tuple_(bindparam("after_key", type_=key.type), bindparam("after_id", type_=TASKS.c.id.type))
        statement = statement.where(here < last if descending else here > last)
    if descending:
        return statement.order_by(key.desc(), TASKS.c.id.desc())
    return statement.order_by(key, TASKS.c.id)


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
        _save_user(owner)
        email = None  # whatever address the row has got by now, it is not for this task to wait for


def _save_user(user: Identity) -> None:
    # Not one transaction: two users who swap addresses would wait for each other. A fault between the two leaves an
    # address that nobody has, which is true: a token has shown that its old holder has lost it.
    if user.email is not None:
        run(RELEASE_EMAIL, owner=user.id, address=user.email)
        with suppress(IntegrityError):  # somebody else has shown it since, so has it now
            run(SAVE_USER, owner=user.id, address=user.email)
            return
    run(SAVE_USER_ID, owner=user.id)


def update_task(owner: str, task_id: str, changes: Mapping[str, Any], versions: Sequence[datetime] | None) -> TaskRow:
    """Set the fields in changes, if the task is at one of versions (None: whatever it is at); raise the 404 or 412.

    updated_at always grows, whatever the clocks do: where the row is not older than now, now moves on and the
    statement runs again.
    """
    now = datetime.now(UTC)
    parameters = {f"new_{name}": value for name, value in changes.items()} | _if_match(versions)
    while True:
        statement = _update(tuple(changes), versions is not None)
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
    rows = run(_delete(versions is not None), owner=owner, task_id=task_id, **_if_match(versions)).rows
    if rows:
        return rows[0]
    if versions is None:
        raise ApiError(404, "NOT_FOUND")
    get_task(owner, task_id)
    raise ApiError(412, "INVALID_REQUEST")


AT_VERSION = TASKS.c.updated_at.in_(bindparam("versions", expanding=True))


def _if_match(versions: Sequence[datetime] | None) -> dict[str, Any]:
    return {} if versions is None else {"versions": versions}


@cache
def _update(fields: Collection[str], conditional: bool) -> Executable:
    values: dict[str, Any] = {field: bindparam(f"new_{field}") for field in fields}
    statement = update(TASKS).where(NAMED, TASKS.c.updated_at < bindparam("now")).returning(*COLUMNS)
    return (statement.where(AT_VERSION) if conditional else statement).values(updated_at=bindparam("now"), **values)


@cache
def _delete(conditional: bool) -> Executable:
    statement = delete(TASKS).where(NAMED).returning(*COLUMNS)
    return statement.where(AT_VERSION) if conditional else statement
