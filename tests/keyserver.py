"""The endpoint where an issuer publishes its keys, with the faults that a test gives it."""

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer
from ssl import SSLContext
from threading import Event, Thread
from typing import Any

from tests.tokens import dump

DRIP = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"
DRIP_GZIP = DRIP[:-2] + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x08" + bytes(6)  # the name of a file is to follow

Answer = bytes | Callable[["KeyServer", socket.socket], None]


def http(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    """Return an HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def key_set(*jwks: Any) -> bytes:
    """Return the answer of an endpoint that works."""
    return http(dump({"keys": jwks}), "200 OK", "Content-Type: application/json")


def hang(server: "KeyServer", connection: socket.socket) -> None:
    """Wait until the test lets go; then give the late answer."""
    server.let_go.wait()
    connection.sendall(server.late_answer)


def silent(server: "KeyServer", connection: socket.socket) -> None:
    """Send nothing, and note when the client hangs up."""
    connection.settimeout(0.02)
    while not server.let_go.is_set():
        with suppress(TimeoutError):
            if not connection.recv(1):
                return server.left.set()


def drip(server: "KeyServer", connection: socket.socket) -> None:
    """Begin an answer, and send a space every 0.05 s until the client hangs up."""
    connection.sendall(server.drip_start)
    try:
        while not server.let_go.wait(0.05):
            connection.sendall(b" ")
    except OSError:
        server.left.set()


def flood(server: "KeyServer", connection: socket.socket) -> None:
    """Send far more than a key set, and note when the client hangs up."""
    try:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b" " * 99_999_999)
    except OSError:
        server.left.set()


def reset(server: "KeyServer", connection: socket.socket) -> None:
    """Break the connection off with a TCP reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class _Handler(StreamRequestHandler):
    server: "KeyServer"

    def handle(self) -> None:
        request = self.rfile.readline().decode()
        headers = iter(lambda: self.rfile.readline().decode().strip(), "")
        self.server.heads.append([request.strip(), *headers])
        self.server.asked.append(request.split()[1])
        self.server.was_asked.set()
        answer = self.server.answer
        if isinstance(answer, bytes):
            self.connection.sendall(answer)
        else:
            answer(self.server, self.connection)


class KeyServer(ThreadingTCPServer):
    """Gives one answer to each request, over TLS if it has a context, and notes the paths and heads of the requests."""

    request_queue_size = 64

    def __init__(self, *jwks: Any, tls: SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.answer: Answer = key_set(*jwks)
        self.late_answer = self.answer
        self.drip_start = DRIP
        self.asked: list[str] = []
        self.heads: list[list[str]] = []
        self.was_asked, self.let_go, self.left = Event(), Event(), Event()
        self.origin = f"http{'s' if tls else ''}://127.0.0.1:{self.server_address[1]}"
        self.url = f"{self.origin}/keys"
        self._thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.002})

    def publish(self, *jwks: Any) -> None:
        """Show these keys from now on."""
        self.answer = self.late_answer = key_set(*jwks)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore a client that hangs up."""

    def __enter__(self) -> "KeyServer":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.let_go.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class Clock:
    """Stands in for taskapi.auth.keys.monotonic: a day passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0  # the machine has been up for longer than a day

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now
