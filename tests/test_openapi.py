"""The API's description: it says what the code does, all of it, and nothing else."""

import json
import re
import sys
import unicodedata
from base64 import b64encode
from hashlib import sha256
from typing import Any, get_args

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from taskapi import REQUEST_HEADERS, RESPONSE_HEADERS, schemas
from taskapi.wire import MAX_BODY
from taskapi.errors import Code
from taskapi.openapi import describe
from tests.people import Person

ALWAYS = {"401", "500", "503"}
TEXT_FORM = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database: nothing here depends on which."""
    return sqlite_url


@pytest.fixture(autouse=True)
def made_anew() -> None:
    """The description is made once per process; each test here makes its own, and so can say what is wrong with it."""
    describe.cache_clear()


@pytest.fixture
def document(client: FlaskClient) -> Any:
    """The description as it is served."""
    return client.get("/api/openapi.json").json


def operations(document: Any) -> dict[tuple[str, str], Any]:
    """Return each described operation by path and method."""
    return {
        (path, method): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def test_document_is_valid(document: Any) -> None:
    """The public validator of OpenAPI 3.1 finds nothing."""
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_each_route_is_described_and_nothing_else(app: Flask, document: Any) -> None:
    """HEAD and OPTIONS, which every path has, go without saying; so do the files of the page."""
    routes = {
        (rule.rule.replace("<task_id>", "{id}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint != "docs.static"
    }

    assert set(operations(document)) == routes


def test_operations_have_stable_names(document: Any) -> None:
    """Generated clients are made of these names: to change one breaks them."""
    names = [operation["operationId"] for operation in operations(document).values()]

    assert names == [
        "listTasks",
        "createTask",
        "getTask",
        "putTask",
        "updateTask",
        "deleteTask",
        "isAlive",
        "isReady",
        "describe",
        "readDocs",
    ]


def test_each_operation_has_a_summary_and_examples(document: Any) -> None:
    """A reader sees what a thing is for, and what it looks like."""
    for operation in operations(document).values():
        assert operation["summary"]
    for (path, _), operation in operations(document).items():
        if path.startswith("/api/tasks"):
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            contents = [body["content"]["application/json"] for body in bodies if "content" in body]
            assert all("example" in content for content in contents)
    for response in document["components"]["responses"].values():
        assert response["content"]["application/json"]["examples"]


def test_examples_are_as_described(document: Any) -> None:
    """What a reader copies from is right: of tasks, bodies and errors alike."""
    responses = document["components"]["responses"].values()
    bodies = [one for operation in operations(document).values() for one in operation["responses"].values()]
    bodies += [operation["requestBody"] for operation in operations(document).values() if "requestBody" in operation]
    contents = [one["content"]["application/json"] for one in [*responses, *bodies] if "application/json" in str(one)]
    examples = [
        (content["schema"], example)
        for content in contents
        for example in [content.get("example"), *(each["value"] for each in content.get("examples", {}).values())]
        if example is not None
    ]

    assert len(examples) > 20
    for schema, example in examples:
        Draft202012Validator(schema | {"components": document["components"]}).validate(example)


@pytest.mark.parametrize(
    ("path", "method", "statuses"),
    [
        ("/api/tasks", "get", {"200", "400"} | ALWAYS),
        ("/api/tasks", "post", {"200", "201", "400", "413", "415"} | ALWAYS),
        ("/api/tasks/{id}", "get", {"200", "304", "404"} | ALWAYS),
        ("/api/tasks/{id}", "put", {"200", "400", "404", "412", "413", "415"} | ALWAYS),
        ("/api/tasks/{id}", "patch", {"200", "400", "404", "412", "413", "415"} | ALWAYS),
        ("/api/tasks/{id}", "delete", {"200", "404", "412"} | ALWAYS),
        ("/healthz", "get", {"200"}),
        ("/readyz", "get", {"200", "503"}),
        ("/api/openapi.json", "get", {"200"}),
        ("/api/docs", "get", {"200"}),
    ],
)
def test_statuses(document: Any, path: str, method: str, statuses: set[str]) -> None:
    """Each status that can occur is there, and no other."""
    assert set(operations(document)[path, method]["responses"]) == statuses


def test_codes(document: Any) -> None:
    """An error's code is one of those that its status comes with; details come with VALIDATION_ERROR alone."""

    def codes(schema: Any) -> list[tuple[tuple[str, ...], bool]]:
        of_each = schema.get("oneOf", [schema])
        return [(tuple(one["properties"]["code"]["enum"]), "details" in one["required"]) for one in of_each]

    responses = document["components"]["responses"]
    described = {name: codes(one["content"]["application/json"]["schema"]) for name, one in responses.items()}

    assert described == {
        "BadParameter": [(("VALIDATION_ERROR",), True)],
        "BadBody": [(("INVALID_REQUEST",), False), (("VALIDATION_ERROR",), True)],
        "Unauthorized": [(("UNAUTHORIZED", "INVALID_TOKEN", "TOKEN_EXPIRED"), False)],
        "NotFound": [(("NOT_FOUND",), False)],
        "VersionMismatch": [(("INVALID_REQUEST",), False)],
        "BodyTooLarge": [(("INVALID_REQUEST",), False)],
        "NotJson": [(("INVALID_REQUEST",), False)],
        "ServerError": [(("INTERNAL_ERROR", "DATABASE_ERROR"), False)],
        "Unavailable": [(("INTERNAL_ERROR", "DATABASE_ERROR"), False)],
    }
    assert {code for one in described.values() for names, _ in one for code in names} == set(get_args(Code))


