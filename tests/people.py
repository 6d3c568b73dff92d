"""People who call the service."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import jwt
from flask import Flask
from sqlalchemy import event, select

from taskapi.database.models import Task, db

SECRET = "a secret that only the tests know and that is long enough"


def make_token(secret: str = SECRET, **claims: Any) -> str:
    """Return an HS256 token; a claim given as None is left out."""
    whole = {"sub": str(uuid4()), "exp": int(time.time()) + 7200} | claims
    return jwt.encode({name: value for name, value in whole.items() if value is not None}, secret, algorithm="HS256")


class Person:
    """A user with a token."""

    def __init__(self, app: Flask, **claims: Any) -> None:
        self.app = app
        self.id = claims.setdefault("sub", str(uuid4()))
        self.headers = {"Authorization": f"Bearer {make_token(**claims)}"}

    def call(self, method: str, path: str = "/api/tasks", **options: Any) -> Any:
        """Send a request with the token; options are those of Flask's test client.

        It returns a werkzeug.test.TestResponse. The type is Any, as mypy takes every .json of one for None, too.
        """
        headers = self.headers | options.pop("headers", {})
        return self.app.test_client().open(path, method=method, headers=headers, **options)

    def make(self, **fields: Any) -> dict[str, Any]:
        """Create a task and return it."""
        response = self.call("POST", json={"title": "Water the plants"} | fields)
        assert response.status_code == 201, response.text
        task: dict[str, Any] = response.json
        return task

    def titles(self, query: str = "") -> list[str]:
        """Return the titles on one page of tasks."""
        return [task["title"] for task in self.call("GET", f"/api/tasks{query}").json]

    def stored(self) -> list[Task]:
        """Return this user's rows, straight from the database."""
        with self.app.app_context():
            return list(db.session.scalars(select(Task).where(Task.user_id == self.id).order_by(Task.id)))


@contextmanager
def listening(app: Flask, note: Callable[..., None]) -> Iterator[None]:
    """Call note with connection, cursor, statement and parameters of each statement that the app runs."""
    with app.app_context():
        engines = list(db.engines.values())
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    yield
    for engine in engines:
        event.remove(engine, "before_cursor_execute", note)
