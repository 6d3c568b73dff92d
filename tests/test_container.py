"""docs/Containerfile, built by buildah and run: what stands in for its base image is the Python that runs the tests."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import greenlet
import psutil
import psycopg2
import pytest

from tests.nginx import free_port
from tests.people import SECRET
from tests.servers import PATIENCE, PROJECT, Proxy, absent, environment, require, serving

pytestmark = pytest.mark.slow

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PARTS_OF_LIBC = ("libdl.so.2", "libpthread.so.0", "libresolv.so.2", "librt.so.1", "libutil.so.1")  # wheels link them
# What `docker run --read-only --cap-drop=ALL --security-opt=no-new-privileges` comes to, on the host's network: a first
# process without rights, in a file system where only /dev/shm can be written.
RUN = """
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
mount --rbind /dev "$0/dev"
mount -t proc proc "$0/proc"
user=$1 folder=$2
shift 2
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$0" sh -euc 'cd "$0"; exec "$@"' "$folder" "$@"
"""


class Image(NamedTuple):
    """An image: its files, and its configuration as Docker has it."""

    root: Path
    config: dict[str, Any]

    def command(self, *words: str) -> list[str]:
        """Return what runs a command in a container of this image."""
        namespaces = [require("unshare"), "--mount", "--pid", "--fork", "--kill-child"]
        return [*namespaces, "sh", "-euc", RUN, str(self.root), self.config["User"], self.config["WorkingDir"], *words]

    def environment(self, **settings: str) -> dict[str, str]:
        """Return the image's environment, with these settings."""
        return {**dict(entry.split("=", 1) for entry in self.config["Env"]), "PYTHONDONTWRITEBYTECODE": "", **settings}

    def run(self, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container to its end."""
        given = environment(self.environment(**settings))
        return subprocess.run(self.command(*words), env=given, capture_output=True, text=True, timeout=PATIENCE)


def copy_into(root: Path, path: Path) -> None:
    """Copy a file or a folder to the same place below another root."""
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        ignored = ("site-packages", "dist-packages", "test", "config-*", "__pycache__", "EXTERNALLY-MANAGED")
        shutil.copytree(path, target, ignore=shutil.ignore_patterns(*ignored))
    elif not target.exists():
        shutil.copy(path, target)


def copy_python(root: Path) -> Path:
    """Copy the Python that runs the tests, and a shell, with the libraries that they need; return its path."""
    python, shell = Path(sys.executable).resolve(), Path("/bin/sh").resolve()
    library = Path(sysconfig.get_path("stdlib"))
    in_cpp = greenlet._greenlet.__file__
    binaries = [str(python), str(shell), in_cpp, *map(str, library.glob("lib-dynload/*.so"))]
    linked = subprocess.run(["ldd", *binaries], stdout=subprocess.PIPE, text=True, check=True).stdout
    libraries = {Path(name) for name in re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", linked, re.MULTILINE)}
    libc = next(path for path in libraries if path.name == "libc.so.6")
    for path in (python, shell, library, *libraries, *(libc.with_name(name) for name in PARTS_OF_LIBC)):
        copy_into(root, path)
    for name in ("bin", "dev", "etc", "proc", "tmp", "usr/local/bin"):
        (root / name).mkdir(parents=True, exist_ok=True)
    if not (root / "bin/sh").exists():
        (root / "bin/sh").symlink_to(shell)
    (root / "usr/local/bin/python").symlink_to(python)
    return python


def add_pip(root: Path) -> None:
    """Add a pip that installs from a folder of wheels, so that the build needs no network."""
    pip = importlib.util.find_spec("pip")
    if not pip or not pip.origin:
        absent("pip is not installed")
    shutil.copytree(Path(pip.origin).parent, root / "pip/pip")
    script = root / "usr/local/bin/pip"
    script.write_text('#!/bin/sh\nPYTHONPATH=/pip exec python -m pip "$@"\n')
    script.chmod(0o755)
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:"]
    download += [f"--dest={root / 'wheels'}", f"--requirement={PROJECT / 'requirements.txt'}"]
    if subprocess.run(download, stderr=subprocess.DEVNULL).returncode:
        absent("the packages can't be downloaded")
    (root / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")


def make_base(root: Path) -> str:
    """Put into a folder what python:3.13-slim has and the Containerfile uses; return its PATH."""
    python = copy_python(root)
    add_pip(root)
    for path in root.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    return f"{python.parent}:{PATH}"


@pytest.fixture
def image(tmp_path: Path, request: pytest.FixtureRequest) -> Image:
    """The image that docs/Containerfile makes of this project."""
    program = require("buildah")
    if os.geteuid() or subprocess.run([require("unshare"), "--mount", "--pid", "--fork", "true"]).returncode:
        pytest.skip("an image needs the right to mount")  # in CI too: that is for the machine to give

    def buildah(*words: str) -> str:
        store = [f"--root={tmp_path / 'store'}", f"--runroot={tmp_path / 'run'}", "--storage-driver=vfs"]
        result = subprocess.run([program, *store, *words], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True)
        return result.stdout.strip()

    request.addfinalizer(lambda: shutil.rmtree(tmp_path / "store"))  # 700 MB
    base = buildah("from", "scratch")
    buildah("config", f"--env=PATH={make_base(Path(buildah('mount', base)))}", base)
    buildah("commit", "--quiet", "--rm", base, "python:3.13-slim")
    options = ["--pull-never", "--isolation=chroot", "--format=docker", "--layers=false"]
    buildah("build", "--quiet", *options, "--file=docs/Containerfile", "--tag=taskapi", ".")
    config = json.loads(buildah("inspect", "--type=image", "taskapi"))["Docker"]["config"]
    root = Path(buildah("mount", buildah("from", "--pull-never", "taskapi")))
    return Image(root, config)


@pytest.fixture
def database(postgresql: Callable[[str], str]) -> Iterator[str]:
    """The URL of an empty database."""
    name = f"t{uuid4().hex}"
    with closing(psycopg2.connect(postgresql("postgres"))) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {name}")
        with Proxy(postgresql(name), b"", run_it=False, times=0) as proxy:
            yield proxy.url
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_image_migrates_serves_and_stops(image: Image, database: str, tmp_path: Path) -> None:
    """Without rights, on a read-only file system, it serves where PORT says, knows its health and ends on SIGTERM."""
    settings = {"DATABASE_URL": database, "JWT_SECRET": SECRET}
    assert int(image.config["User"].partition(":")[0]) > 0
    assert not (image.root / image.environment()["HOME"].lstrip("/")).exists()  # libpq fails in one it may not read
    assert "Read-only file system" in image.run("sh", "-c", ": > /tmp/new").stderr

    names = {path.name for path in (image.root / "app").iterdir()}
    assert names == {"requirements.txt", "gunicorn.conf.py", "wsgi.py", "taskapi"}
    pinned = re.findall(r"^([\w.-]+)(?:\[\w+\])?==", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    installed = json.loads(image.run("pip", "list", "--format=json", "--disable-pip-version-check").stdout)
    assert {*pinned} == {package["name"].lower().replace("_", "-") for package in installed}

    assert image.run("flask", "db", "upgrade", **settings).returncode == 0
    token = image.run("flask", "token", "ana@example.com", **settings).stdout.strip()
    printed = image.run("gunicorn", "--print-config", "wsgi:app", **settings).stdout
    assert re.search(r"^bind +=.*0\.0\.0\.0:8000", printed, re.MULTILINE)

    port = str(free_port())
    # No other machine may call a test.
    settings |= {"METRICS": "1", "PORT": port, "GUNICORN_CMD_ARGS": f"--bind=127.0.0.1:{port}"}
    word, *check = image.config["Healthcheck"]["Test"]
    assert word == "CMD"
    with serving(*image.command(*image.config["Cmd"]), cwd=tmp_path, **image.environment(**settings)) as server:
        assert server.fetch("GET", "/readyz") == (200, {"status": "ok"})
        bearer = f"Bearer {token}"
        status, task = server.fetch("POST", "/api/tasks", {"title": "Water the plants"}, Authorization=bearer)
        assert status == 201
        assert server.fetch("GET", "/api/tasks", Authorization=bearer) == (200, [task])
        assert image.run(*check, PORT=port).returncode == 0

        psutil.Process(server.process.pid).children()[0].terminate()
        assert server.process.wait(PATIENCE) == 0
    assert image.run(*check, PORT=port).returncode == 1
