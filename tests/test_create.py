"""POST /api/tasks."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
import time_machine

from tests.people import Person

README = Path(__file__).parents[1] / "README.md"
UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
TIMESTAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"


def test_it_works(ana: Person) -> None:
    """A title is enough; the server adds the rest, in the contract's order, and stores what it shows."""
    response = ana.call("POST", json={"title": "Water the plants"})

    task = response.json
    assert response.status_code == 201
    assert re.fullmatch(UUID4, task["id"])
    assert re.fullmatch(TIMESTAMP, task["created_at"])
    [shown] = re.findall(r"A task, everywhere:\n\n```json\n(.*?)```", README.read_text(), re.DOTALL)
    of_server = {name: task[name] for name in ("id", "user_id", "created_at", "updated_at")}
    assert list(task.items()) == list((json.loads(shown) | of_server).items())
    assert response.headers["Location"] == f"/api/tasks/{task['id']}"
    assert response.headers["ETag"] == f'"{task["updated_at"]}"'
    assert [(row.id, row.title) for row in ana.stored()] == [(task["id"], "Water the plants")]


def test_all_fields_are_taken_and_stored(ana: Person) -> None:
    """What the client may choose is what it gets, the id in lower case, and what anybody reads later."""
    task_id = str(uuid4())
    fields = {"title": "Water the plants", "description": "All of them", "is_completed": True}

    response = ana.call("POST", json=fields | {"id": task_id.upper()})

    assert response.status_code == 201
    assert response.json.items() >= (fields | {"id": task_id}).items()
    assert response.json == ana.call("GET", response.headers["Location"]).json
    [row] = ana.stored()
    assert (row.id, row.description, row.is_completed) == (task_id, "All of them", True)


def test_created_at_is_now_in_utc(ana: Person) -> None:
    """The server's clock is told to the microsecond."""
    now = datetime(2100, 1, 31, 23, 59, 59, 7, tzinfo=UTC)
    with time_machine.travel(now, tick=False):
        sender = Person(ana.app)  # a token of that time

        task = sender.make()

    assert (task["created_at"], task["updated_at"]) == ("2100-01-31T23:59:59.000007Z",) * 2
    assert [(row.created_at, row.updated_at) for row in sender.stored()] == [(now, now)]


def test_two_creates_without_an_id_make_two_tasks(ana: Person) -> None:
    """Only an id makes a request the same request."""
    tasks = [ana.make(), ana.make()]

    assert sorted(task["id"] for task in tasks) == [row.id for row in ana.stored()]
    assert len(ana.stored()) == 2


def test_trailing_slash_is_the_same_path(ana: Person) -> None:
    """A POST must not be lost to a redirect."""
    response = ana.call("POST", "/api/tasks/", json={"title": "Water the plants"})

    assert response.status_code == 201
    assert [row.id for row in ana.stored()] == [response.json["id"]]


def test_repeated_id_answers_200_with_the_stored_task(ana: Person) -> None:
    """A client that did not hear the answer repeats its request: nothing is made twice, nothing changes."""
    task = ana.make(id=str(uuid4()))

    response = ana.call("POST", json={"id": task["id"].upper(), "title": "Something else"})

    assert (response.status_code, response.json) == (200, task)
    assert response.headers["ETag"] == f'"{task["updated_at"]}"'
    assert "Location" not in response.headers
    assert [row.title for row in ana.stored()] == ["Water the plants"]


def test_repeated_id_answers_with_the_task_as_it_is_by_now(ana: Person) -> None:
    """A late repetition does not undo what has happened since."""
    task = ana.make()
    changed = ana.call("PATCH", f"/api/tasks/{task['id']}", json={"is_completed": True})

    response = ana.call("POST", json={"id": task["id"], "title": task["title"]})

    assert (response.status_code, response.json) == (200, changed.json)
    assert response.headers["ETag"] == changed.headers["ETag"]
    assert [row.is_completed for row in ana.stored()] == [True]


def test_same_id_of_another_owner_is_another_task(ana: Person, ben: Person) -> None:
    """Ids are free per owner, so that nobody learns of somebody else's."""
    task = ana.make()

    response = ben.call("POST", json={"id": task["id"], "title": "Mine"})

    assert response.status_code == 201
    assert response.json["user_id"] == ben.id
    assert [row.title for row in ana.stored()] == ["Water the plants"]


@pytest.mark.parametrize(
    "wrong", ["", "1", "0f8fad5bd9cb469fa16570867728950e", "{0f8fad5b-d9cb-469f-a165-70867728950e}"]
)
def test_malformed_id_answers_400(ana: Person, wrong: str) -> None:
    """An id is a UUID with dashes."""
    response = ana.call("POST", json={"id": wrong, "title": "Water the plants"})

    assert response.status_code == 400
    assert response.json == {
        "error": "Some fields break a rule.",
        "code": "VALIDATION_ERROR",
        "details": {"id": ["Not a valid UUID."]},
    }
    assert ana.stored() == []
