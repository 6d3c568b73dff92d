"""Lose the database's machine: the primary of a Patroni cluster is killed; a first host falls silent."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path
from statistics import median
from urllib.request import urlopen
from uuid import uuid4

import psutil

from benchmarks.faults import report, writing
from benchmarks.load import REQUESTS, Client
from benchmarks.postgres import USER, Cluster, execute, own
from benchmarks.service import Options, Service, create, folder, migrate, postgresql, progress, service, taskapi
from benchmarks.service import token, until

FAILOVERS = 10
PROBER = str(uuid4())  # a user that only tries whether writing works

# Patroni: two nodes and one etcd, of Debian's packages, on ports of 127.0.0.1.
SQL_PORT, REST_PORT, ETCD_PORT = 20100, 20110, 20120
PASSWORD = "SUPERUSER-PASSWORD"  # as docs/patroni.yml has it

# The machine that is lost: a network namespace.
NAME, HERE, THERE = "taskapi", "10.213.7.1", "10.213.7.2"


def writes(served: Service) -> bool:
    """Say whether a task can be created."""
    client = Client(served, lambda: REQUESTS["create"]._replace(token=token(PROBER)), most=1)
    client.run()
    return client.seen["201"] == 1


def patroni(options: Options) -> str:
    """Kill the primary of a Patroni cluster again and again under load; return how long writing stopped."""
    count = options.count(FAILOVERS)
    with folder() as path, _patroni(path, options.of) as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        url = f"postgresql://postgres:{PASSWORD}@{hosts}/taskapi?target_session_attrs=read-write"
        execute(url.replace("/taskapi?", "/postgres?"), "CREATE DATABASE taskapi")
        migrate(options.of, url)
        seconds = []
        with service(taskapi(options.of), url, path) as served, writing(served) as writers:
            for number in range(count):
                progress(f"{number} of {count} failovers")
                (primary,) = [node for node in nodes if node.role() == "leader"]
                primary.kill()
                began = time.monotonic()
                until(lambda: writes(served))
                seconds.append(time.monotonic() - began)
                time.sleep(1)
                primary.start()
                _settle(nodes)
        execute(url, "DELETE FROM users WHERE id = %(user)s", user=PROBER)
        line = f"{count} primaries killed; seconds from the kill to the next acknowledged write: {median(seconds):.1f}"
        return report(partial(execute, url), writers, [f"{line} ({min(seconds):.1f} to {max(seconds):.1f})"])


class Node:
    """One database machine: a Patroni by docs/patroni.yml, which starts its PostgreSQL."""

    def __init__(self, number: int, path: Path, checkout: Path) -> None:
        self.path, self.port, self.rest = path / "ab"[number], SQL_PORT + number, REST_PORT + number
        self.path.mkdir(mode=0o700)
        own(self.path)
        text = (checkout / "docs" / "patroni.yml").read_text()
        for given, ours in {
            "name: a\n": f"name: {self.path.name}\n",
            "10.0.0.31:2379,10.0.0.32:2379,10.0.0.33:2379": f"127.0.0.1:{ETCD_PORT}",
            "10.0.0.21:8008": f"127.0.0.1:{self.rest}",
            "10.0.0.21:5432": f"127.0.0.1:{self.port}",
            "10.0.0.0/24": "127.0.0.1/32",
            "/var/lib/postgresql/15/taskapi": f"{self.path}/data",
            "/var/lib/postgresql/patroni.pgpass": f"{self.path}/pgpass",
            "/var/run/postgresql": str(self.path),
            "local all postgres peer": "local all postgres trust",
        }.items():
            if given not in text:
                raise RuntimeError(f"docs/patroni.yml no longer has {given!r}")
            text = text.replace(given, ours)
        (self.path / "patroni.yml").write_text(text)
        self.start()

    def start(self) -> None:
        """Start it; PostgreSQL comes by itself."""
        self.process = _debian(self.path / "log", "patroni", str(self.path / "patroni.yml"), user=USER)

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
            return str(roles.get(self.path.name, ""))
        return ""


def _debian(log: Path, program: str, *arguments: str, user: str | None = None) -> subprocess.Popen[bytes]:
    """Start one of Debian's programs, with its Python and not that of the virtual environment."""
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
    command = [f"/usr/bin/{program}", *arguments]
    with log.open("ab") as out:
        return subprocess.Popen(command, env=environment, user=user, cwd="/", stdout=out, stderr=out, process_group=0)


