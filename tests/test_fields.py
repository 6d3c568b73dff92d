"""What a task's fields may be, on create and on update; for text see test_text.py."""

from typing import Any

import pytest

from taskapi.tasks.schemas import UPDATE
from tests.people import Person

# A refusal never reaches the database, so one is enough.
ON_ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
METHODS = pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])

NULL = "Field may not be null."
STRING = "Not a valid string."
BOOLEAN = "Not a valid boolean."


def send(person: Person, method: str, fields: dict[str, Any]) -> Any:
    """Create a task with these fields, or change a new one to have them."""
    path = "/api/tasks" if method == "POST" else f"/api/tasks/{person.make()['id']}"
    return person.call(method, path, json={"title": "Water the plants"} | fields)


def refusal(details: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
    """Return the answer to a body that breaks rules."""
    return 400, {"error": "Some fields break a rule.", "code": "VALIDATION_ERROR", "details": details}


@METHODS
@pytest.mark.parametrize("value", [True, False])
def test_is_completed_is_true_or_false(ana: Person, method: str, value: bool) -> None:
    """Both are kept."""
    response = send(ana, method, {"is_completed": value})

    assert response.json["is_completed"] is value
    assert [row.is_completed for row in ana.stored()] == [value]


@ON_ONE_DATABASE
@METHODS
@pytest.mark.parametrize("wrong", [1, 0, 1.0, "true", "false", "yes", "on", "1", "", [], [True], {}, None], ids=repr)
def test_bad_is_completed_answers_400(ana: Person, method: str, wrong: Any) -> None:
    """JSON's true and false, and nothing that resembles them."""
    response = send(ana, method, {"is_completed": wrong})

    assert (response.status_code, response.json) == refusal({"is_completed": [NULL if wrong is None else BOOLEAN]})


@ON_ONE_DATABASE
@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, NULL),
        (5, STRING),
        ([], STRING),
        ("\0", "Not a valid UUID."),
        ("0f8fad5b-d9cb-469f-a165-70867728950e\n", "Not a valid UUID."),
        (" 0f8fad5b-d9cb-469f-a165-70867728950e", "Not a valid UUID."),
        ("urn:uuid:0f8fad5b-d9cb-469f-a165-70867728950e", "Not a valid UUID."),
        ("0f8fad5b-d9cb-469f-a165-7086772895\u0660e", "Not a valid UUID."),
    ],
)
def test_bad_id_answers_400_on_create(ana: Person, wrong: Any, message: str) -> None:
    """An id that is given is a UUID with dashes; who wants the server to choose leaves it out."""
    response = send(ana, "POST", {"id": wrong})

    assert (response.status_code, response.json) == refusal({"id": [message]})
    assert ana.stored() == []


@pytest.mark.parametrize("given_id", ["00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"])
def test_any_version_of_uuid_is_an_id(ana: Person, given_id: str) -> None:
    """Clients choose their ids as they like."""
    assert ana.make(id=given_id)["id"] == given_id.lower() == ana.stored()[0].id


@ON_ONE_DATABASE
@METHODS
@pytest.mark.parametrize("key", ["done", "Title", "", "_schema", "owner_id", "self", "\0", "\U0001f331"])
def test_unknown_key_answers_400(ana: Person, method: str, key: str) -> None:
    """A typing error must not pass for a change."""
    response = send(ana, method, {key: None})

    assert (response.status_code, response.json) == refusal({key: ["Unknown field."]})


@METHODS
def test_read_only_keys_are_ignored(ana: Person, method: str) -> None:
    """What the API gives, it takes back, and sets itself."""
    sent = {"user_id": None, "created_at": 5, "updated_at": ["x"]} | ({"id": "no id"} if method != "POST" else {})

    response = send(ana, method, sent)

    assert response.status_code < 300
    [row] = ana.stored()
    assert (row.user_id, row.id) == (response.json["user_id"], response.json["id"]) == (ana.id, row.id)
    assert not {"no id", 5} & set(response.json.values())


@ON_ONE_DATABASE
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("keys", [[], ["id"], ["id", "user_id", "created_at", "updated_at"]], ids=str)
def test_update_without_a_field_answers_400(ana: Person, method: str, keys: list[str]) -> None:
    """It would change nothing, so it is a mistake."""
    task = ana.make()

    response = ana.call(method, f"/api/tasks/{task['id']}", json={key: task[key] for key in keys})

    nothing = [f"Give at least one of {', '.join(UPDATE.load_fields)}."]
    assert (response.status_code, response.json) == refusal({"_schema": nothing})
    assert ana.call("GET").json == [task]


@ON_ONE_DATABASE
@pytest.mark.parametrize("fields", [{}, {"description": "x"}, {"user_id": "x", "created_at": "x"}], ids=str)
def test_create_without_a_title_answers_400(ana: Person, fields: dict[str, Any]) -> None:
    """The one field that a task can't be without."""
    response = ana.call("POST", json=fields)

    assert (response.status_code, response.json) == refusal({"title": ["Missing data for required field."]})
    assert ana.stored() == []


@ON_ONE_DATABASE
@METHODS
def test_all_broken_rules_are_told_at_once(ana: Person, method: str) -> None:
    """A form can mark every field in one round."""
    response = send(ana, method, {"title": None, "description": 5, "is_completed": "no", "done": 1})

    assert (response.status_code, response.json) == refusal(
        {"title": [NULL], "description": [STRING], "is_completed": [BOOLEAN], "done": ["Unknown field."]}
    )
