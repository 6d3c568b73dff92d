"""The service as it runs in production: gunicorn with its configuration."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import psutil
import psycopg2
import pytest

from tests.people import SECRET, make_token
from tests.servers import BIN, PATIENCE, Server, copy_project, restart, restartable_postgresql, run, serving
from tests.test_faults import OWN_CONNECTIONS

pytestmark = pytest.mark.slow

BEARER = f"Bearer {make_token(email='ana@example.com')}"
FIELDS = f"Host: test\r\nContent-Type: application/json\r\nAuthorization: {BEARER}\r\n".encode()
HEAD = b"POST /api/tasks HTTP/1.1\r\nConnection: close\r\n" + FIELDS
TASK = b'{"title": "Water the plants"}'
TOO_LARGE = ("The body is larger than 64 KiB.", "INVALID_REQUEST")
NO_JSON = ("Send a JSON object in UTF-8.", "INVALID_REQUEST")
BAD_TOKEN = ("The token is not valid.", "INVALID_TOKEN")


@pytest.fixture
def server(tmp_path: Path, postgresql_url: str) -> Iterator[Server]:
    """A master with one worker; its settings are in .env."""
    (copy_project(tmp_path) / ".env").write_text(f"JWT_SECRET={SECRET}\nDATABASE_URL={postgresql_url}\n")
    with serving("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app", cwd=tmp_path, HOME=str(tmp_path)) as server:
        yield server


def chunked(body: bytes) -> bytes:
    """Return the body as one chunk, and the header that says so."""
    return b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


def sized(body: bytes, length: int | None = None) -> bytes:
    """Return the body, and a header that may be wrong about its length."""
    return b"Content-Length: %d\r\n\r\n%b" % (len(body) if length is None else length, body)


def test_it_serves_until_it_is_told_to_stop(server: Server, tmp_path: Path) -> None:
    """A task comes back as it was made; SIGTERM ends the process in order, and nothing is left of it."""
    assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})
    status, task = server.fetch("POST", "/api/tasks", {"title": "Water the plants"}, Authorization=BEARER)
    assert (status, task["title"]) == (201, "Water the plants")
    assert server.fetch("GET", "/api/tasks", Authorization=BEARER) == (200, [task])
    with open("/proc/net/unix") as sockets:
        assert str(tmp_path) not in sockets.read()

    server.process.terminate()

    assert server.process.wait(PATIENCE) == 0
    assert "Using worker: Worker" in server.stdout.read_text()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port)).close()
    made = {path.name for path in tmp_path.rglob("*") if not path.is_symlink()}
    assert made == {"wsgi.py", "gunicorn.conf.py", ".flaskenv", ".env", "stdout", "stderr"}


def test_odd_requests(server: Server) -> None:
    """What no client library would send is answered in the one shape, or taken as it is meant."""
    padding = b" " * 65536
    requests = {
        "chunked": HEAD + chunked(TASK),
        "chunked and too large": HEAD + chunked(TASK + padding),
        "chunked and endless": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n%b\r\n" % (b" " * 1024) * 100,
        "chunked and cut": HEAD + b"Transfer-Encoding: chunked\r\n\r\n400\r\n" + TASK,
        "badly chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        "just not too large": HEAD + sized(TASK + padding[len(TASK) :]),
        "too large by a byte": HEAD + sized(TASK + padding[len(TASK) :] + b" "),
        "said to be too large": HEAD + sized(b"", 1_000_000),
        "longer than sent": HEAD + sized(TASK[:-5], len(TASK)),
        "longer than sent, but whole": HEAD + sized(TASK, len(TASK) + 10),
        "shorter than sent": HEAD + sized(TASK, 10),
        "no length": HEAD + b"\r\n",
        "two tokens": HEAD + f"Authorization: {BEARER}\r\n".encode() + sized(TASK),
        "token in another's shadow": HEAD + b"Authorization: Basic eDp5\r\n" + sized(TASK),
        "malformed host": b"GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: ..\r\n\r\n",
        "mounted by the client": b"GET /x/healthz HTTP/1.1\r\nConnection: close\r\nHost: x\r\nSCRIPT_NAME: /x\r\n\r\n",
    }

    answers = {}
    for name, request in requests.items():
        status, body = server.send(request)
        answers[name] = (status, body.get("title") or (body["error"], body["code"]))

    assert answers == {
        "chunked": (201, "Water the plants"),
        "chunked and too large": (413, TOO_LARGE),
        "chunked and endless": (413, TOO_LARGE),
        "chunked and cut": (400, NO_JSON),
        "badly chunked": (400, NO_JSON),
        "just not too large": (201, "Water the plants"),
        "too large by a byte": (413, TOO_LARGE),
        "said to be too large": (413, TOO_LARGE),
        "longer than sent": (400, NO_JSON),
        "longer than sent, but whole": (400, NO_JSON),
        "shorter than sent": (400, NO_JSON),
        "no length": (400, NO_JSON),
        "two tokens": (401, BAD_TOKEN),
        "token in another's shadow": (401, BAD_TOKEN),
        "malformed host": (400, ("Bad Request.", "INVALID_REQUEST")),
        "mounted by the client": (404, ("There is nothing here.", "NOT_FOUND")),
    }


@pytest.mark.parametrize("size", [70_000, 1_000_000, 10_000_000])
def test_client_that_sends_all_before_it_reads_gets_413(server: Server, size: int) -> None:
    """Its connection is not reset under the answer; and it is in order for the next request."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        for body, status in ((b" " * size, 413), (TASK, 201)):
            headers = {"Authorization": BEARER, "Content-Type": "application/json"}
            connection.request("POST", "/api/tasks", body, headers)
            response = connection.getresponse()
            response.read()

            assert response.status == status