def test_headers(document: Any) -> None:
    """Whatever a browser may send or read is described; what CORS names beyond it belongs to token and body."""
    components = document["components"]
    sent = {name for name, one in components["parameters"].items() if one["in"] == "header"}

    assert sent == set(REQUEST_HEADERS) - {"Authorization", "Content-Type"}
    assert set(components["headers"]) == {*RESPONSE_HEADERS, "WWW-Authenticate"}
    assert components["securitySchemes"]["bearer"] == {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


def test_tasks_need_the_bearer_token_and_nothing_else_does(document: Any) -> None:
    """What a client sends its token to is said for each operation."""
    secured = {path for (path, _), operation in operations(document).items() if "security" in operation}

    assert secured == {"/api/tasks", "/api/tasks/{id}"}
    for (path, _), operation in operations(document).items():
        assert operation.get("security") == ([{"bearer": []}] if path in secured else None)


def test_task(document: Any, ana: Person) -> None:
    """A task has the described keys in the described order, and all of them."""
    task = document["components"]["schemas"]["Task"]

    assert list(task["properties"]) == task["required"] == list(ana.make())


def test_bodies_take_read_only_keys_and_no_unknown_ones(document: Any) -> None:
    """What is ignored is described, and so is what is refused."""
    described = document["components"]["schemas"]
    ignored = {
        name: [key for key, one in described[name]["properties"].items() if one == {"description": "Ignored."}]
        for name in ("NewTask", "TaskFields")
    }

    assert ignored == {
        "NewTask": ["user_id", "created_at", "updated_at"],
        "TaskFields": ["id", "user_id", "created_at", "updated_at"],
    }
    objects = [described[name] for name in ("Task", "NewTask", "TaskFields")]
    assert [(one["type"], one["additionalProperties"]) for one in objects] == [("object", False)] * 3
    # Makers of types would take such a key for one that has to be sent.
    assert [key for one in objects for key in one["properties"].values() if "default" in key] == []
    assert described["NewTask"]["required"] == ["title"]
    fields = [{"$ref": "#/components/schemas/TaskFields"}]
    assert described["TaskChanges"] == {
        "anyOf": [{"allOf": fields, "required": [name]} for name in schemas.UPDATE.load_fields],
    }


def test_limits_come_from_the_code(document: Any) -> None:
    """Each number that a client has to keep to is the one that is kept."""
    new_task = document["components"]["schemas"]["NewTask"]["properties"]
    parameters = {one["name"]: one["schema"] for one in operations(document)["/api/tasks", "get"]["parameters"]}

    assert (new_task["title"]["minLength"], new_task["title"]["maxLength"]) == (1, schemas.MAX_TITLE)
    assert new_task["description"]["type"] == ["string", "null"]
    assert new_task["description"]["maxLength"] == schemas.MAX_DESCRIPTION
    assert new_task["description"]["pattern"] == TEXT_FORM
    assert f"at most {MAX_BODY} bytes" in document["info"]["description"]
    page = operations(document)["/api/tasks", "get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert page["maxItems"] == schemas.MAX_LIMIT
    assert parameters == {
        "is_completed": {"type": "boolean"},
        "q": {"type": "string", "minLength": 1, "maxLength": schemas.MAX_Q, "pattern": TEXT_FORM},
        "sort": {
            "type": "string",
            "default": "-created_at",
            "enum": ["created_at", "updated_at", "title", "-created_at", "-updated_at", "-title"],
        },
        "limit": {"type": "integer", "minimum": 1, "maximum": schemas.MAX_LIMIT, "default": schemas.DEFAULT_LIMIT},
        "cursor": {"type": "string"},
    }


def test_title_pattern_agrees_with_unicode(document: Any) -> None:
    """One visible character makes a title, one in category Cf or of whitespace doesn't, and no control is let in."""
    pattern = re.compile(document["components"]["schemas"]["NewTask"]["properties"]["title"]["pattern"])
    characters = [chr(point) for point in range(sys.maxunicode + 1)]
    control = {char for char in characters if unicodedata.category(char) == "Cc"}
    # What Unicode has made a format character since this Python is taken for one already.
    blank = {char for char in characters if char.isspace() or unicodedata.category(char) in ("Cf", "Cn")}

    alone = {char for char in characters if pattern.search(char)}
    inside = {char for char in characters if pattern.search(f"a{char}b")}

    assert alone >= set(characters) - blank - control
    assert alone & {char for char in blank if unicodedata.category(char) != "Cn"} == set()
    assert set(characters) - inside == control | {"\u202d", "\u202e"}


def test_patterns_have_no_range_beyond_the_bmp(document: Any) -> None:
    """JavaScript throws at one unless told that the pattern is Unicode, which makers of clients forget."""
    patterns = re.findall('"pattern": "(.+?)"', json.dumps(document, ensure_ascii=False))
    beyond = "[\U00010000-\U0010ffff]"

    assert [bool(re.search(f"{beyond}-|-{beyond}", pattern)) for pattern in patterns] == [False] * 7


@pytest.mark.parametrize("filling", [" ", "\t", "\u200b", "a", "\u200b ", "a\t", " a"])
def test_title_pattern_does_not_backtrack(ana: Person, filling: str) -> None:
    """A title as long as a body can be is refused at once, whatever it is filled with."""
    response = ana.call("POST", json={"title": filling * (10_000 // len(filling)) + "\x00"})

    assert (response.status_code, response.json["code"]) == (400, "VALIDATION_ERROR")


def test_page_may_do_what_it_does_and_nothing_more(client: FlaskClient) -> None:
    """No inline code but the page's own, no other host, no frame around it."""
    response = client.get("/api/docs")
    policy = dict(one.split(" ", 1) for one in response.headers["Content-Security-Policy"].split("; "))
    own = [re.findall(f"<{kind}>(.+?)</{kind}>", response.text, re.DOTALL) for kind in ("script", "style")]
    hashes = [b64encode(sha256(content.encode()).digest()).decode() for [content] in own]

    assert (response.status_code, response.mimetype) == (200, "text/html")
    assert policy == {
        "script-src": f"'self' 'sha256-{hashes[0]}'",
        "style-src": f"'self' 'sha256-{hashes[1]}'",
        "default-src": "'none'",
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_page_brings_its_files(client: FlaskClient) -> None:
    """Everything that the page loads comes from here."""
    page = client.get("/api/docs").text
    paths = re.findall('(?:src|href)="([^"]+)"', page)

    assert paths == ["data:,", "/api/docs/ui/swagger-ui.css", "/api/docs/ui/swagger-ui-bundle.js"]
    for path in paths[1:]:
        whole = client.get(path)
        etag = whole.headers["ETag"]
        again = client.get(path, headers={"If-None-Match": etag, "If-Match": '"x"', "Range": "bytes=0-1"})
        other = client.get(path, headers={"If-None-Match": '"x"', "If-Match": '"x"', "Range": "bytes=0-1"})

        assert (whole.status_code, again.status_code, again.data) == (200, 304, b"")
        assert (other.status_code, other.data) == (200, whole.data)
    assert re.findall("https?://", page) == []


def test_missing_file_is_not_found(client: FlaskClient) -> None:
    """Nothing but the bundle is given out, and errors have their shape there too."""
    names = ["nothing", "oauth2-redirect.html", "../docs.py", "%2e%2e/docs.py", "..%2f..%2fdocs.py", ""]
    answers: list[Any] = [client.get(f"/api/docs/ui/{name}") for name in names]

    assert [(answer.status_code, answer.json["code"]) for answer in answers] == [(404, "NOT_FOUND")] * len(names)


def test_description_is_public(app: Flask) -> None:
    """Neither document nor page asks for a token, and the document is the same for everybody."""
    client = app.test_client()
    bad = {"Authorization": "Bearer nonsense"}

    assert client.get("/api/openapi.json").json == client.get("/api/openapi.json", headers=bad).json == describe()
    assert client.get("/api/docs", headers=bad).text == client.get("/api/docs").text
