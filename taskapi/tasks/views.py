"""The endpoints of tasks."""

from collections.abc import Sequence
from datetime import datetime

from flask import Blueprint, Response, g, jsonify, request

from taskapi.paging import answer_page
from taskapi.tasks import statements
from taskapi.tasks.schemas import CREATE, UPDATE
from taskapi.wire import if_none_match, read_body, read_id, read_if_match, show, write_etag

PREFIX = "/api/tasks"

bp = Blueprint("tasks", __name__, url_prefix=PREFIX)


@bp.get("")
def list_tasks() -> Response:
    """List the caller's tasks, page by page."""
    return answer_page(*statements.TASK_LIST.page(g.user.id, request.query_string))


@bp.post("")
def create_task() -> Response:
    """Create a task, or return the one that an earlier request made with the same id."""
    task, is_new = statements.TASK_ROWS.insert(read_body(CREATE), g.user.email)
    response = _answer(task)
    if is_new:
        response.status_code = 201
        response.headers["Location"] = f"{request.script_root}{PREFIX}/{task.id}"
    return response


@bp.get("/<task_id>")
def get_task(task_id: str) -> Response:
    """Return a task, or 304 if the client has this version of it."""
    response = _answer(statements.TASK_ROWS.require(read_id(task_id)))
    if if_none_match(request.headers.get("If-None-Match", ""), response.headers["ETag"]):
        response.status_code = 304  # werkzeug sends it without a body
    return response


@bp.put("/<task_id>")
@bp.patch("/<task_id>")
def update_task(task_id: str) -> Response:
    """Change a task; what is left out keeps its value."""
    changes = read_body(UPDATE)
    return _answer(statements.change_task(read_id(task_id), changes, _versions()))


@bp.delete("/<task_id>")
def delete_task(task_id: str) -> Response:
    """Delete a task, and return it as it last was."""
    return _answer(statements.remove_task(read_id(task_id), _versions()))


def _versions() -> Sequence[datetime] | None:
    return read_if_match(request.headers.get("If-Match"))


def _answer(task: statements.TaskRow) -> Response:
    response = jsonify(show(task))
    response.headers["ETag"] = write_etag(task.updated_at)
    return response
