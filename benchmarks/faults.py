"""Break what taskapi stands on, hundreds of times, while clients record what they were promised.

Each client owns its tasks, and repeats a request until the answer is final, as a front end would: a create by its id,
an update by its ETag. At the end the database must hold what was acknowledged, no more and no less.
"""

import json
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from uuid import uuid4

from benchmarks.load import answers
from benchmarks.postgres import USER, Cluster, own
from benchmarks.service import Options, Service, create, postgresql, progress, service, taskapi, token, until

WRITERS = 16
KILLS, WORKER_KILLS, ROLLS, RESTARTS, FAILOVERS, CUTS = 500, 50, 10, 20, 10, 20
CUT = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'taskapi'"

Task = dict[str, Any]


class Pooler:
    """A PgBouncer in transaction mode before the primary, and all else by default."""

    def __init__(self, path: Path, servers: Cluster) -> None:
        self.path = path / "pooler"
        self.path.mkdir()
        own(self.path)
        self.url = f"postgresql://postgres@/taskapi?host={self.path}&port=6432"
        self.settings = self.path / "pgbouncer.ini"
        self.settings.write_text(
            f"[databases]\ntaskapi = host={servers.socket('a')} user=postgres\n"
            f"[pgbouncer]\nlisten_addr =\nunix_socket_dir = {self.path}\nauth_type = any\npool_mode = transaction\n"
        )
        self.start()

    def start(self) -> None:
        """Start it."""
        command = ["pgbouncer", "-q", str(self.settings)]
        self.process = subprocess.Popen(command, user=USER, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def restart(self) -> None:
        """Kill it, and start it anew."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()
        for socket in self.path.glob(".s.PGSQL.*"):
            socket.unlink()


class Writer(threading.Thread):
    """A client that writes, and remembers what was acknowledged."""

    def __init__(self, port: int, stop: threading.Event) -> None:
        super().__init__()
        self.port, self.stopped = port, stop
        self.user = str(uuid4())
        self.headers = {"Authorization": f"Bearer {token(self.user)}", "Content-Type": "application/json"}
        self.connection = HTTPConnection("127.0.0.1", port, timeout=20)
        self.tasks: dict[str, Task] = {}
        self.seen: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.slowest = 0.0

    def run(self) -> None:
        """Create, update and delete until told to stop."""
        while not self.stopped.is_set():
            chance = random.random()
            if chance < 0.5 or not self.tasks:
                self.create()
            elif chance < 0.85:
                self.update(random.choice(list(self.tasks.values())))
            else:
                self.delete(random.choice(list(self.tasks.values())))
        self.connection.close()

    def create(self) -> None:
        """Create a task, by an id that makes it safe to repeat."""
        body = {"id": str(uuid4()), "title": f"Task {random.random()}"}
        status, task, repeated = self.call("POST", "", body)
        is_right = status in ((200, 201) if repeated else (201,)) and task["title"] == body["title"]
        if self.expect(is_right, "create", task):
            self.tasks[body["id"]] = task

    def update(self, task: Task) -> None:
        """Change a task at its version; after a repeat, a 412 may be this update's own doing."""
        title = f"Changed {random.random()}"
        status, answer, repeated = self.call("PATCH", task["id"], {"title": title}, task["updated_at"])
        if status == 412 and repeated:
            status, answer, _ = self.call("GET", task["id"])
        if self.expect(status == 200 and answer["title"] == title, "update", answer):
            self.tasks[task["id"]] = answer

    def delete(self, task: Task) -> None:
        """Delete a task; a 404 may be this delete's own doing, repeated by us or by the service."""
        status, answer, _ = self.call("DELETE", task["id"])
        self.expect(status in (200, 404), "delete", answer)
        del self.tasks[task["id"]]

    def call(self, method: str, task_id: str, body: Any = None, version: str | None = None) -> tuple[int, Task, bool]:
        """Send a request until its answer is final; return status, body, and whether it took more than one."""
        headers = self.headers | ({"If-Match": f'"{version}"'} if version else {})
        repeated = False
        while True:
            began = time.monotonic()
            try:
                path = f"/api/tasks/{task_id}" if task_id else "/api/tasks"
                self.connection.request(method, path, json.dumps(body) if body else None, headers)
                response = self.connection.getresponse()
                status, answer = response.status, json.loads(response.read())
            except (OSError, HTTPException):
                self.connection.close()
                status, answer = 0, {}
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.seen[str(status or "cut off")] += 1
            if status not in (0, 503):
                return status, answer, repeated
            repeated = True
            time.sleep(0.02)

    def expect(self, is_right: bool, what: str, answer: Task) -> bool:
        """Note an answer that must not be, and say whether it was right."""
        if not is_right:
            self.wrong.append(f"{what}: {answer}")
        return is_right


def drill(options: Options) -> str:
    """Run the faults one after the other under load; return what the clients saw, and what the database holds."""
    rolls, kills = options.count(ROLLS), options.count(WORKER_KILLS)
    with postgresql() as (path, servers):
        create(servers, "taskapi", options.of)
        url = servers.failover_url("taskapi")
        restarts, failovers = options.count(RESTARTS), options.count(FAILOVERS)
        with service(taskapi(options.of), url, path) as served, writing(served) as writers:
            lines = [kill_connections(servers, options.count(KILLS))]
            for _ in range(kills):
                kill_worker(served)
            for _ in range(rolls):
                roll(served)
            lines.append(f"{kills} workers killed, all workers replaced {rolls} times by SIGHUP")
            lines.append(back(served, restarts, "database restarts", lambda n: restart(servers, n)))
            lines.append(back(served, failovers, "failovers to the standby", lambda n: fail_over(servers)))
        return report(servers.execute, writers, lines)


def drill_pooler(options: Options) -> str:
    """Do it through a pooler: kill its connections to the database, and restart both of them."""
    with postgresql() as (path, servers):
        create(servers, "taskapi", options.of)
        pooler = Pooler(path, servers)
        try:
            with service(taskapi(options.of), pooler.url, path) as served, writing(served) as writers:
                lines = [kill_connections(servers, options.count(KILLS))]
                restarts = options.count(RESTARTS)
                lines.append(back(served, restarts, "database restarts", lambda n: restart(servers, n)))
                lines.append(back(served, restarts, "pooler restarts", lambda n: pooler.restart()))
            return report(servers.execute, writers, lines)
        finally:
            pooler.stop()


def drill_asleep(options: Options) -> str:
    """Cut all connections at once, a second apart, as a database does that falls asleep."""
    with postgresql() as (path, servers):
        url = create(servers, "taskapi", options.of)
        with service(taskapi(options.of), url, path) as served, writing(served) as writers:
            killed = 0
            for _ in range(options.count(CUTS)):
                time.sleep(1)
                killed += len(servers.execute(CUT))
            time.sleep(1)
        line = f"all connections cut {options.count(CUTS)} times, a second apart: {killed}"
        return report(servers.execute, writers, [line])


@contextmanager
def writing(served: Service) -> Iterator[list[Writer]]:
    """Clients at work from beginning to end."""
    until(served.is_ready)
    stop = threading.Event()
    writers = [Writer(served.port, stop) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    try:
        yield writers
    finally:
        stop.set()
        for writer in writers:
            writer.join()


def kill_connections(servers: Cluster, kills: int) -> str:
    """End all connections of the service, idle or not, until there have been so many."""
    killed = 0
    while killed < kills:
        killed += len(servers.execute(CUT, database="postgres"))
        progress(f"{killed} connections killed")
        time.sleep(0.05)
    return f"{killed} connections killed"


def kill_worker(served: Service) -> None:
    """SIGKILL one worker, and let a new one start: with none left, clients would wait for gunicorn."""
    workers = served.process.children()
    random.choice(workers).kill()
    until(lambda: len(served.process.children()) == len(workers))
    time.sleep(1.5)


def roll(served: Service) -> None:
    """Have gunicorn replace its workers, as after a deployment."""
    before = served.process.children()
    served.process.send_signal(signal.SIGHUP)
    until(lambda: not any(worker.is_running() for worker in before))
    time.sleep(0.5)


def restart(servers: Cluster, number: int) -> None:
    """Restart the database, politely or not."""
    servers.stop(servers.primary, "fast" if number % 2 else "immediate")
    servers.start(servers.primary)


def fail_over(servers: Cluster) -> None:
    """Lose the primary."""
    # Only now: what a restarted primary shows before its standby has it can be read, and still be lost.
    servers.add_standby()
    time.sleep(0.3)
    servers.fail_over()


def back(served: Service, count: int, what: str, fault: Callable[[int], object]) -> str:
    """Do a fault so many times; return how long it took at most from its end to the first good answer."""
    slowest = 0.0
    for number in range(count):
        progress(f"{number} of {count} {what}")
        fault(number)
        began = time.monotonic()
        until(served.is_ready)
        slowest = max(slowest, time.monotonic() - began)
        time.sleep(0.3)
    return f"{count} {what}: a good answer within {slowest:.2f} s"


def report(execute: Callable[[str], list[Any]], writers: Sequence[Writer], lines: list[str]) -> str:
    """Compare the database with what was acknowledged."""
    acknowledged = {(writer.user, task["id"]): task["title"] for writer in writers for task in writer.tasks.values()}
    stored = {row[:2]: row[2] for row in execute("SELECT user_id::text, id::text, title FROM tasks")}
    wrong = [text for writer in writers for text in writer.wrong]
    seen = sum((writer.seen for writer in writers), Counter())
    lost = sum(stored.get(key) != title for key, title in acknowledged.items())
    unasked = len(stored.keys() - acknowledged.keys())
    lines = [
        *lines,
        f"{seen.total():,} requests: {answers(seen)}; the slowest took {max(each.slowest for each in writers):.1f} s",
        f"{len(stored):,} tasks in the database: {lost} lost, {unasked} unasked for; {len(wrong)} wrong answers",
        *wrong[:5],
    ]
    return "```\n" + "\n".join(lines) + "\n```"
