"""Errors: one shape on every path and method, which shows nothing internal."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, NoReturn, get_args

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import default_exceptions

from taskapi.database.models import db
from taskapi.errors import ApiError, Code
from tests.people import Person

NOT_FOUND = {"error": "There is nothing here.", "code": "NOT_FOUND"}
NOT_ALLOWED = {"error": "This path does not take that method.", "code": "INVALID_REQUEST"}
FAULT = {"error": "Something went wrong on our side.", "code": "INTERNAL_ERROR"}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "BREW-COFFEE"]

TASK = "/api/tasks/0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database: test_faults has PostgreSQL's own errors."""
    return sqlite_url


@pytest.fixture
def answer_to(make_app: Callable[..., Flask]) -> Callable[[Exception], Any]:
    """A function that has a view raise an exception, and returns the answer to the request."""
    raised: list[Exception] = []

    def broken() -> NoReturn:
        raise raised.pop()

    app = make_app()
    app.add_url_rule("/broken", view_func=broken)

    def answer_to(error: Exception) -> Any:
        raised.append(error)
        return app.test_client().get("/broken")

    return answer_to


@pytest.mark.parametrize("path", ["/", "/api", "/apix", "/nothing", "/API/tasks", "/healthz/x", "/api;/tasks"])
def test_unknown_path_answers_404(client: FlaskClient, path: str) -> None:
    """Every method gets 404; outside /api/ no token is needed."""
    answers = {method: client.open(path, method=method) for method in METHODS}

    assert {method: (404, "application/json", NOT_FOUND) for method in METHODS} == {
        method: (answer.status_code, answer.content_type, answer.json) for method, answer in answers.items()
    }


