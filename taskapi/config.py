"""Settings, read from the environment and validated once.

gunicorn.conf.py runs this file by path in the master process, so it must not import taskapi.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn, parse_dsn

# .flaskenv ships this secret, so everyone knows it. It is refused outside debug mode.
DEVELOPMENT_SECRET = "known-to-everyone-for-development-only"
DEVELOPMENT_ORIGINS = "http://localhost:3000,http://localhost:5173"  # Next.js and Vite
DEVELOPMENT_DATABASE = "sqlite:///taskapi.sqlite3"  # in the instance folder

# PyJWT's list. Importing PyJWT here would import ssl before gevent patches it.
PUBLIC_KEY_ALGORITHMS = set("RS256 RS384 RS512 PS256 PS384 PS512 ES256 ES256K ES384 ES512 ES521 EdDSA".split())
DEFAULT_ALGORITHMS = "RS256,ES256,EdDSA"
MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2: an HS256 key is at least as long as the hash
MAX_LEEWAY = 3600  # seconds; a larger difference is a broken clock
MAX_PORT = 65535
MAX_WORKERS = 1000  # more is a typing error
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

# Keyword arguments of the JSON formatter, for the service's lines and for gunicorn's.
LOG_LINE: dict[str, Any] = {
    "fmt": ["levelname", "message"],
    "rename_fields": {"levelname": "level", "exc_info": "traceback"},
    "timestamp": "time",
    "defaults": {"time": None},  # makes time the first key
}

_TRUE = {"1", "t", "true", "y", "yes", "on"}  # of FLASK_DEBUG, as the flask command reads it
# An origin as browsers send it (RFC 6454 section 6.2): lower case, no path, no default port. Group 1 is the port.
_ORIGIN = r"(?:http(?!.*:80$)|https(?!.*:443$))://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([1-9][0-9]{0,4}))?"
_JWKS_URL = r"(?:https://[A-Za-z0-9._-]+|http://(?:localhost|127\.0\.0\.1|\[::1\]))(?::([1-9][0-9]{0,4}))?(?:/[!-~]*)?"
QUOTED = re.compile("""(['"]).*\\1""", re.DOTALL)
_PUBLIC_KEY = re.compile(r"^(?:\[?\s*\{|ssh-|ecdsa-sha2-)|----[- ]BEGIN")


class SettingsError(SystemExit):
    """A wrong setting: stop the start with one line, which never contains the value."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"taskapi cannot start: {name} {problem}")


def load(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return Flask's configuration; raise SettingsError.

    White space around a value is trimmed, and an empty value counts as not given.
    """
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    for name in ("DATABASE_URL", "JWT_SECRET", "JWT_JWKS_URL", "JWT_ISSUER", "JWT_AUDIENCE", "FRONTEND_URL"):
        _require(not QUOTED.fullmatch(given.get(name, "")), name, "is in quotes: take them away")
    debug = given.get("FLASK_DEBUG", "").lower() in _TRUE
    return {
        "DEBUG": debug,
        "DATABASE_URL": _database_url(given.get("DATABASE_URL", DEVELOPMENT_DATABASE if debug else "")),
        **_verification(given, debug),
        "JWT_ISSUER": given.get("JWT_ISSUER"),
        "JWT_AUDIENCE": given.get("JWT_AUDIENCE"),
        "JWT_LEEWAY": _number(given, "JWT_LEEWAY", 0, MAX_LEEWAY, default=30),
        "FRONTEND_ORIGINS": _origins(given.get("FRONTEND_URL", DEVELOPMENT_ORIGINS if debug else "")),
        "METRICS": _one_of(("0", "1"), "METRICS", given.get("METRICS", "0")) == "1",
        "LOG_LEVEL": _one_of(LOG_LEVELS, "LOG_LEVEL", given.get("LOG_LEVEL", "INFO").upper()),
        # gunicorn.conf.py reads these two; 0 means not given.
        "PORT": _number(given, "PORT", 1, MAX_PORT),
        "WEB_CONCURRENCY": _number(given, "WEB_CONCURRENCY", 1, MAX_WORKERS),
    }


def _require(is_right: object, name: str, problem: str) -> None:
    if not is_right:
        raise SettingsError(name, problem)


def _one_of(values: Sequence[str], name: str, value: str) -> str:
    _require(value in values, name, f"must be one of {', '.join(values)}")
    return value


def _number(given: Mapping[str, str], name: str, least: int, most: int, default: int = 0) -> int:
    value = given.get(name)
    if value is None:
        return default
    is_right = re.fullmatch("[0-9]{1,5}", value) and least <= int(value) <= most
    _require(is_right, name, f"must be a whole number from {least} to {most}")
    return int(value)


def _database_url(url: str) -> str:
    """Return a SQLite URL as it is, and a PostgreSQL URL in the form that libpq reads."""
    _require(url, "DATABASE_URL", "is missing; outside debug mode there is no default. sqlite:/// and a path will do")
    if re.fullmatch("sqlite:///(?!:memory:|file:)[^?]+", url):
        return url
    url, is_postgresql = re.subn(r"^postgres(?:ql)?(?:\+psycopg2)?://", "postgresql://", url)
    _require(is_postgresql, "DATABASE_URL", "must begin with postgresql:// or postgres://, or be sqlite:/// and a path")
    _check_values(_parse(url))
    return url


def _parse(url: str) -> dict[str, str]:
    problem = "is not a URL that libpq can read; is a special character of the password not escaped?"
    try:
        parts: dict[str, str] = parse_dsn(url)
    except (psycopg2.ProgrammingError, UnicodeError) as error:
        unknown = re.search('invalid URI query parameter: "([a-z_-]+)"', str(error))
        if unknown and "@" not in url.partition("?")[2]:  # with "@", this may be part of the password
            problem = f"has a part that libpq does not know: {unknown[1]}"
        raise SettingsError("DATABASE_URL", problem) from None  # libpq's message quotes the URL, password included
    # Part of an unescaped password would be in one of these, which libpq's messages quote.
    names = f"{parts.get('host', '')},{parts.get('dbname', '')}"
    is_whole = re.fullmatch("[0-9,]*", parts.get("port", "")) and not re.search("(?:^|,)[^,/@][^,]*@", names)
    _require(is_whole, "DATABASE_URL", problem)
    return parts


def _check_values(parts: Mapping[str, str]) -> None:
    """Let libpq check the values. It checks before it connects; these sockets do not exist."""
    hosts = max(parts.get(name, "").count(",") for name in ("host", "hostaddr")) + 1
    nowhere = {"host": ",".join(["/nonexistent"] * hosts), "hostaddr": "," * (hosts - 1)}
    try:
        psycopg2.connect(make_dsn(**{**parts, **nowhere}))
    except psycopg2.OperationalError as error:
        words = str(error).strip().partition("\n")[0]
        _require(words.startswith("connection to server"), "DATABASE_URL", f"is refused by libpq: {words}")


def _verification(given: Mapping[str, str], debug: bool) -> dict[str, Any]:
    """Return what verifies tokens: a secret, or the URL of a key set with its algorithms."""
    secret, url = given.get("JWT_SECRET", ""), given.get("JWT_JWKS_URL")
    if url is None:
        _require("JWT_ALGORITHMS" not in given, "JWT_ALGORITHMS", "goes with JWT_JWKS_URL; a JWT_SECRET means HS256")
        _check_secret(secret, debug)
        return {"JWT_SECRET": secret, "JWT_JWKS_URL": None}
    _require(secret in ("", DEVELOPMENT_SECRET), "JWT_SECRET", "and JWT_JWKS_URL exclude each other")
    _require(_is_url(url, _JWKS_URL), "JWT_JWKS_URL", "must begin with https://, or http:// on localhost")
    _require("JWT_ISSUER" in given, "JWT_ISSUER", "is missing; JWT_JWKS_URL needs it")
    algorithms = [name.strip() for name in given.get("JWT_ALGORITHMS", DEFAULT_ALGORITHMS).split(",")]
    names = sorted(PUBLIC_KEY_ALGORITHMS)
    _require(set(algorithms) <= set(names), "JWT_ALGORITHMS", f"must be some of {', '.join(names)}")
    return {"JWT_SECRET": None, "JWT_JWKS_URL": url, "JWT_ALGORITHMS": list(dict.fromkeys(algorithms))}


def _check_secret(secret: str, debug: bool) -> None:
    _require(secret, "JWT_SECRET", "is missing, and so is JWT_JWKS_URL")
    data = secret.encode(errors="ignore")
    _require(data.decode() == secret, "JWT_SECRET", "is not UTF-8 text")
    _require(len(data) >= MIN_SECRET_BYTES, "JWT_SECRET", f"must be {MIN_SECRET_BYTES} bytes or more")
    _require(not _PUBLIC_KEY.search(secret), "JWT_SECRET", "looks like a PEM or JWK; for public keys use JWT_JWKS_URL")
    is_secret = debug or secret != DEVELOPMENT_SECRET
    _require(is_secret, "JWT_SECRET", "is the development secret, which only debug mode may use")


def _origins(value: str) -> list[str]:
    origins = [origin.strip() for origin in value.split(",") if value]
    problem = "must be origins as browsers send them (https://app.example.com, without a slash), separated by commas"
    _require(all(_is_url(origin, _ORIGIN) for origin in origins), "FRONTEND_URL", problem)
    return origins


def _is_url(text: str, form: str) -> bool:
    return (match := re.fullmatch(form, text)) is not None and int(match[1] or 0) <= MAX_PORT
