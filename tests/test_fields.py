"""What a task's fields may be, on create and on update; for text see test_text.py."""

import json
from itertools import permutations
from typing import Any

import pytest

from tests.conftest import SQLITE_ALONE
from tests.people import Person

METHODS = pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])

TITLE = "Give a title of 1 to 200 characters."
DESCRIPTION = "Give a description of at most 2000 characters, or null."
BOOLEAN = "Give true or false."
UUID = "Give a UUID."
UNKNOWN = "There is no such field."
NOTHING = "Give at least one of title, description, is_completed."


def send(person: Person, method: str, fields: dict[str, Any]) -> Any:
    """Create a task with these fields, or change a new one to have them."""
    path = "/api/tasks" if method == "POST" else f"/api/tasks/{person.make()['id']}"
    return person.call(method, path, json={"title": "Water the plants"} | fields)


def refusal(**messages: str) -> tuple[int, dict[str, Any]]:
    """Return the answer to a body with these invalid fields, in the schema's order."""
    field, message = next(iter(messages.items()))
    details = {name: [text] for name, text in messages.items()}
    return 400, {"error": f"{field}: {message}", "code": "VALIDATION_ERROR", "details": details}


def assert_refused(person: Person, method: str, field: str, messages: dict[str, str]) -> None:
    """Fail unless each value of the field, in JSON, gets its message, and the rows stay as they were."""
    path = "/api/tasks" if method == "POST" else f"/api/tasks/{person.make()['id']}"
    before = person.call("GET").json
    for value, message in messages.items():
        response = person.call(method, path, json={"title": "Feed the cat", field: json.loads(value)})

        assert (response.status_code, response.json) == refusal(**{field: message}), value
    assert person.call("GET").json == before


@METHODS
@pytest.mark.parametrize("value", [True, False])
def test_is_completed_is_true_or_false(ana: Person, method: str, value: bool) -> None:
    """Both are kept."""
    response = send(ana, method, {"is_completed": value})

    assert response.json["is_completed"] is value
    assert [row.is_completed for row in ana.stored()] == [value]


@SQLITE_ALONE
@METHODS
def test_bad_is_completed_answers_400(ana: Person, method: str) -> None:
    """Only JSON's true and false are taken."""
    values = [1, 0, 1.0, "true", "false", "yes", "on", "1", "", [], [True], {}, None]

    assert_refused(ana, method, "is_completed", dict.fromkeys(map(json.dumps, values), BOOLEAN))


BAD_IDS: list[Any] = [
    None,
    5,
    [],
    "",
    "1",
    "\0",
    "0f8fad5bd9cb469fa16570867728950e",
    "{0f8fad5b-d9cb-469f-a165-70867728950e}",
    "0f8fad5b-d9cb-469f-a165-70867728950e\n",
    " 0f8fad5b-d9cb-469f-a165-70867728950e",
    "urn:uuid:0f8fad5b-d9cb-469f-a165-70867728950e",
    "0f8fad5b-d9cb-469f-a165-7086772895\u0660e",
]


@SQLITE_ALONE
def test_bad_id_answers_400_on_create(ana: Person) -> None:
    """An id is a UUID with dashes. A client that wants the server to choose leaves it out."""
    assert_refused(ana, "POST", "id", dict.fromkeys(map(json.dumps, BAD_IDS), UUID))