@pytest.mark.parametrize("path", ["/api/", "/api/nothing", "/api/tasksx", "/api//tasks", "/api/tasks/x/y"])
def test_unknown_path_under_api_answers_404(ana: Person, path: str) -> None:
    """Every method gets 404 with a token; test_guard.py tests callers without one."""
    answers = {method: ana.call(method, path) for method in METHODS}

    assert {method: (404, NOT_FOUND) for method in METHODS} == {
        method: (answer.status_code, answer.json) for method, answer in answers.items()
    }


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/tasks", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("/api/tasks/", {"GET", "HEAD", "OPTIONS", "POST"}),
        (TASK, {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "PUT"}),
        ("/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("/readyz", {"GET", "HEAD", "OPTIONS"}),
        ("/api/docs", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_wrong_method_answers_405(ana: Person, path: str, allowed: set[str]) -> None:
    """Allow names the methods of the path (RFC 9110 section 15.5.6)."""
    wrong = [method for method in METHODS if method not in allowed]

    answers = {method: ana.call(method, path) for method in wrong}

    assert {method: (405, NOT_ALLOWED, allowed) for method in wrong} == {
        method: (answer.status_code, answer.json, set(answer.headers["Allow"].split(", ")))
        for method, answer in answers.items()
    }


@pytest.mark.parametrize("path", ["/nothing", "/api/tasks/nothing", "/api/tasks?limit=0"])
def test_head_of_an_error_is_get_without_body(ana: Person, path: str) -> None:
    """HEAD gives GET's status and headers."""
    get, head = ana.call("GET", path), ana.call("HEAD", path)

    assert (head.status_code, head.data) == (get.status_code, b"")
    assert head.headers["Content-Length"] == str(len(get.data))


def test_unexpected_error_answers_500(answer_to: Callable[[Exception], Any]) -> None:
    """Its own words are not shown."""
    response = answer_to(RuntimeError("words from inside"))

    assert (response.status_code, response.json) == (500, FAULT)


def test_unexpected_error_answers_500_in_debug_mode(make_app: Callable[..., Flask]) -> None:
    """There is no debugger in the answer."""
    app = make_app(FLASK_DEBUG="1")
    app.add_url_rule("/broken", view_func=lambda: dict[str, str]()["words from inside"])

    response = app.test_client().get("/broken")

    assert (response.status_code, response.json) == (500, FAULT)


SENTENCES = {
    404: "There is nothing here.",
    405: "This path does not take that method.",
    409: "Conflict.",
    412: "This has changed since the version in If-Match.",
    413: "The body is larger than 64 KiB.",
    415: "Send the body as application/json.",
    418: "I'm a Teapot.",
    429: "Too Many Requests.",
    500: "Something went wrong on our side.",
    501: "Not Implemented.",
}


def code_of(status: int) -> str:
    """Return the code that the contract gives to a status that is raised without one."""
    if status in (401, 404):
        return {401: "UNAUTHORIZED", 404: "NOT_FOUND"}[status]
    return "INVALID_REQUEST" if status < 500 else "INTERNAL_ERROR"


def assert_shape(response: Any, status: int) -> None:
    """Fail if the answer is not an error of this status in the one shape."""
    assert (response.status_code, response.content_type) == (status, "application/json")
    assert list(response.json) == ["error", "code"]
    assert response.json["code"] == code_of(status)
    sentence = response.json["error"]
    assert sentence == SENTENCES.get(status, sentence)
    assert sentence.endswith(".") and "words from inside" not in sentence
    assert response.headers.get("Retry-After") == ("1" if status == 503 else None)


def test_api_error_of_any_status_has_the_one_shape(answer_to: Callable[[Exception], Any]) -> None:
    """A blueprint added tomorrow can raise a 409 without a line elsewhere."""
    for status in [status for status in HTTPStatus if status >= 400]:
        assert_shape(answer_to(ApiError(int(status))), status)


def test_abort_with_any_status_has_the_one_shape(answer_to: Callable[[Exception], Any]) -> None:
    """The exceptions that abort() raises get one of the eight codes, and lose their text."""
    for status, error in default_exceptions.items():
        assert_shape(answer_to(error("words from inside")), status)


def test_api_error_says_what_its_author_gives(answer_to: Callable[[Exception], Any]) -> None:
    """Code, message, details and headers go before those of the status."""
    details, headers = {"name": ["Give another name."]}, {"Retry-After": "9", "Content-Language": "en"}

    response = answer_to(ApiError(503, "DATABASE_ERROR", "The name is taken.", details, headers))

    assert response.status_code == 503
    assert response.json == {"error": "The name is taken.", "code": "DATABASE_ERROR", "details": details}
    assert (response.headers["Retry-After"], response.headers["Content-Language"]) == ("9", "en")


HEADERS: list[tuple[int, dict[str, Any], str, str]] = [
    (401, {"www_authenticate": WWWAuthenticate("digest", {"realm": "x"})}, "WWW-Authenticate", 'Digest realm="x"'),
    (405, {"valid_methods": ["GET", "LOCK"]}, "Allow", "GET, LOCK"),
    (416, {"length": 10}, "Content-Range", "bytes */10"),
    (429, {"retry_after": 7}, "Retry-After", "7"),
    (503, {"retry_after": 7}, "Retry-After", "7"),
]


def test_abort_keeps_its_headers(answer_to: Callable[[Exception], Any]) -> None:
    """A header tells the client what its status means."""
    for status, given, name, value in HEADERS:
        response = answer_to(default_exceptions[status](**given))

        assert (response.status_code, response.headers.getlist(name)) == (status, [value])
        assert response.json["code"] == code_of(status)


def test_codes_are_the_contracts() -> None:
    """Clients rely on these eight; no other is ever added."""
    assert set(get_args(Code)) == {
        "UNAUTHORIZED", "INVALID_TOKEN", "TOKEN_EXPIRED", "VALIDATION_ERROR",
        "INVALID_REQUEST", "NOT_FOUND", "INTERNAL_ERROR", "DATABASE_ERROR",
    }


@pytest.mark.own_database
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_fault_of_the_database_answers_500(
    app: Flask, ana: Person, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """A fault that does not pass is a 500; neither the answer nor the log holds SQL, values or the token."""
    with app.app_context(), db.session.begin():
        db.session.execute(text("DROP TABLE tasks"))

    response = ana.call(method, json={"title": "A private matter"} if method == "POST" else None)

    assert response.status_code == 500
    assert response.json == {"error": "Something went wrong on our side.", "code": "DATABASE_ERROR"}
    assert "Retry-After" not in response.headers
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    logged = str(vars(record))
    assert "engine.py" in logged
    inside = ["SELECT ", "INSERT INTO", "A private matter", "ana@example.com", ana.headers["Authorization"]]
    assert [secret for secret in inside if secret in logged] == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/tasks", '{"title": ', 400),
        ("/api/tasks", '{"title": "ana@example.com\\u0000"}', 400),
        ("/api/tasks?q=%00secret", None, 400),
        ("/api/tasks?limit=secret&cursor=secret", None, 400),
        ("/api/tasks/secret'--", None, 404),
    ],
)
def test_message_holds_no_value_that_was_sent(ana: Person, path: str, body: str | None, status: int) -> None:
    """A message is a fixed sentence: no value, path or token comes back in it."""
    method = "POST" if body else "GET"

    response = ana.call(method, path, data=body, headers={"Content-Type": "application/json"})

    assert response.status_code == status
    for secret in ("secret", "ana@example.com", "taskapi/", ana.headers["Authorization"]):
        assert secret not in response.text
