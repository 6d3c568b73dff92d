"""Settings: read once; a wrong one ends the start with one line that names it."""

import json
import re
from pathlib import Path

import jwt
import pytest
from dotenv import dotenv_values

from taskapi import create_app
from taskapi.config import DEVELOPMENT_SECRET, SettingsError, load
from tests.conftest import SETTINGS, dispose
from tests.people import SECRET
from tests.servers import PROJECT, copy_project, run, serving
from tests.tokens import NOWHERE

GOOD = {"JWT_SECRET": SECRET, "DATABASE_URL": NOWHERE}
JWKS = {"JWT_JWKS_URL": "https://issuer.example/jwks", "JWT_ISSUER": "https://issuer.example", "DATABASE_URL": NOWHERE}

MISSING = "is missing, and so is JWT_JWKS_URL"
FOR_DEBUG_MODE = "is the development secret, which only debug mode may use"
NO_DATABASE = "is missing; outside debug mode there is no default. sqlite:/// and a path will do"
UNKNOWN_KIND = "must begin with postgresql:// or postgres://, or be sqlite:/// and a path"
UNREADABLE = "is not a URL that libpq can read; is a special character of the password not escaped?"
NO_ORIGINS = "must be origins as browsers send them (https://app.example.com, without a slash), separated by commas"
NO_SECONDS = "must be a whole number from 0 to 3600"
NO_LEVEL = "must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL"
QUOTED = "is in quotes: take them away"

# What serves outside debug mode, as far as it loads the service.
SERVERS = ["python {folder}/wsgi.py", "gunicorn --check-config --chdir {folder} wsgi:app"]

# The setting that is named, what is said of it, its wrong values, and the settings beside it.
WRONG: list[tuple[str, str, list[str], dict[str, str]]] = [
    ("JWT_SECRET", MISSING, [" " * 40, "\n"], {}),
    ("JWT_SECRET", "must be 32 bytes or more", [" " * 9 + "x" * 31 + "\n"], {}),
    *[
        ("JWT_SECRET", FOR_DEBUG_MODE, [DEVELOPMENT_SECRET, f"{DEVELOPMENT_SECRET}\n"], {"FLASK_DEBUG": off})
        for off in ("", "0", "false", "no", "No")
    ],
    *[("DATABASE_URL", NO_DATABASE, ["", " ", "\n"], GOOD | {"FLASK_DEBUG": off}) for off in ("", "0")],
    # In quotes, which a shell would take away and docker's --env-file does not.
    ("DATABASE_URL", QUOTED, [f"'{NOWHERE}'", f'"{NOWHERE}"'], GOOD),
    ("JWT_SECRET", QUOTED, [f"'{SECRET}'", f'"{SECRET}"'], {}),
    ("JWT_JWKS_URL", QUOTED, ["'https://issuer.example/jwks'", '"https://issuer.example/jwks"'], JWKS),
    ("JWT_ISSUER", QUOTED, ["'https://issuer.example'", '"https://issuer.example"', " 'https://a.example'\n"], JWKS),
    ("JWT_AUDIENCE", QUOTED, ["'taskapi'", '"taskapi"'], JWKS),
    ("FRONTEND_URL", QUOTED, ["'https://app.example.com'", '"https://app.example.com"'], GOOD),
    ("JWT_LEEWAY", NO_SECONDS, ["-1", "1.5", "1e3", "30s", "٣", "3601", "9" * 400], GOOD),
    ("LOG_LEVEL", NO_LEVEL, ["LOUD", "10", "NOTSET", '"INFO"'], GOOD),
    ("METRICS", "must be one of 0, 1", ["2", "true", "'1'"], GOOD),
    (
        "DATABASE_URL",
        UNKNOWN_KIND,
        [
            "mysql://ana:hunter2@localhost/taskapi",
            "taskapi.sqlite3",
            "postgresql+asyncpg://ana:hunter2@localhost/taskapi",
            "xpostgresql://localhost/taskapi",
            "sqlite://",
            "sqlite:///:memory:",
            "sqlite:///file:taskapi?mode=memory&uri=true",
            "sqlite:///taskapi.sqlite3?timeout=1",
        ],
        GOOD,
    ),
    (
        "DATABASE_URL",
        UNREADABLE,
        [
            "postgresql://ana:hunter2@localhost:port:5/taskapi?sslmode",
            "postgresql://ana:hunter2/3@localhost:5432/taskapi",
            "postgresql://ana:hunter2@3@localhost/taskapi",
            "postgresql://ana:3/hunter2@localhost/taskapi",
            "postgresql://ana:hunter2\udcff@localhost/taskapi",
            "postgresql://ana@localhost:hunter2/taskapi",
            # The password has a "?", and what is behind it is a piece of the password, not a part of the URL.
            "postgresql://ana:9/?hunter=2@localhost/taskapi",
            "postgresql://ana:9?hunter=2/@localhost/taskapi",
        ],
        GOOD,
    ),
    (
        "FRONTEND_URL",
        NO_ORIGINS,
        [
            "*",
            "null",
            "app.example.com",
            "ftp://app.example.com",
            "https://App.example.com",
            "https://*.example.com",
            "https://app.example.com/",
            "https://app.example.com,",
            "https://app.example.com https://other.example.com",
            *(f"https://app.example.com:{port}" for port in ("", "0", "0443", "443", "65536")),
            "http://app.example.com:80",
        ],
        GOOD,
    ),
]