@pytest.mark.parametrize("size", [20_000, 130_000, 1_000_000])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_connection_that_ends_is_not_reset_under_the_answer(server: Server, version: str, size: int) -> None:
    """The service does not read the body of a 401; nginx by default speaks HTTP/1.0 and sends up to 1 MB of it."""
    head = f"POST /api/tasks HTTP/{version}\r\nHost: test\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(head.encode() + b" " * size)
        answer = read_all(client)

    assert answer.split()[1] == b"401"
    assert answer.endswith(b"}")


def read_all(client: socket.socket) -> bytes:
    """Return what comes until the server closes; raise ConnectionResetError."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def test_response_is_sent_at_once(server: Server) -> None:
    """Head and body come in one piece: a second system call would take 8 % of a small request."""
    pieces = []
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        for _ in range(100):
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
            pieces.append(client.recv(65536))

    assert {piece.partition(b"\r\n\r\n")[2].strip() for piece in pieces} == {b'{"status":"ok"}'}


def test_large_answer_and_answer_without_body(server: Server) -> None:
    """A page of tasks that is larger than the buffer comes whole; HEAD's answer is not kept back."""
    for number in range(12):
        task = {"title": f"Task {number}", "description": "\N{CACTUS}" * 2000}
        assert server.fetch("POST", "/api/tasks", task, Authorization=BEARER)[0] == 201
    status, tasks = server.fetch("GET", "/api/tasks", Authorization=BEARER)
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.request("HEAD", "/healthz")

        assert connection.getresponse().status == 200
    assert (status, len(tasks)) == (200, 12)


def test_file_comes_after_its_head(tmp_path: Path) -> None:
    """gunicorn would send a file past the buffer where its head waits."""
    service = (
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Length', '4')])\n"
        "    return environ['wsgi.file_wrapper'](open('file', 'rb'))\n"
    )
    (copy_project(tmp_path) / "wsgi.py").write_text(service)
    (tmp_path / "file").write_text("file")
    settings = {"JWT_SECRET": SECRET, "DATABASE_URL": f"sqlite:///{tmp_path}/none"}
    with serving("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app", cwd=tmp_path, **settings) as server:
        with urlopen(f"http://127.0.0.1:{server.port}/", timeout=PATIENCE) as response:
            assert response.read() == b"file"


