"""docs/pgbouncer.ini, with addresses and paths of the test, between gunicorn and a PostgreSQL."""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.people import SECRET, make_token
from tests.servers import PATIENCE, PROJECT, copy_project, require, restart, restartable_postgresql, run, serving, stop

pytestmark = pytest.mark.slow

BEARER = f"Bearer {make_token(email='ana@example.com')}"
PASSWORD = "a password of the tests"


@contextmanager
def pgbouncer(folder: Path, postgresql: Any) -> Iterator[str]:
    """Run PgBouncer with docs/pgbouncer.ini; yield the URL of its one database."""
    program = require("pgbouncer")
    folder.mkdir()
    folder.chmod(0o755)
    text = (PROJECT / "docs" / "pgbouncer.ini").read_text()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    for name, value in {
        "host=/var/run/postgresql port=5432": f"host={postgresql.pgdata} port=5432 dbname=postgres",
        "listen_addr = 10.0.0.21": "listen_addr = 127.0.0.1",
        "listen_port = 6432": f"listen_port = {port}",
        "/var/log/postgresql/pgbouncer.log": str(folder / "log"),
        "/var/run/postgresql/pgbouncer.pid": str(folder / "pid"),
        "/etc/pgbouncer/userlist.txt": str(folder / "userlist.txt"),
    }.items():
        assert text.count(name) == 1, f"{name} is no longer what docs/pgbouncer.ini has"
        text = text.replace(name, value)
    (folder / "pgbouncer.ini").write_text(text)
    (folder / "userlist.txt").write_text(f'"taskapi" "{PASSWORD}"\n')
    user = postgresql.system_user  # it refuses to run as root
    if user is not None:
        shutil.chown(folder, user)
    process = subprocess.Popen([program, "-q", str(folder / "pgbouncer.ini")], user=user, cwd="/")
    try:
        yield f"postgresql://taskapi:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/taskapi"
    finally:
        process.kill()
        process.wait()


def own_schema(url: str) -> None:
    """Make the user that the pooler logs in as."""
    with suppress(psycopg2.Error), psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE USER taskapi SUPERUSER PASSWORD '{PASSWORD}'")
    connection.close()


@pytest.mark.slow
def test_restarted_database_is_found_again_in_time(tmp_path: Path, folder: Path) -> None:
    """Through the pooler a task comes back as it was made, within 3 s of a crash of the database."""
    with restartable_postgresql(folder / "pooled") as postgresql:
        own_schema(postgresql.get_uri())
        with pgbouncer(folder / "pooler", postgresql) as url:
            (copy_project(tmp_path) / ".env").write_text(f"JWT_SECRET={SECRET}\nDATABASE_URL={url}\n")
            assert run("flask", "db", "upgrade", cwd=tmp_path).returncode == 0
            with serving("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app", cwd=tmp_path) as server:
                status, task = server.fetch("POST", "/api/tasks", {"title": "Water the plants"}, Authorization=BEARER)
                assert status == 201
                stop(postgresql)
                assert server.fetch("GET", "/readyz")[0] == 503

                restart(postgresql)

                began = time.monotonic()
                while (answer := server.fetch("GET", "/api/tasks", Authorization=BEARER))[0] == 503:
                    assert time.monotonic() - began < PATIENCE
                    time.sleep(0.05)
                assert (200, [task]) == answer
                assert time.monotonic() - began < 3
