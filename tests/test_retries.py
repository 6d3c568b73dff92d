"""A connection that dies while a statement runs: done or not, it is done once, and the client told so."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from flask import Flask
from werkzeug.test import TestResponse

from tests.people import Person
from tests.servers import Proxy

pytestmark = pytest.mark.own_database

UNAVAILABLE = {"error": "The database is not available. Try again.", "code": "DATABASE_ERROR"}
COUNT_CHANGES = """
    CREATE TABLE changes (what text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO changes VALUES (TG_OP || ' ' || TG_TABLE_NAME); RETURN NULL; END $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON tasks FOR EACH ROW EXECUTE FUNCTION note();
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION note();
"""

Cut = Callable[..., TestResponse]

both = pytest.mark.parametrize("run_it", [False, True], ids=["lost", "done"])


@pytest.fixture
def database_url(postgresql_url: str) -> str:
    """PostgreSQL alone: SQLite has no connection to lose."""
    return postgresql_url


@pytest.fixture
def changes(postgresql_url: str) -> Iterator[Callable[[], list[str]]]:
    """Return what has changed in the database since this was last asked for."""
    connection = psycopg2.connect(postgresql_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(COUNT_CHANGES)

        def changes() -> list[str]:
            cursor.execute("WITH gone AS (DELETE FROM changes RETURNING *) SELECT what FROM gone")
            return [what for (what,) in cursor]

        yield changes
    connection.close()


@pytest.fixture
def task(ana: Person, changes: Callable[[], list[str]]) -> dict[str, Any]:
    """One that Ana has already."""
    task = ana.make()
    changes()
    return task


@pytest.fixture
def cut(make_app: Callable[..., Flask], postgresql_url: str, ana: Person) -> Cut:
    """Send Ana's request through a line that is cut where the statement goes by."""

    def cut(statement: bytes, run_it: bool, *request: str, times: int = 1, **options: Any) -> TestResponse:
        with Proxy(postgresql_url, statement, run_it=run_it, times=times) as proxy:
            caller = Person(make_app(DATABASE_URL=proxy.url), sub=ana.id, email="ana@example.com")
            response: TestResponse = caller.call(*request, **options)
            assert proxy.times == 0, "the line was not cut"
            return response

    return cut


@both
def test_create_answers_201(cut: Cut, task: object, changes: Callable[[], list[str]], run_it: bool) -> None:
    """A create that had been done is no replay: the client sent it once."""
    response = cut(b"INSERT INTO tasks", run_it, "POST", json={"title": "Feed the cat"})

    assert (response.status_code, response.get_json()["title"]) == (201, "Feed the cat")
    assert response.headers["Location"] == f"/api/tasks/{response.get_json()['id']}"
    assert changes() == ["INSERT tasks"]


@both
def test_replayed_create_answers_200(
    cut: Cut, task: dict[str, Any], changes: Callable[[], list[str]], run_it: bool
) -> None:
    """A replay is one, whatever happens to its connection."""
    response = cut(b"INSERT INTO tasks", run_it, "POST", json={"id": task["id"], "title": "Something else"})

    assert (response.status_code, response.json) == (200, task)
    assert changes() == []


@both
@pytest.mark.parametrize("statement", [b"INSERT INTO tasks", b"INSERT INTO users", b"UPDATE users", b"SELECT tasks"])
def test_first_create_answers_201(
    cut: Cut, changes: Callable[[], list[str]], statement: bytes, run_it: bool
) -> None:
    """So does the first task of somebody new, whichever of its statements is cut."""
    response = cut(statement, run_it, "POST", json={"id": str(uuid4()), "title": "Feed the cat"})

    assert response.status_code == 201
    assert [change for change in changes() if change != "UPDATE users"] == ["INSERT users", "INSERT tasks"]


@both
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("condition", [{}, {"If-Match": "*"}, {"If-Match": "its own"}])
def test_update_answers_200(
    cut: Cut,
    ana: Person,
    task: dict[str, Any],
    changes: Callable[[], list[str]],
    run_it: bool,
    method: str,
    condition: dict[str, str],
) -> None:
    """An update that had been done does not fail for the version that it wrote itself."""
    headers = {name: value.replace("its own", f'"{task["updated_at"]}"') for name, value in condition.items()}

    response = cut(b"UPDATE tasks", run_it, method, f"/api/tasks/{task['id']}", json={"title": "New"}, headers=headers)

    updated = task | {"title": "New", "updated_at": response.get_json()["updated_at"]}
    assert (response.status_code, response.json) == (200, updated)
    assert response.headers["ETag"] == f'"{updated["updated_at"]}"' != f'"{task["updated_at"]}"'
    assert ana.call("GET", f"/api/tasks/{task['id']}").json == updated
    assert changes() == ["UPDATE tasks"]


@both
def test_stale_update_answers_412(
    cut: Cut, task: dict[str, Any], changes: Callable[[], list[str]], run_it: bool
) -> None:
    """Another's version does not become one's own by trying twice."""
    headers = {"If-Match": '"2026-01-01T00:00:00.000000Z"'}

    response = cut(b"UPDATE tasks", run_it, "PUT", f"/api/tasks/{task['id']}", json={"title": "New"}, headers=headers)

    assert response.status_code == 412
    assert changes() == []


@pytest.mark.parametrize(("run_it", "status"), [(False, 200), (True, 404)], ids=["lost", "done"])
@pytest.mark.parametrize("condition", [{}, {"If-Match": "*"}, {"If-Match": "its own"}])
def test_delete_answers_200_or_404(
    cut: Cut,
    task: dict[str, Any],
    changes: Callable[[], list[str]],
    run_it: bool,
    status: int,
    condition: dict[str, str],
) -> None:
    """A delete that had been done finds nothing the second time, as a second DELETE does."""
    headers = {name: value.replace("its own", f'"{task["updated_at"]}"') for name, value in condition.items()}

    response = cut(b"DELETE FROM tasks", run_it, "DELETE", f"/api/tasks/{task['id']}", headers=headers)

    assert response.status_code == status
    assert changes() == ["DELETE tasks"]


@both
def test_list_answers_200(cut: Cut, task: dict[str, Any], run_it: bool) -> None:
    """A question can be asked again."""
    response = cut(b"SELECT tasks", run_it, "GET")

    assert (response.status_code, response.json) == (200, [task])


@both
def test_second_cut_answers_503(cut: Cut, task: object, changes: Callable[[], list[str]], run_it: bool) -> None:
    """Twice is enough: then the client may decide, and a create with an id is safe to repeat."""
    response = cut(b"INSERT INTO tasks", run_it, "POST", json={"title": "Feed the cat"}, times=2)

    assert (response.status_code, response.json) == (503, UNAVAILABLE)
    assert response.headers["Retry-After"] == "1"
    assert changes() == ["INSERT tasks"] * run_it
