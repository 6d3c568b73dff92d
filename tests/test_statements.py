"""What a request costs: SQL statements, and round trips around them; and whose rows each statement reaches."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import product
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask
from sqlalchemy import text

from taskapi.database.engine import AUTOCOMMIT, run
from taskapi.database.models import TASKS, db
from taskapi.tasks.statements import COLUMNS
from tests.conftest import POSTGRESQL_ALONE, SQLITE_ALONE
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
    """It is counted on the wire, where a BEGIN, a COMMIT, a SET or a ping would show."""
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
    """After a burst, requests use the same connection again, and a pooler may close the others."""
    with app.test_request_context():
        with ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(db.engines[AUTOCOMMIT].connect())
        used = {row.pid for _ in range(4) for row in run(text("SELECT pg_backend_pid() AS pid")).rows}

    assert len(used) == 1


@POSTGRESQL_ALONE
def test_ids_are_text(app: Flask) -> None:
    """Ids are not converted to UUID objects and back."""
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
        ("GET", "/{missing}", {}, "SELECT"),
        ("DELETE", "/{missing}", {}, "DELETE"),
    ],
    ids=str,
)
def test_a_request_is_one_statement(
    ana: Person, statements: list[str], method: str, path: str, options: dict[str, Any], statement: str
) -> None:
    """In the steady state it is one statement in autocommit, without BEGIN and COMMIT."""
    task = ana.make()
    etag = f'"{task["updated_at"]}"'
    headers = {name: value.format(etag=etag) for name, value in options.get("headers", {}).items()}
    statements.clear()

    response = ana.call(
        method, "/api/tasks" + path.format(id=task["id"], missing=uuid4()), **options | {"headers": headers}
    )

    assert response.status_code == 404 if "missing" in path else response.status_code < 400
    assert [statement] == statements


def test_second_page_is_one_statement(ana: Person, statements: list[str]) -> None:
    """A page behind a Link costs what the first page does."""
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
        ("PUT", "/{missing}", {"json": {"title": "B"}}, ["UPDATE", "SELECT"]),
    ],
    ids=["replayed create", "stale update", "stale delete", "missing task"],
)
def test_unusual_request_is_two_statements(
    ana: Person, statements: list[str], method: str, path: str, options: dict[str, Any], expected: list[str]
) -> None:
    """The second one finds the reason; it runs in autocommit, too."""
    task = ana.make()
    if "id" in options.get("json", {}):
        options = {"json": options["json"] | {"id": task["id"]}}
    statements.clear()

    ana.call(method, "/api/tasks" + path.format(id=task["id"], missing=uuid4()), **options)

    assert expected == statements


# A task that adds nothing, whether it is there already, the user, the task.
WRITE_USER = ["INSERT", "SELECT", "INSERT", "INSERT"]
# The same, with a user whose email is another's, the release of the email, and the user again.
TAKE_EMAIL = ["INSERT", "SELECT", "INSERT", "UPDATE", "INSERT", "INSERT"]


def assert_next_task_costs(person: Person, statements: list[str], expected: list[str]) -> None:
    """Fail unless the person's next task runs these statements, and the one after it a single INSERT."""
    statements.clear()
    person.make()
    assert statements == expected
    statements.clear()
    person.make()
    assert statements == ["INSERT"]


@pytest.mark.parametrize("email", [None, "new@example.com"])
def test_first_task_of_a_new_user_is_four_statements(app: Flask, statements: list[str], email: str | None) -> None:
    """The user's row is written, once."""
    assert_next_task_costs(Person(app, email=email), statements, WRITE_USER)


def test_new_email_of_a_known_user_is_four_statements(ana: Person, statements: list[str]) -> None:
    """The user's row is written again, once."""
    ana.make()

    assert_next_task_costs(Person(ana.app, sub=ana.id, email="new@example.com"), statements, WRITE_USER)


@pytest.mark.parametrize("known", [True, False], ids=["known user", "new user"])
def test_taking_over_an_email_is_six_statements(
    ana: Person, ben: Person, statements: list[str], known: bool
) -> None:
    """Only then the email is released."""
    ana.make()
    if known:
        ben.make()

    assert_next_task_costs(Person(ana.app, sub=ben.id, email="ana@example.com"), statements, TAKE_EMAIL)


