"""The services under test, each in processes of its own, with a PostgreSQL, a user's token and that user's tasks."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import NamedTuple

import jwt
import psutil

from benchmarks.postgres import Cluster, cluster, execute

ROOT = Path(__file__).parent.parent
SCRIPTS = Path(sys.executable).parent
WORKERS = os.environ.get("WEB_CONCURRENCY") or str(os.cpu_count() or 1)
START_LIMIT = 30  # seconds; each is up in two
STOP_LIMIT = 20  # seconds; gunicorn gives its requests 15

SECRET = "a-secret-of-the-benchmarks-and-of-nothing-else"
OWNER = "ffffffff-ffff-4fff-bfff-ffffffffffff"
CREATOR = "eeeeeeee-eeee-4eee-beee-eeeeeeeeeeee"
EMAILS = {OWNER: "ana@example.com", CREATOR: "ben@example.com"}
BATCH = 100_000  # rows per statement

# One in so many tasks is OWNER's, with an id made of its number. The others are those of 1,000 users per batch: as in
# real life, a user's tasks lie scattered among those of the people who were there at the same time.
FILL = """
    INSERT INTO tasks (user_id, id, title, description, is_completed, created_at, updated_at)
    SELECT
        CASE WHEN n %% %(stride)s = 0 THEN %(owner)s::uuid
             ELSE lpad(to_hex(n / 100000 * 1000 + floor(random() * 1000)::int), 32, '0')::uuid END,
        CASE WHEN n %% %(stride)s = 0
             THEN ('00000000-0000-4000-8000-' || lpad(to_hex(n / %(stride)s), 12, '0'))::uuid
             ELSE gen_random_uuid() END,
        'Review the release notes, part ' || n,
        CASE WHEN n %% 2 = 0 THEN 'See the notes of last week, and ask Ana whether anything is left to do.' END,
        n %% 3 = 0,
        made, made
    FROM generate_series(%(start)s, %(stop)s) n,
         LATERAL (SELECT timestamptz '2020-01-01 00:00:00.123456Z' + n * interval '10 s') AS time (made)
"""
USERS = """
    INSERT INTO users (id, email)
    SELECT lpad(to_hex(n), 32, '0')::uuid, NULL FROM generate_series(0, %(users)s - 1) n
    UNION ALL VALUES (%(owner)s::uuid, 'ana@example.com'), (%(creator)s::uuid, 'ben@example.com')
"""


class Options(NamedTuple):
    """Which checkouts to measure, how much, and whether to write it down."""

    of: Path
    against: Path | None
    rounds: int
    seconds: int
    tasks: int
    share: float
    write: bool

    def count(self, usual: int) -> int:
        """Return the asked share of what is usual, and at least one."""
        return max(1, round(usual * self.share))


def commit(checkout: Path) -> str:
    """Return the commit of a checkout, with a + where the service differs from it."""
    git = ["git", "-C", str(checkout)]
    served = ["taskapi", "wsgi.py", "gunicorn.conf.py", "requirements.txt"]
    revision = subprocess.check_output([*git, "rev-parse", "--short=7", "HEAD"], text=True)
    changes = subprocess.check_output([*git, "status", "--porcelain", "--", *served], text=True)
    return revision.strip() + ("+" if changes else "")


class Contender(NamedTuple):
    """A service that can be started: its name, its checkout, and its command there."""

    name: str
    folder: Path
    command: list[str]


def taskapi(folder: Path, name: str = "taskapi") -> Contender:
    """Return the service of a checkout."""
    return Contender(name, folder, [_program(folder, "gunicorn"), "wsgi:app", "-b", "127.0.0.1:0"])


def peers() -> list[Contender]:
    """Return the FastAPI service, and the bare function, which gunicorn serves by taskapi's own gunicorn.conf.py."""
    uvicorn = [_program(ROOT, "uvicorn"), "benchmarks.fastapi_peer:app", "--host", "127.0.0.1", "--port", "0"]
    bare = [_program(ROOT, "gunicorn"), "benchmarks.bare_wsgi:app", "-b", "127.0.0.1:0"]
    return [Contender("FastAPI", ROOT, [*uvicorn, "--workers", WORKERS]), Contender("bare WSGI", ROOT, bare)]


def has_own_environment(checkout: Path) -> bool:
    """Say whether another checkout runs in a .venv of its own, and not in this environment."""
    return checkout != ROOT and (checkout / ".venv").exists()


