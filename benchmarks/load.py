"""Requests: by clients at an even pace, and as many as wrk gets through; and the tables of what they took."""

import json
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from benchmarks.service import Service

CONNECTIONS, THREADS = 16, 2
SCRIPT = Path(__file__).with_name("requests.lua")


class Request(NamedTuple):
    """What is asked; {id} stands for the id of one of OWNER's tasks."""

    method: str
    path: str
    body: str = ""
    token: str = ""


LIST, GET, CREATE, UPDATE, DELETE = "list of 20", "get one", "create", "update", "delete"
REQUESTS = {
    LIST: Request("GET", "/api/tasks?limit=20"),
    GET: Request("GET", "/api/tasks/{id}"),
    CREATE: Request("POST", "/api/tasks", '{"title": "Water the plants", "description": "All but the cactus."}'),
    UPDATE: Request("PUT", "/api/tasks/{id}", '{"title": "Water the cactus", "is_completed": true}'),
    DELETE: Request("DELETE", "/api/tasks/{id}"),
}


class Answer(NamedTuple):
    """What came back."""

    status: int
    link: str | None
    body: bytes


class Client(threading.Thread):
    """A client with one connection. As a thread it sends a request every so many seconds, and repeats nothing.

    It ends when told to, after `most` requests, or when its connection is refused: that request was not sent.
    """

    def __init__(
        self, service: Service, ask: Callable[[], Request], pace: float = 0, most: float = float("inf")
    ) -> None:
        super().__init__()
        self.connection = HTTPConnection("127.0.0.1", service.port, timeout=30)
        self.ask, self.pace, self.most = ask, pace, most
        self.stopped = threading.Event()
        self.seen: Counter[str] = Counter()  # by status, or "failed" where no answer came
        self.seconds: list[float] = []  # of each request

    def send(self, request: Request, number: int = 0) -> Answer:
        """Send a request, about OWNER's task of that number."""
        path = request.path.replace("{id}", f"00000000-0000-4000-8000-{number:012x}")
        headers = {"Content-Type": "application/json"} if request.body else {}
        if request.token:
            headers["Authorization"] = f"Bearer {request.token}"
        self.connection.request(request.method, path, request.body or None, headers)
        response = self.connection.getresponse()
        return Answer(response.status, response.headers["Link"], response.read())

    def run(self) -> None:
        """Ask until the end."""
        following = time.monotonic()
        while len(self.seconds) < self.most and not self.stopped.is_set():
            began = time.perf_counter()
            try:
                self.seen[str(self.send(self.ask()).status)] += 1
            except ConnectionRefusedError:
                break
            except (OSError, HTTPException):
                self.connection.close()
                self.seen["failed"] += 1
            self.seconds.append(time.perf_counter() - began)
            following += self.pace
            self.stopped.wait(max(0.0, following - time.monotonic()))
        self.connection.close()


@contextmanager
def at_work(clients: Sequence[Client]) -> Iterator[None]:
    """Let clients ask from the beginning to the end of the context."""
    for client in clients:
        client.start()
    try:
        yield
    finally:
        for client in clients:
            client.stopped.set()
        for client in clients:
            client.join()


def seen(clients: Sequence[Client]) -> Counter[str]:
    """Return what all of them have seen."""
    return sum((client.seen for client in clients), Counter())


def percentile(clients: Sequence[Client], percent: int) -> float:
    """Return a percentile of all their requests, in milliseconds."""
    return quantiles([each * 1000 for client in clients for each in client.seconds], n=100)[percent - 1]


def answers(counted: Counter[str]) -> str:
    """Return counts as text."""
    return ", ".join(f"{count:,} {status}" for status, count in sorted(counted.items())) or "none"


class Run(NamedTuple):
    """What wrk and the kernel counted: requests/s, microseconds of server CPU per request, microseconds of latency."""

    rate: float
    cpu: float
    p50: float
    p99: float


def run(
    service: Service, request: Request, seconds: int, tasks: int, tokens: Sequence[str], connections: int = CONNECTIONS
) -> Run:
    """Let wrk ask for so many seconds, with the tokens in turn; raise RuntimeError if any request fails."""
    threads = min(THREADS, connections)
    before = service.cpu()
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("\n".join(tokens))
        file.flush()
        done = subprocess.run(
            ["wrk", f"-c{connections}", f"-t{threads}", f"-d{seconds}s", "-s", str(SCRIPT)]
            + [f"http://127.0.0.1:{service.port}", "--", *request[:3], str(tasks), str(threads), file.name],
            check=True,
            capture_output=True,
            timeout=seconds + 30,
        )
    after = service.cpu()
    result = json.loads(done.stdout.splitlines()[-1])
    if result["failures"] or not result["requests"]:
        raise RuntimeError(f"{service.name}, {request.method} {request.path}:\n{done.stdout.decode()}")
    if before.keys() != after.keys():
        raise RuntimeError(f"{service.name} has lost or replaced a worker")
    return Run(
        rate=result["requests"] / result["seconds"],
        cpu=(sum(after.values()) - sum(before.values())) / result["requests"] * 1e6,
        p50=result["p50"],
        p99=result["p99"],
    )


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Return the median and, in brackets, the least and the most."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def ratios(ours: Sequence[Run], theirs: Sequence[Run], value: str) -> list[float]:
    """Return how many times theirs each of our values is, round by round."""
    return [getattr(mine, value) / getattr(other, value) for mine, other in zip(ours, theirs, strict=True)]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table that reads well as text too."""
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines
    )