@pytest.mark.parametrize(
    ("opening", "flood"),
    [
        (b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 100),
        (b"POST /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n" * 5000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1;%b\r\na\r\n" % (b"x" * 8000) * 20),
        (b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", b"a" * 65536),
    ],
    ids=["requests", "chunks", "chunk extensions", "body"],
)
def test_client_that_sends_without_end_leaves_others_served(server: Server, opening: bytes, flood: bytes) -> None:
    """One connection per core would otherwise be enough to stop the service."""
    enough = Event()

    def send() -> None:
        while not enough.is_set():
            with socket.create_connection(("127.0.0.1", server.port)) as client, suppress(OSError):
                reader = Thread(target=read_away, args=[client])
                reader.start()
                client.sendall(opening)
                while not enough.is_set():
                    client.sendall(flood)
                client.shutdown(socket.SHUT_RDWR)
            reader.join()

    sender = Thread(target=send)
    sender.start()
    try:
        began = time.monotonic()
        assert [(200, {"status": "ok"})] * 10 == [server.fetch("GET", "/healthz") for _ in range(10)]
        assert time.monotonic() - began < PATIENCE  # 0.2 s; 48 s if all requests of a packet kept their turn
    finally:
        enough.set()
        sender.join()


def read_away(client: socket.socket) -> None:
    """Read until the server closes."""
    with suppress(OSError):
        while client.recv(65536):
            pass


REFUSED = {
    "length and chunks": (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "InvalidHeader"),
    "chunks and length": (b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "InvalidHeader"),
    "chunked twice": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "InvalidHeader"),
    "chunked, then more": (b"Transfer-Encoding: chunked, gzip\r\n", "InvalidHeader"),
    "two lengths": (b"Content-Length: 5\r\nContent-Length: 6\r\n", "InvalidHeader"),
    "length with a plus": (b"Content-Length: +5\r\n", "InvalidHeader"),
    "negative length": (b"Content-Length: -5\r\n", "InvalidHeader"),
    "folded line": (b"Transfer-Encoding:\r\n chunked\r\n", "(InvalidHeader|ObsoleteFolding)"),
    "space before the colon": (b"Content-Length : 5\r\n", "InvalidHeaderName"),
    "NUL": (b"A: b\0c\r\n", "InvalidHeader"),
    "bare LF": (b"A: b\nContent-Length: 5\r\n", "Invalid(Header|RequestLine)"),
    "bare CR": (b"A: b\rContent-Length: 5\r\n", "Invalid(Header|RequestLine)"),
    "two hosts": (b"Host: other\r\n", "InvalidHeader"),
    "unknown expectation": (b"Expect: more\r\n", "ExpectationFailed"),
}


def test_requests_that_two_servers_could_read_differently_are_refused(server: Server) -> None:
    """The connection ends there, so that what follows is no second request; the log names the rule that was broken."""
    for name, (fields, reason) in REFUSED.items():
        before = len(server.stdout.read_text())
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
            client.sendall(b"POST /healthz HTTP/1.1\r\nHost: test\r\n" + fields)
            client.sendall(b"\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
            answer = read_all(client)

        assert answer.count(b"HTTP/1.1 ") == 1, name
        assert answer.split()[1] in (b"400", b"417"), name
        lines = server.stdout.read_text()[before:]
        assert re.search(f'"Invalid request from ip=127.0.0.1: {reason}"', lines), name


@pytest.mark.parametrize(
    ("request_line", "fields", "status", "limit"),
    [
        (b"GET /healthz", b"A: b\r\n" * 99, b"200", None),
        (b"GET /healthz", b"Secret: b\r\n" * 100, b"431", "headers"),
        (b"GET /healthz", b"Secret: " + b"b" * 9000 + b"\r\n", b"431", "size"),
        (b"GET /healthz?q=Secret" + b"b" * 5000, b"", b"414", "line"),
    ],
    ids=["100 headers", "101 headers", "long header", "long line"],
)
def test_limit_is_named(server: Server, request_line: bytes, fields: bytes, status: bytes, limit: str | None) -> None:
    """A browser behind two proxies sends 51 headers. The log says which limit was hit, not what hit it."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(request_line + b" HTTP/1.1\r\nHost: test\r\n" + fields + b"\r\n")

        assert client.recv(65536).split()[1] == status
    log = server.stdout.read_text()
    assert "Secret" not in log
    told = re.search('"Invalid request from ip=127.0.0.1: (.*?)"', log)
    assert (told is None) if limit is None else (told is not None and limit in told[1].lower())


def test_refused_request_is_not_logged(server: Server) -> None:
    """What gunicorn itself refuses may hold a token in the wrong place, or the body of a task."""
    requests = [
        f"GET /api/tasks HTTP/1.1\r\nAuthorization {BEARER}\r\n\r\n".encode(),
        b"POST /nope HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nWater the plants\r\n",
        b"POST /api/tasks HTTP/1.1\r\n" + FIELDS + b"Transfer-Encoding: chunked\r\n\r\nWater the plants\r\n",
    ]
    for request in requests:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(request)
            read_away(client)

    log = server.stderr.read_text() + server.stdout.read_text()
    assert "Invalid request from ip=127.0.0.1: InvalidChunkSize" in log
    assert [] == [secret for secret in (BEARER, "Water", "Traceback") if secret in log]


def test_request_that_fails_in_gunicorn_is_not_logged(tmp_path: Path) -> None:
    """An error's message may quote the request; its name and its stack do not."""
    service = "def app(environ, _):\n    raise ValueError(environ)\n"
    (copy_project(tmp_path) / "wsgi.py").write_text(service)
    settings = {"JWT_SECRET": SECRET, "DATABASE_URL": f"sqlite:///{tmp_path}/none"}
    with serving("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app", cwd=tmp_path, **settings) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /api/tasks?q=Water HTTP/1.1\r\nHost: test\r\n\r\n")
            read_away(client)

    log = server.stdout.read_text()
    assert "Error handling request: ValueError" in log
    assert "in app" in log
    assert "Water" not in log + server.stderr.read_text()


def test_no_access_log_is_made(tmp_path: Path, sqlite_url: str) -> None:
    """gunicorn can make its fields for each request even where no handler writes them: 11 % of a small request."""
    folder = copy_project(tmp_path)
    with (folder / "wsgi.py").open("a") as service:
        service.write("from gunicorn.glogging import Logger\nLogger.atoms = None\n")
    settings = {"JWT_SECRET": SECRET, "DATABASE_URL": sqlite_url}
    with serving("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app", cwd=folder, **settings) as server:
        assert server.fetch("GET", "/healthz") == (200, {"status": "ok"})
        assert server.fetch("GET", "/healthz") == (200, {"status": "ok"})
    assert "ERROR" not in server.stdout.read_text()


def test_client_that_falls_silent_in_a_body_is_let_go(tmp_path: Path, sqlite_url: str) -> None:
    """gunicorn would wait for the rest without end, and such clients would take all places in time."""
    command = ("gunicorn", "--keep-alive", "1", "--bind", "127.0.0.1:0", "wsgi:app")
    with serving(*command, cwd=copy_project(tmp_path), JWT_SECRET=SECRET, DATABASE_URL=sqlite_url) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
            client.sendall(HEAD + sized(TASK[:-5], len(TASK)))

            assert client.recv(65536).split()[1] == b"400"


def test_silent_clients_leave_others_served(server: Server) -> None:
    """Half a head costs a socket and no more; a whole request is served."""
    with ExitStack() as stack:
        for _ in range(50):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(HEAD)

        assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})


