"""Request ids, and one line per request."""

import logging
import re
import sys
from http import HTTPStatus
from time import perf_counter
from traceback import format_tb
from uuid import uuid4

from flask import Flask, Response, current_app, g, has_request_context, request
from sqlalchemy.exc import DBAPIError

from taskapi.logformat import make_formatter

METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def init_app(app: Flask) -> None:
    """Log to stdout, in readable lines in debug mode and else in JSON; call before anything else sees requests."""
    handler = logging.StreamHandler(sys.stdout)
    handler.name = __name__
    handler.addFilter(_add_request_id)
    handler.setFormatter(make_formatter(readable=app.debug))
    root = logging.getLogger()
    root.handlers = [*(other for other in root.handlers if other.name != __name__), handler]
    for logger in (root, app.logger):  # the app's own would be at DEBUG in debug mode, whatever the setting says
        logger.setLevel(app.config["LOG_LEVEL"])
    # The development server's own request lines hold what is asked for, and say no more than ours.
    logging.getLogger("werkzeug").addFilter(_is_no_request_line)
    app.before_request(_begin)
    app.after_request(_end)


def _add_request_id(record: logging.LogRecord) -> bool:
    if has_request_context() and "request_id" in g:
        record.request_id = g.request_id
    return True


def _is_no_request_line(record: logging.LogRecord) -> bool:
    return " - - [" not in record.getMessage()


def _begin() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
    g.began = perf_counter()


def known_method() -> str:
    """Return the request's method; whoever calls could make up any number more, of any characters."""
    return request.method if request.method in METHODS else "other"


def _end(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    route, status = request.url_rule.rule if request.url_rule else None, response.status_code
    message = f"{known_method()} {route or '-'} {status}"
    fields = {
        "method": known_method(),
        "route": route,
        "status": status,
        "milliseconds": round((perf_counter() - g.began) * 1000, 1),
        "user_id": g.user.id if "user" in g else None,
        "statements": g.get("statements", 0),
    }
    if "error" in g:
        fields["error"] = _name(g.error)
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            fields["traceback"] = _stack(g.error)
    if current_app.debug:  # where a line shows nothing but its message
        told = [str(fields[name]) for name in ("error", "traceback") if name in fields]
        message = "\n".join([f"{message} {fields['milliseconds']} ms, statements: {fields['statements']}", *told])
    current_app.logger.log(_level(status), message, extra=fields)
    return response


def _level(status: int) -> int:
    if request.blueprint in ("health", "metrics") and status < HTTPStatus.BAD_REQUEST:  # asked every second
        return logging.DEBUG
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return logging.INFO
    return logging.ERROR if status == HTTPStatus.INTERNAL_SERVER_ERROR else logging.WARNING


def _name(error: BaseException) -> str:
    """Return an error's type and, where a database has raised it, its code; PostgreSQL's messages may quote a row."""
    if not isinstance(error, DBAPIError):
        return type(error).__name__
    return f"{type(error.orig).__name__} {getattr(error.orig, 'pgcode', None) or error.orig}".strip()


def _stack(error: BaseException | None) -> str:
    """Return the stacks of an error and of what it came from, without messages: they may quote what a request held."""
    parts: list[str] = []
    while error is not None:
        parts = [*format_tb(error.__traceback__), type(error).__name__, "\n", *parts]
        error = error.__cause__ or error.__context__
    return "".join(parts[:-1])
