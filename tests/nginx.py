"""docs/nginx.conf at work, as it is but for addresses and paths, with instances behind it and clients before it."""

import json
import os
import random
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.client import HTTPException, HTTPSConnection
from ipaddress import ip_address
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from typing import Any, NamedTuple
from uuid import uuid4

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.people import SECRET, make_token
from tests.servers import PATIENCE, PROJECT, Server, copy_project, require, serving

TEMPORARY = "client_body proxy fastcgi uwsgi scgi".split()
CONF = (PROJECT / "docs" / "nginx.conf").read_text()


class Answer(NamedTuple):
    """What nginx gave."""

    status: int
    headers: dict[str, str]
    body: Any


class Client:
    """A client with a token and a kept-alive connection from an address of its own: limits are per address."""

    def __init__(self, port: int, certificate: Path, number: int) -> None:
        context = ssl.create_default_context(cafile=str(certificate))
        source = (f"127.0.0.{number}", 0)
        self.connection = HTTPSConnection("127.0.0.1", port, timeout=PATIENCE, source_address=source, context=context)
        self.headers = {"Authorization": f"Bearer {make_token()}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str = "/api/tasks", body: object = None, **headers: str) -> Answer:
        """Send one request; an underscore in a header's name stands for a dash."""
        given = self.headers | {name.replace("_", "-"): headers[name] for name in headers}
        self.connection.request(method, path, json.dumps(body) if body else None, given)
        response = self.connection.getresponse()
        answered = {name.lower(): value for name, value in response.getheaders()}
        assert len(answered) == len(response.getheaders()), "a header was sent twice"
        return Answer(response.status, answered, json.loads(response.read() or "null"))


class Nginx(NamedTuple):
    """A running nginx."""

    port: int
    certificate: Path

    @contextmanager
    def client(self, number: int) -> Iterator[Client]:
        """One at 127.0.0.number."""
        client = Client(self.port, self.certificate, number)
        with closing(client.connection):
            yield client


def certify(folder: Path) -> None:
    """Write a key and a certificate for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "fullchain.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "privkey.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password))


def fill_in(values: dict[str, str]) -> str:
    """Return docs/nginx.conf with each key replaced; all else is what the operator installs."""
    text = CONF
    for name, value in values.items():
        assert text.count(name) == 1, f"{name} is no longer what docs/nginx.conf has"
        text = text.replace(name, value)
    return text


def free_port() -> int:
    """Return a port that is free, and that the kernel gives to no other process: a restarted server needs it again."""
    while True:
        port = random.randrange(20000, 32000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def nginx(folder: Path, first: int, second: int) -> Iterator[Nginx]:
    """Docs/nginx.conf at work before two ports."""
    certify(folder)
    port = free_port()
    temporary = [f"{name}_temp_path {folder / name};" for name in TEMPORARY]
    conf = fill_in(
        {
            "user www-data;": "user root;" if os.geteuid() == 0 else "",
            "/run/nginx.pid": str(folder / "nginx.pid"),
            "/var/log/nginx/error.log": str(folder / "error.log"),
            "/var/log/nginx/taskapi.log": str(folder / "taskapi.log"),
            "http {\n": "http {\n" + " ".join(temporary) + "\n",
            "/etc/ssl/taskapi/fullchain.pem": str(folder / "fullchain.pem"),
            "/etc/ssl/taskapi/privkey.pem": str(folder / "privkey.pem"),
            "listen 443 ": f"listen 127.0.0.1:{port} ",
            "10.0.0.11:8000": f"127.0.0.1:{first}",
            "10.0.0.12:8000": f"127.0.0.1:{second}",
        }
    )
    with running(folder, conf, port):
        yield Nginx(port, folder / "fullchain.pem")


# What stands before the http block. Only root may name another user.
MAIN = """
%(user)s
pid %(folder)s/nginx.pid;
error_log %(folder)s/error.log;
events {}
"""

# A proxy that was not made for the service. It compresses, which makes tags weak, or takes the ETag away. It adds a
# Link. It has the service below a path that the service does not know of.
FOREIGN = MAIN + """
http {
    access_log off;
    %(temporary)s
    gzip on;
    gzip_min_length 1;
    gzip_types *;
    add_header Link "<https://cdn.example.com/?v=1>; rel=preconnect";
    server {
        listen 127.0.0.1:%(port)s;
        location /backend/ { proxy_pass http://127.0.0.1:%(service)s/; }
        location /tagless/ { proxy_pass http://127.0.0.1:%(service)s/; proxy_hide_header ETag; }
    }
}
"""


@contextmanager
def foreign_nginx(folder: Path, service: int) -> Iterator[int]:
    """Yield the port of an nginx with FOREIGN's configuration."""
    port = free_port()
    temporary = " ".join(f"{name}_temp_path {folder / name};" for name in TEMPORARY)
    user = "user root;" if os.geteuid() == 0 else ""
    values = {"folder": folder, "temporary": temporary, "port": port, "service": service, "user": user}
    with running(folder, FOREIGN % values, port):
        yield port


@contextmanager
def running(folder: Path, conf: str, port: int) -> Iterator[None]:
    """Run nginx with a configuration that has it listen on the port."""
    (folder / "nginx.conf").write_text(conf)
    command = [require("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    with (folder / "stderr").open("wb") as stderr:
        process = subprocess.Popen(command, stderr=stderr)
    try:
        wait_for(port, process, folder)
        yield
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until nginx listens."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        time.sleep(0.01)
    raise AssertionError((folder / "stderr").read_text())


@contextmanager
def instance(folder: Path, port: int, database_url: str) -> Iterator[Server]:
    """One of the two, on its port."""
    copy_project(folder)
    settings = {"JWT_SECRET": SECRET, "DATABASE_URL": database_url, "HOME": str(folder)}
    with serving("gunicorn", "--bind", f"127.0.0.1:{port}", "wsgi:app", cwd=folder, **settings) as server:
        assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})
        yield server


class Writer(Thread):
    """A client that makes 25 requests/s of every kind, repeats none, and keeps in mind what was acknowledged."""

    def __init__(self, client: Client, stop: Event) -> None:
        super().__init__()
        self.client, self.stop = client, stop
        self.tasks: dict[str, str] = {}
        self.requests = 0
        self.failed: list[object] = []

    def run(self) -> None:
        """Make, read, change and delete tasks until told to stop."""
        began = time.monotonic()
        while not self.stop.is_set():
            self.write(*self.choose())
            self.requests += 1
            self.stop.wait(began + self.requests / 25 - time.monotonic())

    def choose(self) -> tuple[str, str, Any]:
        """Return what to ask next."""
        method = ("POST", "GET", "POST", "PUT", "PATCH", "GET", "DELETE")[self.requests % 7]
        if method == "POST":
            return method, "", {"id": str(uuid4()), "title": f"Task {self.requests}"}
        path = f"/{random.choice(list(self.tasks))}" if self.requests % 7 > 1 else ""
        return method, path, {"title": f"Task {self.requests}"} if method.startswith("P") else None

    def write(self, method: str, path: str, body: Any) -> None:
        """Send a request, and keep a success in mind and a failure apart."""
        try:
            answer = self.client.ask(method, f"/api/tasks{path}", body)
        except (OSError, HTTPException) as error:
            self.failed.append((method, path, error))
            self.client.connection.close()
            return
        if method == "DELETE" and answer.status in (200, 404):  # 404: nginx repeated one that lost its answer
            del self.tasks[path.removeprefix("/")]
        elif answer.status not in (200, 201):
            self.failed.append((method, path, answer))
        elif body:
            self.tasks[answer.body["id"]] = answer.body["title"]


@contextmanager
def writing(server: Nginx, clients: int) -> Iterator[list[Writer]]:
    """So many clients, from beginning to end."""
    stop = Event()
    with ExitStack() as stack:
        writers = [Writer(stack.enter_context(server.client(number)), stop) for number in range(1, clients + 1)]
        for writer in writers:
            writer.start()
        try:
            yield writers
        finally:
            stop.set()
            for writer in writers:
                writer.join()


def serve_some(server: Server) -> None:
    """Wait until an instance has had a hundred requests from nginx."""
    deadline = time.monotonic() + 3 * PATIENCE  # a busy machine
    while server.stdout.read_text().count("/api/tasks") < 100:
        assert time.monotonic() < deadline
        time.sleep(0.05)


class _HangUp(BaseRequestHandler):
    server: "HangsUp"

    def handle(self) -> None:
        self.server.requests += bool(self.request.recv(65536))


class HangsUp(ThreadingTCPServer):
    """Takes a request and closes the connection, as an instance does that is killed."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _HangUp)
        self.requests = 0

    def __enter__(self) -> "HangsUp":
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()
