"""Logs: one line per request, readable or JSON, with the request's id and nothing confidential."""

import json
import logging
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text

from taskapi.database.models import db
from tests.keyserver import KeyServer
from tests.people import SECRET, Person, make_token
from tests.servers import copy_project, run, serving
from tests.tokens import (
    EXPIRED, INVALID, ISSUER, ME, NO_TOKEN, Members, ask, ed25519, me_app, refusal, whole
)

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
    """It has user, route and duration. It has no path, which may hold private text."""
    ana = Person(make_app(LOG_LEVEL=level), email="ana@example.com")
    capsys.readouterr()

    ana.call("POST", json=TASK)
    ana.call("GET", "/api/tasks?q=sought-after", headers={"X-Request-ID": "my-request"})
    ana.call("GET", "/sought-after")

    logged = [line for line in lines(capsys) if line["level"] != "DEBUG"]
    assert [line["message"] for line in logged] == ["POST /api/tasks 201", "GET /api/tasks 200", "GET - 404"]
    assert logged[1] == {
        "level": "INFO",
        "message": "GET /api/tasks 200",
        "request_id": "my-request",
        "method": "GET",
        "route": "/api/tasks",
        "status": 200,
        "milliseconds": logged[1]["milliseconds"],
        "user_id": ana.id,
        "statements": 1,
        "time": logged[1]["time"],
    }
    assert [line["statements"] for line in logged] == [4, 1, 0]
    assert [list(line)[:3] for line in logged] == [["time", "level", "message"]] * 3
    assert datetime.fromisoformat(logged[1]["time"]).utcoffset() == timedelta()
    assert 0 < logged[1]["milliseconds"] < 5000
    assert (logged[2]["route"], logged[2]["user_id"]) == (None, None)


def test_milliseconds_are_told_to_a_tenth(make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    """At least one of five durations has a decimal."""
    client = make_app().test_client()
    capsys.readouterr()

    for _ in range(5):
        client.get("/nowhere")

    told = [line["milliseconds"] for line in lines(capsys)]
    assert told == [round(float(each), 1) for each in told]
    assert any(each % 1 for each in told)


@pytest.mark.parametrize("debug", ["0", "1"])
def test_unknown_method_is_other(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str], debug: str
) -> None:
    """A client can send any text there, such as a terminal's control sequences."""
    app = make_app(FLASK_DEBUG=debug)
    capsys.readouterr()

    app.test_client().open("/nope", method="\x1b[2JGET")

    out = capsys.readouterr().out
    assert "other - 404" in out
    assert "2J" not in out


@pytest.mark.parametrize("path", ["/api/tasks?q=sought-after", "/api/tasks/sought-after", "/sought-after", "/broken"])
def test_lines_hold_nothing_confidential(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str], path: str
) -> None:
    """Not even at LOG_LEVEL=DEBUG, where libraries log too."""
    app = make_app(LOG_LEVEL="DEBUG")
    app.add_url_rule("/broken", view_func=lambda: dict[str, str]()["missing"])
    ana = Person(app, email="ana@example.com")
    origin = {"Origin": "http://localhost:3000"}

    for method in ("GET", "POST", "PUT", "DELETE"):
        ana.call(method, path, json=TASK, headers=origin)
    app.test_client().get(path, headers={"Authorization": f"Bearer {make_token('x' * 32, email='ana@example.com')}"})

    output = capsys.readouterr().out
    assert len(output.splitlines()) >= 5
    assert [secret for secret in CONFIDENTIAL if secret in output] == []


def test_every_line_of_a_request_has_its_id(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]
) -> None:
    """A line outside a request has none."""
    app = make_app()

    @app.get("/speaking")
    def speak() -> str:
        app.logger.info("in a view")
        return ""

    capsys.readouterr()

    app.logger.info("hello")
    app.test_client().get("/speaking", headers={"X-Request-ID": "my-request"})

    assert [(line.get("request_id"), line["message"]) for line in lines(capsys)] == [
        (None, "hello"),
        ("my-request", "in a view"),
        ("my-request", "GET /speaking 200"),
    ]