@SQLITE_ALONE
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
    """A request that is answered without the database runs no statement."""
    response = ana.call(method, f"/api/tasks{path}".format(id=uuid4()), **options)

    assert (status, []) == (response.status_code, statements)


def test_every_column_is_shown() -> None:
    """A row goes to JSON as it is: the columns are the schema's fields, and a new one can't be forgotten in it."""
    assert {column.name for column in COLUMNS} == set(TASKS.columns.keys())


@pytest.fixture
def sql(app: Flask) -> Iterator[list[str]]:
    """Every statement from now on, on one line and with its values in it as repr() writes them."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if isinstance(parameters, dict):
            whole = cursor.mogrify(statement, parameters).decode()
        else:
            values = map(repr, parameters)
            whole = re.sub(r"\?", lambda _: next(values), statement)
        seen.append(" ".join(whole.split()))

    with listening(app, note):
        yield seen


def owner_in(person: Person) -> str:
    """Return a pattern for the person's id as either database has it in SQL."""
    return f"'(?:{person.id}|{UUID(person.id).hex})'(?:::UUID)?"


def without_parentheses(condition: str) -> str:
    """Return an SQL condition without what is in parentheses: an OR in there only narrows it."""
    while (shorter := re.sub(r"\([^()]*\)", "", condition)) != condition:
        condition = shorter
    return condition


def call_every_route_of_tasks(person: Person, task: dict[str, Any]) -> None:
    """Send each method that a route takes, about this task and a missing one, with every kind of header and query."""
    etag = f'"{task["updated_at"]}"'
    link = person.call("GET", "/api/tasks?limit=1").headers["Link"]
    queries = ["", "?q=a&is_completed=false&sort=title", link[link.index("?") : link.index(">")]]
    rules = [rule for rule in person.app.url_map.iter_rules() if rule.endpoint.startswith("tasks.")]
    routes = [(method, rule.rule) for rule in rules for method in (rule.methods or set()) - {"OPTIONS"}]
    for method, path in sorted(routes, key=lambda route: route[0] == "DELETE"):
        for task_id, query, condition in product((str(uuid4()), task["id"]), queries, (None, "*", etag, '"other"')):
            headers = {} if condition is None else {"If-Match": condition, "If-None-Match": condition}
            json = {"id": task_id, "title": "Another", "description": "It", "is_completed": True}
            person.call(method, path.replace("<task_id>", task_id) + query, json=json, headers=headers)


def test_every_statement_on_tasks_is_within_the_owners_rows(ana: Person, ben: Person, sql: list[str]) -> None:
    """Every SELECT, UPDATE and DELETE has the id of the user who asks as a condition of its own."""
    ben.make(), ana.make()
    task = ana.make()
    sql.clear()

    call_every_route_of_tasks(ana, task)

    on_tasks = {statement for statement in sql if re.match("(?:SELECT .* FROM|UPDATE|DELETE FROM) tasks ", statement)}
    assert {statement.split()[0] for statement in on_tasks} == {"SELECT", "UPDATE", "DELETE"}
    for statement in on_tasks:
        condition = without_parentheses(statement.partition(" WHERE ")[2])
        assert re.search(rf"(?:^| AND )tasks\.user_id = {owner_in(ana)}(?: |$)", condition), statement
        assert " OR " not in condition, statement
    others = {statement for statement in sql if "tasks" in statement} - on_tasks
    assert {statement for statement in others if not statement.startswith("INSERT INTO tasks ")} == set()


def test_insert_takes_the_owner_from_its_row(ana: Person, sql: list[str]) -> None:
    """It adds nothing without that row, and Citus can run it on the shard of that row."""
    ana.make()
    sql.clear()
    ana.make()

    [statement] = sql
    match = re.fullmatch(r"INSERT INTO tasks \((.*?)\) SELECT (.*) FROM users WHERE (.*) ON CONFLICT .*", statement)
    assert match
    values = dict(zip(match[1].split(", "), match[2].split(", "), strict=True))
    assert values["user_id"] == "users.id"
    condition = without_parentheses(match[3])
    assert re.match(rf"users\.id = {owner_in(ana)} AND ", condition)
    assert " OR " not in condition
