"""Settings: read once, and a start that can't be right ends with one line that names what is wrong."""

from pathlib import Path

import jwt
import pytest

from taskapi import create_app
from taskapi.config import DEVELOPMENT_SECRET, SettingsError, load
from tests.conftest import dispose
from tests.people import SECRET
from tests.servers import copy_project, run

GOOD = {"JWT_SECRET": SECRET}
JWKS = {"JWT_JWKS_URL": "https://issuer.example/jwks", "JWT_ISSUER": "https://issuer.example"}
PEM = "-----BEGIN PUBLIC KEY-----\nhunter2hunter2hunter2hunter2"

WRONG: list[tuple[str, dict[str, str]]] = [
    # Missing.
    ("JWT_SECRET", {}),
    ("JWT_SECRET", {"JWT_SECRET": ""}),
    ("JWT_ISSUER", {"JWT_JWKS_URL": "https://issuer.example/jwks"}),
    # Weak.
    ("JWT_SECRET", {"JWT_SECRET": "hunter2"}),
    ("JWT_SECRET", {"JWT_SECRET": "x" * 31}),
    ("JWT_SECRET", {"JWT_SECRET": PEM}),
    ("JWT_SECRET", {"JWT_SECRET": " " * 40}),
    ("JWT_SECRET", {"JWT_SECRET": f"{DEVELOPMENT_SECRET} "}),
    ("JWT_SECRET", {"JWT_SECRET": "\udcff" * 32}),
    *[("JWT_SECRET", {"JWT_SECRET": DEVELOPMENT_SECRET, "FLASK_DEBUG": off}) for off in ("", "0", "false", "no", "No")],
    ("JWT_JWKS_URL", JWKS | {"JWT_JWKS_URL": "http://issuer.example/jwks"}),
    # Contradictory.
    ("JWT_SECRET", JWKS | GOOD),
    ("JWT_ALGORITHMS", GOOD | {"JWT_ALGORITHMS": "RS256"}),
    # Malformed.
    *[
        ("JWT_JWKS_URL", JWKS | {"JWT_JWKS_URL": url})
        for url in ("issuer.example", "file:///jwks", "https://", "https://x:65536/", "https://x:/", "https://x:0443/")
    ],
    *[("JWT_ALGORITHMS", JWKS | {"JWT_ALGORITHMS": names}) for names in ("HS256", "RS256,none", "RS256,,", "rs256")],
    *[
        ("JWT_LEEWAY", GOOD | {"JWT_LEEWAY": leeway})
        for leeway in ("-1", "1.5", "1e3", "30s", " ", "٣", "3601", "9" * 400)
    ],
    *[("LOG_LEVEL", GOOD | {"LOG_LEVEL": level}) for level in ("LOUD", "10", "NOTSET")],
    *[("METRICS", GOOD | {"METRICS": value}) for value in ("2", "true", " 1")],
    *[
        ("DATABASE_URL", GOOD | {"DATABASE_URL": url})
        for url in (
            "mysql://somebody:hunter2@localhost/taskapi",
            "taskapi.sqlite3",
            "postgresql+asyncpg://somebody:hunter2@localhost/taskapi",
            "postgresql://somebody:hunter2@localhost:port:5/taskapi?sslmode",
            "xpostgresql://localhost/taskapi",
            "postgresql://somebody:hunter2/3@localhost:5432/taskapi",
            "postgresql://somebody:hunter2@3@localhost/taskapi",
            "postgresql://somebody:3/hunter2@localhost/taskapi",
            "postgresql://somebody:hunter2\udcff@localhost/taskapi",
            "postgresql://somebody@localhost:hunter2/taskapi",
            "sqlite://",
            "sqlite:///:memory:",
            "sqlite:///file:taskapi?mode=memory&uri=true",
            "sqlite:///taskapi.sqlite3?timeout=1",
        )
    ],
    *[
        ("FRONTEND_URL", GOOD | {"FRONTEND_URL": origins})
        for origins in (
            "*",
            "null",
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com:",
            "https://app.example.com:0443",
            "https://App.example.com",
            "https://app.example.com,",
            "https://app.example.com https://other.example.com",
            "https://*.example.com",
            "https://app.example.com:0",
            "https://app.example.com:443",
            "http://app.example.com:80",
            "https://app.example.com:65536",
            "ftp://app.example.com",
        )
    ],
]