IN_TIME = int(time.time()) + 3600
REFUSED: list[tuple[str, Members, Members]] = [
    ("signature", {}, {}),  # another key's
    ("expired", {}, {"exp": IN_TIME - 7200}),
    ("issuer", {}, {"iss": "https://other.example"}),
    ("issuer", {}, {"iss": ...}),
    ("audience", {}, {"aud": "other"}),
    ("audience", {}, {"aud": ...}),
    ("claims", {}, {"sub": 7}),
    ("claims", {}, {"exp": ...}),
    ("claims", {}, {"nbf": IN_TIME}),
    ("algorithm", {"alg": "HS256"}, {}),
    ("key", {"kid": "k2"}, {}),
    ("form", {"crit": ["b64"]}, {}),
]


@pytest.mark.parametrize(("reason", "header", "claims"), REFUSED)
def test_reason_of_a_refusal_is_in_the_log_alone(
    capsys: pytest.CaptureFixture[str], reason: str, header: Members, claims: Members
) -> None:
    """One word stands in the request's line. All get the same answer, except a token that has only expired."""
    known, other = ed25519(), ed25519()
    pair = other if reason == "signature" else known
    with KeyServer(known.jwk()) as server:
        app = me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER, JWT_AUDIENCE="taskapi")
        capsys.readouterr()
        answer = ask(app, pair.token(header, {"aud": "taskapi", "exp": IN_TIME, **claims}))
        taken = ask(app, known.token({}, {"aud": "taskapi", "exp": IN_TIME}))
        missing = app.test_client().get(ME)

    logged = [line for line in lines(capsys) if "route" in line]
    assert [(line["status"], line.get("refused")) for line in logged] == [(401, reason), (200, None), (401, None)]
    assert whole(answer) == refusal(EXPIRED if reason == "expired" else INVALID)
    assert (taken.status_code, missing.get_json()) == (200, NO_TOKEN)


def test_reason_of_a_refusal_is_shown_in_debug_mode(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]
) -> None:
    """A developer reads it in the request's line."""
    app = make_app(FLASK_DEBUG="1")
    capsys.readouterr()

    ask(app, make_token("x" * 32))

    assert "refused=signature" in capsys.readouterr().out.split()


HOME, OTHER = "http://localhost:5173", "http://localhost:5174"


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
@pytest.mark.parametrize(
    ("origin", "settings", "is_named"),
    [
        (OTHER, {"FLASK_DEBUG": "1"}, True),
        ("null", {"FLASK_DEBUG": "1", "FRONTEND_URL": HOME}, True),
        (HOME, {"FLASK_DEBUG": "1"}, False),
        (None, {"FLASK_DEBUG": "1"}, False),
        ("http://localhost", {"FLASK_DEBUG": "1"}, False),  # the service's own: /api/docs
        (OTHER, {}, False),
    ],
)
def test_refused_origin_is_named_in_debug_mode(
    make_app: Callable[..., Flask],
    caplog: pytest.LogCaptureFixture,
    method: str,
    origin: str | None,
    settings: dict[str, str],
    is_named: bool,
) -> None:
    """The browser says no more than "Failed to fetch": the log has the origin, and the setting that would let it in."""
    app = make_app(**settings)
    caplog.clear()

    app.test_client().open("/api/tasks", method=method, headers={"Origin": origin} if origin else {})

    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [str(origin) in line and "FRONTEND_URL" in line for line in warnings] == [True] * is_named


@pytest.mark.parametrize("is_told", [True, False], ids=["its cause", "what it came upon"])
def test_fault_is_in_its_requests_line(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str], is_told: bool
) -> None:
    """What went wrong and where, causes first, without messages: they may quote what the request held."""

    def broken() -> str:
        try:
            return {"a": ""}["sought-after"]
        except KeyError as error:
            if is_told:
                raise RuntimeError("sought-after") from error
            raise RuntimeError("sought-after")

    app = make_app()
    app.add_url_rule("/broken", view_func=broken)
    capsys.readouterr()

    app.test_client().get("/broken", headers={"X-Request-ID": "my-request"})

    [line] = lines(capsys)
    assert (line["level"], line["request_id"], line["message"]) == ("ERROR", "my-request", "GET /broken 500")
    assert line["error"] == "RuntimeError"
    assert re.sub(r'File "[^"]+", line \d+', "File", line["traceback"]).splitlines()[:2] == [
        "  File, in broken",
        '    return {"a": ""}["sought-after"]',
    ]
    assert [text for text in line["traceback"].splitlines() if not text.startswith(" ")] == ["KeyError", "RuntimeError"]


