"""Errors: one shape on every path and method, that says nothing about the inside."""

from collections.abc import Callable
from typing import NoReturn

import pytest
from flask import Flask, abort
from flask.testing import FlaskClient
from sqlalchemy import text

from taskapi.database.models import db
from tests.people import Person

NOT_FOUND = {"error": "There is nothing here.", "code": "NOT_FOUND"}
NOT_ALLOWED = {"error": "This path does not take that method.", "code": "INVALID_REQUEST"}
NO_TOKEN = {"error": "Send a bearer token.", "code": "UNAUTHORIZED"}
OTHER = "The request can't be taken."
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "PROPFIND", "BREW-COFFEE"]

TASK = "/api/tasks/0f8fad5b-d9cb-469f-a165-70867728950e"
OUTSIDE = ["/", "/api", "/api/", "/nothing", "/api/tasksx", "/API/tasks", "/api//tasks", "/healthz/x"]
UNDER = ["/api/tasks//", "/api/tasks/x/y", "/api/tasks/x/", "/api/tasks/%2e%2e/users", "/api/tasks/%FF"]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database: test_faults has PostgreSQL's own errors."""
    return sqlite_url


@pytest.mark.parametrize("path", OUTSIDE)
def test_unknown_path_answers_404(client: FlaskClient, path: str) -> None:
    """No path, no method and no missing token leads to anything but the one shape."""
    responses = [client.open(path, method=method) for method in METHODS]

    assert [response.status_code for response in responses] == [404] * len(METHODS)
    assert [response.json for response in responses] == [NOT_FOUND] * len(METHODS)
    assert {response.content_type for response in responses} == {"application/json"}


@pytest.mark.parametrize("path", UNDER)
def test_unknown_path_under_tasks_answers_404(ana: Person, path: str) -> None:
    """To somebody with a token, a path that is none says so."""
    response = ana.call("GET", path)

    assert (response.status_code, response.json) == (404, NOT_FOUND)


@pytest.mark.parametrize("path", [*UNDER, "/api/tasks", "/api/tasks/", TASK])
def test_nothing_under_tasks_answers_without_token(client: FlaskClient, path: str) -> None:
    """Somebody without a token does not learn which paths and methods there are."""
    responses = [client.open(path, method=method) for method in METHODS]

    assert [response.status_code for response in responses] == [401] * len(METHODS)
    assert [response.json for response in responses] == [NO_TOKEN] * len(METHODS)
    assert not any("Allow" in response.headers for response in responses)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/tasks", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("/api/tasks/", {"GET", "HEAD", "OPTIONS", "POST"}),
        (TASK, {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "PUT"}),
        ("/healthz", {"GET", "HEAD", "OPTIONS"}),
        ("/readyz", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_wrong_method_answers_405(ana: Person, path: str, allowed: set[str]) -> None:
    """A 405 says which methods there are (RFC 9110 section 15.5.6)."""
    wrong = [method for method in METHODS if method not in allowed]

    responses = [ana.call(method, path) for method in wrong]

    assert [response.status_code for response in responses] == [405] * len(wrong)
    assert [response.json for response in responses] == [NOT_ALLOWED] * len(wrong)
    assert [set(response.headers["Allow"].split(", ")) for response in responses] == [allowed] * len(wrong)


@pytest.mark.parametrize("path", ["/nothing", "/api/tasks/nothing", "/api/tasks?limit=0"])
def test_head_of_an_error_is_get_without_body(ana: Person, path: str) -> None:
    """HEAD tells what GET would, in headers."""
    get, head = ana.call("GET", path), ana.call("HEAD", path)

    assert (head.status_code, head.data) == (get.status_code, b"")
    assert head.headers["Content-Length"] == str(len(get.data))


@pytest.mark.parametrize("debug", ["0", "1"])
def test_unexpected_error_answers_500(make_app: Callable[..., Flask], debug: str) -> None:
    """A fault of ours is told without its words, in debug mode too."""
    app = make_app(FLASK_DEBUG=debug)

    @app.route("/broken")
    def broken() -> NoReturn:
        raise RuntimeError("words from inside")

    response = app.test_client().get("/broken")

    assert response.status_code == 500
    assert response.json == {"error": "Something went wrong on our side.", "code": "INTERNAL_ERROR"}


@pytest.mark.parametrize(
    ("status", "code", "sentence"),
    [
        (418, "INVALID_REQUEST", OTHER),
        (429, "INVALID_REQUEST", OTHER),
        (500, "INTERNAL_ERROR", "Something went wrong on our side."),
        (501, "INTERNAL_ERROR", OTHER),
    ],
)
def test_abort_answers_in_the_one_shape(app: Flask, client: FlaskClient, status: int, code: str, sentence: str) -> None:
    """Whatever werkzeug raises has one of the eight codes, and none of werkzeug's words."""

    @app.route("/broken")
    def broken() -> NoReturn:
        abort(status, description="words from inside")

    response = client.get("/broken")

    assert (response.status_code, response.json) == (status, {"error": sentence, "code": code})


@pytest.mark.own_database
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_fault_of_the_database_answers_500(
    app: Flask, ana: Person, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """What waiting does not help is a 500; neither the answer nor the log holds SQL, values or the token."""
    with app.app_context(), db.session.begin():
        db.session.execute(text("DROP TABLE tasks"))

    response = ana.call(method, json={"title": "Nobody's business"} if method == "POST" else None)

    assert response.status_code == 500
    assert response.json == {"error": "Something went wrong on our side.", "code": "DATABASE_ERROR"}
    assert "Retry-After" not in response.headers
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    logged = str(vars(record))
    assert "database.py" in logged
    inside = ["SELECT ", "INSERT INTO", "Nobody's business", "ana@example.com", ana.headers["Authorization"]]
    assert [secret for secret in inside if secret in logged] == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/tasks", '{"title": ', 400),
        ("/api/tasks", '{"title": "ana@example.com\\u0000"}', 400),
        ("/api/tasks?q=%00secret", None, 400),
        ("/api/tasks/secret'--", None, 404),
    ],
)
def test_message_holds_nothing_that_was_sent(ana: Person, path: str, body: str | None, status: int) -> None:
    """A message is a fixed sentence: no value, path or token comes back in it."""
    method = "POST" if body else "GET"

    response = ana.call(method, path, data=body, headers={"Content-Type": "application/json"})

    assert response.status_code == status
    for secret in ("secret", "ana@example.com", "taskapi/", ana.headers["Authorization"]):
        assert secret not in response.text
