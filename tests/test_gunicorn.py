"""The service as it runs in production: gunicorn with its configuration."""

import os
import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from threading import Event, Thread
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg2
import pytest

from tests.people import SECRET, make_token
from tests.servers import PATIENCE, Server, copy_project, restart, restartable_postgresql, run, serving
from tests.test_faults import OWN_CONNECTIONS

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
    """What no client library would send is answered in the one shape, or taken for what it is."""
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
        "nobody's host": b"GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: ..\r\n\r\n",
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
        "nobody's host": (400, ("The request can't be taken.", "INVALID_REQUEST")),
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
def test_client_that_sends_without_end_holds_up_nobody(server: Server, opening: bytes, flood: bytes) -> None:
    """One connection per core would otherwise be enough to stop the service."""
    enough = Event()

    def send() -> None:
        while not enough.is_set():
            with socket.create_connection(("127.0.0.1", server.port)) as client, suppress(OSError):
                reader = Thread(target=drain, args=[client])
                reader.start()
                client.sendall(opening)
                while not enough.is_set():
                    client.sendall(flood)
                client.shutdown(socket.SHUT_RDWR)
            reader.join()

    sender = Thread(target=send)
    sender.start()
    try:
        assert [(200, {"status": "ok"})] * 10 == [server.fetch("GET", "/healthz") for _ in range(10)]
    finally:
        enough.set()
        sender.join()


def drain(client: socket.socket) -> None:
    """Read whatever comes."""
    with suppress(OSError):
        while client.recv(65536):
            pass


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
            drain(client)

    log = server.stderr.read_text() + server.stdout.read_text()
    assert "Invalid request from ip=127.0.0.1" in log
    assert [] == [secret for secret in (BEARER, "Water", "Traceback") if secret in log]


def test_silent_clients_hold_up_nobody(server: Server) -> None:
    """Half a header costs a socket; whoever sends a whole one is served."""
    with ExitStack() as stack:
        for _ in range(50):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(HEAD)

        assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})


def test_frozen_database_holds_up_only_those_who_need_it(server: Server, postgresql_url: str) -> None:
    """While PostgreSQL stands still, health and 401s are answered; then whoever waited is, too."""
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


def test_locked_sqlite_holds_up_only_those_who_write(tmp_path: Path, sqlite_url: str) -> None:
    """While another process writes, all else is answered; then whoever waited is, too."""
    (copy_project(tmp_path) / ".env").write_text(f"JWT_SECRET={SECRET}\nDATABASE_URL={sqlite_url}\n")
    with ExitStack() as stack:
        server = stack.enter_context(serving("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app", cwd=tmp_path))
        pool = stack.enter_context(ThreadPoolExecutor(5))
        other = stack.enter_context(closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))))
        other.execute("BEGIN IMMEDIATE")
        create = partial(server.fetch, "POST", "/api/tasks", {"title": "Water the plants"}, Authorization=BEARER)
        waiting = [pool.submit(create) for _ in range(5)]
        for _ in range(10):
            assert server.fetch("GET", "/healthz") == (200, {"status": "ok"})
            assert server.fetch("GET", "/api/tasks", Authorization=BEARER) == (200, [])
        assert not any(answer.done() for answer in waiting)
        other.rollback()

        assert [answer.result()[0] for answer in waiting] == [201] * 5


def test_restarted_database_is_found_again(tmp_path: Path, folder: Path) -> None:
    """A restart that tells nobody: nothing acknowledged is lost, and the next request is served."""
    with restartable_postgresql(folder / "restarted") as postgresql:
        (copy_project(tmp_path) / ".env").write_text(f"JWT_SECRET={SECRET}\nDATABASE_URL={postgresql.get_uri()}\n")
        assert run("flask", "db", "upgrade", cwd=tmp_path).returncode == 0
        with serving("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app", cwd=tmp_path) as server:
            status, task = server.fetch("POST", "/api/tasks", {"title": "Water the plants"}, Authorization=BEARER)
            assert status == 201

            restart(postgresql)

            assert server.fetch("GET", "/api/tasks", Authorization=BEARER) == (200, [task])


def test_reload_keeps_serving(server: Server) -> None:
    """SIGHUP brings new workers, and no request meets a closed door."""
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
    command = ("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app")
    with serving(*command, cwd=copy_project(tmp_path), **settings) as server:
        for request in (b"GET /api/tasks?q=Water", f"GET / HTTP/1.1\r\nAuthorization: {BEARER}".encode()):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(request)
                client.shutdown(socket.SHUT_WR)
                drain(client)
        server.fetch("GET", f"/api/tasks/{'0' * 8}")

    log = server.stderr.read_text() + server.stdout.read_text()
    assert [] == [secret for secret in (BEARER[-20:], "Water", "0" * 8) if secret in log]


def test_stop_is_announced(server: Server) -> None:
    """/readyz turns 503 first, while all is served; then the door closes, and who is inside gets one last answer."""
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as kept:
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        server.process.terminate()
        deadline = time.monotonic() + PATIENCE
        while (ready := server.fetch("GET", "/readyz")) == (200, {"status": "ok"}):
            assert time.monotonic() < deadline
        created, _ = server.fetch("POST", "/api/tasks", {"title": "Water the plants"}, Authorization=BEARER)
        with pytest.raises(ConnectionError):
            while time.monotonic() < deadline:
                server.fetch("GET", "/healthz")
        kept.request("GET", "/healthz")
        last = kept.getresponse()

        assert (last.status, last.getheader("Connection")) == (200, "close")
    assert ready == (503, {"error": "This process is about to stop.", "code": "INTERNAL_ERROR"})
    assert created == 201
    assert server.process.wait(PATIENCE) == 0


def test_stop_resets_nobody(server: Server) -> None:
    """Whoever the kernel has taken in by then is answered: more than a worker takes in at a time."""
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