@pytest.mark.parametrize(("name", "problem", "values", "others"), WRONG)
def test_wrong_setting_stops_the_start(name: str, problem: str, values: list[str], others: dict[str, str]) -> None:
    """One line names the setting, and shows nothing of its value."""
    said = {}
    for value in values:
        with pytest.raises(SettingsError) as raised:
            load({"DATABASE_URL": NOWHERE} | others | {name: value})
            pytest.fail(f"{value!r} is taken")
        said[value] = str(raised.value)

    assert said == dict.fromkeys(values, f"taskapi cannot start: {name} {problem}")


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("pgbouncer=true", "pgbouncer"),
        ("supa=base-pooler.x", "supa"),
        ("schema=public", "schema"),
        ("sslmode=require&schema=public", "schema"),
    ],
)
def test_part_that_libpq_does_not_know_stops_the_start(query: str, part: str) -> None:
    """Other drivers know it. The line names the part, and nothing else of the URL."""
    with pytest.raises(SettingsError) as raised:
        load(GOOD | {"DATABASE_URL": f"postgresql://ana:hunter2@db.example/taskapi?{query}"})

    problem = f"has a part that libpq does not know: {part}"
    assert str(raised.value) == f"taskapi cannot start: DATABASE_URL {problem}"


@pytest.mark.parametrize(
    ("rest", "value"),
    [
        ("/taskapi?sslmode=no-verify", "no-verify"),
        (":99999/taskapi", "99999"),
        ("/taskapi?port=99999", "99999"),
        ("/taskapi?target_session_attrs=writable", "writable"),
        ("/taskapi?host=a,b,c&port=1,2", "3"),
    ],
)
def test_value_that_libpq_refuses_stops_the_start(rest: str, value: str) -> None:
    """Before anything is connected to, and in libpq's own words, which name the value. The password is not in them."""
    with pytest.raises(SettingsError) as raised:
        load(GOOD | {"DATABASE_URL": f"postgresql://ana:hunter2@db.example{rest}"})

    line = str(raised.value)
    assert line.startswith("taskapi cannot start: DATABASE_URL is refused by libpq: ")
    assert (value in line, "hunter2" in line, "\n" in line) == (True, False, False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JWT_SECRET", SECRET),
        ("JWT_ISSUER", "https://issuer.example"),
        ("JWT_AUDIENCE", "taskapi"),
        ("DATABASE_URL", "postgresql://ana:hunter2@db.example/taskapi"),
        ("JWT_LEEWAY", "5"),
        ("LOG_LEVEL", "ERROR"),
        ("METRICS", "1"),
        ("FRONTEND_URL", "https://app.example.com"),
        ("FLASK_DEBUG", "1"),
    ],
)
@pytest.mark.parametrize("form", ["{}\n", "{}\r\n", " {}\t"])
def test_value_is_trimmed(name: str, value: str, form: str) -> None:
    """A mounted file ends in a line feed, and a copied text in a space."""
    assert load(GOOD | {name: form.format(value)}) == load(GOOD | {name: value})


SLOW = [pytest.param(command, marks=pytest.mark.slow) for command in ("flask run", "gunicorn wsgi:app")]


@pytest.mark.parametrize("command", ["python wsgi.py", *SLOW])
def test_wrong_setting_ends_the_process(tmp_path: Path, command: str) -> None:
    """No traceback, no worker that is started over and over: one line, and a status that says it failed."""
    result = run(*command.split(), cwd=copy_project(tmp_path), JWT_SECRET="hunter2", DATABASE_URL=NOWHERE)

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "taskapi cannot start: JWT_SECRET must be 32 bytes or more\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["python wsgi.py", "gunicorn wsgi:app"])
def test_production_has_no_development_secret(tmp_path: Path, command: str) -> None:
    """.flaskenv belongs to the flask command: a deployment without a secret does not start."""
    result = run(*command.split(), cwd=copy_project(tmp_path), DATABASE_URL=NOWHERE)

    assert result.returncode == 1
    assert result.stderr == f"taskapi cannot start: JWT_SECRET {MISSING}\n"


