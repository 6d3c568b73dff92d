"""Error codes, the error response, and the status of database errors."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Literal

import psycopg2
from flask import Flask, Response, g, jsonify
from marshmallow import ValidationError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

Code = Literal["UNAUTHORIZED", "INVALID_TOKEN", "TOKEN_EXPIRED", "VALIDATION_ERROR", "INVALID_REQUEST", "NOT_FOUND",
               "INTERNAL_ERROR", "DATABASE_ERROR"]

SENTENCES = {
    404: "There is nothing here.",
    405: "This path does not take that method.",
    412: "This has changed since the version in If-Match.",
    413: "The body is larger than 64 KiB.",
    415: "Send the body as application/json.",
    500: "Something went wrong on our side.",
    503: "The database is not available. Try again.",
}

RETRY_AFTER = "1"  # seconds; a database that restarts or fails over is usually back by then

# Code prefixes of contention; the statement did nothing: SQLite's lock, PostgreSQL's serialization_failure and
# deadlock_detected.
CONTENTION = ("SQLITE_BUSY", "40001", "40P01")
# Code prefixes of temporary faults. PostgreSQL's appendix A: connection exceptions, insufficient resources, operator
# intervention (starting, shutting down, cancelled), transaction rollbacks, lock not available; sqlite.org/rescode.html.
UNAVAILABLE = ("08", "53", "57", "40", "55P03") + tuple(
    f"SQLITE_{name}" for name in ("BUSY", "CANTOPEN", "FULL", "INTERRUPT", "LOCKED", "READONLY")
)


class ApiError(Exception):
    """An error response, raised anywhere. code and message default to the status's."""

    def __init__(
        self,
        status: int,
        code: Code | None = None,
        message: str | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        sentence = message or SENTENCES.get(status) or f"{HTTPStatus(status).phrase}."
        self.body: dict[str, Any] = {"error": sentence, "code": code or _code(status)}
        if details:
            self.body["details"] = details
        self.headers = {"Retry-After": RETRY_AFTER} if status == 503 else {}
        self.headers |= headers or {}


def _code(status: int) -> Code:
    if status in (401, 404):
        return "NOT_FOUND" if status == 404 else "UNAUTHORIZED"
    return "INVALID_REQUEST" if status < 500 else "INTERNAL_ERROR"


def init_app(app: Flask) -> None:
    """Answer every exception, on any path, in the same shape."""
    app.register_error_handler(ApiError, _answer)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(ValidationError, _validation)
    app.register_error_handler(SQLAlchemyError, _database)
    app.register_error_handler(Exception, _unexpected)


def _answer(error: ApiError) -> Response:
    response = jsonify(error.body)
    response.status_code = error.status
    response.headers.update(error.headers)
    return response


def _http(error: HTTPException) -> Response:
    """Keep werkzeug's headers, such as Allow, and replace its text."""
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return _answer(ApiError(error.code or 500, headers=headers))


def _validation(error: ValidationError) -> Response:
    """Name the first invalid field in the sentence, in the order of the schema."""
    messages = error.normalized_messages()  # type: ignore[no-untyped-call]
    details = {name: several[:1] for name, several in messages.items()}
    field, [message] = next(iter(details.items()))
    sentence = message if field == "_schema" else f"{field}: {message}"
    return _answer(ApiError(400, "VALIDATION_ERROR", sentence, details))


def _database(error: SQLAlchemyError) -> Response:
    """Answer 503 where waiting helps, else 500."""
    g.error = error  # for the log
    return _answer(ApiError(503 if is_unavailable(error) else 500, "DATABASE_ERROR"))


def _unexpected(error: Exception) -> Response:
    g.error = error
    return _answer(ApiError(500))


def sqlstate(error: DBAPIError) -> str:
    """Return PostgreSQL's SQLSTATE or the name of SQLite's result code; "" if libpq could not connect."""
    return getattr(error.orig, "pgcode", getattr(error.orig, "sqlite_errorname", None)) or ""


def is_contention(error: DBAPIError) -> bool:
    """Return whether contention stopped the statement; it did nothing."""
    return sqlstate(error).startswith(CONTENTION)


def is_unavailable(error: SQLAlchemyError) -> bool:
    """Return whether the database is away, starting, read-only or too busy."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeoutError)
    could_not_connect = not sqlstate(error) and isinstance(error.orig, psycopg2.OperationalError)
    return error.connection_invalidated or could_not_connect or sqlstate(error).startswith(UNAVAILABLE)


@contextmanager
def in_one_line() -> Iterator[None]:
    """End a command with one line if the database is away, refuses the user, or lacks tables or rights."""
    try:
        yield
    except DBAPIError as error:
        words = str(error.orig).strip().splitlines() or ["it did not answer"]
        raise SystemExit(f"The database says: {words[0]}") from None