PROBLEMS = {
    "DATABASE_URL": [
        "must begin with postgresql:// or postgres://, or be sqlite:/// and a file",
        "is not a URL that libpq can read; is a special character of the password not escaped?",
    ],
    "FRONTEND_URL": [
        "must be origins as browsers send them (https://app.example.com: no slash at the end), split by commas"
    ],
    "JWT_ALGORITHMS": ["goes with JWT_JWKS_URL; a JWT_SECRET means HS256", "must be some of RS256, ES256, EdDSA"],
    "JWT_ISSUER": ["is missing: keys from a URL need the issuer that they stand for"],
    "JWT_JWKS_URL": ["must begin with https://, or http:// on localhost"],
    "JWT_LEEWAY": ["must be a whole number of seconds, at most 3600"],
    "JWT_SECRET": [
        "is missing, and so is JWT_JWKS_URL",
        "is not UTF-8 text",
        "must be 32 bytes or more",
        "looks like a PEM or JWK: public keys are no secret, see JWT_JWKS_URL",
        "is the development secret, which only debug mode may use",
        "and JWT_JWKS_URL exclude each other",
    ],
    "LOG_LEVEL": ["must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL"],
    "METRICS": ["must be one of 0, 1"],
}


@pytest.mark.parametrize(("name", "settings"), WRONG)
def test_wrong_setting_stops_the_start(name: str, settings: dict[str, str]) -> None:
    """One line names the setting, and never shows a password or a secret."""
    with pytest.raises(SettingsError) as raised:
        create_app(settings)

    assert str(raised.value) in [f"taskapi cannot start: {name} {problem}" for problem in PROBLEMS[name]]


@pytest.mark.parametrize("command", ["flask run", "flask db upgrade", "python wsgi.py", "gunicorn wsgi:app"])
def test_wrong_setting_ends_the_process(tmp_path: Path, command: str) -> None:
    """No traceback, no worker that is started over and over: one line, and a status that says it failed."""
    result = run(*command.split(), cwd=copy_project(tmp_path), JWT_SECRET="hunter2")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "taskapi cannot start: JWT_SECRET must be 32 bytes or more\n"


@pytest.mark.parametrize("command", ["python wsgi.py", "gunicorn wsgi:app"])
def test_production_knows_no_development_secret(tmp_path: Path, command: str) -> None:
    """.flaskenv is the flask command's alone: a deployment that sets no secret does not start."""
    result = run(*command.split(), cwd=copy_project(tmp_path))

    assert result.returncode == 1
    assert result.stderr == "taskapi cannot start: JWT_SECRET is missing, and so is JWT_JWKS_URL\n"


def test_development_needs_no_setting(tmp_path: Path) -> None:
    """Somebody new needs three words: the database is a file in the instance folder."""
    result = run("flask", "db", "upgrade", cwd=copy_project(tmp_path))

    assert result.returncode == 0, result.stderr
    assert (tmp_path / "instance" / "taskapi.sqlite3").stat().st_size > 0


@pytest.mark.parametrize("command", ["python wsgi.py", "gunicorn --check-config wsgi:app"])
def test_dotenv_is_read(tmp_path: Path, command: str) -> None:
    """What .env says is a setting, wherever the process was started."""
    (copy_project(tmp_path) / ".env").write_text(f"JWT_SECRET={SECRET}\nJWT_LEEWAY=\n")

    result = run(*command.split(), cwd=tmp_path)

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize(("settings", "secret"), [({}, "f" * 32), ({"JWT_SECRET": SECRET}, SECRET)])
def test_environment_goes_before_dotenv(tmp_path: Path, settings: dict[str, str], secret: str) -> None:
    """And .env goes before .flaskenv."""
    (copy_project(tmp_path) / ".env").write_text(f"JWT_SECRET={'f' * 32}\n")

    token = run("flask", "token", "ana@example.com", cwd=tmp_path, **settings).stdout.strip()

    assert jwt.decode(token, secret, algorithms=["HS256"])["email"] == "ana@example.com"


