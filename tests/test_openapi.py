"""The API's description says all that the code does, and nothing else."""

import json
import re
import sys
import unicodedata
from base64 import b64encode
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from taskapi import REQUEST_HEADERS, RESPONSE_HEADERS, openapi, paging
from taskapi.wire import MAX_BODY
from taskapi.errors import Code
from taskapi.openapi import describe
from taskapi.tasks import schemas
from tests.npm import node
from tests.people import Person, make_token

ALWAYS = {"401", "500", "503"}
TEXT_FORM = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"
PUBLIC = ["/healthz", "/readyz", "/api/openapi.json", "/api/docs"]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database: nothing here depends on which."""
    return sqlite_url


@pytest.fixture
def document(client: FlaskClient) -> Any:
    """The description as it is served, made anew, so that the test can say what is wrong with it."""
    describe.cache_clear()
    return client.get("/api/openapi.json").json


def operations(document: Any) -> dict[tuple[str, str], Any]:
    """Return each described operation by path and method."""
    return {
        (path, method): operation for path, item in document["paths"].items() for method, operation in item.items()
    }


def validator(document: Any, schema: Any) -> Draft202012Validator:
    """Return what tells whether something is as a schema of the document has it."""
    whole = schema | {"components": document["components"]}
    return Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)


def patterns(value: Any) -> Iterator[str]:
    """Yield each pattern at any depth."""
    for name, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if name == "pattern":
            yield one
        yield from patterns(one)


def test_document_is_valid(document: Any) -> None:
    """The public validator of OpenAPI 3.1 finds nothing."""
    assert document["openapi"].startswith("3.1.")
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_each_route_is_described_and_nothing_else(app: Flask, document: Any) -> None:
    """HEAD and OPTIONS are described in words; the page's files are not described."""
    routes = {
        (rule.rule.replace("<task_id>", "{id}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint != "openapi.file"
    }

    assert set(operations(document)) == routes
    assert all(word in document["info"]["description"] for word in ("`HEAD`", "`OPTIONS`", "304", "405", "412"))


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


def test_each_operation_is_explained(document: Any) -> None:
    """It has a summary, a description, and one tag that is explained too. Authorize says where a token comes from."""
    tags = {tag["name"] for tag in document["tags"] if tag["description"]}

    for operation in operations(document).values():
        assert operation["summary"] and operation["description"] and len(operation["tags"]) == 1
    assert {operation["tags"][0] for operation in operations(document).values()} == tags
    scheme = document["components"]["securitySchemes"]["bearer"]
    assert {name: scheme[name] for name in ("type", "scheme")} == {"type": "http", "scheme": "bearer"}
    assert "without the word Bearer" in " ".join(scheme["description"].split())


def test_parameters_stand_in_order(document: Any) -> None:
    """Generated functions take them so. The header that every request may have is described once, in words."""
    components = document["components"]["parameters"]
    for operation in operations(document).values():
        parameters = operation.get("parameters", ())
        parameters = [components.get(one.get("$ref", "").split("/")[-1], one) for one in parameters]
        places = [one["in"] for one in parameters]

        assert places == sorted(places, key=["path", "query", "header"].index)
        assert all(one["description"] for one in parameters)
        assert "X-Request-ID" not in [one["name"] for one in parameters]
        assert not any("example" in one for one in parameters)  # the page would send it, and get 404 or 412
    assert "X-Request-ID" in document["info"]["description"]


def test_examples_are_as_described(document: Any) -> None:
    """What a reader copies from is right: tasks, bodies and errors."""
    components = document["components"]
    bodies = [one["requestBody"] for one in operations(document).values() if "requestBody" in one]
    contents = [one["content"]["application/json"] for one in [*components["responses"].values(), *bodies]]
    examples = [
        (content["schema"], example)
        for content in contents
        for example in [*(one["value"] for one in content.get("examples", {}).values()), content.get("example")]
        if example is not None
    ]
    task = {name: one["example"] for name, one in components["schemas"]["Task"]["properties"].items()}

    assert {id(schema) for schema, _ in examples} == {id(content["schema"]) for content in contents}
    for schema, example in [*examples, (components["schemas"]["Task"], task)]:
        validator(document, schema).validate(example)


def test_examples_of_errors_are_what_the_service_says(document: Any, app: Flask, ana: Person) -> None:
    """Each sentence that a front end may show stands in the description as it is."""
    path = f"/api/tasks/{ana.make()['id']}"
    expired = {"Authorization": f"Bearer {make_token(exp=1)}"}
    json_type = {"Content-Type": "application/json"}
    said = [
        ("Unauthorized", app.test_client().get(path)),
        ("Unauthorized", app.test_client().get(path, headers={"Authorization": "Bearer x"})),
        ("Unauthorized", app.test_client().get(path, headers=expired)),
        ("BadParameter", ana.call("GET", "/api/tasks?limit=0")),
        ("BadBody", ana.call("POST", json={"title": ""})),
        ("BadBody", ana.call("POST", json=[])),
        ("NotFound", ana.call("GET", "/api/tasks/x")),
        ("VersionMismatch", ana.call("DELETE", path, headers={"If-Match": '"x"'})),
        ("BodyTooLarge", ana.call("POST", data=b" " * (MAX_BODY + 1), headers=json_type)),
        ("NotJson", ana.call("POST", data="x")),
        ("NotJson", ana.call("POST", json={}, headers={"Content-Encoding": "gzip"})),
        ("ClientError", app.test_client().post("/healthz")),
    ]

    for name, response in said:
        described = document["components"]["responses"][name]["content"]["application/json"]["examples"].values()
        assert response.json in [one["value"] for one in described]


STATUSES = {
    ("/api/tasks", "get"): {"200", "400"} | ALWAYS,
    ("/api/tasks", "post"): {"200", "201", "400", "413", "415"} | ALWAYS,
    ("/api/tasks/{id}", "get"): {"200", "304", "404"} | ALWAYS,
    ("/api/tasks/{id}", "put"): {"200", "400", "404", "412", "413", "415"} | ALWAYS,
    ("/api/tasks/{id}", "patch"): {"200", "400", "404", "412", "413", "415"} | ALWAYS,
    ("/api/tasks/{id}", "delete"): {"200", "404", "412"} | ALWAYS,
    ("/healthz", "get"): {"200", "4XX"},
    ("/readyz", "get"): {"200", "4XX", "503"},
    ("/api/openapi.json", "get"): {"200", "4XX"},
    ("/api/docs", "get"): {"200", "4XX"},
}


def test_statuses(document: Any) -> None:
    """Each status that can occur is there, and no other."""
    assert {place: set(operation["responses"]) for place, operation in operations(document).items()} == STATUSES


def test_codes(document: Any) -> None:
    """Each error has a schema with a name, and its code is one of those that its status comes with."""
    components = document["components"]["schemas"]

    def codes(name: str) -> list[tuple[tuple[str, ...], bool]]:
        of_each = components[name].get("oneOf")
        if of_each:
            return [code for one in of_each for code in codes(one["$ref"].split("/")[-1])]
        return [(tuple(components[name]["properties"]["code"]["enum"]), "details" in components[name]["required"])]

    responses = document["components"]["responses"].items()
    refs = {name: one["content"]["application/json"]["schema"]["$ref"].split("/")[-1] for name, one in responses}

    described = {name: codes(ref) for name, ref in refs.items()}
    assert {code for one in described.values() for names, _ in one for code in names} == set(get_args(Code))
    assert described == {
        "BadParameter": [(("VALIDATION_ERROR",), True)],
        "BadBody": [(("INVALID_REQUEST",), False), (("VALIDATION_ERROR",), True)],
        "Unauthorized": [(("UNAUTHORIZED", "INVALID_TOKEN", "TOKEN_EXPIRED"), False)],
        "NotFound": [(("NOT_FOUND",), False)],
        "VersionMismatch": [(("INVALID_REQUEST",), False)],
        "BodyTooLarge": [(("INVALID_REQUEST",), False)],
        "NotJson": [(("INVALID_REQUEST",), False)],
        "ClientError": [(("INVALID_REQUEST",), False)],
        "ServerError": [(("INTERNAL_ERROR", "DATABASE_ERROR"), False)],
        "Unavailable": [(("INTERNAL_ERROR", "DATABASE_ERROR"), False)],
    }


def test_headers(document: Any) -> None:
    """Each header that a browser may send or read is described; CORS names beyond it what belongs to token and body."""
    components = document["components"]
    sent = {name for name, one in components["parameters"].items() if one["in"] == "header"}
    words = document["info"]["description"]

    assert sent | {"X-Request-ID"} == set(REQUEST_HEADERS) - {"Authorization", "Content-Type"}
    assert {*components["headers"], "X-Request-ID"} == {*RESPONSE_HEADERS, "WWW-Authenticate"}
    assert "`X-Request-ID`" in words and "`Allow`" in words


def test_security(app: Flask, document: Any) -> None:
    """An operation needs the bearer token unless the description says that it is public, and the service agrees."""
    assert document["security"] == [{"bearer": []}]
    assert [path for (path, _), one in operations(document).items() if one.get("security") == []] == PUBLIC
    for (path, method), operation in operations(document).items():
        status = app.test_client().open(path.replace("{id}", "x"), method=method).status_code

        assert operation.get("security") in (None, [])
        assert (status == 401) == ("security" not in operation)


def test_task(document: Any, ana: Person) -> None:
    """A task has the described keys in the described order, and all of them."""
    task = document["components"]["schemas"]["Task"]

    assert list(task["properties"]) == task["required"] == list(ana.make())


CHANGES: list[dict[str, Any]] = [
    {"is_completed": True},
    {"title": "Call Ben"},
    {"description": None},
    {"title": "Call Ben", "id": 1, "user_id": None, "created_at": "", "updated_at": []},
    {},
    {"id": 1},
    {"user_id": None, "created_at": "", "updated_at": []},
    {"description": "x", "done": True},
    {"title": None},
    {"is_completed": "yes"},
]


def test_changes_are_described_as_they_are_taken(document: Any, ana: Person) -> None:
    """A body is right by the description if the service takes it: read-only keys alone change nothing."""
    changes = validator(document, document["components"]["schemas"]["TaskChanges"])
    path = f"/api/tasks/{ana.make()['id']}"
    for body in CHANGES:
        response = ana.call("PATCH", path, json=body)

        assert response.status_code == (200 if changes.is_valid(body) else 400), body


def test_new_task_takes_a_received_one(document: Any, ana: Person) -> None:
    """What the API gives it takes back, with the read-only keys; only a title is required."""
    new_task = document["components"]["schemas"]["NewTask"]

    assert validator(document, new_task).is_valid(ana.make())
    assert not validator(document, new_task).is_valid(ana.make() | {"done": True})
    assert new_task["required"] == ["title"]


def test_no_key_has_a_default(document: Any) -> None:
    """Generators would require a key that has a default."""
    objects = [one for one in document["components"]["schemas"].values() if "properties" in one]

    assert [key for one in objects for key in one["properties"].values() if "default" in key] == []


def test_limits_come_from_the_code(document: Any) -> None:
    """Each limit in the description is the code's."""
    new_task = document["components"]["schemas"]["NewTask"]["properties"]
    parameters = {one["name"]: one["schema"] for one in operations(document)["/api/tasks", "get"]["parameters"]}

    assert (new_task["title"]["minLength"], new_task["title"]["maxLength"]) == (1, schemas.MAX_TITLE)
    assert new_task["description"]["type"] == ["string", "null"]
    assert new_task["description"]["maxLength"] == schemas.MAX_DESCRIPTION
    assert new_task["description"]["pattern"] == TEXT_FORM
    assert f"at most {MAX_BODY} bytes" in document["info"]["description"]
    page = operations(document)["/api/tasks", "get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert page["maxItems"] == paging.MAX_LIMIT
    assert parameters == {
        "is_completed": {"type": "boolean"},
        "q": {"type": "string", "minLength": 1, "maxLength": schemas.MAX_Q, "pattern": TEXT_FORM},
        "sort": {
            "type": "string",
            "default": "-created_at",
            "enum": ["created_at", "-created_at", "updated_at", "-updated_at", "title", "-title"],
        },
        "limit": {"type": "integer", "minimum": 1, "maximum": paging.MAX_LIMIT, "default": paging.DEFAULT_LIMIT},
        "cursor": {"type": "string"},
    }


def title_pattern(document: Any) -> str:
    """Return the pattern of a title."""
    pattern: str = document["components"]["schemas"]["NewTask"]["properties"]["title"]["pattern"]
    return pattern


def test_title_pattern_agrees_with_unicode(document: Any) -> None:
    """One character that is not whitespace makes a title; controls and overrides are refused, except around it."""
    pattern = re.compile(title_pattern(document))
    whole = [chr(point) for point in range(sys.maxunicode + 1)]
    blank = {character for character in whole if character.isspace()}
    refused = {character for character in whole if unicodedata.category(character) == "Cc"} | {"\u202d", "\u202e"}
    characters = whole[:0x10000]  # all that is special is in this plane
    assert blank | refused <= {*characters}

    assert {one for one in characters if not pattern.search(one)} == blank | refused
    assert {one for one in characters if not pattern.search(f"a{one}b")} == refused
    assert {one for one in characters if not pattern.search(f"{one}a")} == refused - blank
    assert {one for one in characters if not pattern.search(f"a{one}")} == refused - blank


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["", "u"])
def test_title_pattern_in_javascript(document: Any, tmp_path: Path, flag: str) -> None:
    """JavaScript reads it as Python does: U+FEFF is whitespace there, and controls of Python's alone are not."""
    pattern = title_pattern(document)
    forms = "(c) => [c, `a${c}b`, `${c}a`, `a${c}`]"
    program = f"""
        const pattern = new RegExp({json.dumps(pattern)}, "{flag}");
        const points = [...Array(0x110000).keys()];
        const found = points.map((point) => ({forms})(String.fromCodePoint(point)).map((text) => +pattern.test(text)));
        console.log(JSON.stringify(found.map((one) => one.join(""))));
    """
    (tmp_path / "program.js").write_text(program)

    done = node("node", "program.js", cwd=tmp_path)

    python = [
        "".join(str(int(bool(re.search(pattern, text)))) for text in (one, f"a{one}b", f"{one}a", f"a{one}"))
        for one in map(chr, range(0x110000))
    ]
    differing = {point for point, (one, other) in enumerate(zip(json.loads(done.stdout), python)) if one != other}
    assert differing == {*range(0x1C, 0x20), 0x85, 0xFEFF}


def test_patterns_survive_generators(document: Any) -> None:
    """They write escapes raw: U+2028 and U+2029 would end a line, and some forget the flag u of JavaScript."""
    found = set(patterns(document))

    assert found
    assert all(pattern.isascii() and not re.search(r"\\u202[89]|\\[uU]\{", pattern) for pattern in found)


@pytest.mark.parametrize("filling", [" ", "\t", "\u200b", "a", "\u200b ", "a\t", " a"])
def test_title_pattern_does_not_backtrack(ana: Person, filling: str) -> None:
    """A title as long as a body can be is refused at once, with any filling."""
    response = ana.call("POST", json={"title": filling * (10_000 // len(filling)) + "\x00"})

    assert (response.status_code, response.json["code"]) == (400, "VALIDATION_ERROR")


def read_policy(response: Any) -> dict[str, str]:
    """Return the directives of an answer's Content-Security-Policy."""
    return dict(one.split(" ", 1) for one in response.headers["Content-Security-Policy"].split("; "))


def hashes(html: str) -> str:
    """Return what a policy says of a page's own script and style, in the order in which they stand there."""
    own = re.findall("<(?:script|style)>(.+?)</(?:script|style)>", html, re.DOTALL)
    assert len(own) == 2
    return " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in own)


def test_page_may_do_what_it_does_and_nothing_more(client: FlaskClient) -> None:
    """No inline code but the page's own, no other host, no frame around it."""
    response = client.get("/api/docs")

    assert (response.status_code, response.mimetype) == (200, "text/html")
    assert read_policy(response) == {
        "script-src": f"'self' {hashes(response.text)}",
        "style-src": f"'self' {hashes(response.text)}",
        "default-src": "'none'",
        "img-src": "data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert re.findall("https?://|src=|href=\"/", response.text) == []


def test_page_brings_its_files(client: FlaskClient) -> None:
    """A request's conditions do not matter, and a browser keeps the files."""
    names = re.findall(r'file\("([^"]+)"\)', client.get("/api/docs").text)

    assert names == ["swagger-ui.css", "swagger-ui-bundle.js"]
    for name, mimetype in zip(names, ["text/css", "text/javascript"]):
        whole = client.get(f"/api/docs/ui/{name}", buffered=True)
        conditions = {"If-Match": '"x"', "Range": "bytes=0-1"}
        other = client.get(f"/api/docs/ui/{name}", headers=conditions, buffered=True)

        assert (whole.status_code, whole.mimetype) == (200, mimetype)
        assert (other.status_code, other.data) == (200, whole.data)
        assert whole.headers["Cache-Control"] == "public, max-age=3600"


def test_missing_file_is_not_found(client: FlaskClient) -> None:
    """Nothing but the bundle is given out, and errors have their form there too."""
    names = ["nothing", "oauth2-redirect.html", "../openapi.py", "%2e%2e/openapi.py", "..%2f..%2fopenapi.py", ""]
    answers: list[Any] = [client.get(f"/api/docs/ui/{name}") for name in names]

    assert [(answer.status_code, answer.json["code"]) for answer in answers] == [(404, "NOT_FOUND")] * len(names)


def test_description_is_public(app: Flask) -> None:
    """Neither document nor page asks for a token, and the document is the same with a bad token."""
    client = app.test_client()
    bad = {"Authorization": "Bearer nonsense"}

    assert client.get("/api/openapi.json").json == client.get("/api/openapi.json", headers=bad).json == describe()
    assert client.get("/api/docs", headers=bad).text == client.get("/api/docs").text


def test_server_is_where_the_service_is_mounted(client: FlaskClient) -> None:
    """A client that is made of the description sends its requests there."""
    mounted: Any = client.get("/api/openapi.json", environ_overrides={"SCRIPT_NAME": "/backend"}).json
    plain: Any = client.get("/api/openapi.json").json

    assert [mounted["servers"], plain["servers"]] == [[{"url": "/backend"}], [{"url": "/"}]]
    assert mounted | {"servers": []} == plain | {"servers": []}


@pytest.fixture
def development(make_app: Callable[..., Flask]) -> FlaskClient:
    """A client of the service in debug mode."""
    return make_app(FLASK_DEBUG="1").test_client()


def test_page_keeps_the_token_in_debug_mode_alone(client: FlaskClient, development: FlaskClient) -> None:
    """Elsewhere a token does not stay in the browser's storage."""
    assert "persistAuthorization: false," in client.get("/api/docs").text
    assert "persistAuthorization: true," in development.get("/api/docs").text
    assert read_policy(development.get("/api/docs"))["script-src"].startswith("'self' 'sha256-")
    assert hashes(development.get("/api/docs").text) in read_policy(development.get("/api/docs"))["script-src"]


def test_debug_mode_leads_to_the_page(development: FlaskClient) -> None:
    """The root is a redirect to it, below the path that the service is mounted under."""
    plain = development.get("/")
    mounted = development.get("/", environ_overrides={"SCRIPT_NAME": "/backend"})

    assert [(one.status_code, one.headers["Location"]) for one in (plain, mounted)] == [
        (302, "/api/docs"),
        (302, "/backend/api/docs"),
    ]


def test_debug_mode_shows_the_example(
    development: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may run its own script and style and call this API, and nothing more."""
    html = "<!DOCTYPE html>\n<title>é</title>\n<style>\nb {}\n</style>\n<script>\nlet a = '</b>';\n</script>\n"
    (tmp_path / "example.html").write_text(html, "utf-8")
    monkeypatch.setattr(openapi, "EXAMPLE", tmp_path / "example.html")

    response = development.get("/example")

    policy = read_policy(response)
    assert (response.status_code, response.mimetype, response.text) == (200, "text/html", html)
    assert policy["script-src"] == policy["style-src"] == f"'self' {hashes(html)}"
    assert (policy["default-src"], policy["connect-src"]) == ("'none'", "'self'")


@pytest.mark.parametrize("path", ["/", "/example"])
def test_other_modes_have_neither(app: Flask, path: str) -> None:
    """They are not found, as any other path."""
    response: Any = app.test_client().get(path)

    assert (response.status_code, response.json) == (404, {"error": "There is nothing here.", "code": "NOT_FOUND"})
    assert [rule.rule for rule in app.url_map.iter_rules() if rule.rule == path] == []
