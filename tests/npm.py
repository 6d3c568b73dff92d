"""What front ends need from npm, in a folder outside the checkout."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.servers import PROJECT, absent, require

SOURCES = PROJECT / "tests" / "client"
NPM_PATIENCE = 120  # seconds: a cold cache is filled over the network


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


def install(folder: Path) -> Path:
    """Return the node_modules that the lock file describes, made in the folder unless it is there already."""
    home = folder / "client"
    if (home / "installed").exists():
        return home / "node_modules"
    home.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCES / name, home)
    made = node("npm", "ci", "--ignore-scripts", "--no-audit", "--prefer-offline", "--fetch-retries=1", cwd=home)
    if made.returncode and node("npm", "ping", "--fetch-retries=0", cwd=home).returncode:
        absent("npm reaches no registry, and has not all packages in its cache")
    assert made.returncode == 0, made.stderr
    (home / "installed").touch()
    return home / "node_modules"
