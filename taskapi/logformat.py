"""What a line of the log looks like.

gunicorn.conf.py runs this file by its path, for gunicorn's own lines: it imports nothing of taskapi.
"""

import logging
import time

from pythonjsonlogger.orjson import OrjsonFormatter

_READABLE = "{asctime} {levelname} {request_id} {message}"
_NAMES = {"asctime": "time", "levelname": "level", "exc_info": "traceback"}
_NOBODYS = {"request_id": "-"}  # of lines that belong to no request


def make_formatter(readable: bool) -> logging.Formatter:
    """Return the form of lines for people or, as JSON objects, for programs; times are UTC, in milliseconds."""
    formatter: logging.Formatter = (
        logging.Formatter(_READABLE, style="{", defaults=_NOBODYS)
        if readable
        else OrjsonFormatter(
            ["asctime", "levelname", "message"],
            defaults={"asctime": None, "levelname": None, **_NOBODYS},  # which come first
            rename_fields=_NAMES,
        )
    )
    formatter.converter = time.gmtime
    formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
    return formatter
