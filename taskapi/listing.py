"""The statement behind a list: one page of an owner's tasks."""

import re
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from sqlalchemy import Executable, bindparam, or_, select, tuple_

from taskapi.database import run
from taskapi.models import TASKS
from taskapi.store import COLUMNS, OWNED, TaskRow


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
        filters["pattern"] = "%" + re.sub("([!%_])", r"!\1", q) + "%"
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
        # As it stands, too: case is folded in each apart, and a sigma at the end of a part is folded to another letter.
        likes = [like for column in (TASKS.c.title, TASKS.c.description) for like in (column.ilike, column.like)]
        statement = statement.where(or_(*[like(bindparam("pattern"), escape="!") for like in likes]))
    if "after_key" in filters:
        here = tuple_(key, TASKS.c.id)
        last = tuple_(bindparam("after_key", type_=key.type), bindparam("after_id", type_=TASKS.c.id.type))
        statement = statement.where(here < last if descending else here > last)
    if descending:
        return statement.order_by(key.desc(), TASKS.c.id.desc())
    return statement.order_by(key, TASKS.c.id)
