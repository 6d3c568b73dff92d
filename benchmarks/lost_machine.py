"""Lose the machine of the first host in DATABASE_URL, not only its PostgreSQL: nobody is left to refuse a connection.

python -m benchmarks.lost_machine, as root, on Linux: the machine is a network namespace, whose way back is cut.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg2

from benchmarks.faults import clients_of, report, until
from benchmarks.patroni import PROBER, token, writes
from benchmarks.servers import TASKAPI, folder, postgresql, service

NAME, HERE, THERE = "taskapi", "10.213.7.1", "10.213.7.2"
RELAY = """
import socket, sys, threading

def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    target.close()

listener = socket.create_server((sys.argv[1], 5432))
while True:
    client, _ = listener.accept()
    server = socket.socket(socket.AF_UNIX)
    server.connect(sys.argv[2])
    for pair in ((client, server), (server, client)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


class Database:
    """What faults.report asks."""

    def __init__(self, url: str) -> None:
        self.url = url

    def execute(self, statement: str) -> list[Any]:
        """Run a statement."""
        with closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def ip(*arguments: str) -> None:
    """Configure the network."""
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def machine(socket: str) -> Iterator[None]:
    """A network namespace with an address, where a relay to the socket listens."""
    ip("netns", "add", NAME)
    ip("link", "add", NAME, "type", "veth", "peer", "name", NAME, "netns", NAME)
    try:
        ip("addr", "add", f"{HERE}/24", "dev", NAME)
        ip("link", "set", NAME, "up")
        ip("-n", NAME, "addr", "add", f"{THERE}/24", "dev", NAME)
        ip("-n", NAME, "link", "set", NAME, "up")
        relay = subprocess.Popen(["ip", "netns", "exec", NAME, sys.executable, "-c", RELAY, THERE, socket])
        try:
            yield
        finally:
            relay.kill()
            relay.wait()
    finally:
        ip("link", "del", NAME)  # the namespace itself lasts as long as connections that nobody answers
        ip("netns", "del", NAME)


def lose(extra: str) -> str:
    """Lose the machine under load, with something added to the URL; return what the clients saw."""
    with folder() as path, postgresql(path) as create:
        url = create("taskapi")
        socket = parse_qs(urlsplit(url).query)["host"][0]
        both = f"postgresql://postgres@/taskapi?host={THERE},{socket}&target_session_attrs=read-write{extra}"
        with machine(f"{socket}/.s.PGSQL.5432"), service(TASKAPI, both, path) as served:
            with clients_of(served) as clients:
                headers = clients[0].headers | {"Authorization": f"Bearer {token()}"}
                time.sleep(3)
                ip("-n", NAME, "route", "add", "blackhole", f"{HERE}/32")
                began = time.monotonic()
                try:
                    until(lambda: writes(served.port, headers))
                    found = f"a write was acknowledged after {time.monotonic() - began:.1f} s"
                except TimeoutError:
                    found = "no write was acknowledged within 60 s, until the machine was back"
                    ip("-n", NAME, "route", "del", "blackhole", f"{HERE}/32")  # clients ask until they are answered
            Database(url).execute(f"DELETE FROM users WHERE id = '{PROBER}'")
            seen = report(Database(url), clients, 0, 0, 0, {}).partition("\n")[2]
    return f"{extra or 'nothing'} added to the URL: {found}\n{seen}"


if __name__ == "__main__":
    for added in ("&tcp_user_timeout=1000", ""):
        print(lose(added), flush=True)
