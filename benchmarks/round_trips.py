"""How often a service asks PostgreSQL per request, counted on the wire; and what it answers, to be compared."""

import re
import select
import socket
import socketserver
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from benchmarks.load import REQUESTS, Client
from benchmarks.servers import Service

WARM_UP = 200  # requests until connections are open and statements prepared; psycopg 3 prepares at the sixth
COUNTED = 100  # requests
QUIET = 0.2  # seconds; FastAPI may end its transaction after it has answered
SOCKET = ".s.PGSQL.5432"

# What differs from one run to the next; its form does not.
ID = re.compile(rb'"id":"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"')
TIME = re.compile(rb'_at":"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z"')


class Observed(NamedTuple):
    """Round trips per request, and the status and body of one."""

    round_trips: float
    answer: tuple[int, bytes]


class Proxy(socketserver.ThreadingUnixStreamServer):
    """Passes bytes on between a service and PostgreSQL, and counts flights: all that is sent before the next answer."""

    daemon_threads = True
    flights = 0  # for requests one after another alone: threads may lose counts

    def __init__(self, path: Path, upstream: Path) -> None:
        super().__init__(str(path / SOCKET), _Connection)
        self.upstream = str(upstream / SOCKET)


class _Connection(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        service: socket.socket = self.request
        answered = True
        with socket.socket(socket.AF_UNIX) as postgresql:
            postgresql.connect(self.server.upstream)
            while True:
                for end in select.select([service, postgresql], [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    if end is service:
                        self.server.flights += answered
                    answered = end is postgresql
                    (service if answered else postgresql).sendall(data)


@contextmanager
def proxy(path: Path, upstream: Path) -> Iterator[Proxy]:
    """A proxy with its socket in path, before the PostgreSQL whose socket is in upstream."""
    with Proxy(path, upstream) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()


def observe(service: Service, counter: Proxy) -> dict[str, Observed]:
    """Ask each endpoint, one request after another; OWNER's tasks have to be as filled."""
    client = Client(service)
    observed = {}
    for endpoint, request in REQUESTS.items():
        answer = client.ask(request)
        for number in range(1, WARM_UP):
            client.ask(request, number)
        time.sleep(QUIET)
        before = counter.flights
        for number in range(WARM_UP, WARM_UP + COUNTED):
            client.ask(request, number)
        time.sleep(QUIET)
        body = answer.body
        if request.method != "GET":
            body = ID.sub(b'"id":ID', TIME.sub(b'_at":TIME', body))
        observed[endpoint] = Observed((counter.flights - before) / COUNTED, (answer.status, body))
    client.connection.close()
    return observed
