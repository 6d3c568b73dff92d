"""Request ids, and one line of log per request."""

import logging
import re
import sys
import time
from http import HTTPStatus
from secrets import token_hex
from time import perf_counter
from traceback import format_tb
from typing import Any

from flask import Flask, Response, g, has_request_context, request
from pythonjsonlogger.orjson import OrjsonFormatter
from sqlalchemy.exc import DBAPIError

from taskapi.config import LOG_LINE

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
DETAILS = ("milliseconds", "statements", "refused", "error", "traceback")
QUIET = ("health", "metrics")  # blueprints that are asked every few seconds

log = logging.getLogger(__name__)


def init_app(app: Flask) -> None:
    """Log to stdout: readable lines in debug mode, otherwise JSON. Call this before adding other hooks."""
    handler = logging.StreamHandler(sys.stdout)
    handler.name = __name__
    handler.addFilter(_add_request_id)
    line = "{asctime} {levelname} {request_id} {message}"
    readable = ReadableFormatter(line, style="{", defaults={"request_id": "-"})
    handler.setFormatter(readable if app.debug else OrjsonFormatter(**LOG_LINE))
    root = logging.getLogger()
    root.handlers = [*(other for other in root.handlers if other.name != __name__), handler]
    for logger in (root, app.logger):  # Flask would set the app's own to DEBUG in debug mode
        logger.setLevel(app.config["LOG_LEVEL"])
    # Lines have no thread or process; their lookup takes a tenth of a line's time.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    # The development server's own request lines show paths and queries.
    logging.getLogger("werkzeug").addFilter(lambda record: " - - [" not in record.getMessage())
    app.before_request(_begin)
    app.after_request(_end)


class ReadableFormatter(logging.Formatter):
    """A readable line: the message, then the request's details."""

    converter = time.gmtime  # type: ignore[assignment]  # typeshed leaves out its default argument
    default_time_format, default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        told = [f" {name}={record.__dict__[name]}" for name in DETAILS if name in record.__dict__]
        return "".join([super().format(record), *told])


def _add_request_id(record: logging.LogRecord) -> bool:
    if "request_id" not in record.__dict__ and has_request_context() and "request_id" in g:
        record.request_id = g.request_id
    return True


def _begin() -> None:
    state, given = g._get_current_object(), request.headers.get("X-Request-ID", "")
    state.request_id = given if REQUEST_ID.fullmatch(given) else token_hex(16)
    state.began = perf_counter()


def known_method(method: str) -> str:
    """Return a request's method, or "other" for one that the client made up."""
    return method if method in METHODS else "other"


def _end(response: Response) -> Response:
    """Log the request: what was asked, for how long, by which user, and what went wrong, without its content."""
    state, rule, status = g._get_current_object(), request.url_rule, response.status_code
    response.headers.add("X-Request-ID", state.request_id)
    level = _level(status)
    if not log.isEnabledFor(level):
        return response
    method, route = known_method(request.method), rule.rule if rule else None
    fields: dict[str, Any] = {
        "request_id": state.request_id,
        "method": method,
        "route": route,
        "status": status,
        "milliseconds": round((perf_counter() - state.began) * 1000, 1),
        "user_id": state.user.id if "user" in state else None,
        "statements": state.get("statements", 0),
    }
    if "refused" in state:
        fields["refused"] = state.refused
    if "error" in state:
        fields["error"] = _name(state.error)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            fields["traceback"] = _stack(state.error)
    log.log(level, f"{method} {route or '-'} {status}", extra=fields)
    return response


def _level(status: int) -> int:
    if status < HTTPStatus.BAD_REQUEST and request.blueprint in QUIET:
        return logging.DEBUG
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return logging.INFO
    return logging.ERROR if status == HTTPStatus.INTERNAL_SERVER_ERROR else logging.WARNING


def _name(error: BaseException) -> str:
    """Return an error's type and, if a database raised it, its code. PostgreSQL's messages may quote a row."""
    if not isinstance(error, DBAPIError):
        return type(error).__name__
    return f"{type(error.orig).__name__} {getattr(error.orig, 'pgcode', None) or error.orig}".strip()


def _stack(error: BaseException | None) -> str:
    """Return the stacks of an error and of its causes, without messages: they may quote the request."""
    parts: list[str] = []
    while error is not None:
        parts = [*format_tb(error.__traceback__), type(error).__name__, "\n", *parts]
        error = error.__cause__ or error.__context__
    return "".join(parts[:-1])
