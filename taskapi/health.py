"""Is the process there, and can it work."""

from functools import cache
from time import monotonic

from alembic.script import ScriptDirectory
from flask import Blueprint, Response, current_app, g, jsonify
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from taskapi.database import MIGRATIONS, run
from taskapi.errors import ApiError, is_unavailable

bp = Blueprint("health", __name__)

READY_LIMIT = 2.5  # seconds; whoever asks wants to know within 3


@bp.after_request
def forbid_caching(response: Response) -> Response:
    """What was true a moment ago is no answer."""
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.get("/healthz")
def healthz() -> Response:
    """The process answers."""
    return jsonify({"status": "ok"})


@bp.get("/readyz")
def readyz() -> Response:
    """The database answers and has the schema of this code, and the process is not about to stop."""
    draining = current_app.config.get("DRAINING")  # a byte shared with gunicorn's master (gunicorn.conf.py)
    if draining and draining[0]:
        raise ApiError(503, "INTERNAL_ERROR", "This process is about to stop.")
    g.database_deadline = monotonic() + READY_LIMIT
    try:
        revisions = [row.version_num for row in run(text("SELECT version_num FROM alembic_version")).rows]
    except SQLAlchemyError as error:
        if is_unavailable(error):
            raise
        g.error = error  # for the log
        revisions = []  # the table is not there, or not for this role
    # The next one too: an upgrade comes before the code that it is for, and must not take what serves out of service.
    if revisions not in ([_head()], [f"{int(_head()) + 1:04}"]):
        raise ApiError(503, "DATABASE_ERROR", "The schema is not current, or not readable: flask db upgrade.")
    return jsonify({"status": "ok"})


@cache
def _head() -> str:
    """Return the newest revision of this code; revisions are numbers of four digits."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head() or ""
