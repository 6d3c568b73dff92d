"""Logs: one line per request, readable or JSON, with the request's id and nothing confidential."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from tests.people import SECRET, Person, make_token
from tests.servers import copy_project, serving

CONFIDENTIAL = ["ana@example.com", "sought-after", "a-title", "a-description", "eyJ", "SELECT ", "INSERT INTO", SECRET]
TASK = {"title": "a-title", "description": "a-description"}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One database: nothing here depends on which."""
    return sqlite_url


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """Return what has been logged since this was last asked for."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_request_is_one_line(make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str], level: str) -> None:
    """It says who, what and how long, by the route: a path may hold what is nobody's business."""
    ana = Person(make_app(LOG_LEVEL=level), email="ana@example.com")
    capsys.readouterr()

    ana.call("POST", json=TASK)
    ana.call("GET", "/api/tasks?q=sought-after", headers={"X-Request-ID": "my-request"})
    ana.call("GET", "/sought-after")

    logged = [line for line in lines(capsys) if line["level"] != "DEBUG"]
    assert [line["message"] for line in logged] == ["POST /api/tasks 201", "GET /api/tasks 200", "GET - 404"]
    assert logged[1] == {
        "time": logged[1]["time"],
        "level": "INFO",
        "request_id": "my-request",
        "message": "GET /api/tasks 200",
        "method": "GET",
        "route": "/api/tasks",
        "status": 200,
        "milliseconds": logged[1]["milliseconds"],
        "user_id": ana.id,
    }
    assert 0 < logged[1]["milliseconds"] < 5000
    assert (logged[2]["route"], logged[2]["user_id"]) == (None, None)


@pytest.mark.parametrize("path", ["/api/tasks?q=sought-after", "/api/tasks/sought-after", "/sought-after", "/broken"])
def test_lines_hold_nothing_confidential(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str], path: str
) -> None:
    """Not even at LOG_LEVEL=DEBUG, with whatever the libraries have to say."""
    app = make_app(LOG_LEVEL="DEBUG")
    app.add_url_rule("/broken", view_func=lambda: dict[str, str]()["missing"])
    ana = Person(app, email="ana@example.com")
    origin = {"Origin": "http://localhost:3000"}

    for method in ("GET", "POST", "PUT", "DELETE"):
        ana.call(method, path, json=TASK, headers=origin)
    app.test_client().get(path, headers={"Authorization": f"Bearer {make_token('x' * 32, email='ana@example.com')}"})

    output = capsys.readouterr().out
    assert output.count(" ") > 0
    assert [secret for secret in CONFIDENTIAL if secret in output] == []


def test_every_line_has_the_request_id(make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    """A stack is one line as well, of the same request; what belongs to no request has a dash."""
    app = make_app()
    app.add_url_rule("/broken", view_func=lambda: dict[str, str]()["missing"])
    capsys.readouterr()

    app.logger.info("hello")
    app.test_client().get("/broken", headers={"X-Request-ID": "my-request"})

    logged = lines(capsys)
    assert [(line["level"], line["request_id"], line["message"]) for line in logged] == [
        ("INFO", "-", "hello"),
        ("ERROR", "my-request", "unexpected error"),
        ("INFO", "my-request", "GET /broken 500"),
    ]
    assert "KeyError: 'missing'" in logged[1]["exc_info"]


def test_line_outside_any_request_of_ours(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """In flask shell one may pretend to be in a request: a log line is no reason to fail."""
    with app.test_request_context():
        app.logger.warning("hello")

    assert "hello" in caplog.text


@pytest.mark.parametrize(
    ("level", "expected"), [("debug", 2), ("INFO", 2), ("warning", 1), ("ERROR", 1), ("CRITICAL", 0)]
)
def test_log_level(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str], level: str, expected: int
) -> None:
    """LOG_LEVEL, in either case, says what is worth a line."""
    app = make_app(LOG_LEVEL=level)
    app.add_url_rule("/broken", view_func=lambda: dict[str, str]()["missing"])
    capsys.readouterr()

    app.test_client().get("/broken")

    assert len([line for line in lines(capsys) if line["level"] != "DEBUG"]) == expected


def test_log_level_counts_in_debug_mode(make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    """Left to itself, Flask logs everything there."""
    app = make_app(FLASK_DEBUG="1", LOG_LEVEL="ERROR")
    capsys.readouterr()

    app.test_client().get("/healthz")

    assert capsys.readouterr().out == ""


def test_servers_own_request_line_is_left_out(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]
) -> None:
    """It holds what was asked for; what else the development server says is let through."""
    make_app()
    capsys.readouterr()

    logging.getLogger("werkzeug").info('127.0.0.1 - - [20/Nov/2026 12:00:00] "GET /api/tasks?q=sought-after" 200 -')
    logging.getLogger("werkzeug").info(" * Detected a change, reloading")

    assert [line["message"] for line in lines(capsys)] == [" * Detected a change, reloading"]


def test_second_app_logs_once(make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    """An app made twice in one process does not say everything twice."""
    make_app()
    app = make_app()
    capsys.readouterr()

    app.test_client().get("/healthz")

    assert [line["message"] for line in lines(capsys)] == ["GET /healthz 200"]


@pytest.mark.parametrize(
    ("command", "form"),
    [
        ("flask run --no-reload --port 0", r"[0-9-]+T[0-9:.]+Z INFO my-request GET /api/tasks 500"),
        ("gunicorn --bind 127.0.0.1:0 wsgi:app", r'\{"time": ?"[0-9-]+T[0-9:.]+Z".+"request_id": ?"my-request".+\}'),
    ],
)
def test_real_output(tmp_path: Path, command: str, form: str) -> None:
    """Readable lines for developers, JSON in production, and no other line that tells what was asked for."""
    empty = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    headers = {"Authorization": f"Bearer {make_token(email='ana@example.com')}", "X_Request_ID": "my-request"}
    with serving(*command.split(), cwd=copy_project(tmp_path), JWT_SECRET=SECRET, DATABASE_URL=empty) as server:
        status, _ = server.fetch("GET", "/api/tasks?q=sought-after", **headers)
        server.fetch("GET", "/healthz?sought-after")

    stdout, stderr = server.stdout.read_text(), server.stderr.read_text()
    assert status == 500
    assert [line for line in stdout.splitlines() if re.fullmatch(form, line)] != []
    assert stdout.count("GET /api/tasks 500") == 1
    assert "GET" not in stderr
    assert [secret for secret in CONFIDENTIAL if secret in stdout + stderr] == []