@pytest.mark.parametrize("given_id", ["00000000-0000-0000-0000-000000000000", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"])
def test_any_version_of_uuid_is_an_id(ana: Person, given_id: str) -> None:
    """Clients choose their ids as they like."""
    assert ana.make(id=given_id)["id"] == given_id.lower() == ana.stored()[0].id


@SQLITE_ALONE
@METHODS
def test_unknown_key_answers_400(ana: Person, method: str) -> None:
    """A typing error is not ignored."""
    for key in ("done", "Title", "", "owner_id", "self", "\0", "\U0001f331"):
        assert_refused(ana, method, key, {"null": UNKNOWN})


@SQLITE_ALONE
@METHODS
def test_key_named_schema_is_unknown(ana: Person, method: str) -> None:
    """It is not confused with the key in details for the whole body."""
    response = send(ana, method, {"_schema": 1, "title": None})

    assert (response.status_code, response.json) == refusal(title=TITLE, _schema=UNKNOWN)


@METHODS
def test_read_only_keys_are_ignored(ana: Person, method: str) -> None:
    """The API takes back what it gives; the server sets these keys itself."""
    sent = {"user_id": None, "created_at": 5, "updated_at": ["x"]} | ({"id": "no id"} if method != "POST" else {})

    response = send(ana, method, sent)

    assert response.status_code < 300
    [row] = ana.stored()
    assert (row.user_id, row.id) == (response.json["user_id"], response.json["id"]) == (ana.id, row.id)
    assert not {"no id", 5} & set(response.json.values())


@SQLITE_ALONE
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("keys", [[], ["id"], ["id", "user_id", "created_at", "updated_at"]], ids=str)
def test_update_without_a_field_answers_400(ana: Person, method: str, keys: list[str]) -> None:
    """It would change nothing. The message is about the whole body, so no field stands before it."""
    task = ana.make()

    response = ana.call(method, f"/api/tasks/{task['id']}", json={key: task[key] for key in keys})

    assert response.status_code == 400
    assert response.json == {"error": NOTHING, "code": "VALIDATION_ERROR", "details": {"_schema": [NOTHING]}}
    assert ana.call("GET").json == [task]


@SQLITE_ALONE
@pytest.mark.parametrize("fields", [{}, {"description": "x"}, {"user_id": "x", "created_at": "x"}], ids=str)
def test_create_without_a_title_answers_400(ana: Person, fields: dict[str, Any]) -> None:
    """The title is the one field that a new task needs."""
    response = ana.call("POST", json=fields)

    assert (response.status_code, response.json) == refusal(title=TITLE)
    assert ana.stored() == []


INVALID = {"id": 1, "title": None, "description": 5, "is_completed": "no"}


@SQLITE_ALONE
def test_error_names_the_first_field_of_the_schema(ana: Person) -> None:
    """All invalid fields stand in details, unknown keys last. The order of the body does not count."""
    orders = [dict(order) for order in permutations((INVALID | {"done": 1}).items())]

    answers = [ana.call("POST", json=order) for order in orders]

    expected = refusal(id=UUID, title=TITLE, description=DESCRIPTION, is_completed=BOOLEAN, done=UNKNOWN)
    assert [answer for answer in answers if (answer.status_code, answer.json) != expected] == []


@SQLITE_ALONE
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize(
    ("keys", "messages"),
    [
        (["done", "is_completed", "description", "title"], {"title": TITLE, "description": DESCRIPTION}),
        (["done", "is_completed", "description"], {"description": DESCRIPTION}),
        (["done", "is_completed"], {}),
    ],
    ids=str,
)
def test_error_names_the_first_invalid_field_of_an_update(
    ana: Person, method: str, keys: list[str], messages: dict[str, str]
) -> None:
    """It is as on create, but without the id, which an update ignores."""
    body = {"id": 1} | {key: (INVALID | {"done": 1})[key] for key in keys}

    response = ana.call(method, f"/api/tasks/{ana.make()['id']}", json=body)

    assert (response.status_code, response.json) == refusal(**messages, is_completed=BOOLEAN, done=UNKNOWN)


@SQLITE_ALONE
@METHODS
def test_valid_fields_are_not_named(ana: Person, method: str) -> None:
    """The first invalid field may stand after valid ones."""
    response = send(ana, method, {"is_completed": None, "title": "Fine", "description": "Fine"})

    assert (response.status_code, response.json) == refusal(is_completed=BOOLEAN)
