"""Requests: one at a time, and as many as wrk gets through."""

import json
import subprocess
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from benchmarks.data import token
from benchmarks.servers import Service

CONNECTIONS, THREADS = 16, 2
SCRIPT = Path(__file__).with_name("requests.lua")


class Request(NamedTuple):
    """What is asked; wrk puts an id in place of {id}."""

    method: str
    path: str
    body: str = ""


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


class Run(NamedTuple):
    """What wrk and the kernel counted: requests/s, microseconds of server CPU per request, microseconds of latency."""

    rate: float
    cpu: float
    p50: float
    p99: float


def task_id(number: int) -> str:
    """Return the id of OWNER's task of that number, as data.FILL makes it."""
    return f"00000000-0000-4000-8000-{number:012x}"


class Client:
    """Somebody with OWNER's token and one kept-alive connection."""

    def __init__(self, service: Service) -> None:
        self.connection = HTTPConnection("127.0.0.1", service.port, timeout=30)
        self.headers = {"Authorization": f"Bearer {token()}", "Content-Type": "application/json"}

    def ask(self, request: Request, number: int = 0) -> Answer:
        """Send a request about the task of that number; raise RuntimeError for an answer that is no success."""
        path = request.path.replace("{id}", task_id(number))
        self.connection.request(request.method, path, request.body or None, self.headers)
        response = self.connection.getresponse()
        answer = Answer(response.status, response.headers["Link"], response.read())
        if answer.status not in (200, 201):
            raise RuntimeError(f"{request.method} {path}: {answer}")
        return answer


def run(service: Service, request: Request, seconds: int, tasks: int, bearer: str) -> Run:
    """Let wrk ask for so many seconds; raise RuntimeError if any request fails."""
    headers = f"Authorization: Bearer {bearer}", "Content-Type: application/json"
    before = service.cpu()
    done = subprocess.run(
        ["wrk", f"-c{CONNECTIONS}", f"-t{THREADS}", f"-d{seconds}s", "-H", headers[0], "-H", headers[1]]
        + ["-s", str(SCRIPT), f"http://127.0.0.1:{service.port}", "--", *request, str(tasks), str(THREADS)],
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
