"""CORS: the origins of FRONTEND_URL get through, and no other."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.people import Person

HOME = "http://localhost:3000"
EXPOSED = {"ETag", "Link", "Location", "Retry-After", "X-Request-ID"}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database: nothing here depends on which."""
    return sqlite_url


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """The service for pages of one origin."""
    return make_app(FRONTEND_URL=HOME)


def cors_headers(response: TestResponse) -> dict[str, str]:
    """Return the headers of CORS."""
    return {name: value for name, value in response.headers if name.startswith("Access-Control-")}


def preflight(app: Flask, path: str, origin: str = HOME, method: str = "PUT", headers: str = "") -> TestResponse:
    """Ask as a browser does before a request with a token."""
    asked = {"Origin": origin, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": headers}
    return app.test_client().options(path, headers=asked)


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/", "/api/tasks/0f8fad5b-d9cb-469f-a165-70867728950e"])
def test_preflight_needs_no_token(app: Flask, path: str) -> None:
    """A browser sends none with it."""
    responses = [preflight(app, path, method=method) for method in METHODS]

    assert {(response.status_code, response.headers["Access-Control-Allow-Origin"]) for response in responses} == {
        (200, HOME)
    }
    for response in responses:
        assert set(response.headers["Access-Control-Allow-Methods"].split(", ")) == set(METHODS)
        assert int(response.headers["Access-Control-Max-Age"]) > 0


@pytest.mark.parametrize(
    "asked",
    ["authorization", "content-type", "if-match", "if-none-match", "x-request-id", "authorization,if-match"],
)
def test_preflight_allows_the_headers_of_the_contract(app: Flask, asked: str) -> None:
    """A page may send the headers that the service reads; browsers ask in lower case."""
    allowed = preflight(app, "/api/tasks", headers=asked).headers["Access-Control-Allow-Headers"]

    assert set(allowed.lower().split(", ")) == set(asked.split(","))


def test_preflight_allows_no_other_header(app: Flask) -> None:
    """The service reads no others."""
    asked = "x-user-id, cookie, authorization"

    allowed = preflight(app, "/api/tasks", headers=asked).headers["Access-Control-Allow-Headers"]

    assert allowed.lower() == "authorization"


def test_page_can_read_the_answer(ana: Person) -> None:
    """It can read the headers, too; no cookies are allowed."""
    response = ana.call("GET", headers={"Origin": HOME})

    headers = cors_headers(response)
    assert set(headers.pop("Access-Control-Expose-Headers").split(", ")) == EXPOSED
    assert headers == {"Access-Control-Allow-Origin": HOME}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/tasks?limit=0", 400),
        ("GET", "/nothing", 404),
        ("DELETE", "/api/tasks", 405),
        ("GET", "/broken", 500),
    ],
)
def test_page_can_read_errors(app: Flask, ana: Person, method: str, path: str, status: int) -> None:
    """Without the header a browser would hide the error from the page."""
    app.add_url_rule("/broken", view_func=lambda: dict[str, str]()["missing"])

    response = ana.call(method, path, headers={"Origin": HOME})

    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (status, HOME)
    assert set(response.headers["Access-Control-Expose-Headers"].split(", ")) == EXPOSED


def test_page_can_read_a_refusal(client: FlaskClient) -> None:
    """A page can tell that its token has expired."""
    response = client.get("/api/tasks", headers={"Origin": HOME})

    assert (response.status_code, response.headers["Access-Control-Allow-Origin"]) == (401, HOME)


def test_each_of_several_origins_is_allowed(make_app: Callable[..., Flask]) -> None:
    """FRONTEND_URL takes several, separated by commas; an answer names only the one that asks."""
    origins = [HOME, "https://app.example.com", "https://app.example.com:8443", "http://[::1]:3000", "http://127.0.0.1"]
    client = make_app(FRONTEND_URL=" ,  ".join(origins)).test_client()

    responses = [client.get("/healthz", headers={"Origin": origin}) for origin in origins]

    assert [response.headers.getlist("Access-Control-Allow-Origin") for response in responses] == [
        [origin] for origin in origins
    ]
    assert {tuple(response.headers.getlist("Vary")) for response in responses} == {("Origin",)}


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "*",
        "",
        "https://evil.example",
        "https://App.example.com",
        "HTTPS://app.example.com",
        "http://app.example.com",
        "https://app.example.com:443",
        "https://app.example.com/",
        "https://app.example.com.evil.example",
        "https://evil-app.example.com",
        "https://sub.app.example.com",
        "https://appxexample.com",
        "https://app.example.co",
        "https://app.example.com https://evil.example",
        "http://[::1]:3001",
        "http://:",
        "http://::1:3000",
    ],
)
def test_other_origin_gets_no_cors_header(make_app: Callable[..., Flask], origin: str) -> None:
    """An origin is matched exactly. Vary still tells caches that the answer depends on it."""
    app = make_app(FRONTEND_URL="https://app.example.com,http://[::1]:3000")

    answers = [
        preflight(app, "/api/tasks", origin),
        app.test_client().get("/healthz", headers={"Origin": origin}),
        app.test_client().get("/api/tasks", headers={"Origin": origin}),
    ]

    assert [cors_headers(answer) for answer in answers if cors_headers(answer)] == []
    assert {tuple(answer.headers.getlist("Vary")) for answer in answers} == {("Origin",)}


def test_request_without_origin_gets_no_cors_header(client: FlaskClient) -> None:
    """Only browsers send an origin."""
    response = client.get("/healthz")

    assert cors_headers(response) == {}
    assert response.headers.getlist("Vary") == ["Origin"]


DEVELOPMENT = ["http://localhost:3000", "http://localhost:5173"]


@pytest.mark.parametrize(("debug", "allowed"), [("1", DEVELOPMENT), ("0", [])], ids=["debug mode", "outside it"])
def test_default_origins(make_app: Callable[..., Flask], debug: str, allowed: list[str]) -> None:
    """Without FRONTEND_URL, debug mode allows the pages of Next.js and Vite on this machine, and else none."""
    app = make_app(FLASK_DEBUG=debug)
    asked = [*DEVELOPMENT, "http://localhost:5000", "http://127.0.0.1:3000"]

    answers = {origin: preflight(app, "/api/tasks", origin) for origin in asked}

    assert [origin for origin, answer in answers.items() if cors_headers(answer)] == allowed
