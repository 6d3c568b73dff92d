"""The environment, read and checked once.

gunicorn.conf.py runs this file by its path, in the master: it imports nothing of taskapi.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from psycopg2 import ProgrammingError
from psycopg2.extensions import parse_dsn

# Shipped in .flaskenv, so known to everyone: good for trying things, refused outside debug mode.
DEVELOPMENT_SECRET = "known-to-everyone-for-development-only"

MAX_BODY = 64 * 1024  # bytes; a task at its largest, escaped throughout, is under 27 KiB

MAX_LEEWAY = 3600  # seconds; clocks that differ by more are wrong

# RFC 7518 section 3.2: an HS256 key is at least as long as the hash, 256 bits.
MIN_SECRET_BYTES = 32

# Public keys alone: with one of these no secret is shared (RFC 7518 section 3.1, RFC 8037 section 3.1).
ALGORITHMS = ("RS256", "ES256", "EdDSA")

_TRUE = {"1", "t", "true", "y", "yes", "on"}  # of FLASK_DEBUG, as the flask command takes it; Flask takes "off" too
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# RFC 6454 section 6.2: what a browser puts into Origin: lower case, no path, no port that goes without saying. The
# group is the port.
_ORIGIN = r"(?:http(?!.*:80$)|https(?!.*:443$))://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?"
_JWKS_URL = r"(?:https://[A-Za-z0-9._-]+|http://(?:localhost|127\.0\.0\.1|\[::1\]))(?::([1-9][0-9]{0,4}))?(?:/[!-~]*)?"
MAX_PORT = 65535
_PUBLIC_FORM = re.compile(r"^(?:\[?\s*\{|ssh-|ecdsa-sha2-)|----[- ]BEGIN")


class SettingsError(SystemExit):
    """A setting that stops the start: one line names it, never its value, and the exit status is 1."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"taskapi cannot start: {name} {problem}")


def load(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return Flask's configuration from the environment; raise SettingsError for what can't be right.

    An empty value counts as not given.
    """
    given = {name: value for name, value in environ.items() if value}
    debug = given.get("FLASK_DEBUG", "").lower() in _TRUE
    leeway = given.get("JWT_LEEWAY", "30")
    is_right = re.fullmatch("[0-9]{1,4}", leeway) and int(leeway) <= MAX_LEEWAY
    _require(is_right, "JWT_LEEWAY", f"must be a whole number of seconds, at most {MAX_LEEWAY}")
    return {
        "DEBUG": debug,
        "MAX_CONTENT_LENGTH": MAX_BODY + 1,  # where werkzeug stops reading
        "DATABASE_URL": _database_url(given.get("DATABASE_URL", "sqlite:///taskapi.sqlite3")),
        **_verification(given, debug),
        "JWT_ISSUER": given.get("JWT_ISSUER"),
        "JWT_AUDIENCE": given.get("JWT_AUDIENCE"),
        "JWT_LEEWAY": int(leeway),
        "FRONTEND_ORIGINS": _origins(given.get("FRONTEND_URL", "http://localhost:3000,http://localhost:5173" if debug else "")) if debug or "FRONTEND_URL" in given else [],
        "METRICS": _one_of(("0", "1"), "METRICS", given.get("METRICS", "0")) == "1",
        "LOG_LEVEL": _one_of(_LOG_LEVELS, "LOG_LEVEL", given.get("LOG_LEVEL", "INFO").upper()),
    }


def _require(is_right: object, name: str, problem: str) -> None:
    if not is_right:
        raise SettingsError(name, problem)


def _one_of(values: Sequence[str], name: str, value: str) -> str:
    _require(value in values, name, f"must be one of {', '.join(values)}")
    return value


def _database_url(url: str) -> str:
    """Return the URL of a SQLite file as it is, and a PostgreSQL URL in the form that libpq reads."""
    if re.fullmatch("sqlite:///(?!:memory:|file:)[^?]+", url):
        return url
    url, of_postgresql = re.subn(r"^postgres(?:ql)?(?:\+psycopg2)?://", "postgresql://", url)
    _require(of_postgresql, "DATABASE_URL", "must begin with postgresql:// or postgres://, or be sqlite:/// and a file")
    problem = "is not a URL that libpq can read; is a special character of the password not escaped?"
    try:
        parts = parse_dsn(url)
    except (ProgrammingError, UnicodeError):  # the former quotes the URL, password included
        raise SettingsError("DATABASE_URL", problem) from None
    # Where it is not, a piece of it becomes one of these, which libpq's messages quote.
    names = ",".join(parts.get(name, "") for name in ("host", "dbname"))
    is_whole = re.fullmatch("[0-9,]*", parts.get("port", "")) and not re.search("(?:^|,)[^,/@][^,]*@", names)
    _require(is_whole, "DATABASE_URL", problem)
    return url


def _verification(given: Mapping[str, str], debug: bool) -> dict[str, Any]:
    """Return what verifies tokens: a secret or, with its algorithms, the URL of a key set."""
    secret, url = given.get("JWT_SECRET", ""), given.get("JWT_JWKS_URL")
    if url is None:
        _require("JWT_ALGORITHMS" not in given, "JWT_ALGORITHMS", "goes with JWT_JWKS_URL; a JWT_SECRET means HS256")
        _check_secret(secret, debug)
        return {"JWT_SECRET": secret, "JWT_JWKS_URL": None}
    # .flaskenv's secret gives way to what .env says.
    _require(secret in ("", DEVELOPMENT_SECRET), "JWT_SECRET", "and JWT_JWKS_URL exclude each other")
    _require(_is_url(url, _JWKS_URL), "JWT_JWKS_URL", "must begin with https://, or http:// on localhost")
    _require("JWT_ISSUER" in given, "JWT_ISSUER", "is missing: keys from a URL need the issuer that they stand for")
    algorithms = [name.strip() for name in given.get("JWT_ALGORITHMS", ",".join(ALGORITHMS)).split(",")]
    _require(set(algorithms) <= set(ALGORITHMS), "JWT_ALGORITHMS", f"must be some of {', '.join(ALGORITHMS)}")
    return {"JWT_SECRET": None, "JWT_JWKS_URL": url, "JWT_ALGORITHMS": list(dict.fromkeys(algorithms))}


def _check_secret(secret: str, debug: bool) -> None:
    bare = secret.strip()
    data = bare.encode(errors="ignore")
    is_public, is_known = _PUBLIC_FORM.search(bare), bare == DEVELOPMENT_SECRET
    _require(secret, "JWT_SECRET", "is missing, and so is JWT_JWKS_URL")
    _require(data.decode() == bare, "JWT_SECRET", "is not UTF-8 text")
    _require(len(data) >= MIN_SECRET_BYTES, "JWT_SECRET", f"must be {MIN_SECRET_BYTES} bytes or more")
    _require(not is_public, "JWT_SECRET", "looks like a PEM or JWK: public keys are no secret, see JWT_JWKS_URL")
    _require(debug or not is_known, "JWT_SECRET", "is the development secret, which only debug mode may use")


def _origins(value: str) -> list[str]:
    origins = [origin.strip() for origin in value.split(",")]
    problem = "must be origins as browsers send them (https://app.example.com: no slash at the end), split by commas"
    _require(all(_is_url(origin, _ORIGIN) for origin in origins), "FRONTEND_URL", problem)
    return origins


def _is_url(text: str, form: str) -> bool:
    match = re.fullmatch(form, text)
    return match is not None and int(match[1] or 0) <= MAX_PORT
