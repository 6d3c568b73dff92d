"""What generators make of the API's description: clients that compile strictly and send what they are given."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from taskapi.openapi import describe
from tests.npm import install, node
from tests.servers import BIN, PROJECT, absent

pytestmark = pytest.mark.slow

SOURCES = PROJECT / "tests" / "generators"
PATIENCE = 120  # seconds for one program; each takes 1 to 6 where nothing else runs
TASK = {name: one["example"] for name, one in describe()["components"]["schemas"]["Task"]["properties"].items()}
SENT = (f"/api/tasks/{TASK['id']}", "Bearer token", {"is_completed": True})

# Commands that make the clients which the programs in SOURCES import.
OF_NODE = (
    "openapi-typescript openapi.json -o made/openapi-typescript.ts",
    "openapi-ts -s --no-log-file -i openapi.json -o made/hey-api -p @hey-api/client-fetch @hey-api/sdk zod",
    "orval --fail-on-warnings -i openapi.json -o made/orval/client.ts --client fetch",
    "orval --fail-on-warnings -i openapi.json -o made/orval/zod.ts --client zod",
)
# Linters with the rules that they have by default, and what they write where nothing is wrong, not even a little.
LINTERS = {
    "redocly lint --format=json openapi.json": '"problems": []',
    "spectral lint --fail-severity=hint openapi.json": "No results with a severity of 'hint' or higher found!",
}

# Programs, for mypy in its strict mode, and the commands that make the clients which they import.
OF_OPENAPI_GENERATOR = """
import os
from uuid import UUID
from openapi_client import ApiClient, BodyError, Configuration, InvalidFieldsError, NewTask, TaskChanges, TasksApi

tasks = TasksApi(ApiClient(Configuration(host=os.environ["BASE"], access_token="token")))
print(tasks.update_task(UUID(os.environ["ID"]), TaskChanges(is_completed=True)).title)

body = BodyError.from_json('{"error": "x", "code": "VALIDATION_ERROR", "details": {"title": ["x"]}}')
assert isinstance(body.actual_instance, InvalidFieldsError)
try:
    NewTask(is_completed=True)  # type: ignore[call-arg]
except ValueError:
    pass
else:
    raise AssertionError
"""
OF_OPENAPI_PYTHON_CLIENT = """
import os
from uuid import UUID
from taskapi_client import AuthenticatedClient
from taskapi_client.api.tasks import update_task
from taskapi_client.models import NewTask, Task, TaskChanges

client = AuthenticatedClient(os.environ["BASE"], token="token")
task = update_task.sync(UUID(os.environ["ID"]), client=client, body=TaskChanges(is_completed=True))
assert isinstance(task, Task)
print(task.title)

try:
    NewTask(is_completed=True)  # type: ignore[call-arg]
except TypeError:
    pass
else:
    raise AssertionError
"""
PYTHON = {
    "openapi-generator": (
        "openapi-generator-cli generate -i openapi.json -g python -o .",
        OF_OPENAPI_GENERATOR,
    ),
    "openapi-python-client": (
        "openapi-python-client generate --path openapi.json --meta none --output-path taskapi_client",
        OF_OPENAPI_PYTHON_CLIENT,
    ),
}


class _Echo(BaseHTTPRequestHandler):
    server: "Echo"

    def do_PATCH(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, self.headers["Authorization"], json.loads(body)))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(TASK).encode())

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Echo(ThreadingHTTPServer):
    """Keeps what each PATCH sends, and answers with a task."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Echo)
        self.requests: list[tuple[str, str, Any]] = []

    def settings(self) -> dict[str, str]:
        """Return what a program needs to know."""
        return {"BASE": f"http://127.0.0.1:{self.server_port}", "ID": str(TASK["id"])}


@pytest.fixture
def echo() -> Iterator[Echo]:
    """A server for the programs."""
    with Echo() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def home(folder: Path) -> Iterator[Path]:
    """A folder that goes with the test, as what is installed there is large."""
    home = folder / "generators"
    yield home
    shutil.rmtree(home)


def run(command: str, cwd: Path, **settings: str) -> str:
    """Run a program of the virtual environment or, for the sake of the first, of Java; return what it writes."""
    program, *arguments = command.split()
    path = f"{BIN}:{os.environ['PATH']}"
    found = shutil.which(program, path=path) or absent(f"{program} is not installed")
    environment = {"PATH": path, "HOME": str(cwd), **settings}
    done = subprocess.run(
        [found, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def need_java() -> None:
    """Skip the test without java, which nothing else needs."""
    if shutil.which("java") is None:
        pytest.skip("java is not installed")


def test_typescript_clients(home: Path, echo: Echo, subtests: pytest.Subtests) -> None:
    """Each compiles strictly, requires a title where it is required, and sends one changed field alone.

    The linters of npm are here as well, for one installation: they find nothing.
    """
    install(SOURCES, home)
    (home / "openapi.json").write_text(json.dumps(describe()))
    (home / ".spectral.yaml").write_text("extends: spectral:oas")

    def npx(command: str) -> str:
        done = node("npx", "--no", "--", *command.split(), cwd=home, REDOCLY_TELEMETRY="off")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for linter, silence in LINTERS.items():
        with subtests.test(linter):
            assert silence in npx(linter)
    for command in OF_NODE:
        npx(command)
    programs = {"openapi-typescript", "hey-api", "orval"}
    for name in ("typescript-fetch", "typescript-axios"):
        with subtests.test(name):
            need_java()
            run(f"openapi-generator-cli generate -i openapi.json -g {name} -o made/{name}", cwd=home)
            programs.add(name)
    for name in ("tsconfig.json", *(f"{name}.ts" for name in programs)):
        shutil.copy(SOURCES / name, home)

    npx("tsc")
    sources = " ".join(f"{name}.ts" for name in programs)
    npx(f"esbuild {sources} --bundle --packages=external --platform=node --format=esm --outdir=built")
    for name in programs:
        with subtests.test(name):
            done = node("node", f"built/{name}.js", cwd=home, **echo.settings())
            assert (done.stdout, done.stderr) == (f"{TASK['title']}\n", "")
            assert echo.requests.pop() == SENT


@pytest.mark.parametrize("name", PYTHON)
def test_python_clients(name: str, tmp_path: Path, echo: Echo) -> None:
    """Each passes mypy where it is used, requires a title where it is required, and sends one changed field alone."""
    command, program = PYTHON[name]
    if name == "openapi-generator":
        need_java()
    (tmp_path / "openapi.json").write_text(json.dumps(describe()))
    (tmp_path / "program.py").write_text(program)

    run(command, cwd=tmp_path)
    run("mypy --strict --follow-imports=silent program.py", cwd=tmp_path)

    assert run("python program.py", cwd=tmp_path, **echo.settings()) == f"{TASK['title']}\n"
    assert echo.requests == [SENT]
