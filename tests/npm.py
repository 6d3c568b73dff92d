"""Programs and packages of Node.js that a test uses, in a folder outside the checkout."""

import os
import shutil
import subprocess
from pathlib import Path

from tests.servers import absent, require

PATIENCE = 120  # seconds: a cold cache is filled over the network


def node(*command: str, cwd: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command with the developer's own settings for Node.js: which registry, which proxy, which cache."""
    return subprocess.run(
        [require(command[0]), *command[1:]],
        cwd=cwd,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def install(sources: Path, home: Path) -> Path:
    """Return the node_modules that the lock file in sources describes, made in home unless they are there already."""
    if (home / "installed").exists():
        return home / "node_modules"
    home.mkdir()
    for name in ("package.json", "package-lock.json"):
        shutil.copy(sources / name, home)
    done = node("npm", "ci", "--ignore-scripts", "--no-audit", "--prefer-offline", "--fetch-retries=1", cwd=home)
    if done.returncode and node("npm", "ping", "--fetch-retries=0", cwd=home).returncode:
        absent("npm reaches no registry, and does not have all packages in its cache")
    assert done.returncode == 0, done.stderr
    (home / "installed").touch()
    return home / "node_modules"
