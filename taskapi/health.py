"""Is the process there, and can it work."""

from functools import cache
from time import monotonic

from alembic.script import ScriptDirectory
from flask import Blueprint, Response, g, jsonify
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from taskapi.database import MIGRATIONS, run
from taskapi.errors import RETRY_AFTER, ApiError, is_unavailable

bp = Blueprint("health", __name__)

READY_LIMIT = 2.5  # seconds; whoever asks wants to know within 3


@bp.get("/healthz")
def healthz() -> Response:
    """The process answers."""
    return jsonify({"status": "ok"})


@bp.get("/readyz")
def readyz() -> Response:
    """The database answers and has the schema of this code."""
    g.database_deadline = monotonic() + READY_LIMIT
    try:
        revisions = [row.version_num for row in run(text("SELECT version_num FROM alembic_version")).rows]
    except SQLAlchemyError as error:
        if is_unavailable(error):
            raise
        revisions = []  # not even the table is there
    if revisions != [_head()]:
        message, headers = "The database's schema is not current.", {"Retry-After": RETRY_AFTER}
        raise ApiError(503, "DATABASE_ERROR", message, headers=headers)
    return jsonify({"status": "ok"})


@cache
def _head() -> str | None:
    return ScriptDirectory(str(MIGRATIONS)).get_current_head()