@pytest.mark.slow
def test_development_needs_no_setting(tmp_path: Path) -> None:
    """In debug mode the database is a file in the instance folder, and the secret is the one in .flaskenv."""
    result = run("flask", "db", "upgrade", cwd=copy_project(tmp_path))

    assert result.returncode == 0, result.stderr
    assert (tmp_path / "instance" / "taskapi.sqlite3").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("command", SERVERS)
def test_dotenv_is_read(tmp_path: Path, command: str) -> None:
    """What .env beside the code says is a setting, for a process that was started in another folder, too."""
    (copy_project(tmp_path) / ".env").write_text(f"JWT_SECRET={SECRET}\nJWT_LEEWAY=\nDATABASE_URL={NOWHERE}\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    result = run(*command.format(folder=tmp_path).split(), cwd=elsewhere)

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(("settings", "secret"), [({}, "f" * 32), ({"JWT_SECRET": SECRET}, SECRET)])
def test_environment_goes_before_dotenv(tmp_path: Path, settings: dict[str, str], secret: str) -> None:
    """And .env goes before .flaskenv."""
    (copy_project(tmp_path) / ".env").write_text(f"JWT_SECRET={'f' * 32}\n")

    token = run("flask", "token", "ana@example.com", cwd=tmp_path, **settings).stdout.strip()

    assert jwt.decode(token, secret, algorithms=["HS256"])["email"] == "ana@example.com"


def test_example_changes_nothing() -> None:
    """.env.example as it stands, copied to .env, gives the same configuration, under flask and under gunicorn."""
    copied = {name: value or "" for name, value in dotenv_values(PROJECT / ".env.example").items()}
    flaskenv = {name: value or "" for name, value in dotenv_values(PROJECT / ".flaskenv").items()}

    assert load(GOOD | copied) == load(GOOD)
    assert load(flaskenv | copied) == load(flaskenv)


def test_example_has_every_setting() -> None:
    """Each is there to be uncommented; debug mode is the flask command's, and a platform sets PORT."""
    names = re.findall("^#([A-Z_]+)=", (PROJECT / ".env.example").read_text(), re.MULTILINE)

    assert sorted(names) == sorted({*SETTINGS} - {"FLASK_DEBUG", "PORT"})


def test_empty_value_counts_as_not_given() -> None:
    """A line of .env without a value changes nothing."""
    assert load(dict.fromkeys(SETTINGS, "") | GOOD) == load(GOOD)


def test_defaults_outside_debug_mode() -> None:
    """No origin is allowed by default."""
    config = load(GOOD)

    assert (config["JWT_LEEWAY"], config["LOG_LEVEL"], config["DEBUG"]) == (30, "INFO", False)
    assert config["FRONTEND_ORIGINS"] == []


@pytest.mark.parametrize("empty", [{}, {"DATABASE_URL": "", "FRONTEND_URL": ""}])
def test_defaults_in_debug_mode(empty: dict[str, str]) -> None:
    """A file in the instance folder, and the origins of the development servers of Next.js and Vite."""
    config = load({"JWT_SECRET": DEVELOPMENT_SECRET, "FLASK_DEBUG": "1"} | empty)

    assert config["DATABASE_URL"] == "sqlite:///taskapi.sqlite3"
    assert config["FRONTEND_ORIGINS"] == ["http://localhost:3000", "http://localhost:5173"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://a:p%40%2F@x:5432,y:/b",
        "postgresql:///%40b?host=/run/a@b",
        "postgresql://%40a,x/b",
        "postgresql://x",
        "postgresql:///b",
        "postgresql://a:p?q=r@x/b",
        "postgresql://x/b?sslmode=verify-full&sslrootcert=system&channel_binding=require",
        "postgresql://x,y/b?target_session_attrs=read-write&tcp_user_timeout=1000",
        "sqlite:///b",
    ],
)
def test_database_url_is_taken(url: str) -> None:
    """Escaped characters, several hosts, paths and names of sockets, and what is left out are no mistake."""
    assert load(GOOD | {"DATABASE_URL": url})["DATABASE_URL"] == url


@pytest.mark.parametrize("origin", ["http://app.example.com:443", "https://app.example.com:80", "http://[::1]:65535"])
def test_origin_is_taken(origin: str) -> None:
    """Browsers leave out only the scheme's own port."""
    assert load(GOOD | {"FRONTEND_URL": f"https://a.b, {origin}"})["FRONTEND_ORIGINS"] == ["https://a.b", origin]


