"""Ana's tasks are hers: Ben gets the same answers as if they did not exist."""

from typing import Any
from uuid import uuid4

import pytest
from werkzeug.test import TestResponse

from tests.people import Person

REQUESTS = pytest.mark.parametrize(
    ("method", "options"),
    [
        ("GET", {}),
        ("HEAD", {}),
        ("GET", {"headers": {"If-None-Match": "*"}}),
        ("GET", {"headers": {"If-None-Match": "{etag}"}}),
        ("PUT", {"json": {"title": "Mine"}}),
        ("PUT", {"json": {"title": "Mine"}, "headers": {"If-Match": "{etag}"}}),
        ("PUT", {"json": {"title": "Mine"}, "headers": {"If-Match": '"2026-01-01T00:00:00.000000Z"'}}),
        ("PATCH", {"json": {"is_completed": True}}),
        ("PATCH", {"json": {"is_completed": True}, "headers": {"If-Match": "*"}}),
        ("PATCH", {"json": {"is_completed": "yes"}}),
        ("PATCH", {"json": {}}),
        ("PATCH", {"data": b"{", "content_type": "application/json"}),
        ("DELETE", {}),
        ("DELETE", {"headers": {"If-Match": "*"}}),
        ("DELETE", {"headers": {"If-Match": "{etag}"}}),
        ("DELETE", {"headers": {"If-Match": "W/{etag}"}}),
        ("POST", {"json": {"title": "Mine"}}),
        ("OPTIONS", {}),
    ],
    ids=str,
)


def everything(response: TestResponse) -> tuple[int, bytes, dict[str, str]]:
    """Return all that an answer says, but for the id of its request."""
    return response.status_code, response.data, {**response.headers, "X-Request-ID": "-"}


@REQUESTS
def test_anothers_task_answers_as_a_missing_one(ana: Person, ben: Person, method: str, options: dict[str, Any]) -> None:
    """Byte for byte, Ben gets the same answer for Ana's task, a missing one and a malformed id; hers is unchanged."""
    ben.make()
    task = ana.make()
    headers = {
        name: value.format(etag=f'"{task["updated_at"]}"') for name, value in options.get("headers", {}).items()
    }

    hers, missing, malformed = (
        everything(ben.call(method, f"/api/tasks/{task_id}", **options | {"headers": headers}))
        for task_id in (task["id"], uuid4(), "1")
    )

    assert hers == missing == malformed
    assert ana.call("GET").json == [task]
    assert [row.title for row in ben.stored()] == ["Water the plants"]


@pytest.mark.parametrize(("method", "fields"), [("GET", None), ("PUT", {"title": "Mine"}), ("DELETE", None)])
def test_same_id_leads_each_to_their_own_task(ana: Person, ben: Person, method: str, fields: dict[str, Any]) -> None:
    """Both have a task of that id, and each reaches only their own."""
    task = ana.make()
    own = ben.make(id=task["id"], title="Ben's")

    response = ben.call(method, f"/api/tasks/{task['id']}", json=fields)

    assert response.status_code == 200
    assert response.json == own | (fields or {}) | {"updated_at": response.json["updated_at"]}
    assert ana.call("GET").json == [task]


@pytest.mark.parametrize(
    "query", ["", "?q=plants", "?is_completed=false", "?sort=title", "?sort=-updated_at&limit=9&q=a&is_completed=false"]
)
def test_lists_hold_only_ones_own_tasks(ana: Person, ben: Person, query: str) -> None:
    """It is so with every filter and order."""
    task = ana.make()
    own = ben.make()

    assert [[task], [own]] == [person.call("GET", f"/api/tasks{query}").json for person in (ana, ben)]


def test_paging_stays_within_ones_own_tasks(ana: Person, ben: Person) -> None:
    """Others' tasks are on no page, and do not make another page follow."""
    own = ben.make()
    ana.make(), ana.make()

    response = ben.call("GET", "/api/tasks?limit=1")

    assert response.json == [own]
    assert "Link" not in response.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_user_id_in_a_body_changes_no_owner(ana: Person, ben: Person, method: str) -> None:
    """It is read-only and ignored."""
    own = ben.make()
    path = "/api/tasks" if method == "POST" else f"/api/tasks/{own['id']}"

    response = ben.call(method, path, json={"title": "For Ana", "user_id": ana.id})

    assert (response.json["user_id"], response.json["title"]) == (ben.id, "For Ana")
    assert ana.stored() == []


def test_only_the_token_says_who_is_asking(ana: Person, ben: Person) -> None:
    """No other header and no cookie does."""
    ana.make()
    others = {"X-User-ID": ana.id, "X-Forwarded-User": ana.id, "Cookie": f"user_id={ana.id}; session={ana.id}"}

    assert [] == ben.call("GET", headers=others).json
