"""What docs/deploy.md installs on one machine: the commands of docs/taskapi.service, and docs/nginx-site.conf."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.nginx import MAIN, TEMPORARY, Nginx, certify, free_port, instance, running
from tests.people import SECRET, make_token
from tests.servers import BIN, PATIENCE, PROJECT, Proxy, copy_project, run, serving

pytestmark = pytest.mark.slow

BEARER = f"Bearer {make_token()}"
DOCS = PROJECT / "docs"

# Root may write to a file of any mode, unless it gives its capabilities away: then it is an owner like others.
UNPRIVILEGED = [shutil.which("setpriv") or "", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []

# What docs/nginx-site.conf is included in; gzip as in Debian's nginx.conf.
NGINX_CONF = MAIN + """
http {
    gzip on;
    %(temporary)s
    include %(folder)s/site.conf;
}
"""


@pytest.fixture
def unit() -> dict[str, list[str]]:
    """The settings of the systemd unit, each with its values."""
    settings = defaultdict(list)
    for line in (DOCS / "taskapi.service").read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            settings[name].append(value)
    return settings


@pytest.fixture
def database(postgresql_url: str) -> Iterator[str]:
    """A database's URL that needs no way through a folder: its socket is its server's own, and closed to others."""
    with Proxy(postgresql_url, b"", run_it=False, times=0) as proxy:
        yield proxy.url


def make_read_only(folder: Path) -> set[str]:
    """Leave nothing in a folder to be changed but a server's two streams, and return what is in it."""
    streams = {folder / "stdout", folder / "stderr"}
    for stream in streams:
        stream.touch()
    for path in {folder, *folder.rglob("*")} - streams:
        path.chmod(path.stat().st_mode & ~0o222)
    assert subprocess.run([*UNPRIVILEGED, "mkdir", folder / "new"], stderr=subprocess.DEVNULL).returncode == 1
    return {str(path) for path in folder.rglob("*")}


def command(words: list[str]) -> list[str]:
    """Return a command that can do no more than its user, and that comes from the tests' virtual environment."""
    return [*UNPRIVILEGED, str(BIN / Path(words[0]).name), *words[1:]]


def test_unit_serves_from_a_read_only_tree(unit: dict[str, list[str]], tmp_path: Path, database: str) -> None:
    """The service tells systemd when it listens, writes nothing beside its code, is renewed by ExecReload, and ends."""
    (copy_project(tmp_path) / "taskapi").unlink()
    shutil.copytree(PROJECT / "taskapi", tmp_path / "taskapi")
    before = make_read_only(tmp_path)
    settings = {"DATABASE_URL": database, "JWT_SECRET": SECRET, "PYTHONDONTWRITEBYTECODE": ""}
    name = f"@taskapi-{uuid4()}"  # in the kernel's own name space, so no file
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name.replace("@", "\0"))
        systemd.settimeout(PATIENCE)
        with serving(
            *command(shlex.split(unit["ExecStart"][0])),
            cwd=tmp_path,
            NOTIFY_SOCKET=name,
            GUNICORN_CMD_ARGS="--bind=127.0.0.1:0",
            **settings,
        ) as server:
            assert b"READY=1" in systemd.recv(1024).splitlines()
            assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})
            status, _ = server.fetch("POST", "/api/tasks", {"title": "Water the plants"}, Authorization=BEARER)
            assert status == 201

            reload = unit["ExecReload"][0].replace("$MAINPID", str(server.process.pid))
            subprocess.run(shlex.split(reload), check=True)
            deadline = time.monotonic() + PATIENCE
            while "Worker exiting" not in server.stdout.read_text():
                assert time.monotonic() < deadline
                time.sleep(0.01)

            assert server.fetch("GET", "/healthz") == (200, {"status": "ok"})
            server.process.terminate()
            assert server.process.wait(PATIENCE) == 0

    assert before == {str(path) for path in tmp_path.rglob("*")}


def test_unit_fits_gunicorns_settings(unit: dict[str, list[str]], tmp_path: Path) -> None:
    """systemd waits longer for the end than gunicorn does, and lets a worker have all its clients."""
    settings = {"JWT_SECRET": SECRET, "DATABASE_URL": "sqlite:///taskapi.sqlite3"}
    printed = run("gunicorn", "--print-config", "wsgi:app", cwd=copy_project(tmp_path), **settings).stdout
    gunicorn = dict(line.replace(" ", "").split("=", 1) for line in printed.splitlines() if "=" in line)
    drain = re.search("^DRAIN = ([0-9]+)$", (PROJECT / "gunicorn.conf.py").read_text(), re.MULTILINE)
    assert drain

    assert int(unit["TimeoutStopSec"][0]) > int(drain[1]) + int(gunicorn["graceful_timeout"])
    assert int(unit["LimitNOFILE"][0]) > 2 * int(gunicorn["worker_connections"])


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Nginx, int]]:
    """Nginx with docs/nginx-site.conf, and the port where it looks for the service."""
    certify(tmp_path)
    port, service = free_port(), free_port()
    text = (DOCS / "nginx-site.conf").read_text()
    for name, value in {
        "listen 443 ssl http2;": f"listen 127.0.0.1:{port} ssl http2;",
        "    listen [::]:443 ssl http2;\n": "",
        "/etc/letsencrypt/live/api.example.com/": f"{tmp_path}/",
        "/var/log/nginx/": f"{tmp_path}/",
        "127.0.0.1:8000": f"127.0.0.1:{service}",
    }.items():
        assert name in text
        text = text.replace(name, value)
    (tmp_path / "site.conf").write_text(text)
    temporary = " ".join(f"{name}_temp_path {tmp_path / name};" for name in TEMPORARY)
    user = "user root;" if os.geteuid() == 0 else ""
    with running(tmp_path, NGINX_CONF % {"user": user, "folder": tmp_path, "temporary": temporary}, port):
        yield Nginx(port, tmp_path / "fullchain.pem"), service


def test_site_passes_on_the_api_and_no_more(site: tuple[Nginx, int], sqlite_url: str, tmp_path: Path) -> None:
    """Tasks are made and read with their entity tags; what is not public is not there."""
    server, port = site
    folder = tmp_path / "service"
    folder.mkdir()
    with instance(folder, port, sqlite_url), server.client(1) as ana:
        task = ana.ask("POST", body={"title": "Water the plants"})
        again = ana.ask("GET", task.headers["location"], Accept_Encoding="gzip")

        assert (201, 200) == (task.status, again.status)
        assert task.body == again.body
        assert f'"{task.body["updated_at"]}"' == task.headers["etag"] == again.headers["etag"]
        assert ana.ask("GET", "/healthz").status == 200
        for path in ("/", "/api", "/readyz", "/metrics"):
            answer = ana.ask("GET", path)
            assert (404, "NOT_FOUND") == (answer.status, answer.body["code"])


def test_site_says_so_when_the_service_is_down(site: tuple[Nginx, int]) -> None:
    """In the shape of the service's errors, which the front end's pages may read and no others."""
    server, _ = site
    with server.client(1) as ana:
        answer = ana.ask("GET", Origin="https://app.example.com")
        assert (502, "INTERNAL_ERROR") == (answer.status, answer.body["code"])
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
        assert "access-control-allow-origin" not in ana.ask("GET", Origin="https://evil.example.com").headers
