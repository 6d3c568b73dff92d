"""PUT and PATCH /api/tasks/{id}; the two are the same."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine

from tests.people import Person

NOT_FOUND = {"error": "There is nothing here.", "code": "NOT_FOUND"}
STALE = {"error": "This has changed since the version in If-Match.", "code": "INVALID_REQUEST"}
METHODS = pytest.mark.parametrize("method", ["PUT", "PATCH"])

OLD = '"2026-01-01T00:00:00.000000Z"'
# With the strong tag of the current version for {}.
MATCHING = ["{}", f" {OLD} ,{{}}", "*", " * ", "W/{}", " W/{}\t", f"{OLD}, W/{{}}", f"W/{{}},W/{OLD}", "nonsense, W/{}"]


@METHODS
@pytest.mark.parametrize(
    "changes",
    [
        {"title": "Water the cat"},
        {"description": None},
        {"description": ""},
        {"is_completed": True},
        {"title": "Water the cat", "is_completed": True},
        {"title": "Water the cat", "description": "Not too much", "is_completed": True},
    ],
    ids=str,
)
def test_what_is_given_changes_and_the_rest_stays(ana: Person, method: str, changes: dict[str, Any]) -> None:
    """A change is any subset of the fields; the answer is the task as it now is, and so is the row."""
    task, other = ana.make(description="All of them"), ana.make(description="Another")
    path = f"/api/tasks/{task['id']}"

    response = ana.call(method, path, json=changes)

    assert response.status_code == 200
    assert response.json == task | changes | {"updated_at": response.json["updated_at"]}
    assert list(response.json) == list(task)
    assert response.json["updated_at"] > task["updated_at"]
    assert response.headers["ETag"] == f'"{response.json["updated_at"]}"'
    assert [response.json, other] == [ana.call("GET", f"/api/tasks/{one['id']}").json for one in (task, other)]
    assert {(task["id"], response.json["title"]), (other["id"], other["title"])} == {
        (row.id, row.title) for row in ana.stored()
    }


@METHODS
def test_a_task_received_can_be_changed_and_sent_back_whole(ana: Person, method: str) -> None:
    """The read-only keys are ignored, with any value."""
    task = ana.make()
    sent = task | {"title": "Water the cat", "user_id": str(uuid4()), "created_at": "yesterday", "updated_at": None}

    response = ana.call(method, f"/api/tasks/{task['id'].upper()}", json=sent | {"id": 5})

    assert response.status_code == 200
    assert response.json == task | {"title": "Water the cat", "updated_at": response.json["updated_at"]}
    assert [(row.id, row.title) for row in ana.stored()] == [(task["id"], "Water the cat")]


@METHODS
def test_missing_or_malformed_id_answers_404(ana: Person, method: str) -> None:
    """An update creates no task."""
    for task_id in (uuid4(), "1", "%00"):
        response = ana.call(method, f"/api/tasks/{task_id}", json={"title": "Water the cat"})

        assert (response.status_code, response.json) == (404, NOT_FOUND)
    assert ana.stored() == []


@METHODS
@pytest.mark.parametrize("header", MATCHING)
def test_matching_if_match_changes_the_task(ana: Person, method: str, header: str) -> None:
    """A client that has the current version may change it, also by the weak tag that a compressing proxy makes."""
    task = ana.make()
    condition = {"If-Match": header.replace("{}", f'"{task["updated_at"]}"')}

    response = ana.call(method, f"/api/tasks/{task['id']}", json={"is_completed": True}, headers=condition)

    assert (response.status_code, response.json["is_completed"]) == (200, True)
    assert [row.is_completed for row in ana.stored()] == [True]


OTHER_VERSIONS = [
    OLD,
    f"W/{OLD}",
    f"W/{OLD}, {OLD}",
    '"9999-12-31T23:59:59.999999Z"',
    '"0001-01-01T00:00:00.000000Z"',
    '"2026-01-01T00:00:00.000000Z", "2026-01-02T00:00:00.000000Z"',
    '"2026-02-30T00:00:00.000000Z"',
    '"0000-01-01T00:00:00.000000Z"',
    '"2026-01-01T24:00:00.000000Z"',
    '"10000-01-01T00:00:00.000000Z"',
    *("", '""', '"*"', "*x", "* *", "X*X", "\xa0*", ",", "é", "null"),
    *("w/{etag}", "W/ {etag}", "W/W/{etag}", "W{etag}", "W/*", "W/{bare}", "W/{etag} {etag}"),
    *('"{etag}"', "{etag} {etag}", "{etag}x", "'{etag}'", "{bare}", '"{bare}', '" {bare}"'),
]


@pytest.mark.parametrize(("method", "fields"), [("PUT", {"title": "B"}), ("PATCH", {"title": "B"}), ("DELETE", None)])
def test_other_if_match_answers_412_and_changes_nothing(ana: Person, method: str, fields: dict[str, Any]) -> None:
    """An old version, one that never was, or a malformed tag: the writer has not seen the current version."""
    task = ana.make()
    version = task["updated_at"]
    headers = [header.format(etag=f'"{version}"', bare=version) for header in OTHER_VERSIONS]

    answers = {
        header: ana.call(method, f"/api/tasks/{task['id']}", json=fields, headers={"If-Match": header})
        for header in headers
    }

    assert {header: (412, STALE) for header in headers} == {
        header: (answer.status_code, answer.json) for header, answer in answers.items()
    }
    assert ana.call("GET").json == [task]


@pytest.mark.parametrize(("method", "fields"), [("PUT", {"title": "B"}), ("PATCH", {"title": "B"}), ("DELETE", None)])
def test_if_match_of_a_missing_task_answers_404(ana: Person, method: str, fields: dict[str, Any]) -> None:
    """A missing task has no version. * means "if it exists"."""
    task = ana.make()
    conditions = ["*", OLD, f"W/{OLD}", "nonsense", ""]
    requests = [(path, condition) for path in (f"/api/tasks/{uuid4()}", "/api/tasks/1") for condition in conditions]

    answers = {
        (path, condition): ana.call(method, path, json=fields, headers={"If-Match": condition})
        for path, condition in requests
    }

    assert {request: (404, NOT_FOUND) for request in requests} == {
        request: (answer.status_code, answer.json) for request, answer in answers.items()
    }
    assert ana.call("GET").json == [task]


@pytest.mark.parametrize("condition", ["*", "{etag}", "W/{etag}"])
@pytest.mark.parametrize(("method", "fields"), [("PUT", {"title": "B"}), ("PATCH", {"title": "B"}), ("DELETE", None)])
def test_if_match_of_a_deleted_task_answers_404(
    ana: Person, method: str, fields: dict[str, Any], condition: str
) -> None:
    """A deleted task has no version."""
    task = ana.make()
    path, headers = f"/api/tasks/{task['id']}", {"If-Match": condition.format(etag=f'"{task["updated_at"]}"')}
    ana.call("DELETE", path)

    response = ana.call(method, path, json=fields, headers=headers)

    assert (response.status_code, response.json) == (404, NOT_FOUND)
    assert ana.stored() == []


@pytest.mark.parametrize("weak", ["", "W/"])
def test_second_writer_with_the_same_version_gets_412(ana: Person, weak: str) -> None:
    """No update is lost: the first change ends the version that both have seen."""
    task = ana.make()
    path, condition = f"/api/tasks/{task['id']}", {"If-Match": f'{weak}"{task["updated_at"]}"'}

    first = ana.call("PATCH", path, json={"title": "First"}, headers=condition)
    second = ana.call("PATCH", path, json={"title": "Second"}, headers=condition)

    assert (first.status_code, second.status_code, second.json) == (200, 412, STALE)
    assert [row.title for row in ana.stored()] == ["First"]


def test_a_change_to_the_same_value_is_a_change(ana: Person) -> None:
    """It gets a new ETag, too."""
    task = ana.make()

    response = ana.call("PUT", f"/api/tasks/{task['id']}", json={"title": task["title"]})

    assert response.json == task | {"updated_at": response.json["updated_at"]}
    assert response.json["updated_at"] > task["updated_at"]


@pytest.mark.parametrize("condition", [{}, {"If-Match": "*"}, {"If-Match": "{etag}"}], ids=str)
@pytest.mark.parametrize("back", [timedelta(0), timedelta(microseconds=1), timedelta(hours=1)], ids=str)
def test_version_grows_even_if_the_clock_does_not(ana: Person, back: timedelta, condition: dict[str, str]) -> None:
    """If the clock is not ahead of the row, the version grows by one microsecond."""
    with time_machine.travel(datetime.now(UTC), tick=False) as clock:
        task = ana.make()
        clock.shift(-back)
        seen = [task["updated_at"]]
        for number in range(3):
            headers = {name: value.format(etag=f'"{seen[-1]}"') for name, value in condition.items()}
            response = ana.call("PATCH", f"/api/tasks/{task['id']}", json={"title": f"{number}"}, headers=headers)
            assert response.status_code == 200
            seen.append(response.json["updated_at"])

    created = datetime.fromisoformat(task["created_at"])
    assert [created + timedelta(microseconds=step) for step in range(4)] == [*map(datetime.fromisoformat, seen)]
    assert [(row.title, row.updated_at) for row in ana.stored()] == [("2", datetime.fromisoformat(seen[-1]))]


def test_stale_version_answers_412_even_if_the_clock_is_behind(ana: Person) -> None:
    """The version counts, and not the clock."""
    task = ana.make()
    path, condition = f"/api/tasks/{task['id']}", {"If-Match": f'"{task["updated_at"]}"'}
    ana.call("PATCH", path, json={"title": "First"})
    with time_machine.travel(datetime.now(UTC) - timedelta(hours=1), tick=False):
        response = ana.call("PATCH", path, json={"title": "Second"}, headers=condition)

    assert (response.status_code, response.json) == (412, STALE)
    assert [row.title for row in ana.stored()] == ["First"]
