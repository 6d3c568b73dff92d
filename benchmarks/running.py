"""Does a start take long, and do reloads, upgrades of the schema and stops fail a request?"""

import shutil
import signal
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median

from benchmarks.data import fill, token
from benchmarks.faults import is_ready, until
from benchmarks.servers import ROOT, TASKAPI, Service, folder, migrate, postgresql, service

CLIENTS, PACE = 10, 0.05  # seconds between two requests of one client: 200 requests/s in all
STARTS, RELOADS = 7, 5
TASKS, ROWS = 10_000, 1_000_000  # of the one who asks, and of all

# As the README has one write it: what the code before it does not know may be empty.
MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade():
    op.add_column("tasks", sa.Column("due_on", sa.Date()))


def downgrade():
    op.drop_column("tasks", "due_on")
"""


class Client(threading.Thread):
    """Somebody who asks at an even pace over one connection, opens a new one when told to, and repeats nothing."""

    def __init__(self, port: int, stop: threading.Event) -> None:
        super().__init__()
        self.connection, self.stopped = HTTPConnection("127.0.0.1", port, timeout=20), stop
        self.seen: Counter[str] = Counter()

    def run(self) -> None:
        """Ask until told to stop, or refused at the door."""
        headers = {"Authorization": f"Bearer {token()}"}
        began = time.monotonic()
        while not self.stopped.is_set():
            try:
                self.connection.request("GET", "/api/tasks?limit=20", headers=headers)
                response = self.connection.getresponse()
                response.read()
                self.seen[str(response.status)] += 1
            except ConnectionRefusedError:
                break  # not sent, so not failed: the door is closed
            except (OSError, HTTPException):
                self.connection.close()
                self.seen["failed"] += 1
            began += PACE
            time.sleep(max(0.0, began - time.monotonic()))
        self.connection.close()


def measure() -> str:
    """Return what was seen, as lines."""
    with folder() as path, postgresql(path) as create_database:
        url = create_database("running")
        fill(url, ROWS, TASKS)
        starts = [_start(url, path) for _ in range(STARTS)]
        spread = f"{min(starts):.2f} to {max(starts):.2f}, {STARTS} starts"
        with service(TASKAPI, url, path) as served:
            until(lambda: is_ready(served.port))
            lines = [f"start to first answer: {median(starts):.2f} s ({spread})", _reload(served)]
            lines += [_migrate(served, url, path, step) for step in ("upgrade", "downgrade")]
            return "\n".join([*lines, _stop(served)])


def _start(url: str, path: Path) -> float:
    began = time.monotonic()
    with service(TASKAPI, url, path) as served:
        until(lambda: is_ready(served.port))
        return time.monotonic() - began


def _reload(served: Service) -> str:
    with _Crowd(served) as crowd:
        for _ in range(RELOADS):
            before = served.process.children()
            served.process.send_signal(signal.SIGHUP)
            until(lambda: not any(worker.is_running() for worker in before))
            time.sleep(1)
    return f"{RELOADS} times SIGHUP under {crowd}"


def _migrate(served: Service, url: str, path: Path, step: str) -> str:
    scripts = shutil.copytree(ROOT / "taskapi" / "migrations", path / "migrations", dirs_exist_ok=True)
    (scripts / "versions" / "0002_due_on.py").write_text(MIGRATION)
    with _Crowd(served) as crowd:
        time.sleep(1)
        began = time.monotonic()
        migrate(url, step, "-d", str(scripts))
        seconds = time.monotonic() - began
        time.sleep(1)
    return f"flask db {step} of {ROWS:,} tasks in {seconds:.1f} s under {crowd}; /readyz {_readyz(served.port)}"


def _stop(served: Service) -> str:
    with _Crowd(served) as crowd:
        time.sleep(2)
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        until(lambda: _readyz(served.port) != "200")
        announced = time.monotonic() - began
        until(lambda: _readyz(served.port) == "refused")
        closed = time.monotonic() - began
        served.process.wait(20)
        gone = time.monotonic() - began
    times = f"/readyz 503 after {announced:.2f} s, door closed after {closed:.2f} s, gone after {gone:.2f} s"
    return f"SIGTERM under {crowd}; {times}"


def _readyz(port: int) -> str:
    with closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection, suppress(ConnectionResetError):
        try:
            connection.request("GET", "/readyz")
            return str(connection.getresponse().status)
        except ConnectionRefusedError:
            return "refused"
    return "cut off"


class _Crowd:
    """Clients at work; as text, what they saw."""

    def __init__(self, served: Service) -> None:
        self.stop = threading.Event()
        self.clients = [Client(served.port, self.stop) for _ in range(CLIENTS)]

    def __enter__(self) -> "_Crowd":
        self.began = time.monotonic()
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        for client in self.clients:
            client.join()
        self.seconds = time.monotonic() - self.began

    def __str__(self) -> str:
        seen = sum((client.seen for client in self.clients), Counter())
        return f"{1 / PACE * CLIENTS:.0f} requests/s: {dict(seen)}, failed {seen['failed']}"