def test_frozen_database_delays_only_requests_that_need_it(server: Server, postgresql_url: str) -> None:
    """While PostgreSQL stands still, health and 401s are answered; afterwards the waiting request is, too."""
    assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})
    folder = parse_qs(urlsplit(postgresql_url).query)["host"][0]
    postmaster = psutil.Process(int((Path(folder) / "postmaster.pid").read_text().split()[0]))
    processes = [postmaster, *postmaster.children()]

    with ThreadPoolExecutor(1) as pool:
        try:
            for process in processes:
                process.suspend()
            waiting = pool.submit(server.fetch, "GET", "/api/tasks", Authorization=BEARER)
            assert server.fetch("GET", "/healthz") == (200, {"status": "ok"})
            assert server.fetch("GET", "/api/tasks", Authorization="Bearer x")[0] == 401
            assert not waiting.done()
        finally:
            for process in processes:
                process.resume()
        assert waiting.result() == (200, [])


def test_locked_sqlite_delays_only_writes(tmp_path: Path, sqlite_url: str) -> None:
    """While another process writes, other users read; afterwards the waiting writes are answered, too."""
    (copy_project(tmp_path) / ".env").write_text(f"JWT_SECRET={SECRET}\nDATABASE_URL={sqlite_url}\n")
    with ExitStack() as stack:
        server = stack.enter_context(serving("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app", cwd=tmp_path))
        pool = stack.enter_context(ThreadPoolExecutor(5))
        other = stack.enter_context(closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))))
        other.execute("BEGIN IMMEDIATE")
        create = partial(server.fetch, "POST", "/api/tasks", {"title": "Water the plants"}, Authorization=BEARER)
        waiting = [pool.submit(create) for _ in range(5)]
        other_bearer = f"Bearer {make_token()}"  # the writes hold all of their user's share of the connections
        for _ in range(10):
            assert server.fetch("GET", "/healthz") == (200, {"status": "ok"})
            assert server.fetch("GET", "/api/tasks", Authorization=other_bearer) == (200, [])
        assert not any(answer.done() for answer in waiting)
        other.rollback()

        assert [answer.result()[0] for answer in waiting] == [201] * 5


