"""GET /api/tasks: no page skips or repeats a task while others are inserted and deleted."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, insert

from taskapi.database.models import Task, User, db
from tests.people import Person
from tests.test_paging import following

MOMENTS = st.integers(0, 3).map(lambda number: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=number))
TASKS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.uuids().map(str),
            "title": st.text("abc", min_size=1, max_size=2),  # every collation sorts these the same
            "is_completed": st.booleans(),
            "created_at": MOMENTS,
            "updated_at": MOMENTS,
        }
    ),
    unique_by=lambda task: task["id"],
    max_size=24,
)
FILTERS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "": lambda task: True,
    "&is_completed=true": lambda task: task["is_completed"],
    "&q=B": lambda task: "b" in task["title"],
}


def change(app: Flask, owner: str, added: list[dict[str, Any]], removed: list[dict[str, Any]]) -> None:
    """Insert and delete tasks in the database itself, with times of the test's own."""
    with app.app_context(), db.session.begin():
        if added:
            db.session.execute(insert(Task), [task | {"user_id": owner} for task in added])
        gone = [task["id"] for task in removed]
        db.session.execute(delete(Task).where(Task.user_id == owner, Task.id.in_(gone)))


@pytest.mark.parametrize("sort", ["created_at", "-created_at", "updated_at", "-updated_at", "title", "-title"])
@settings(max_examples=15, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tasks=TASKS, limit=st.integers(1, 4), query=st.sampled_from(sorted(FILTERS)), draw=st.data())
def test_walking_all_pages_is_sorting(
    app: Flask, sort: str, tasks: list[dict[str, Any]], limit: int, query: str, draw: st.DataObject
) -> None:
    """A task that exists throughout is met once and in order, ties included; none is met twice."""
    walker = Person(app)
    with app.app_context(), db.session.begin():
        db.session.add(User(id=walker.id))
    roles = [draw.draw(st.sampled_from(["stays", "stays", "comes", "goes"])) for _ in tasks]
    cast = {role: [task for task, own in zip(tasks, roles, strict=True) if own == role] for role in set(roles)}
    stays, comes, goes = (cast.get(role, []) for role in ("stays", "comes", "goes"))
    change(app, walker.id, stays + goes, [])

    walked: list[str] = []
    path: str | None = f"/api/tasks?sort={sort}&limit={limit}{query}"
    while path:
        page = walker.call("GET", path)
        assert (page.status_code, len(page.json) <= limit) == (200, True)
        walked += [task["id"] for task in page.json]
        path = following(page)
        change(app, walker.id, comes[:2], goes[:2])
        comes, goes = comes[2:], goes[2:]

    name = sort.removeprefix("-")
    wanted = [task for task in stays if FILTERS[query](task)]
    wanted.sort(key=lambda task: (task[name], UUID(task["id"]).bytes), reverse=sort.startswith("-"))
    lasting = {task["id"] for task in stays}
    assert [task["id"] for task in wanted] == [task_id for task_id in walked if task_id in lasting]
    assert len(walked) == len(set(walked))
