"""Liveness and readiness."""

from functools import cache
from time import monotonic

from alembic.script import ScriptDirectory
from flask import Blueprint, Response, current_app, g, jsonify
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from taskapi.database.engine import MIGRATIONS, run
from taskapi.errors import ApiError, is_unavailable

bp = Blueprint("health", __name__)

READY_LIMIT = 2.5  # seconds for the database; the answer is due within 3


@bp.after_request
def forbid_caching(response: Response) -> Response:
    """Forbid caching: each answer must be current."""
    response.headers["Cache-Control"] = "no-store"
    return response


@bp.get("/healthz")
def healthz() -> Response:
    """The process answers."""
    return jsonify({"status": "ok"})


@bp.get("/readyz")
def readyz() -> Response:
    """The database answers, its schema fits this code, and the process is not about to stop."""
    if current_app.config.get("DRAINING", (0,))[0]:  # gunicorn.conf.py sets it
        raise ApiError(503, message="This process is about to stop.")
    g.database_deadline = monotonic() + READY_LIMIT
    try:
        revisions = [row.version_num for row in run(text("SELECT version_num FROM alembic_version")).rows]
    except SQLAlchemyError as error:
        if is_unavailable(error):
            raise
        g.error = error  # for the log
        revisions = []  # the table does not exist, or this role can't read it
    # Accept the next revision too: a migration runs before its code, and the old code must stay ready.
    if revisions not in ([_head()], [f"{int(_head()) + 1:04}"]):
        raise ApiError(503, "DATABASE_ERROR", "The database schema is not current. Run: flask db upgrade")
    return jsonify({"status": "ok"})


@cache
def _head() -> str:
    """Return this code's newest revision, a number of four digits."""
    return ScriptDirectory(str(MIGRATIONS)).get_current_head() or ""