def test_restarted_database_is_found_again(tmp_path: Path, folder: Path) -> None:
    """A restart that closes no connection in order: nothing acknowledged is lost, and the next request is served."""
    with restartable_postgresql(folder / "restarted") as postgresql:
        (copy_project(tmp_path) / ".env").write_text(f"JWT_SECRET={SECRET}\nDATABASE_URL={postgresql.get_uri()}\n")
        assert run("flask", "db", "upgrade", cwd=tmp_path).returncode == 0
        with serving("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app", cwd=tmp_path) as server:
            status, task = server.fetch("POST", "/api/tasks", {"title": "Water the plants"}, Authorization=BEARER)
            assert status == 201

            restart(postgresql)

            assert server.fetch("GET", "/api/tasks", Authorization=BEARER) == (200, [task])


def test_reload_keeps_serving(server: Server) -> None:
    """SIGHUP brings new workers, and no request is refused."""
    assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})
    os.kill(server.process.pid, signal.SIGHUP)

    deadline = time.monotonic() + PATIENCE
    while server.stdout.read_text().count("Worker exiting") < 1:
        assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})
        assert time.monotonic() < deadline

    assert server.fetch("POST", "/api/tasks", {"title": "Water the plants"}, Authorization=BEARER)[0] == 201
    assert server.stdout.read_text().count("Booting worker") == 2


def test_request_that_breaks_off_is_not_logged(tmp_path: Path, sqlite_url: str) -> None:
    """Not even at LOG_LEVEL=DEBUG, where gunicorn would quote what it has got."""
    settings = {"JWT_SECRET": SECRET, "DATABASE_URL": sqlite_url, "LOG_LEVEL": "DEBUG"}
    command = ("gunicorn", "--log-level", "debug", "--bind", "127.0.0.1:0", "wsgi:app")
    with serving(*command, cwd=copy_project(tmp_path), **settings) as server:
        for request in (b"GET /api/tasks?q=Water", f"GET / HTTP/1.1\r\nAuthorization: {BEARER}".encode()):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(request)
                client.shutdown(socket.SHUT_WR)
                read_away(client)
        server.fetch("GET", f"/api/tasks/{'0' * 8}")

    log = server.stderr.read_text() + server.stdout.read_text()
    assert [] == [secret for secret in (BEARER[-20:], "Water", "0" * 8) if secret in log]


