"""What a request costs: SQL statements, and round trips around them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from sqlalchemy import text

from taskapi.database import models
from taskapi.database.engine import AUTOCOMMIT, run
from taskapi.database.models import db
from taskapi.tasks.schemas import TaskSchema
from taskapi.tasks.statements import COLUMNS
from tests.conftest import POSTGRESQL_ALONE
from tests.people import Person, listening
from tests.servers import Proxy


@pytest.fixture
def statements(app: Flask) -> Iterator[list[str]]:
    """The first word of every statement from now on, behind a + if a transaction had to be begun for it."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        driver = cursor.connection
        autocommit = driver.autocommit if hasattr(driver, "autocommit") else driver.isolation_level is None
        seen.append(("" if autocommit else "+") + statement.split()[0])

    with listening(app, note):
        yield seen


@POSTGRESQL_ALONE
def test_a_request_is_one_round_trip(make_app: Callable[..., Flask], database_url: str) -> None:
    """Counted on the wire, where a BEGIN, a COMMIT, a SET or a ping would show."""
    with Proxy(database_url, b"", run_it=True, times=0) as proxy:
        ana = Person(make_app(DATABASE_URL=proxy.url), email="ana@example.com")
        task = ana.make()
        costs = []
        for method, path in [("GET", ""), ("POST", ""), ("GET", "/{id}"), ("PUT", "/{id}"), ("DELETE", "/{id}")]:
            before = proxy.round_trips
            response = ana.call(method, f"/api/tasks{path}".format(**task), json={"title": "Another"})
            costs.append((response.status_code, proxy.round_trips - before))

    assert [(200, 1), (201, 1), (200, 1), (200, 1), (200, 1)] == costs


@POSTGRESQL_ALONE
def test_a_connection_is_one_round_trip_more(make_app: Callable[..., Flask], database_url: str) -> None:
    """Nothing is asked or set on it before its first statement."""
    with Proxy(database_url, b"", run_it=True, times=0) as proxy:
        ana = Person(make_app(DATABASE_URL=proxy.url))
        ana.make()
        with ana.app.app_context(), db.engines[AUTOCOMMIT].connect():
            before = proxy.round_trips
            ana.call("GET")

            assert proxy.round_trips - before == 2


@POSTGRESQL_ALONE
def test_few_connections_are_kept_busy(app: Flask) -> None:
    """What was needed at once is not needed for ever: a pooler may close the others."""
    with app.test_request_context():
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(db.engines[AUTOCOMMIT].connect())
        used = {row.pid for _ in range(4) for row in run(text("SELECT pg_backend_pid() AS pid")).rows}

    assert len(used) == 1


@POSTGRESQL_ALONE
def test_ids_are_text(app: Flask) -> None:
    """A UUID object for each would be made only to make text of it again."""
    with app.test_request_context():
        [row] = run(text("SELECT gen_random_uuid() AS id")).rows

    assert isinstance(row.id, str)


@pytest.mark.parametrize(
    ("method", "path", "options", "statement"),
    [
        ("GET", "", {}, "SELECT"),
        ("GET", "?q=a&is_completed=false&sort=title&limit=1", {}, "SELECT"),
        ("GET", "/{id}", {}, "SELECT"),
        ("GET", "/{id}", {"headers": {"If-None-Match": "*"}}, "SELECT"),
        ("POST", "", {"json": {"title": "Another"}}, "INSERT"),
        ("PUT", "/{id}", {"json": {"title": "Another"}}, "UPDATE"),
        ("PATCH", "/{id}", {"json": {"is_completed": True}, "headers": {"If-Match": "{etag}"}}, "UPDATE"),
        ("DELETE", "/{id}", {}, "DELETE"),
        ("DELETE", "/{id}", {"headers": {"If-Match": "{etag}"}}, "DELETE"),
        ("GET", "/{nobody}", {}, "SELECT"),
        ("DELETE", "/{nobody}", {}, "DELETE"),
    ],
    ids=str,
)
def test_a_request_is_one_statement(
    ana: Person, statements: list[str], method: str, path: str, options: dict[str, Any], statement: str
) -> None:
    """In the steady state, and in autocommit: one round trip to the database, no BEGIN and no COMMIT."""
    task = ana.make()
    etag = f'"{task["updated_at"]}"'
    headers = {name: value.format(etag=etag) for name, value in options.get("headers", {}).items()}
    statements.clear()

    response = ana.call(
        method, "/api/tasks" + path.format(id=task["id"], nobody=uuid4()), **options | {"headers": headers}
    )

    assert response.status_code == 404 if "nobody" in path else response.status_code < 400
    assert [statement] == statements


