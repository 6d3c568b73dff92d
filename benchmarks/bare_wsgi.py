"""The least that a Python service could do for the same answers: PyJWT, one statement by psycopg2, orjson.

No framework, no validation, no errors, no log. What it costs is what no service under this gunicorn can go below.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

import jwt
import orjson
import psycopg2
from gevent.socket import wait_read, wait_write
from psycopg2 import extensions

SECRET = os.environ["JWT_SECRET"]
PREFIX = "/api/tasks"
COLUMNS = "id", "user_id", "title", "description", "is_completed", "created_at", "updated_at"

RETURNING = f"RETURNING {', '.join(COLUMNS)}"
ONE = "WHERE user_id = %(owner)s AND id = %(id)s"
LIST = (
    f"SELECT {', '.join(COLUMNS)} FROM tasks WHERE user_id = %(owner)s"
    " ORDER BY created_at DESC, id DESC LIMIT %(limit)s"
)
GET = f"SELECT {', '.join(COLUMNS)} FROM tasks {ONE}"
CREATE = (
    f"INSERT INTO tasks ({', '.join(COLUMNS)})"
    f" VALUES (%(id)s, %(owner)s, %(title)s, %(description)s, false, now(), now()) {RETURNING}"
)
UPDATE = f"UPDATE tasks SET title = %(title)s, is_completed = %(is_completed)s, updated_at = now() {ONE} {RETURNING}"
DELETE = f"DELETE FROM tasks {ONE} {RETURNING}"

pool: list[Any] = []  # as many connections as there have been greenlets at once


def wait(connection: Any) -> None:
    """Let other greenlets run while PostgreSQL works; gevent's own way, without a time limit."""
    while (state := connection.poll()) != extensions.POLL_OK:
        (wait_read if state == extensions.POLL_READ else wait_write)(connection.fileno())


extensions.set_wait_callback(wait)


def connect() -> Any:
    """Return a new connection in autocommit."""
    connection = psycopg2.connect(os.environ["DATABASE_URL"])
    connection.autocommit = True
    return connection


def query(statement: str, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a statement's rows."""
    connection = pool.pop() if pool else connect()
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        rows = [dict(zip(COLUMNS, row)) for row in cursor]
    pool.append(connection)
    return rows


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer one request."""
    token = environ["HTTP_AUTHORIZATION"].removeprefix("Bearer ")
    parameters = {"owner": jwt.decode(token, SECRET, algorithms=["HS256"])["sub"]}
    method, task_id = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(PREFIX)[1:]
    if method in ("POST", "PUT"):
        parameters |= orjson.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    result: Any
    if method == "GET" and not task_id:
        result = query(LIST, parameters | {"limit": environ["QUERY_STRING"].removeprefix("limit=")})
    elif method == "POST":
        [result] = query(CREATE, parameters | {"id": str(uuid4())})
    else:
        [result] = query({"GET": GET, "PUT": UPDATE, "DELETE": DELETE}[method], parameters | {"id": task_id})
    body = orjson.dumps(result, option=orjson.OPT_UTC_Z)
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("201 Created" if method == "POST" else "200 OK", headers)
    return [body]
