"""docs/nginx.conf, as it is but for addresses and paths, before two real instances on PostgreSQL."""

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

import psycopg2
import pytest

from tests.nginx import Answer, Client, HangsUp, Nginx, free_port, instance, nginx, serve_some, writing
from tests.servers import PATIENCE, closed_port

pytestmark = pytest.mark.slow

# What docs/nginx.conf lets one client have: requests at once, requests/s, and requests under way.
AT_ONCE, RATE, UNDER_WAY = 101, 50, 100
PRIVATE = ["/", "/api", "/readyz", "/readyz/", "/metrics", "/metrics/", "/api/../metrics", "//metrics", "/%6detrics"]
LIMIT = {"error": "Too many requests; try again.", "code": "INVALID_REQUEST"}
NOTHING = {"error": "There is nothing here.", "code": "NOT_FOUND"}
TOO_LARGE = {"error": "The body is larger than 64 KiB.", "code": "INVALID_REQUEST"}
BAD = {"error": "Bad Request.", "code": "INVALID_REQUEST"}
AWAY = {"error": "The service is not available; try again.", "code": "INTERNAL_ERROR"}


@pytest.fixture
def folders(tmp_path: Path) -> Callable[[], Path]:
    """Make folders to serve from."""
    numbers = count()

    def make() -> Path:
        path = tmp_path / str(next(numbers))
        path.mkdir()
        return path

    return make


@pytest.fixture
def behind(folders: Callable[[], Path], postgresql_url: str) -> Iterator[Nginx]:
    """Nginx before one instance; the other one is down."""
    port = free_port()
    with instance(folders(), port, postgresql_url), closed_port() as down, nginx(folders(), down, port) as server:
        yield server


