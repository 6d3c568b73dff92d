"""docs/partition.sql, run as it is: answers stay the same, and each statement opens one partition."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg2
import pytest
from flask import Flask

from tests.people import Person, listening
from tests.servers import PROJECT
from tests.test_role import CLEAN_UP

pytestmark = [pytest.mark.own_database, pytest.mark.usefixtures("frozen")]

PARTITIONS = {f"partitions.tasks_{number}" for number in range(16)}
ANA, BEN = "0a000000-0000-4000-8000-000000000000", "0b000000-0000-4000-8000-000000000000"
ONE, TWO, THREE = (f"0000000{number}-0000-4000-8000-000000000000" for number in (1, 2, 3))
FILL = """
    INSERT INTO users (id) SELECT gen_random_uuid() FROM generate_series(1, 1000);
    INSERT INTO tasks (user_id, id, title, is_completed, created_at, updated_at)
        SELECT id, gen_random_uuid(), 'Task ' || n, n = 2, now(), now() FROM users, generate_series(1, 3) n;
"""
OPENED = """
    SELECT relation::regclass::text FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE pid = pg_backend_pid() AND relkind = 'r' AND relnamespace = 'partitions'::regnamespace
"""
TITLES = [(ONE, "Water the plants"), (TWO, "Feed the cat"), (THREE, "Call Ben")]
STALE = {"If-Match": '"2026-01-01T00:00:00.000000Z"'}
CURRENT = {"If-Match": "{etag}"}
SORTS = "-created_at", "created_at", "-updated_at", "updated_at", "-title", "title"
READS: list[tuple[str, str, dict[str, Any]]] = [
    *(("GET", f"?limit=2&sort={sort}", {}) for sort in SORTS),
    ("GET", "?is_completed=false&q=a", {}),
    ("GET", f"/{ONE}", {}),
    ("GET", "/ffffffff-0000-4000-8000-000000000000", {}),
]
WRITES: list[tuple[str, str, dict[str, Any]]] = [
    *(("POST", "", {"json": {"id": number, "title": title}}) for number, title in TITLES),
    ("POST", "", {"json": {"id": ONE, "title": "Again"}}),
    ("PUT", f"/{ONE}", {"json": {"title": "Water the cactus", "description": None, "is_completed": True}}),
    ("PATCH", f"/{ONE}", {"json": {"is_completed": False}}),
    ("PATCH", f"/{ONE}", {"json": {"is_completed": True}, "headers": CURRENT}),
    ("PATCH", f"/{ONE}", {"json": {"is_completed": True}, "headers": STALE}),
]
DELETES: list[tuple[str, str, dict[str, Any]]] = [
    ("DELETE", f"/{ONE}", {"headers": STALE}),
    ("DELETE", f"/{ONE}", {"headers": CURRENT}),
    ("DELETE", f"/{TWO}", {}),
    ("DELETE", f"/{TWO}", {}),
]


@pytest.fixture
def database_url(postgresql_url: str) -> str:
    """Only PostgreSQL: SQLite has no partitions."""
    return postgresql_url


@pytest.fixture
def execute(postgresql_url: str) -> Iterator[Callable[[str], list[Any]]]:
    """A function that runs SQL in autocommit, on a connection of the test's own."""
    with closing(psycopg2.connect(postgresql_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True

        def execute(statement: str) -> list[Any]:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

        yield execute


def play(person: Person) -> list[Any]:
    """Send every kind of request, and return the answers."""
    answers = []
    for method, path, options in WRITES + READS + DELETES:
        etag = person.call("GET", f"/api/tasks/{ONE}").headers.get("ETag", "")
        given = {name: value.format(etag=etag) for name, value in options.get("headers", {}).items()}
        headers = {"X-Request-ID": "the-same"} | given
        response = person.call(method, f"/api/tasks{path}", **options | {"headers": headers})
        answers.append((response.status_code, dict(response.headers), response.json))
        while link := response.headers.get("Link"):
            response = person.call("GET", link[1 : link.index(">")], headers=headers)
            answers.append((response.status_code, dict(response.headers), response.json))
    return answers


@contextmanager
def statements_on_tasks(app: Flask) -> Iterator[dict[str, str]]:
    """Yield a dictionary of each statement that names tasks, with its text and values."""
    seen: dict[str, str] = {}

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if "tasks" in statement:
            seen[statement] = cursor.mogrify(statement, parameters).decode()

    with listening(app, note):
        yield seen


def opened_by(execute: Callable[[str], list[Any]], statement: str) -> set[str]:
    """Run a statement and roll it back; return the partitions that PostgreSQL locked for it."""
    execute("BEGIN")
    execute(statement)
    opened = {name for (name,) in execute(OPENED)}
    execute("ROLLBACK")
    return opened


@pytest.mark.slow
def test_partitions_change_no_answer(app: Flask, execute: Callable[[str], list[Any]]) -> None:
    """Rows stay, every answer is as before, and each statement opens only the owner's partition."""
    execute(FILL)
    ana, ben = Person(app, sub=ANA, email="ana@example.com"), Person(app, sub=BEN)
    before = play(ana)
    ben.make(id=ONE)
    rows = execute("SELECT * FROM tasks ORDER BY user_id, id")

    execute((PROJECT / "docs" / "partition.sql").read_text())

    assert rows == execute("SELECT * FROM tasks ORDER BY user_id, id")
    assert PARTITIONS == {name for (name,) in execute("SELECT DISTINCT tableoid::regclass::text FROM tasks")}
    execute(f"DELETE FROM users WHERE id = '{ANA}'")
    with statements_on_tasks(app) as seen:
        assert before == play(ana)
    assert {"SELECT", "INSERT", "UPDATE", "DELETE"} == {statement.split()[0] for statement in seen}
    (of_ana,) = opened_by(execute, f"SELECT FROM tasks WHERE user_id = '{ANA}'")
    assert {statement: {of_ana} for statement in seen} == {
        statement: opened_by(execute, text) for statement, text in seen.items()
    }
    assert PARTITIONS == opened_by(execute, f"SELECT FROM tasks WHERE id = '{ONE}'")


def test_schema_is_what_the_models_say(app: Flask, execute: Callable[[str], list[Any]]) -> None:
    """Alembic finds nothing to do; deleting a user deletes the tasks, in one partition."""
    execute((PROJECT / "docs" / "partition.sql").read_text())
    ana, ben = Person(app, sub=ANA), Person(app, sub=BEN)
    ana.make(), ben.make()

    result = app.test_cli_runner().invoke(args=["db", "check"])

    assert (result.exit_code, result.exception) == (0, None)
    of_ana = opened_by(execute, f"SELECT FROM tasks WHERE user_id = '{ANA}'")
    assert of_ana == opened_by(execute, f"DELETE FROM users WHERE id = '{ANA}'")
    execute(f"DELETE FROM users WHERE id = '{ANA}'")
    assert (ana.stored(), len(ben.stored())) == ([], 1)


def test_grants_and_defaults_stay(execute: Callable[[str], list[Any]]) -> None:
    """Grants on the table and on columns, the table's owner and column defaults are as before."""
    execute((PROJECT / "docs" / "role.sql").read_text())
    execute("GRANT SELECT (id) ON tasks TO PUBLIC; ALTER TABLE tasks ALTER is_completed SET DEFAULT false")
    of_table = """
        SELECT relowner::regrole::text, (SELECT array_agg(acl::text ORDER BY acl::text) FROM unnest(relacl) acl)
        FROM pg_class WHERE oid = 'tasks'::regclass
    """
    of_columns = """
        SELECT attname, attacl::text, pg_get_expr(adbin, adrelid)
        FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid = 'tasks'::regclass AND attnum > 0 ORDER BY attname
    """
    before = execute(of_table), execute(of_columns)

    execute((PROJECT / "docs" / "partition.sql").read_text())
    after = execute(of_table), execute(of_columns)
    execute(CLEAN_UP)

    assert after == before