def test_second_page_is_one_statement(ana: Person, statements: list[str]) -> None:
    """Following a Link costs what the first page does."""
    ana.make(), ana.make()
    link = ana.call("GET", "/api/tasks?limit=1").headers["Link"]
    statements.clear()

    response = ana.call("GET", link[1 : link.index(">")])

    assert (response.status_code, ["SELECT"]) == (200, statements)


@pytest.mark.parametrize(
    ("method", "path", "options", "expected"),
    [
        ("POST", "", {"json": {"title": "Again", "id": "{id}"}}, ["INSERT", "SELECT"]),
        ("PUT", "/{id}", {"json": {"title": "B"}, "headers": {"If-Match": "stale"}}, ["UPDATE", "SELECT"]),
        ("DELETE", "/{id}", {"headers": {"If-Match": "stale"}}, ["DELETE", "SELECT"]),
        ("PUT", "/{nobody}", {"json": {"title": "B"}}, ["UPDATE", "SELECT"]),
    ],
    ids=["replayed create", "stale update", "stale delete", "update of nothing"],
)
def test_something_unusual_costs_a_second_statement(
    ana: Person, statements: list[str], method: str, path: str, options: dict[str, Any], expected: list[str]
) -> None:
    """The second one tells which unusual thing it was, and it too runs in autocommit."""
    task = ana.make()
    if "id" in options.get("json", {}):
        options = {"json": options["json"] | {"id": task["id"]}}
    statements.clear()

    ana.call(method, "/api/tasks" + path.format(id=task["id"], nobody=uuid4()), **options)

    assert expected == statements


@pytest.mark.parametrize(
    ("email", "expected"),
    [
        (None, ["INSERT", "SELECT", "INSERT", "INSERT"]),
        ("new@example.com", ["INSERT", "SELECT", "UPDATE", "INSERT", "INSERT"]),
    ],
)
def test_first_task_of_a_new_user_writes_the_user(
    app: Flask, statements: list[str], email: str | None, expected: list[str]
) -> None:
    """Once: the next one is a single statement."""
    newcomer = Person(app, email=email)

    newcomer.make()

    assert expected == [statement.removeprefix("+") for statement in statements]
    statements.clear()
    newcomer.make()
    assert ["INSERT"] == statements


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("method", "path", "options", "status"),
    [
        ("GET", "?limit=0", {}, 400),
        ("POST", "", {"json": {"title": ""}}, 400),
        ("PUT", "/{id}", {"json": {}}, 400),
        ("GET", "/1", {}, 404),
        ("DELETE", "/1", {}, 404),
        ("OPTIONS", "/{id}", {}, 200),
    ],
)
def test_what_is_refused_costs_nothing(
    ana: Person, statements: list[str], method: str, path: str, options: dict[str, Any], status: int
) -> None:
    """The database hears nothing of a request that it could not serve."""
    response = ana.call(method, f"/api/tasks{path}".format(id=uuid4()), **options)

    assert (status, []) == (response.status_code, statements)


def test_schema_and_columns_hold_together() -> None:
    """Rows go from the database to JSON as they are: the columns are the schema's fields, in the contract's order."""
    assert [column.name for column in COLUMNS] == list(TaskSchema().fields)
    assert {column.name for column in COLUMNS} == set(models.TASKS.columns.keys())
