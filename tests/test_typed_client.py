"""A front end's typed client: its types come from the running service in one command, work, and find mistakes."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from taskapi.openapi import describe
from tests.people import SECRET, make_token
from tests.servers import PROJECT, Server, absent, copy_project, require, serving

SOURCES = PROJECT / "tests" / "typed_client"
NPM_PATIENCE = 120  # seconds: a cold cache is filled over the network
# What makes the compiler believe instead of check: any, casts, and ! behind an expression.
ESCAPES = re.compile(r"\bany\b|\bas (?!const\b)\w+|[\w)\]]!(?!=)")


def node(*command: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command of Node.js with the developer's own settings for it: which registry, which proxy, which cache."""
    return subprocess.run(
        [require(command[0]), *command[1:]],
        cwd=cwd,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=NPM_PATIENCE,
    )


@pytest.fixture(scope="module")
def packages(folder: Path) -> Path:
    """The node_modules that the lock file describes, outside the checkout; it goes with the session's folder."""
    home = folder / "typed_client"
    home.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCES / name, home)
    install = node("npm", "ci", "--ignore-scripts", "--no-audit", "--prefer-offline", "--fetch-retries=1", cwd=home)
    if install.returncode and node("npm", "ping", "--fetch-retries=0", cwd=home).returncode:
        absent("npm reaches no registry, and has not all packages in its cache")
    assert install.returncode == 0, install.stderr
    return home / "node_modules"


@pytest.fixture
def project(packages: Path, tmp_path: Path) -> Path:
    """A front end's folder with everything but the types."""
    home = tmp_path / "front-end"
    home.mkdir()
    for name in ("package.json", "tsconfig.json"):
        shutil.copy(SOURCES / name, home)
    (home / "node_modules").symlink_to(packages)
    return home


@pytest.fixture
def server(project: Path, tmp_path: Path, sqlite_url: str) -> Iterator[Server]:
    """The service as it runs in production, but for the database."""
    (copy_project(tmp_path) / ".env").write_text(f"JWT_SECRET={SECRET}\nDATABASE_URL={sqlite_url}\n")
    with serving("gunicorn", "--bind", "127.0.0.1:0", "wsgi:app", cwd=tmp_path) as server:
        yield server


def generate_types(project: Path, document: str) -> None:
    """Make types of a document, given by its address or path, in the one command that the example names."""
    made = node("npx", "--no", "openapi-typescript", document, "-o", "taskapi.ts", cwd=project)
    assert made.returncode == 0, made.stderr


def compile_program(project: Path, name: str) -> subprocess.CompletedProcess[str]:
    """Check the program against the types, and put its JavaScript beside it if it is right."""
    shutil.copy(SOURCES / name, project)
    return node("npx", "--no", "tsc", cwd=project)


def test_typed_client_works(project: Path, server: Server, tmp_path: Path) -> None:
    """Types from the running service carry a front end through pages, versions, undo and every kind of refusal."""
    token = make_token()
    url = f"http://127.0.0.1:{server.port}"

    generate_types(project, f"{url}/api/openapi.json")
    compiled = compile_program(project, "client.ts")
    assert (compiled.returncode, compiled.stdout) == (0, "")
    program = node("node", "client.js", cwd=project, TASKAPI_URL=url, TASKAPI_TOKEN=token)

    assert (program.returncode, program.stderr) == (0, "")
    status, stored = server.fetch("GET", "/api/tasks?sort=title", Authorization=f"Bearer {token}")
    assert (status, json.loads(program.stdout)) == (
        200,
        {
            "restored": stored[-1],
            "pages": [["Water the plants", "Do the dishes"], ["Call Ben", "Buy bread"]],
            "refused": {
                "blank": [
                    400,
                    "VALIDATION_ERROR",
                    "title: Length must be between 1 and 200. "
                    "Must be one line with a character that can be seen, and without U+202D or U+202E.",
                ],
                "missing": [404, "NOT_FOUND", "This task is gone."],
                "overtaken": [412, "INVALID_REQUEST", "This has changed since the version in If-Match."],
                "stranger": [401, "UNAUTHORIZED", "Please sign in."],
                "impostor": [401, "INVALID_TOKEN", "Please sign in."],
            },
        },
    )
    with closing(sqlite3.connect(tmp_path / "taskapi.sqlite3")) as database:
        rows = database.execute("SELECT title, description, is_completed FROM tasks ORDER BY title").fetchall()
    assert rows == [
        ("Buy bread", None, 0),
        ("Call Ben", None, 0),
        ("Do the dishes", None, 0),
        ("Water the plants and the fern", "Not the cactus.", 1),
    ]


def test_types_find_mistakes(project: Path) -> None:
    """Each line of wrong.ts that names an error of the compiler gets that one, and no other line gets any."""
    (project / "openapi.json").write_text(json.dumps(describe()))
    wrong = (SOURCES / "wrong.ts").read_text().splitlines()
    mistakes = {number: line.partition(" // ")[2] for number, line in enumerate(wrong, 1) if " // TS" in line}

    generate_types(project, "openapi.json")
    output = compile_program(project, "wrong.ts").stdout

    found = re.findall(r"^(\S+)\(([0-9]+),[0-9]+\): error (TS[0-9]+)", output, re.MULTILINE)
    assert len(mistakes) >= 20
    assert found == [("wrong.ts", str(number), code) for number, code in mistakes.items()]


def test_example_needs_no_way_around_its_types() -> None:
    """A front end can copy it without learning to silence the compiler."""
    source = (SOURCES / "client.ts").read_text()
    code = re.sub(r"/\*[\s\S]*?\*/|^ *//.*", "", source, flags=re.MULTILINE)

    assert "@ts-" not in source
    assert ESCAPES.findall(code) == []
