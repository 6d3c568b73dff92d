"""A connection that dies while a statement runs: the statement is done once, and the answer says so."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from flask import Flask
from sqlalchemy import select
from werkzeug.test import TestResponse

from taskapi.database.models import User, db
from tests.people import Person
from tests.servers import Proxy

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
    """Only PostgreSQL: SQLite has no connection to lose."""
    return postgresql_url


@pytest.fixture
def changes(postgresql_url: str) -> Iterator[Callable[[], list[str]]]:
    """A function that returns what has changed in the database since its last call."""
    connection = psycopg2.connect(postgresql_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(COUNT_CHANGES)

        def changes() -> list[str]:
            cursor.execute("WITH gone AS (DELETE FROM changes RETURNING *) SELECT what FROM gone")
            return [what for (what,) in cursor]

        yield changes
        cursor.execute("DROP FUNCTION note CASCADE; DROP TABLE changes")
    connection.close()


@pytest.fixture
def task(ana: Person, changes: Callable[[], list[str]]) -> dict[str, Any]:
    """A task that Ana has already."""
    task = ana.make()
    changes()
    return task


@pytest.fixture
def cut(make_app: Callable[..., Flask], postgresql_url: str, ana: Person) -> Cut:
    """A function that sends Ana's request, and cuts the connection when the statement passes."""

    def cut(statement: bytes, run_it: bool, *request: str, times: int = 1, **options: Any) -> TestResponse:
        with Proxy(postgresql_url, statement, run_it=run_it, times=times) as proxy:
            caller = Person(make_app(DATABASE_URL=proxy.url), sub=ana.id, email="ana@example.com")
            response: TestResponse = caller.call(*request, **options)
            assert proxy.times == 0, "the connection was not cut"
            return response

    return cut


@both
def test_create_answers_201(cut: Cut, task: object, changes: Callable[[], list[str]], run_it: bool) -> None:
    """A create that was done before the cut is not a replay: the client sent it once."""
    response = cut(b"INSERT INTO tasks", run_it, "POST", json={"title": "Feed the cat"})

    assert (response.status_code, response.get_json()["title"]) == (201, "Feed the cat")
    assert response.headers["Location"] == f"/api/tasks/{response.get_json()['id']}"
    assert changes() == ["INSERT tasks"]


@both
def test_replayed_create_answers_200(
    cut: Cut, task: dict[str, Any], changes: Callable[[], list[str]], run_it: bool
) -> None:
    """It stays a replay."""
    response = cut(b"INSERT INTO tasks", run_it, "POST", json={"id": task["id"], "title": "Something else"})

    assert (response.status_code, response.json) == (200, task)
    assert changes() == []


@both
@pytest.mark.parametrize("statement", [b"INSERT INTO tasks", b"INSERT INTO users", b"SELECT tasks"])
def test_first_create_of_a_user_answers_201(
    cut: Cut, ana: Person, changes: Callable[[], list[str]], statement: bytes, run_it: bool
) -> None:
    """It is so with a cut at any of its statements."""
    response = cut(statement, run_it, "POST", json={"id": str(uuid4()), "title": "Feed the cat"})

    assert response.status_code == 201
    assert [change for change in changes() if change != "UPDATE users"] == ["INSERT users", "INSERT tasks"]
    assert ana.titles() == ["Feed the cat"]


@both
@pytest.mark.parametrize("statement", [b"INSERT INTO tasks", b"INSERT INTO users", b"UPDATE users", b"SELECT tasks"])
def test_create_that_takes_over_an_email_answers_201(
    cut: Cut, ana: Person, changes: Callable[[], list[str]], statement: bytes, run_it: bool
) -> None:
    """It is so with a cut at any of its statements, the release of the email among them."""
    holder = Person(ana.app, email="ana@example.com")
    holder.make()
    changes()

    response = cut(statement, run_it, "POST", json={"id": str(uuid4()), "title": "Feed the cat"})

    assert response.status_code == 201
    assert [change for change in changes() if change != "UPDATE users"] == ["INSERT users", "INSERT tasks"]
    with ana.app.app_context():
        emails = {user.id: user.email for user in db.session.scalars(select(User))}
    assert emails == {ana.id: "ana@example.com", holder.id: None}


@both
@pytest.mark.parametrize(
    ("method", "condition"), [("PUT", {}), ("PATCH", {"If-Match": "*"}), ("PATCH", {"If-Match": "its own"})]
)
def test_update_answers_200(
    cut: Cut,
    ana: Person,
    task: dict[str, Any],
    changes: Callable[[], list[str]],
    run_it: bool,
    method: str,
    condition: dict[str, str],
) -> None:
    """An update that was done before the cut does not fail for the version that it wrote itself."""
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
    """It is stale the second time, too."""
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
    """A delete that was done before the cut finds nothing the second time, as a second DELETE does."""
    headers = {name: value.replace("its own", f'"{task["updated_at"]}"') for name, value in condition.items()}

    response = cut(b"DELETE FROM tasks", run_it, "DELETE", f"/api/tasks/{task['id']}", headers=headers)

    assert response.status_code == status
    assert changes() == ["DELETE tasks"]


@both
def test_list_answers_200(cut: Cut, task: dict[str, Any], run_it: bool) -> None:
    """A list is read again."""
    response = cut(b"SELECT tasks", run_it, "GET")

    assert (response.status_code, response.json) == (200, [task])


@both
def test_second_cut_answers_503(cut: Cut, task: object, changes: Callable[[], list[str]], run_it: bool) -> None:
    """A statement runs twice at most; the client may repeat a create that has an id."""
    response = cut(b"INSERT INTO tasks", run_it, "POST", json={"title": "Feed the cat"}, times=2)

    assert (response.status_code, response.json) == (503, UNAVAILABLE)
    assert response.headers["Retry-After"] == "1"
    assert changes() == ["INSERT tasks"] * run_it