def _program(checkout: Path, name: str) -> str:
    return str((checkout / ".venv" / "bin" if has_own_environment(checkout) else SCRIPTS) / name)


class Service(NamedTuple):
    """A running service."""

    name: str
    port: int
    process: psutil.Process

    def cpu(self) -> dict[int, float]:
        """Return the seconds of CPU, user and system, of each of its processes so far."""
        processes = [self.process, *self.process.children(recursive=True)]
        return {process.pid: sum(process.cpu_times()[:2]) for process in processes}

    def get(self, path: str) -> int:
        """Return the status of a request without a token; 0 if it is not answered."""
        with suppress(OSError, HTTPException), closing(HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            connection.request("GET", path)
            return connection.getresponse().status
        return 0

    def is_ready(self) -> bool:
        """Say whether /readyz does."""
        return self.get("/readyz") == 200


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
def postgresql() -> Iterator[tuple[Path, Cluster]]:
    """A folder, and a PostgreSQL in it."""
    with folder() as path, cluster(path) as servers:
        yield path, servers


def create(servers: Cluster, database: str, checkout: Path) -> str:
    """Make a database with a checkout's schema; return its URL."""
    servers.execute(f"CREATE DATABASE {database}", database="postgres")
    # The peers write timestamps in the session's zone.
    servers.execute(f"ALTER DATABASE {database} SET timezone = 'UTC'", database="postgres")
    migrate(checkout, servers.url(database))
    return servers.url(database)


def migrate(checkout: Path, url: str, *arguments: str) -> None:
    """Run a checkout's `flask db upgrade`, or `flask db` with other arguments."""
    command = [_program(checkout, "flask"), "--app", "wsgi", "db", *(arguments or ("upgrade",))]
    subprocess.run(command, cwd=checkout, env=_environment(url), check=True, stdout=subprocess.DEVNULL)


@contextmanager
def service(contender: Contender, database_url: str, path: Path, *options: str, **settings: str) -> Iterator[Service]:
    """Start a service in a session of its own, out of reach of Ctrl-C; its output goes to a file in path."""
    log = path / f"{contender.name.replace(' ', '-')}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*contender.command, *options],
            cwd=contender.folder,
            env=_environment(database_url) | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        served = Service(contender.name, _port(process, log), psutil.Process(process.pid))
        until(lambda: served.get("/") != 0)  # any answer: a worker has come up
        yield served
    finally:
        process.terminate()
        try:
            process.wait(STOP_LIMIT)
        finally:
            with suppress(ProcessLookupError):  # as it should be: all of them have stopped by themselves
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _environment(database_url: str) -> dict[str, str]:
    """The settings and nothing else of ours: neither the developer's shell nor a .env changes what is measured."""
    settings = {"DATABASE_URL": database_url, "JWT_SECRET": SECRET, "WEB_CONCURRENCY": WORKERS}
    return settings | {"PATH": os.environ["PATH"], "PYTHON_DOTENV_DISABLED": "1"}


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait until the service listens; return where."""
    deadline = time.monotonic() + START_LIMIT
    while process.poll() is None and time.monotonic() < deadline:
        for connection in psutil.Process(process.pid).net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                port: int = connection.laddr.port
                return port
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen:\n{log.read_text()[-2000:]}")


def token(user: str = OWNER, **claims: object) -> str:
    """Return a token of one day."""
    email = {"email": EMAILS[user]} if user in EMAILS else {}
    return jwt.encode({"sub": user, "exp": int(time.time()) + 86400, **email, **claims}, SECRET, algorithm="HS256")


def fill(url: str, tasks: int, owned: int) -> None:
    """Replace everything by so many tasks, so many of them OWNER's, evenly spread."""
    execute(url, "TRUNCATE users, tasks")
    execute(url, USERS, users=-(-tasks // BATCH) * 1000, owner=OWNER, creator=CREATOR)
    for start in range(0, tasks, BATCH):
        execute(url, FILL, stride=tasks // owned, owner=OWNER, start=start, stop=min(start + BATCH, tasks) - 1)
        if start % (BATCH * 10) == BATCH * 9:
            progress(f"{start + BATCH:,} of {tasks:,} tasks")
    execute(url, "VACUUM ANALYZE")  # or the first to measure would pay for it
    execute(url, "CHECKPOINT")


def progress(text: str) -> None:
    """Say on stderr what is going on, in one line that the next replaces."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; raise TimeoutError after a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)
