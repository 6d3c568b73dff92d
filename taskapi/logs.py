"""Request ids, and one line per request."""

import logging
import re
import sys
import time
from time import perf_counter
from uuid import uuid4

from flask import Flask, Response, current_app, g, has_request_context, request
from pythonjsonlogger.orjson import OrjsonFormatter

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_FORMAT = "{asctime} {levelname} {request_id} {message}"
_NAMES = {"asctime": "time", "levelname": "level"}


def init_app(app: Flask) -> None:
    """Log to stdout, in readable lines in debug mode and else in JSON; call before anything else sees requests."""
    handler = logging.StreamHandler(sys.stdout)
    handler.name = __name__
    handler.addFilter(_add_request_id)
    formatter: logging.Formatter = (
        logging.Formatter(_FORMAT, style="{")
        if app.debug
        else OrjsonFormatter(_FORMAT, style="{", rename_fields=_NAMES)
    )
    formatter.converter = time.gmtime
    formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [*(other for other in root.handlers if other.name != __name__), handler]
    for logger in (root, app.logger):  # the app's own would be at DEBUG in debug mode, whatever the setting says
        logger.setLevel(app.config["LOG_LEVEL"])
    # The development server's own request lines hold what is asked for, and say no more than ours.
    logging.getLogger("werkzeug").addFilter(_is_no_request_line)
    app.before_request(_begin)
    app.after_request(_end)


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request_id = g.get("request_id", "-") if has_request_context() else "-"
    return True


def _is_no_request_line(record: logging.LogRecord) -> bool:
    return " - - [" not in record.getMessage()


def _begin() -> None:
    given = request.headers.get("X-Request-ID", "")
    g.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
    g.began = perf_counter()


def _end(response: Response) -> Response:
    response.headers["X-Request-ID"] = g.request_id
    route = request.url_rule.rule if request.url_rule else None
    fields = {
        "method": request.method,
        "route": route,
        "status": response.status_code,
        "milliseconds": round((perf_counter() - g.began) * 1000, 1),
        "user_id": g.user.id if "user" in g else None,
    }
    current_app.logger.info("%s %s %s", request.method, route or "-", response.status_code, extra=fields)
    return response
