"""A proxy between a page and the service, with the faults that a test gives it."""

from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event
from typing import NamedTuple

from tests.servers import PATIENCE


class Fault(NamedTuple):
    """What happens to one request: an answer of the relay's own, or how much of the service's comes back."""

    share: float = 1
    status: int = 0  # of an answer of its own, which is no JSON
    retry_after: str = ""
    port: int = 0  # of another service


class Relay(ThreadingHTTPServer):
    """Passes requests on. Each request of a method meets the next of its faults, while there are any."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.port = port
        self.faults: dict[str, list[Fault]] = {}
        self.requests: list[str] = []  # without preflights
        self.held: dict[str, Event] = {}  # requests with this in their path wait for the event

    def count(self, method: str) -> int:
        """Return how many requests had the method."""
        return sum(request.startswith(f"{method} ") for request in self.requests)


class _Relay(BaseHTTPRequestHandler):
    server: Relay

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.command != "OPTIONS":
            self.server.requests.append(f"{self.command} {self.path}")
        faults = self.server.faults.get(self.command)
        fault = faults.pop(0) if faults else Fault()
        for part, event in self.server.held.items() if self.command != "OPTIONS" else ():
            if part in self.path:
                event.wait(PATIENCE)
        if fault.status:
            self.answer(fault)
        else:
            self.pass_on(fault, body)

    do_POST = do_PATCH = do_DELETE = do_OPTIONS = do_GET

    def answer(self, fault: Fault) -> None:
        """Answer as a proxy that was told about CORS, but knows nothing of JSON."""
        self.send_response(fault.status)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Expose-Headers", "Retry-After")
        if fault.retry_after:
            self.send_header("Retry-After", fault.retry_after)
        self.end_headers()
        self.wfile.write(b"<h1>Sorry</h1>")

    def pass_on(self, fault: Fault, body: bytes) -> None:
        """Have the service answer, and give back what the fault leaves of that."""
        port = fault.port or self.server.port
        with closing(HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            data = answer.read()
        if fault.share == 0:
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name != "Connection":  # which ends here after each answer: Chromium repeats by itself on a kept one
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data[: int(len(data) * fault.share)])

    def log_message(self, *args: object) -> None:
        """Say nothing."""
