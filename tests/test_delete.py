"""DELETE /api/tasks/{id}."""

import pytest

from tests.people import Person
from tests.test_update import MATCHING

NOT_FOUND = {"error": "There is nothing here.", "code": "NOT_FOUND"}


def test_it_works(ana: Person) -> None:
    """The answer is the task as it last was, and its row is gone; others stay."""
    task, other = ana.make(), ana.make()

    response = ana.call("DELETE", f"/api/tasks/{task['id'].upper()}")

    assert (response.status_code, response.json) == (200, task)
    assert list(response.json) == list(task)
    assert [row.id for row in ana.stored()] == [other["id"]]


@pytest.mark.parametrize("header", MATCHING)
def test_matching_if_match_deletes(ana: Person, header: str) -> None:
    """A client that has the current version may delete it, also by the weak tag that a compressing proxy makes."""
    task = ana.make()
    condition = {"If-Match": header.replace("{}", f'"{task["updated_at"]}"')}

    response = ana.call("DELETE", f"/api/tasks/{task['id']}", headers=condition)

    assert (response.status_code, response.json) == (200, task)
    assert ana.stored() == []


def test_second_delete_answers_404(ana: Person) -> None:
    """A deleted task does not exist, for DELETE and for GET."""
    path = f"/api/tasks/{ana.make()['id']}"

    first, second, third = (ana.call(method, path) for method in ("DELETE", "DELETE", "GET"))

    assert first.status_code == 200
    assert [(404, NOT_FOUND)] * 2 == [(response.status_code, response.json) for response in (second, third)]


@pytest.mark.parametrize("wrong", ["0f8fad5b-d9cb-469f-a165-70867728950e", "1", "%00"])
def test_unknown_or_malformed_id_answers_404(ana: Person, wrong: str) -> None:
    """A malformed id is just one that does not exist."""
    ana.make()

    response = ana.call("DELETE", f"/api/tasks/{wrong}")

    assert (response.status_code, response.json) == (404, NOT_FOUND)
    assert len(ana.stored()) == 1


@pytest.mark.parametrize("weak", ["", "W/"])
def test_version_before_a_change_does_not_delete(ana: Person, weak: str) -> None:
    """A client can't delete a version that it has not seen."""
    task = ana.make()
    path = f"/api/tasks/{task['id']}"
    ana.call("PATCH", path, json={"title": "Buy plants"})

    response = ana.call("DELETE", path, headers={"If-Match": f'{weak}"{task["updated_at"]}"'})

    assert response.status_code == 412
    assert [row.title for row in ana.stored()] == ["Buy plants"]


def test_deleted_task_can_be_posted_back(ana: Person) -> None:
    """A client can offer undo: the task comes back with its id, created now."""
    task = ana.make(description="All of them", is_completed=True)
    deleted = ana.call("DELETE", f"/api/tasks/{task['id']}").json

    response = ana.call("POST", json=deleted)

    made = response.json["created_at"]
    assert response.status_code == 201
    assert response.json == task | {"created_at": made, "updated_at": made}
    assert made > task["created_at"]
    assert [(row.id, row.title, row.is_completed) for row in ana.stored()] == [(task["id"], task["title"], True)]