def test_empty_value_counts_as_not_given() -> None:
    """A line of .env.example that nobody filled in changes nothing."""
    names = ["DATABASE_URL", "JWT_JWKS_URL", "JWT_ALGORITHMS", "JWT_ISSUER", "JWT_AUDIENCE", "JWT_LEEWAY"]

    assert load(GOOD | dict.fromkeys([*names, "FRONTEND_URL", "LOG_LEVEL", "METRICS", "FLASK_DEBUG"], "")) == load(GOOD)


def test_defaults() -> None:
    """What nobody has set is what the contract says."""
    config = load(GOOD)

    assert (config["JWT_LEEWAY"], config["FRONTEND_ORIGINS"], config["LOG_LEVEL"], config["DEBUG"]) == (
        30,
        ["http://localhost:3000"],
        "INFO",
        False,
    )


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://a:p%40%2F@x:5432,y:/b",
        "postgresql:///%40b?host=/run/a@b",
        "postgresql://%40a,x/b",
        "postgresql://x",
        "postgresql:///b",
        "sqlite:///b",
    ],
)
def test_database_url_is_taken(url: str) -> None:
    """What is escaped, left out, several hosts, and the paths and names of sockets are no mistake."""
    assert load(GOOD | {"DATABASE_URL": url})["DATABASE_URL"] == url


@pytest.mark.parametrize("origin", ["http://app.example.com:443", "https://app.example.com:80", "http://[::1]:65535"])
def test_origin_is_taken(origin: str) -> None:
    """Only the scheme's own port goes without saying."""
    assert load(GOOD | {"FRONTEND_URL": f"https://a.b, {origin}"})["FRONTEND_ORIGINS"] == ["https://a.b", origin]


def test_leeway_is_an_hour_at_most() -> None:
    """Clocks that differ by more are to be mended."""
    assert load(GOOD | {"JWT_LEEWAY": "3600"})["JWT_LEEWAY"] == 3600


@pytest.mark.parametrize(("value", "on"), [("1", True), ("0", False), ("", False)])
def test_metrics(value: str, on: bool) -> None:
    """They are off unless they are turned on."""
    assert load(GOOD | {"METRICS": value})["METRICS"] is on


@pytest.mark.parametrize("on", ["1", "true", "True", "yes", "on"])
def test_development_secret_is_for_debug_mode(on: str) -> None:
    """The secret that everyone knows is good for trying things."""
    config = load({"JWT_SECRET": DEVELOPMENT_SECRET, "FLASK_DEBUG": on})

    assert (config["DEBUG"], config["JWT_SECRET"]) == (True, DEVELOPMENT_SECRET)


def test_key_set_goes_before_the_development_secret() -> None:
    """Under the flask command .flaskenv always gives that secret: no contradiction to a key set in .env."""
    config = load(JWKS | {"JWT_SECRET": DEVELOPMENT_SECRET, "FLASK_DEBUG": "1"})

    assert (config["JWT_SECRET"], config["JWT_JWKS_URL"]) == (None, JWKS["JWT_JWKS_URL"])
    assert config["JWT_ALGORITHMS"] == ["RS256", "ES256", "EdDSA"]


@pytest.mark.parametrize("secret", ["x" * 32, "ü" * 16, "🌍" * 8])
def test_secret_is_measured_in_bytes(secret: str) -> None:
    """An HS256 key is 256 bits or longer (RFC 7518 section 3.2)."""
    assert load({"JWT_SECRET": secret})["JWT_SECRET"] == secret


def test_own_settings_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """create_app's argument is for tests and scripts, whatever the shell has set."""
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