@pytest.mark.own_database
def test_databases_fault_is_in_its_requests_line(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 500 has a traceback; a 503 has the reason without one."""
    monkeypatch.setattr("taskapi.database.engine.REQUEST_LIMIT", 0.2)
    ana = Person(make_app())
    capsys.readouterr()

    with ana.app.app_context():
        db.session.execute(text("BEGIN EXCLUSIVE"))
        ana.call("POST", json=TASK)
        for table in ("tasks", "alembic_version"):
            db.session.execute(text(f"ALTER TABLE {table} RENAME TO {table}_is_gone"))
        db.session.commit()
    ana.call("GET")
    ana.call("GET", "/readyz")

    [busy, fault, unready] = lines(capsys)
    assert (fault["level"], fault["error"]) == ("ERROR", "OperationalError no such table: tasks")
    assert fault["traceback"].splitlines()[-1] == "OperationalError"
    assert (busy["level"], busy["error"]) == ("WARNING", "OperationalError database is locked")
    assert "traceback" not in busy
    assert (unready["level"], unready["error"]) == ("WARNING", "OperationalError no such table: alembic_version")


@pytest.mark.own_database
def test_health_is_quiet(make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    """Load balancers ask every second, so only a failure has a line of its own at INFO."""
    app = make_app(LOG_LEVEL="DEBUG", METRICS="1")
    with app.app_context():
        db.session.execute(text("DELETE FROM alembic_version"))
        db.session.commit()
    capsys.readouterr()

    for path in ("/healthz", "/readyz", "/metrics"):
        app.test_client().get(path)

    assert [(line["level"], line["message"]) for line in lines(capsys) if "route" in line] == [
        ("DEBUG", "GET /healthz 200"),
        ("WARNING", "GET /readyz 503"),
        ("DEBUG", "GET /metrics 200"),
    ]


def test_line_outside_any_request_of_ours(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    """In flask shell a request context has no request id, and logging still works."""
    with app.test_request_context():
        app.logger.warning("hello")

    assert "hello" in caplog.text


@pytest.mark.parametrize(
    ("level", "expected"), [("debug", 2), ("INFO", 2), ("warning", 1), ("ERROR", 1), ("CRITICAL", 0)]
)
def test_log_level(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str], level: str, expected: int
) -> None:
    """Lines below LOG_LEVEL are left out. Its case does not matter."""
    app = make_app(LOG_LEVEL=level)
    app.add_url_rule("/broken", view_func=lambda: dict[str, str]()["missing"])
    capsys.readouterr()

    app.test_client().get("/broken")
    app.test_client().get("/nothing")

    assert len([line for line in lines(capsys) if line["level"] != "DEBUG"]) == expected


def test_log_level_counts_in_debug_mode(make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    """Flask would log everything there."""
    app = make_app(FLASK_DEBUG="1", LOG_LEVEL="ERROR")
    capsys.readouterr()

    app.test_client().get("/nothing")

    assert capsys.readouterr().out == ""


def test_readable_lines(make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    """A developer sees how long a request took, how many statements it ran, and where it broke."""
    app = make_app(FLASK_DEBUG="1")
    app.add_url_rule("/broken", view_func=lambda: dict[str, str]()["sought-after"])
    headers = {"X-Request-ID": "my-request"}
    capsys.readouterr()

    Person(app).call("GET", headers=headers)
    app.test_client().get("/broken", headers=headers)

    app.logger.warning("outside a request")

    printed = re.sub("[0-9T:.-]+Z", "TIME", capsys.readouterr().out)
    output = re.sub("milliseconds=[0-9.]+", "milliseconds=0.0", printed).splitlines()
    assert output[0] == "TIME INFO my-request GET /api/tasks 200 milliseconds=0.0 statements=1"
    broken = "TIME ERROR my-request GET /broken 500 milliseconds=0.0 statements=0 error=KeyError traceback="
    assert output[1].startswith(broken) and any("test_logs.py" in line for line in output[2:-2])
    assert output[-2:] == ["KeyError", "TIME WARNING - outside a request"]


def test_servers_own_request_line_is_left_out(
    make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]
) -> None:
    """It would show paths and queries; the development server's other lines are let through."""
    make_app()
    capsys.readouterr()

    logging.getLogger("werkzeug").info('127.0.0.1 - - [20/Nov/2026 12:00:00] "GET /api/tasks?q=sought-after" 200 -')
    logging.getLogger("werkzeug").info(" * Detected a change, reloading")

    assert [line["message"] for line in lines(capsys)] == [" * Detected a change, reloading"]


def test_second_app_logs_once(make_app: Callable[..., Flask], capsys: pytest.CaptureFixture[str]) -> None:
    """A second app in one process does not double the lines."""
    make_app()
    app = make_app()
    capsys.readouterr()

    app.test_client().get("/nothing")

    assert [line["message"] for line in lines(capsys)] == ["GET - 404"]


@pytest.mark.parametrize(
    ("command", "form"),
    [
        (
            "flask run --no-reload --port 0",
            r"[0-9-]+T[0-9:.]+Z ERROR my-request GET /api/tasks 500 milliseconds=[0-9.]+ statements=1 .+",
        ),
        pytest.param(
            "gunicorn --bind 127.0.0.1:0 wsgi:app",
            r'\{"time":"[0-9-]+T[0-9:.]+\+00:00","level":"ERROR",.+"request_id":"my-request",.+\}',
            marks=pytest.mark.slow,
        ),
    ],
)
def test_real_output(tmp_path: Path, command: str, form: str) -> None:
    """Readable lines for developers, JSON in production, and no other line that tells what was asked for."""
    empty = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    headers = {"Authorization": f"Bearer {make_token(email='ana@example.com')}", "X_Request_ID": "my-request"}
    with serving(*command.split(), cwd=copy_project(tmp_path), JWT_SECRET=SECRET, DATABASE_URL=empty) as server:
        status, _ = server.fetch("GET", "/api/tasks?q=sought-after", **headers)
        server.fetch("GET", "/nothing?sought-after")

    stdout, stderr = server.stdout.read_text(), server.stderr.read_text()
    assert status == 500
    assert [line for line in stdout.splitlines() if re.fullmatch(form, line)] != []
    assert stdout.count("GET /api/tasks 500") == 1
    assert "GET" not in stderr
    assert [secret for secret in CONFIDENTIAL if secret in stdout + stderr] == []


@pytest.mark.slow
def test_gunicorns_own_lines_are_the_same(tmp_path: Path) -> None:
    """From the first to the last, every line on stdout is one JSON object; there is none on stderr."""
    database = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    command = "gunicorn --bind 127.0.0.1:0 wsgi:app"
    with serving(*command.split(), cwd=copy_project(tmp_path), JWT_SECRET=SECRET, DATABASE_URL=database) as server:
        server.fetch("GET", "/nothing")

    logged = [json.loads(line) for line in server.stdout.read_text().splitlines()]
    assert [list(line)[:3] for line in logged] == [["time", "level", "message"]] * len(logged)
    assert [line["level"] for line in logged if "request_id" not in line] == ["INFO"] * (len(logged) - 1)
    assert server.stderr.read_text() == ""


@pytest.mark.slow
def test_gunicorns_lines_keep_to_the_level(tmp_path: Path) -> None:
    """LOG_LEVEL holds for them too."""
    settings = {"DATABASE_URL": f"sqlite:///{tmp_path / 'empty.sqlite3'}", "JWT_SECRET": SECRET, "LOG_LEVEL": "ERROR"}
    nowhere = ("gunicorn", "--bind", f"unix:{tmp_path / 'missing' / 'socket'}", "wsgi:app")

    result = run(*nowhere, cwd=copy_project(tmp_path), **settings)

    levels = {json.loads(line)["level"] for line in result.stdout.splitlines()}
    assert (result.returncode != 0, levels) == (True, {"ERROR"})
