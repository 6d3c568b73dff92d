"""POST /api/tasks."""

import re
from datetime import UTC, datetime
from uuid import uuid4

import time_machine

from tests.people import Person

UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
TIMESTAMP = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"


def test_it_works(ana: Person) -> None:
    """A title is enough; the server adds the rest, in the contract's order, and stores what it shows."""
    response = ana.call("POST", json={"title": "Water the plants"})

    task = response.json
    assert response.status_code == 201
    assert re.fullmatch(UUID4, task["id"])
    assert re.fullmatch(TIMESTAMP, task["created_at"])
    assert list(task.items()) == [
        ("id", task["id"]),
        ("user_id", ana.id),
        ("title", "Water the plants"),
        ("description", None),
        ("is_completed", False),
        ("created_at", task["created_at"]),
        ("updated_at", task["created_at"]),
    ]
    assert response.headers["Location"] == f"/api/tasks/{task['id']}"
    assert response.headers["ETag"] == f'"{task["updated_at"]}"'
    assert [(row.id, row.title) for row in ana.stored()] == [(task["id"], "Water the plants")]


def test_all_fields_are_taken_and_stored(ana: Person) -> None:
    """The client gets back what it chose, the id in lower case, and reads the same later."""
    task_id = str(uuid4())
    fields = {"title": "Water the plants", "description": "All of them", "is_completed": True}

    response = ana.call("POST", json=fields | {"id": task_id.upper()})

    assert response.status_code == 201
    assert response.json.items() >= (fields | {"id": task_id}).items()
    assert response.json == ana.call("GET", response.headers["Location"]).json
    [row] = ana.stored()
    assert (row.id, row.description, row.is_completed) == (task_id, "All of them", True)


def test_created_at_is_now_in_utc(ana: Person) -> None:
    """Times have microseconds."""
    now = datetime(2100, 1, 31, 23, 59, 59, 7, tzinfo=UTC)
    with time_machine.travel(now, tick=False):
        sender = Person(ana.app)  # a token of that time

        task = sender.make()

    assert (task["created_at"], task["updated_at"]) == ("2100-01-31T23:59:59.000007Z",) * 2
    assert [(row.created_at, row.updated_at) for row in sender.stored()] == [(now, now)]


def test_two_creates_without_an_id_make_two_tasks(ana: Person) -> None:
    """Only a create with an id can be a repetition."""
    tasks = [ana.make(), ana.make()]

    assert sorted(task["id"] for task in tasks) == [row.id for row in ana.stored()]
    assert len(ana.stored()) == 2


def test_repeated_id_answers_200_with_the_stored_task(ana: Person) -> None:
    """A client that got no answer can repeat its request: nothing is made twice, nothing changes."""
    task = ana.make(id=str(uuid4()))

    response = ana.call("POST", json={"id": task["id"].upper(), "title": "Something else"})

    assert (response.status_code, response.json) == (200, task)
    assert response.headers["ETag"] == f'"{task["updated_at"]}"'
    assert "Location" not in response.headers
    assert [row.title for row in ana.stored()] == ["Water the plants"]


def test_repeated_id_answers_with_the_task_as_it_now_is(ana: Person) -> None:
    """A late repetition does not undo a change made since."""
    task = ana.make()
    changed = ana.call("PATCH", f"/api/tasks/{task['id']}", json={"is_completed": True})

    response = ana.call("POST", json={"id": task["id"], "title": task["title"]})

    assert (response.status_code, response.json) == (200, changed.json)
    assert response.headers["ETag"] == changed.headers["ETag"]
    assert [row.is_completed for row in ana.stored()] == [True]


def test_same_id_of_another_owner_is_another_task(ana: Person, ben: Person) -> None:
    """An id that is taken by one owner is free for any other, so that neither learns of the other's task."""
    task = ana.make()

    response = ben.call("POST", json={"id": task["id"], "title": "Mine"})

    assert response.status_code == 201
    assert response.json["user_id"] == ben.id
    assert [row.title for row in ana.stored()] == ["Water the plants"]


def test_location_carries_the_path_that_the_service_is_mounted_under(ana: Person) -> None:
    """Behind a proxy that serves it below /backend, a client can follow the Location as it is."""
    mounted = {"SCRIPT_NAME": "/backend"}

    response = ana.call("POST", json={"title": "Water the plants"}, environ_overrides=mounted)

    assert response.status_code == 201
    assert response.headers["Location"] == f"/backend/api/tasks/{response.json['id']}"
