"""The tasks of whoever is asking."""

from typing import Any

from flask import Blueprint, Response, g, jsonify, request

from taskapi import listing, paging, store
from taskapi.auth import authenticate
from taskapi.bodies import read_body
from taskapi.errors import ApiError
from taskapi.fields import UUID_FORM
from taskapi.schemas import CREATE, UPDATE, show_task
from taskapi.wire import if_none_match, read_if_match, write_etag

PREFIX = "/api/tasks"

bp = Blueprint("tasks", __name__, url_prefix=PREFIX)


@bp.before_app_request
def require_user() -> None:
    """Let nobody unknown see anything under the prefix, be it a view, a 404 or a 405; a CORS preflight has no token."""
    if request.method != "OPTIONS" and is_under_prefix(request.path):
        authenticate()


def is_under_prefix(path: str) -> bool:
    """Say whether a request's path belongs to the tasks, whether or not there is a route for it."""
    return f"{path}/".startswith(f"{PREFIX}/")


@bp.get("")
def list_tasks() -> Response:
    """One page of tasks, and a Link to the next if there is one."""
    query = paging.read_query(g.user.id, request.query_string)
    limit = query["limit"]
    tasks = listing.list_tasks(g.user.id, **query | {"limit": limit + 1})
    response = jsonify([show_task(task) for task in tasks[:limit]])
    if len(tasks) > limit:
        following = paging.write_next(g.user.id, query, tasks[limit - 1])
        response.headers["Link"] = f'<{request.script_root}{PREFIX}?{following}>; rel="next"'
    return response


@bp.post("")
def create_task() -> Response:
    """The task, made now or by an earlier request with the same id."""
    values = read_body(CREATE)
    task, created = store.create_task(g.user, values.pop("id"), values)
    response = _answer(task)
    if created:
        response.status_code = 201
        response.headers["Location"] = f"{request.script_root}{PREFIX}/{task.id}"
    return response


@bp.get("/<task_id>")
def get_task(task_id: str) -> Response:
    """One task, or 304 if the client has this version of it."""
    response = _answer(store.get_task(g.user.id, _id(task_id)))
    if if_none_match(request.headers.get("If-None-Match", ""), response.headers["ETag"]):
        response.status_code = 304  # which werkzeug sends without body
    return response


@bp.put("/<task_id>")
@bp.patch("/<task_id>")
def update_task(task_id: str) -> Response:
    """The task with the given fields changed."""
    changes = read_body(UPDATE)
    return _answer(store.update_task(g.user.id, _id(task_id), changes, _versions()))


@bp.delete("/<task_id>")
def delete_task(task_id: str) -> Response:
    """The task as it last was."""
    return _answer(store.delete_task(g.user.id, _id(task_id), _versions()))


def _id(text: str) -> str:
    """Return a task's id in lower case; a malformed one is one that does not exist."""
    if not UUID_FORM.fullmatch(text):
        raise ApiError(404, "NOT_FOUND")
    return text.lower()


def _versions() -> Any:
    return read_if_match(request.headers.get("If-Match"))


def _answer(task: store.TaskRow) -> Response:
    response = jsonify(show_task(task))
    response.headers["ETag"] = write_etag(task.updated_at)
    return response