def test_leeway_is_an_hour_at_most() -> None:
    """A clock that differs by more is broken."""
    assert load(GOOD | {"JWT_LEEWAY": "3600"})["JWT_LEEWAY"] == 3600


@pytest.mark.parametrize(("value", "on"), [("1", True), ("0", False), ("", False)])
def test_metrics(value: str, on: bool) -> None:
    """They are off unless they are turned on."""
    assert load(GOOD | {"METRICS": value})["METRICS"] is on


@pytest.mark.parametrize("on", ["1", "true", "True", "yes", "on"])
def test_development_secret_is_for_debug_mode(on: str) -> None:
    """Debug mode accepts the development secret."""
    config = load(GOOD | {"JWT_SECRET": DEVELOPMENT_SECRET, "FLASK_DEBUG": on})

    assert (config["DEBUG"], config["JWT_SECRET"]) == (True, DEVELOPMENT_SECRET)


def test_own_settings_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """create_app's argument is for tests and scripts."""
    monkeypatch.setenv("JWT_SECRET", "f" * 32)
    monkeypatch.setenv("JWT_LEEWAY", "5")

    app = create_app(GOOD)

    assert (app.config["JWT_SECRET"], app.config["JWT_LEEWAY"]) == (SECRET, 5)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
@pytest.mark.parametrize("hosts", ["{}", "/nowhere,{}&target_session_attrs=read-write"])
def test_postgresql_urls(postgresql_url: str, scheme: str, hosts: str) -> None:
    """Hosting services write either scheme, tutorials a third; libpq tries several hosts in turn."""
    _, rest = postgresql_url.split("://")
    address, folder = rest.split("host=")
    app = create_app(GOOD | {"DATABASE_URL": f"{scheme}://{address}host={hosts.format(folder)}"})

    response = app.test_client().get("/readyz")

    assert (response.status_code, response.json) == (200, {"status": "ok"})
    dispose(app)


KEYS_URL = "https://issuer.example/jwks"


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({}, ["127.0.0.1", "a shared secret", "no other origin"]),
        ({"DATABASE_URL": "postgres://ana:hunter2@db.example:5433/x?sslmode=require"}, ["PostgreSQL", "db.example"]),
        ({"DATABASE_URL": "postgresql:///x"}, ["PostgreSQL", "socket"]),
        ({"DATABASE_URL": "sqlite:///taskapi.sqlite3"}, ["sqlite:///taskapi.sqlite3"]),
        ({"JWT_SECRET": "", "JWT_JWKS_URL": KEYS_URL, "JWT_ISSUER": "https://issuer.example"}, [KEYS_URL]),
        ({"FRONTEND_URL": "https://a.example, https://b.example"}, ["https://a.example, https://b.example"]),
    ],
)
def test_start_says_what_it_runs_on(
    caplog: pytest.LogCaptureFixture, settings: dict[str, str], shown: list[str]
) -> None:
    """One line has the database's kind and host, how tokens are verified, and the origins; no secret is in it."""
    with caplog.at_level("INFO"):
        create_app(GOOD | settings)

    [record] = [record for record in caplog.records if record.name == "taskapi"]
    line = record.getMessage()
    assert (record.levelname, [text for text in shown if text not in line]) == ("INFO", [])
    assert [secret for secret in (SECRET, "hunter2", "ana") if secret in line] == []


@pytest.mark.slow
def test_start_in_debug_mode_names_the_development_secret(tmp_path: Path) -> None:
    """flask run says what it runs on and that the secret is public; flask token prints the token alone."""
    with serving(*"flask run --no-reload --port 0".split(), cwd=copy_project(tmp_path)) as server:
        server.fetch("GET", "/healthz")
    token = run("flask", "token", "ana@example.com", cwd=tmp_path)

    lines = server.stdout.read_text().splitlines()
    [start] = [line for line in lines if " INFO - Starting on " in line]
    [warning] = [line for line in lines if " WARNING - " in line]
    assert "sqlite:///taskapi.sqlite3" in start
    assert "development secret" in warning
    assert DEVELOPMENT_SECRET not in server.stdout.read_text() + server.stderr.read_text()
    assert (token.returncode, token.stderr, token.stdout.count("\n"), token.stdout.count(".")) == (0, "", 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("command", SERVERS)
def test_server_says_what_it_runs_on(tmp_path: Path, command: str) -> None:
    """In production the start has its line in the log, without a WARNING."""
    result = run(*command.format(folder=copy_project(tmp_path)).split(), cwd=tmp_path, **GOOD)

    logged = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["level"], "127.0.0.1" in line["message"]) for line in logged] == [("INFO", True)]