def test_stop_is_announced(server: Server) -> None:
    """/readyz turns 503, while all is served; then the listener closes, and a kept connection gets one last answer."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as kept:
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        server.process.terminate()
        deadline = time.monotonic() + PATIENCE
        while (ready := server.fetch("GET", "/readyz")) == (200, {"status": "ok"}):
            assert time.monotonic() < deadline
        announced = time.monotonic()
        created, _ = server.fetch("POST", "/api/tasks", {"title": "Water the plants"}, Authorization=BEARER)
        with pytest.raises(ConnectionError):
            while time.monotonic() < deadline:
                server.fetch("GET", "/healthz")
        assert time.monotonic() - announced > 1.5  # 2 seconds, less what the first 503 took
        kept.request("GET", "/healthz")
        last = kept.getresponse()

        assert (last.status, last.getheader("Connection")) == (200, "close")
    assert ready == (503, {"error": "This process is about to stop.", "code": "INTERNAL_ERROR"})
    assert created == 201
    assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("worker", ["Worker", "gevent", "gthread", "sync"])
def test_stop_waits_for_a_body(tmp_path: Path, sqlite_url: str, worker: str) -> None:
    """Under each worker class a body that is on its way at SIGTERM is answered, and /readyz is 503 meanwhile."""
    options = {"Worker": (), "gevent": ("-k", "gevent"), "gthread": ("-k", "gthread", "--threads", "4")}
    command = ("gunicorn", "--bind", "127.0.0.1:0", *options.get(worker, ("-k", worker, "-w", "2")), "wsgi:app")
    with serving(*command, cwd=copy_project(tmp_path), JWT_SECRET=SECRET, DATABASE_URL=sqlite_url) as server:
        assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
            client.sendall(HEAD + sized(TASK[:10], len(TASK)))
            time.sleep(0.2)  # until a worker has the first part
            server.process.terminate()
            deadline = time.monotonic() + PATIENCE
            while server.fetch("GET", "/readyz")[0] == 200:
                assert time.monotonic() < deadline
            client.sendall(TASK[10:20])
            time.sleep(3)  # until the worker has its SIGTERM
            client.sendall(TASK[20:])

            assert client.recv(65536).split()[1] == b"201"
        assert server.process.wait(PATIENCE) == 0


def test_stop_is_announced_after_a_reload(server: Server) -> None:
    """SIGHUP loads gunicorn.conf.py anew; the master still reaches the workers that it made before and after."""
    assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})
    server.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + PATIENCE
    while server.stdout.read_text().count("Worker exiting") < 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})
    server.process.terminate()
    while (ready := server.fetch("GET", "/readyz")[0]) == 200:
        assert time.monotonic() < deadline

    assert ready == 503


def test_stop_is_not_announced_where_another_master_listens(server: Server) -> None:
    """SIGUSR2 makes one beside the first; when that stops, a load balancer has no reason to look away."""
    server.process.send_signal(signal.SIGUSR2)
    deadline = time.monotonic() + PATIENCE
    while server.stdout.read_text().count("Booting worker") < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    old = psutil.Process(server.process.pid)
    [new] = [process for process in old.children() if process.children()]
    try:
        old.terminate()
        while server.process.poll() is None:
            assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})
            time.sleep(0.02)
        assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})
    finally:
        new.terminate()
        new.wait(PATIENCE)


@pytest.mark.parametrize(
    ("setting", "options", "bind"),
    [
        ("", [], "['127.0.0.1:8000']"),
        ("PORT=", [], "['127.0.0.1:8000']"),
        ("PORT=' 8123 '", [], "['0.0.0.0:8123']"),
        ("PORT=8123", ["-b", "127.0.0.1:8124"], "['127.0.0.1:8124']"),
    ],
)
def test_port_of_a_platform(tmp_path: Path, sqlite_url: str, setting: str, options: list[str], bind: str) -> None:
    """It is listened on from outside, as platforms ask for; -b goes first."""
    (copy_project(tmp_path) / ".env").write_text(f"JWT_SECRET={SECRET}\nDATABASE_URL={sqlite_url}\n{setting}\n")

    shown = run("gunicorn", "--print-config", *options, "wsgi:app", cwd=tmp_path).stdout

    assert re.findall(r"^bind +=(.*)$", shown, re.MULTILINE) == [f" {bind}"]


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        (b"PORT=80x", "PORT must be a whole number from 1 to 65535"),
        (b"PORT=0", "PORT must be a whole number from 1 to 65535"),
        (b"PORT=65536", "PORT must be a whole number from 1 to 65535"),
        ("PORT=\N{FULLWIDTH DIGIT EIGHT}0".encode(), "PORT must be a whole number from 1 to 65535"),
        (b"WEB_CONCURRENCY=two", "WEB_CONCURRENCY must be a whole number from 1 to 1000"),
        (b"LOG_LEVEL=\xff", ".env is not UTF-8 text"),
    ],
)
def test_wrong_setting_stops_the_start_with_one_line(
    tmp_path: Path, sqlite_url: str, setting: bytes, line: str
) -> None:
    """Before a worker is forked, and without a traceback."""
    given = f"JWT_SECRET={SECRET}\nDATABASE_URL={sqlite_url}\n".encode() + setting
    (copy_project(tmp_path) / ".env").write_bytes(given)
    environ = {"PATH": os.environ["PATH"]}  # a WEB_CONCURRENCY of the environment would go before that of .env
    command = (BIN / "gunicorn", "wsgi:app")
    gunicorn = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=PATIENCE)

    assert (gunicorn.returncode, gunicorn.stdout, gunicorn.stderr) == (1, "", f"taskapi cannot start: {line}\n")


def test_stop_resets_no_connection(server: Server) -> None:
    """What the kernel has queued by then is answered: more connections than a worker accepts at a time."""
    assert server.fetch("GET", "/healthz") == (200, {"status": "ok"})
    [worker] = psutil.Process(server.process.pid).children()
    with ExitStack() as stack:
        worker.suspend()
        stack.callback(worker.resume)
        connections = [HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE) for _ in range(300)]
        for connection in connections:
            stack.callback(connection.close)
            connection.request("GET", "/healthz")
        server.process.terminate()
        deadline = time.monotonic() + PATIENCE
        while signal.SIGTERM not in pending(worker):
            assert time.monotonic() < deadline
        worker.resume()

        assert [connection.getresponse().status for connection in connections] == [200] * 300


def pending(process: psutil.Process) -> set[int]:
    """Return the signals that a process has yet to take."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    mask = int(status.partition("ShdPnd:")[2].split()[0], 16)
    return {number for number in range(1, 32) if mask >> (number - 1) & 1}


