"""Does a start take long, do reloads, upgrades of the schema and stops fail a request, and does a worker grow?"""

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.load import CREATE, GET, LIST, REQUESTS, UPDATE, Client, answers, at_work, run, seen
from benchmarks.service import WORKERS, Contender, Options, Service, create, fill, migrate, postgresql, progress
from benchmarks.service import service, taskapi, token, until

CLIENTS, PACE = 10, 0.05  # seconds between two requests of one client: 200 requests/s in all
STARTS, RELOADS = 7, 5
TASKS, ROWS = 10_000, 1_000_000  # of the one who asks, and of all
FEW, MANY = 2_000, 200_000  # requests per worker

# What the code before it does not know may be empty.
MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{number:04}", "{head:04}"


def upgrade():
    op.add_column("tasks", sa.Column("due_on", sa.Date()))


def downgrade():
    op.drop_column("tasks", "due_on")
"""


def measure(options: Options) -> str:
    """Return what was seen at starts, reloads, migrations and the stop, as lines."""
    ours, reloads, rows = taskapi(options.of), options.count(RELOADS), options.count(ROWS)
    with postgresql() as (path, servers):
        url = create(servers, "taskapi", options.of)
        fill(url, rows, options.count(TASKS))
        starts = [_start(ours, url, path) for _ in range(options.count(STARTS))]
        lines = [f"start to first answer: {median(starts):.2f} s ({min(starts):.2f} to {max(starts):.2f})"]
        scripts = _scripts(options.of, path)
        with service(ours, url, path) as served:
            until(served.is_ready)
            with _crowd(served, lines, f"{reloads} times SIGHUP"):
                for _ in range(reloads):
                    _reload(served)
            for step in ("upgrade", "downgrade"):
                with _crowd(served, lines, f"flask db {step} of {rows:,} tasks"):
                    time.sleep(1)
                    began = time.monotonic()
                    migrate(options.of, url, step, "-d", str(scripts))
                    lines.append(f"    took {time.monotonic() - began:.1f} s; /readyz {served.get('/readyz')}")
                    time.sleep(1)
            with _crowd(served, lines, "SIGTERM"):
                time.sleep(2)
                lines.append(_stop(served))
    return "```\n" + "\n".join(lines) + "\n```"


@contextmanager
def _crowd(served: Service, lines: list[str], what: str) -> Iterator[None]:
    """Clients at work meanwhile; what they saw becomes a line."""
    request = REQUESTS[LIST]._replace(token=token())
    clients = [Client(served, lambda: request, PACE) for _ in range(CLIENTS)]
    place = len(lines)
    with at_work(clients):
        yield
    counted = seen(clients)
    rate = f"{CLIENTS / PACE:.0f} requests/s"
    lines.insert(place, f"{what} under {rate}: {answers(counted)}; {counted['failed']} failed")


def _start(ours: Contender, url: str, path: Path) -> float:
    began = time.monotonic()
    with service(ours, url, path) as served:
        until(served.is_ready)
        return time.monotonic() - began


def _reload(served: Service) -> None:
    before = served.process.children()
    served.process.send_signal(signal.SIGHUP)
    until(lambda: not any(worker.is_running() for worker in before))
    time.sleep(1)


def _scripts(checkout: Path, path: Path) -> Path:
    """Return a copy of the migrations with one more."""
    (migrations,) = (found.parent for found in (checkout / "taskapi").glob("**/migrations/env.py"))
    scripts = shutil.copytree(migrations, path / "migrations")
    head = max(int(script.name[:4]) for script in (scripts / "versions").glob("[0-9]*.py"))
    (scripts / "versions" / f"{head + 1:04}_due_on.py").write_text(MIGRATION.format(number=head + 1, head=head))
    return scripts


def _stop(served: Service) -> str:
    """Tell it to stop, and return how long what takes."""
    began = time.monotonic()
    served.process.send_signal(signal.SIGTERM)
    until(lambda: served.get("/readyz") != 200)
    announced = time.monotonic() - began
    until(lambda: served.get("/readyz") == 0)
    closed = time.monotonic() - began
    served.process.wait(20)
    gone = time.monotonic() - began
    return f"    /readyz not ready after {announced:.2f} s, no answer after {closed:.2f} s, gone after {gone:.2f} s"


def memory(options: Options) -> str:
    """Return what the workers hold after a few and after many requests, all endpoints in turn."""
    few, many = options.count(FEW), options.count(MANY)
    with postgresql() as (path, servers):
        url = create(servers, "taskapi", options.of)
        fill(url, TASKS, TASKS)
        with service(taskapi(options.of), url, path) as served:
            until(lambda: len(served.process.children()) == int(WORKERS))
            before, after = _held(served, few, 1), _held(served, many, 5)
    times = ", ".join(f"{large / small:.3f}" for small, large in zip(before, after, strict=True))
    kib = [", ".join(f"{size // 1024:,}" for size in sizes) for sizes in (before, after)]
    text = f"Resident memory of each worker: {kib[0]} KiB after {few:,} requests, {kib[1]} KiB after {many:,}"
    return f"{text}; {times} times as much."


def _held(served: Service, requests: int, seconds: int) -> list[int]:
    """Return the bytes that each worker holds after so many requests of each."""
    workers = served.process.children()
    done = 0.0
    while done < requests * len(workers):
        for endpoint in (LIST, GET, CREATE, UPDATE):
            done += run(served, REQUESTS[endpoint], seconds, TASKS, [token()]).rate * seconds
            progress(f"{done:,.0f} of {requests * len(workers):,} requests")
    return [worker.memory_info().rss for worker in workers]