def _settle(nodes: list[Node]) -> None:
    """Wait until there is a primary, and a standby that it waits for."""
    until(lambda: sorted(node.role() for node in nodes) == ["leader", "sync_standby"])


@contextmanager
def _patroni(path: Path, checkout: Path) -> Iterator[list[Node]]:
    """One etcd, where three would be, and both nodes at work."""
    client, peer = (f"http://127.0.0.1:{port}" for port in (ETCD_PORT, ETCD_PORT + 1))
    arguments = ["--data-dir", str(path / "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client]
    arguments += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]
    etcd = _debian(path / "etcd.log", "etcd", *arguments, "--initial-cluster", f"default={peer}")
    nodes: list[Node] = []
    try:
        for number in (0, 1):
            nodes.append(Node(number, path, checkout))
        _settle(nodes)
        yield nodes
    finally:
        for node in nodes:
            node.process.send_signal(signal.SIGTERM)  # it stops its PostgreSQL
        for node in nodes:
            with suppress(subprocess.TimeoutExpired):
                node.process.wait(30)
            node.kill()
        etcd.terminate()
        etcd.wait()


def lost_machine(options: Options) -> str:
    """Have the machine of the first host in DATABASE_URL fall silent, with and without tcp_user_timeout."""
    return "\n".join(_lose(added, options.of) for added in ("&tcp_user_timeout=1000", ""))


def _lose(added: str, checkout: Path) -> str:
    with postgresql() as (path, servers), _machine(servers):
        create(servers, "taskapi", checkout)
        both = f"host={THERE},{servers.socket('a')}&target_session_attrs=read-write{added}"
        with service(taskapi(checkout), f"postgresql://postgres@/taskapi?{both}", path) as served:
            with writing(served) as writers:
                time.sleep(3)
                _ip("-n", NAME, "route", "add", "blackhole", f"{HERE}/32")
                began = time.monotonic()
                try:
                    until(lambda: writes(served))
                    found = f"a write was acknowledged after {time.monotonic() - began:.1f} s"
                except TimeoutError:
                    found = "no write was acknowledged within 60 s, until the machine was back"
                    _ip("-n", NAME, "route", "del", "blackhole", f"{HERE}/32")  # clients ask until they are answered
            servers.execute(f"DELETE FROM users WHERE id = '{PROBER}'")
            return report(servers.execute, writers, [f"{added or 'nothing'} added to the URL: {found}"])


@contextmanager
def _machine(servers: Cluster) -> Iterator[None]:
    """Put the primary into a network namespace with an address."""
    _ip("netns", "add", NAME)
    _ip("link", "add", NAME, "type", "veth", "peer", "name", NAME, "netns", NAME)
    try:
        _ip("addr", "add", f"{HERE}/24", "dev", NAME)
        _ip("link", "set", NAME, "up")
        _ip("-n", NAME, "addr", "add", f"{THERE}/24", "dev", NAME)
        _ip("-n", NAME, "link", "set", NAME, "up")
        with open(f"{servers.data('a')}/postgresql.auto.conf", "a") as settings:
            settings.write(f"listen_addresses = '{THERE}'\n")
        with open(f"{servers.data('a')}/pg_hba.conf", "a") as rules:
            rules.write(f"host all all {HERE}/32 trust\n")
        servers.stop("a", "fast")
        servers.start("a", within=["ip", "netns", "exec", NAME, "runuser", "-u", str(USER), "--"])
        yield
    finally:
        _ip("link", "del", NAME)  # the namespace itself lasts as long as connections that are not answered
        _ip("netns", "del", NAME)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
