"""The service against its own description, by a tool that knows nothing else of it."""

import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from time import time

import pytest

from taskapi.openapi import describe
from tests.people import SECRET, make_token
from tests.servers import BIN, PROJECT, copy_project, environment, serving

pytestmark = pytest.mark.slow

# Cases that the tool makes up for each operation: by default few, and the same ones each time.
EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", 20))
SEED = () if "SCHEMATHESIS_EXAMPLES" in os.environ else ("--seed", "1")

# What Ana makes, Ben must not see.
TOKENS = {name: make_token(email=f"{name}@example.com", exp=int(time()) + 24 * 60 * 60) for name in ("ana", "ben")}
USERS = """
[auth.wfc]
path = "users.json"
user = "ana"
peers = ["ana", "ben"]
"""


def write_users() -> str:
    """Return both in the format of Web Fuzzing Commons."""
    headers = {name: {"name": "Authorization", "value": f"Bearer {token}"} for name, token in TOKENS.items()}
    return json.dumps({"auth": [{"name": name, "fixedHeaders": [header]} for name, header in headers.items()]})


def test_it_does_what_it_describes(tmp_path: Path, database_url: str) -> None:
    """No check finds anything at any operation in any phase."""
    (copy_project(tmp_path) / "tests").symlink_to(PROJECT / "tests")
    (tmp_path / "openapi.json").write_text(json.dumps(describe()))
    (tmp_path / "st.toml").write_text((PROJECT / "tests/schemathesis.toml").read_text() + USERS)
    (tmp_path / "users.json").write_text(write_users())
    limits = ["--max-examples", str(EXAMPLES), *SEED]
    reports = ["--report-json-path", "report.json", "--report-ndjson-path", "events.ndjson"]
    settings = {"DATABASE_URL": database_url, "JWT_SECRET": SECRET}

    with serving("gunicorn", "-b", "127.0.0.1:0", "wsgi:app", cwd=tmp_path, **settings) as server:
        for number in range(51):  # one more than a page, so that there are cursors
            server.fetch("POST", "/api/tasks", {"title": f"Task {number}"}, Authorization=f"Bearer {TOKENS['ana']}")
        url = f"http://127.0.0.1:{server.port}"
        done = subprocess.run(
            [BIN / "st", "--config-file", "st.toml", "run", "openapi.json", "--url", url, *limits, *reports],
            cwd=tmp_path,
            env=environment({}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300 + EXAMPLES,  # seconds; a tenth will do where nothing else runs
        )
    print(done.stdout)
    report = json.loads((tmp_path / "report.json").read_text())
    cases: Counter[str] = Counter()
    for event in (tmp_path / "events.ndjson").read_bytes().splitlines():
        if scenario := json.loads(event).get("ScenarioFinished"):
            cases[scenario["phase"]] += len(scenario["recorder"].get("cases", ()))
    print(dict(cases))

    assert done.returncode == 0
    assert {name: report["operations"][name] for name in ("total", "tested")} == {"total": 10, "tested": 10}
    assert {name: phase["status"] for name, phase in report["phases"].items()} == dict.fromkeys(cases, "success")
    assert sorted(cases) == ["coverage", "examples", "fuzzing", "stateful"] and all(cases.values())
