"""What every answer has: headers, a request id, HEAD, one spelling of each path."""

import re

import pytest
from flask.testing import FlaskClient

from tests.people import Person

TASK = "/api/tasks/0f8fad5b-d9cb-469f-a165-70867728950e"
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database: nothing here depends on which."""
    return sqlite_url


@pytest.mark.parametrize("path", ["/api/tasks", "/api/tasks/", TASK, "/api/tasks?limit=0", "/api/tasks/x/y"])
def test_tasks_are_private(ana: Person, path: str) -> None:
    """Shared caches don't store answers or errors, and browsers revalidate them."""
    headers = {method: ana.call(method, path).headers for method in METHODS}

    for name, value in (("Cache-Control", "private, no-cache"), ("X-Content-Type-Options", "nosniff")):
        assert {method: [value] for method in METHODS} == {method: got.getlist(name) for method, got in headers.items()}


def test_refused_requests_are_private(client: FlaskClient) -> None:
    """Shared caches don't store a 401."""
    assert client.get("/api/tasks").headers["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/api", "/api/openapi.json", "/api/docs", "/api/docs/x"])
def test_public_paths_are_nosniff(client: FlaskClient, path: str) -> None:
    """Browsers don't guess another media type. These paths are not private."""
    response = client.get(path)

    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers.get("Cache-Control") != "private, no-cache"


@pytest.mark.parametrize("path", ["/healthz", "/api/tasks", TASK, "/nothing", "/api/tasks?limit=0"])
def test_answers_vary_by_origin_once(ana: Person, path: str) -> None:
    """A cache must not give one origin's answer to another."""
    vary = {method: ana.call(method, path).headers.getlist("Vary") for method in METHODS}

    assert vary == {method: ["Origin"] for method in METHODS}


@pytest.mark.parametrize("path", ["/healthz", "/api/tasks", "/nothing"])
def test_request_id_is_taken_over(client: FlaskClient, path: str) -> None:
    """One id marks a request in the logs of every service that it passes."""
    given = ["a", "A-Za-z0-9._-", "0" * 128, "-" * 128]

    taken = [client.get(path, headers={"X-Request-ID": one}).headers.getlist("X-Request-ID") for one in given]

    assert taken == [[one] for one in given]


def test_bad_request_id_is_replaced(client: FlaskClient) -> None:
    """An id with other characters, or with more than 128, is not taken over."""
    given = ["", " ", "0" * 129, "a b", "a\t", "a,b", "a/b", 'a"b', "<b>", "\xe9", "\xb2", "\xd9\xa3", "a;b", "{}"]

    made = [client.get("/healthz", headers={"X-Request-ID": one}).headers["X-Request-ID"] for one in given]

    assert [one for one in made if not re.fullmatch("[0-9a-f]{32}", one)] == []


@pytest.mark.parametrize("given", ["a\n", "a\r\n", "\na", "a\nb", "a\0"])
def test_request_id_with_a_line_end_is_replaced(client: FlaskClient, given: str) -> None:
    """The id is replaced even if the server lets the line end through."""
    response = client.get("/healthz", environ_overrides={"HTTP_X_REQUEST_ID": given})

    assert re.fullmatch("[0-9a-f]{32}", response.headers["X-Request-ID"])


def test_made_request_ids_differ(client: FlaskClient) -> None:
    """A request without an id gets its own."""
    first, second = (client.get("/healthz").headers["X-Request-ID"] for _ in range(2))

    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second


def test_trailing_slash_is_the_same_list(ana: Person) -> None:
    """/api/tasks/ answers itself: a redirect would lose the body."""
    response = ana.call("POST", "/api/tasks/", json={"title": "Water the plants"})

    assert response.status_code == 201
    assert response.headers["Location"] == f"/api/tasks/{response.get_json()['id']}"
    assert ana.call("GET", "/api/tasks/").json == ana.call("GET", "/api/tasks").json == [response.json]


@pytest.mark.parametrize("path", ["/api//tasks", "/api/tasks//", "/./api/tasks", "/api/tasks/."])
def test_other_spellings_answer_404(ana: Person, path: str) -> None:
    """A path has one spelling; no other redirects to it."""
    response = ana.call("GET", path)

    assert (response.status_code, response.get_json()["code"]) == (404, "NOT_FOUND")
    assert "Location" not in response.headers


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/api/tasks", "/api/tasks/", "/api/tasks?limit=1", "task"])
def test_head_is_get_without_body(ana: Person, path: str) -> None:
    """HEAD has GET's status and headers, the length of the body included."""
    task, _ = ana.make(), ana.make()
    path = f"/api/tasks/{task['id']}" if path == "task" else path
    same_id = {"X-Request-ID": "same"}

    get, head = ana.call("GET", path, headers=same_id), ana.call("HEAD", path, headers=same_id)

    assert (head.status_code, head.data) == (200, b"")
    assert get.data != b""
    assert dict(head.headers) == dict(get.headers)


def test_json_is_utf_8(ana: Person) -> None:
    """Text goes over the wire as it is, without escapes."""
    task = ana.make(title="Grüße, 世界 🌍")

    response = ana.call("GET", f"/api/tasks/{task['id']}")

    assert response.content_type == "application/json"
    assert '"Grüße, 世界 🌍"'.encode() in response.data
