"""The second resource in docs/developing.md: its diff applies to this code, and its tests pass."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.servers import BIN, PROJECT, environment, require

pytestmark = pytest.mark.slow

PATIENCE = 300  # seconds; a tenth will do where nothing else runs
DIFF = re.compile("^```diff\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_CODE = shutil.ignore_patterns(".*cache*", ".git", ".venv", "__pycache__", "instance", "mutants", "node_modules")
# Its own tests, and those of this project that a resource fails while a part of it is missing.
TESTS = (
    "tests/test_projects.py",
    "tests/test_migrations.py::test_models_and_migrations_agree",
    "tests/test_migrations.py::test_migrations_go_down_and_up_again",
    "tests/test_openapi.py::test_document_is_valid",
    "tests/test_openapi.py::test_each_route_is_described_and_nothing_else",
    "tests/test_openapi.py::test_operations_have_stable_names",
    "tests/test_openapi.py::test_each_operation_is_explained",
)


@pytest.fixture
def diff() -> str:
    """The diff in the guide."""
    [found] = DIFF.findall((PROJECT / "docs" / "developing.md").read_text())
    return str(found)


@pytest.fixture
def project(tmp_path: Path, diff: str) -> Path:
    """A copy of this project with the diff applied."""
    folder = Path(shutil.copytree(PROJECT, tmp_path / "project", ignore=NOT_CODE))
    # In a repository, git would take the paths for those of its root.
    subprocess.run([require("git"), "init", "-q"], cwd=folder, env=environment({}), check=True)
    applied = subprocess.run(
        [require("git"), "apply", "-"], cwd=folder, env=environment({}), input=diff, capture_output=True, text=True
    )
    assert (applied.returncode, applied.stderr) == (0, "")
    return folder


def run(folder: Path, *command: str) -> str:
    """Run a command of the virtual environment, and return its output if it fails."""
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=folder,
        env=environment({}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    return done.stdout if done.returncode else ""


def test_second_resource_works(project: Path) -> None:
    """On both databases, guarded, described, and with a migration that goes down again."""
    assert run(project, "pytest", "-n", "0", "--no-cov", "-p", "no:cacheprovider", "-q", *TESTS) == ""


def test_second_resource_has_the_style_of_the_first(project: Path, diff: str) -> None:
    """What one copies passes flake8."""
    changed = re.findall(r"^\+\+\+ b/(\S+\.py)$", diff, re.MULTILINE)

    assert "taskapi/projects.py" in changed
    assert run(project, "flake8", *changed) == ""
