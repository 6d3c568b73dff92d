"""The eight codes and the one shape."""

from collections.abc import Mapping
from typing import Any, Literal

import psycopg2
from flask import Flask, Response, g, jsonify
from marshmallow import ValidationError
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from werkzeug.exceptions import HTTPException

Code = Literal[
    "UNAUTHORIZED",
    "INVALID_TOKEN",
    "TOKEN_EXPIRED",
    "VALIDATION_ERROR",
    "INVALID_REQUEST",
    "NOT_FOUND",
    "INTERNAL_ERROR",
    "DATABASE_ERROR",
]

SENTENCES = {
    404: "There is nothing here.",
    405: "This path does not take that method.",
    412: "This has changed since the version in If-Match.",
    413: "The request's body is too large.",
    415: "The request's body must be application/json.",
    500: "Something went wrong on our side.",
    503: "The database is not available. Try again.",
}

# Seconds. A database that restarts or fails over is usually back by then.
RETRY_AFTER = "1"

# How codes begin that waiting helps against. PostgreSQL's appendix A: connection exceptions, insufficient resources,
# operator intervention (starting, shutting down, cancelled), transaction rollbacks (serialization failure, deadlock),
# and lock not available; then sqlite.org/rescode.html.
_UNAVAILABLE = ("08", "53", "57", "40", "55P03") + tuple(
    f"SQLITE_{name}" for name in ("BUSY", "CANTOPEN", "FULL", "INTERRUPT", "LOCKED", "READONLY")
)


class ApiError(Exception):
    """An answer of 400 or above, to be raised from anywhere."""

    def __init__(
        self,
        status: int,
        code: Code,
        message: str | None = None,
        details: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status = status
        self.body: dict[str, Any] = {"error": message or SENTENCES[status], "code": code}
        if details:
            self.body["details"] = details
        self.headers = {"Retry-After": RETRY_AFTER} if status == 503 else {}
        self.headers |= headers or {}


def init_app(app: Flask) -> None:
    """Turn whatever is raised, on any path, into the one shape."""
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
    """Keep what werkzeug says in headers, such as Allow; its text never shows."""
    status = error.code or 500
    code: Code = "NOT_FOUND" if status == 404 else "INVALID_REQUEST" if status < 500 else "INTERNAL_ERROR"
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return _answer(ApiError(status, code, SENTENCES.get(status, "The request can't be taken."), headers=headers))


def _validation(error: ValidationError) -> Response:
    details = error.normalized_messages()  # type: ignore[no-untyped-call]
    field, messages = next(iter(details.items()))
    sentence = messages[0] if field == "_schema" else f"{field}: {messages[0]}"
    return _answer(ApiError(400, "VALIDATION_ERROR", sentence, details))


def _database(error: SQLAlchemyError) -> Response:
    """503 where waiting helps, else 500."""
    g.error = error  # for the log
    return _answer(ApiError(503 if is_unavailable(error) else 500, "DATABASE_ERROR"))


def is_unavailable(error: SQLAlchemyError) -> bool:
    """Say whether the database is away, starting, read-only or too busy."""
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeoutError)
    code = database_code(error)
    if code is None:  # libpq itself speaks: it found nobody to talk to
        return error.connection_invalidated or isinstance(error.orig, psycopg2.OperationalError)
    return error.connection_invalidated or code.startswith(_UNAVAILABLE)


def database_code(error: DBAPIError) -> str | None:
    """Return PostgreSQL's SQLSTATE, or the name of SQLite's result code."""
    code: str | None = getattr(error.orig, "pgcode", getattr(error.orig, "sqlite_errorname", None))
    return code


def _unexpected(error: Exception) -> Response:
    g.error = error
    return _answer(ApiError(500, "INTERNAL_ERROR"))