@pytest.mark.own_database
def test_nothing_connects_before_a_request(server: Server, postgresql_url: str) -> None:
    """An engine shared across a fork would have two workers on one connection."""
    counts = []
    with closing(psycopg2.connect(postgresql_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True  # or it would see the same each time
        for path in ("/healthz", "/readyz"):
            assert server.fetch("GET", path) == (200, {"status": "ok"})
            cursor.execute(f"SELECT count(*) {OWN_CONNECTIONS}")
            counts += cursor.fetchall()

    assert counts == [(0,), (1,)]


def test_stop_during_the_start(tmp_path: Path, sqlite_url: str) -> None:
    """A worker that is still loading the service is told to stop as any other: no stack, no bad exit status."""
    folder = copy_project(tmp_path)
    service = (folder / "wsgi.py").read_text()
    (folder / "wsgi.py").write_text(f"import time\nopen('loading', 'x')\ntime.sleep(1)\n{service}")
    command = ("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app")
    with serving(*command, cwd=folder, JWT_SECRET=SECRET, DATABASE_URL=sqlite_url) as server:
        while not (folder / "loading").exists():
            assert server.process.poll() is None
        server.process.terminate()

        assert server.process.wait(PATIENCE) == 0
    assert [line for line in server.stdout.read_text().splitlines() if '"level":"ERROR"' in line] == []