def test_restart_of_one_instance_fails_no_request(folders: Callable[[], Path], postgresql_url: str) -> None:
    """Under 200 requests/s, SIGTERM and a new start cost no client an answer, and nothing is lost or doubled."""
    first, second = free_port(), free_port()
    with ExitStack() as stack:
        server = stack.enter_context(nginx(folders(), first, second))
        old = stack.enter_context(instance(folders(), first, postgresql_url))
        other = stack.enter_context(instance(folders(), second, postgresql_url))
        with writing(server, 8) as writers:  # ends before the instances do: those are left by a SIGINT, which cuts off
            serve_some(old)
            serve_some(other)

            old.process.terminate()
            assert old.process.wait(PATIENCE) == 0
            serve_some(stack.enter_context(instance(folders(), first, postgresql_url)))

    assert [] == [failure for writer in writers for failure in writer.failed]
    acknowledged = {task: title for writer in writers for task, title in writer.tasks.items()}
    with closing(psycopg2.connect(postgresql_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id::text, title FROM tasks")
        assert acknowledged == dict(cursor.fetchall())


def test_request_that_finds_no_server_goes_to_the_other(behind: Nginx) -> None:
    """A POST without an id, too: it has not been sent to any server yet."""
    with behind.client(1) as ana:
        assert [201] * 8 == [ana.ask("POST", body={"title": "Water the plants"}).status for _ in range(8)]
        assert len(ana.ask("GET").body) == 8


@pytest.mark.parametrize(
    ("method", "path", "times"),
    [("POST", "", 1), ("POST", "/", 1), ("GET", "", 2), ("PUT", "/1", 2), ("PATCH", "/1", 2), ("DELETE", "/1", 2)],
)
def test_sent_request_without_answer_is_repeated_unless_it_makes_a_task(
    folders: Callable[[], Path], method: str, path: str, times: int
) -> None:
    """A POST may have been done and may have no id: only its client knows; the others set what they name."""
    with HangsUp() as one, HangsUp() as other:
        with nginx(folders(), one.server_address[1], other.server_address[1]) as server, server.client(1) as ana:
            answer = ana.ask(method, f"/api/tasks{path}", {"title": "Feed the cat"} if method[0] == "P" else None)

        assert (502, AWAY, times) == (answer.status, answer.body, one.requests + other.requests)
        assert answer.headers["retry-after"] == "1"


def test_client_with_too_many_requests_gets_429(behind: Nginx) -> None:
    """In the service's shape, readable by its page; a client at another address notices nothing."""
    with behind.client(1) as ana, behind.client(2) as ben:
        began = time.monotonic()
        answers = [ana.ask("GET", "/healthz", Origin="https://app.example.com") for _ in range(400)]
        served = [answer.status for answer in answers].count(200)
        bodies = {(answer.status, *answer.body.items()) for answer in answers}

        assert {(200, ("status", "ok")), (429, *LIMIT.items())} == bodies
        assert AT_ONCE <= served <= AT_ONCE + RATE * (time.monotonic() - began)
        assert [200] * AT_ONCE == [answer.status for answer in answers[:AT_ONCE]]
        refusal = next(answer.headers for answer in answers if answer.status == 429)
        assert refusal["content-type"] == "application/json"
        assert refusal["retry-after"] == "1"
        assert refusal["vary"] == "Origin"
        assert refusal["access-control-allow-origin"] == "https://app.example.com"
        assert refusal["access-control-expose-headers"] == "Retry-After, X-Request-ID"
        assert refusal["x-content-type-options"] == "nosniff"
        assert len(refusal["x-request-id"]) == 32
        assert ben.ask("GET", "/healthz").status == 200


def test_client_with_too_many_connections_gets_429(behind: Nginx) -> None:
    """Those who send their bodies slowly, or never, count."""
    with ExitStack() as stack:
        for _ in range(UNDER_WAY):
            slow = stack.enter_context(behind.client(1)).connection
            slow.putrequest("POST", "/api/tasks")
            slow.putheader("Content-Length", "20")
            slow.endheaders()
        ana, ben = stack.enter_context(behind.client(1)), stack.enter_context(behind.client(2))

        answer = until_refused(ana)

        assert (429, LIMIT) == (answer.status, answer.body)
        assert (200, {"status": "ok"}) == ben.ask("GET", "/healthz")[::2]


def until_refused(client: Client) -> Answer:
    """Ask until nginx has read what the others sent."""
    deadline = time.monotonic() + 5
    while (answer := client.ask("GET", "/healthz")).status == 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


def test_what_is_not_for_the_public_is_not_there(behind: Nginx) -> None:
    """Readiness and figures are for the machines' own network."""
    with behind.client(1) as ana:
        answers = {path: ana.ask("GET", path) for path in PRIVATE}

    assert dict.fromkeys(PRIVATE, (404, NOTHING)) == {path: each[::2] for path, each in answers.items()}


def test_what_passes_is_what_the_service_says(behind: Nginx) -> None:
    """Request ids, and strong ETags with any encoding that the client takes."""
    task = {"title": "Water the plants", "description": "All but the cactus.\n" * 100}
    with behind.client(1) as ana:
        path = ana.ask("POST", body=task).headers["location"]
        answer = ana.ask("GET", path, X_Request_ID="mine", Accept_Encoding="gzip")
        assert (200, "mine") == (answer.status, answer.headers["x-request-id"])
        assert f'"{answer.body["updated_at"]}"' == answer.headers["etag"]
        assert len(ana.ask("GET", X_Request_ID="not mine").headers["x-request-id"]) == 32


def test_too_large_a_request_is_refused_in_one_shape(behind: Nginx) -> None:
    """By the service up to what nginx takes, then by nginx, in the same words."""
    for kilobytes in (65, 127, 129):
        with behind.client(1) as ana:
            assert (413, TOO_LARGE) == ana.ask("POST", body={"title": "a" * kilobytes * 1024})[::2]
    with behind.client(1) as ana:
        assert (400, BAD) == ana.ask("GET", "/healthz", Cookie="a" * 40000)[::2]


@pytest.mark.parametrize(
    ("line", "status", "body"),
    [
        ("GET /api/%00 HTTP/1.1", 400, BAD),
        ("GET /api/ta sks HTTP/1.1", 400, BAD),
        ("CONNECT a:1 HTTP/1.1", 400, BAD),
        (f"GET /api/tasks?q={'a' * 9000} HTTP/1.1", 414, BAD),
    ],
    ids=["NUL", "space", "CONNECT", "long"],
)
def test_unreadable_request_is_refused_in_one_shape(behind: Nginx, line: str, status: int, body: object) -> None:
    """Also one of which nginx could not read the first line."""
    context = ssl.create_default_context(cafile=str(behind.certificate))
    with socket.create_connection(("127.0.0.1", behind.port), PATIENCE) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
            connection.sendall(f"{line}\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            head, _, content = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")

    assert (int(head.split()[1]), json.loads(content)) == (status, body)
