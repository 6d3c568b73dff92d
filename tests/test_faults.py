"""Faults of PostgreSQL: one that passes is a 503 within the deadline, and leaves nothing behind."""

import select
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing
from itertools import islice
from threading import Thread, Timer
from typing import Any

import psycopg2
import pytest
from flask import Flask, jsonify
from sqlalchemy import delete, text

from taskapi.database.engine import POOL_SIZE, SHARE, run
from taskapi.database.models import User, db
from tests.people import Person
from tests.servers import PATIENCE, closed_port, silent_server

UNAVAILABLE = {"error": "The database is not available. Try again.", "code": "DATABASE_ERROR"}
FAULT = {"error": "Something went wrong on our side.", "code": "DATABASE_ERROR"}
OWN_CONNECTIONS = "FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'taskapi'"
HANG_UP = f"SELECT pg_terminate_backend(pid, 5000) {OWN_CONNECTIONS}"

Execute = Callable[[str], list[Any]]


@pytest.fixture
def database_url(postgresql_url: str) -> str:
    """Only PostgreSQL: these are its faults."""
    return postgresql_url


@pytest.fixture
def app(make_app: Callable[..., Flask]) -> Flask:
    """A service whose connections may break."""
    return make_app()


@pytest.fixture
def execute(postgresql_url: str) -> Iterator[Execute]:
    """A function that runs SQL on a connection of the test's own, each statement in its own transaction."""
    connection = psycopg2.connect(postgresql_url)
    connection.autocommit = True

    def execute(statement: str) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    yield execute
    connection.close()


def answer_to(person: Person, method: str, path: str = "/api/tasks", **options: Any) -> tuple[int, object, str | None]:
    """Return status, body and Retry-After."""
    response = person.call(method, path, **options)
    return response.status_code, response.json, response.headers.get("Retry-After")


def show(app: Flask, *statements: str) -> None:
    """Give the app a view that runs the statements, each as a request does."""

    def view() -> Any:
        return jsonify([[list(row) for row in run(text(statement)).rows] for statement in statements])

    app.add_url_rule("/run", view_func=view)


@pytest.mark.own_database
def test_dead_connections_are_replaced(ana: Person, execute: Execute) -> None:
    """After a restart of the server or a pooler, the next request succeeds, and nothing happens twice."""
    task = ana.make()
    path = f"/api/tasks/{task['id']}"

    statuses = []
    for method, url, body in [
        ("GET", "/api/tasks", None),
        ("POST", "/api/tasks", {"title": "Feed the cat"}),
        ("PUT", path, {"is_completed": True}),
        ("DELETE", path, None),
    ]:
        assert execute(HANG_UP) != []
        statuses.append(ana.call(method, url, json=body).status_code)

    assert statuses == [200, 201, 200, 200]
    assert ana.titles() == ["Feed the cat"]


@pytest.fixture
def locked(ana: Person, postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The path of a task whose row another transaction has locked; a request may wait for a second."""
    path = f"/api/tasks/{ana.make()['id']}"
    monkeypatch.setattr("taskapi.database.engine.REQUEST_LIMIT", 1.0)
    connection = psycopg2.connect(postgresql_url)
    with connection.cursor() as cursor:
        cursor.execute("SELECT * FROM tasks FOR UPDATE")
    yield path
    connection.close()


def test_locked_row_answers_503_and_delays_no_other_request(ana: Person, execute: Execute, locked: str) -> None:
    """A request waits for its own row until its deadline; meanwhile others are served."""
    answers: list[object] = []
    waiting = Thread(target=lambda: answers.append(answer_to(ana, "PUT", locked, json={"title": "Mine"})))
    waiting.start()
    deadline = time.monotonic() + PATIENCE
    while not execute(f"SELECT 1 {OWN_CONNECTIONS} AND wait_event_type = 'Lock'"):
        assert time.monotonic() < deadline

    listed = ana.call("GET")
    created = ana.call("POST", json={"title": "Feed the cat"})
    meanwhile = list(answers)
    waiting.join()

    assert (listed.status_code, created.status_code, meanwhile) == (200, 201, [])
    assert answers == [(503, UNAVAILABLE, "1")]


def test_without_poll_the_deadline_holds(ana: Person, locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without select.poll, as on Windows, requests work and keep to the deadline."""
    monkeypatch.delattr(select, "poll")
    began = time.monotonic()

    waited = answer_to(ana, "PUT", locked, json={"title": "Mine", "description": "x" * 2000})
    took = time.monotonic() - began

    assert waited == (503, UNAVAILABLE, "1")
    assert 1 <= took < 3
    created = ana.call("POST", json={"title": "Feed the cat", "description": "x" * 2000})
    assert (created.status_code, ana.call("GET").json[0]) == (201, created.json)


def test_user_with_many_waiting_requests_delays_no_other_user(
    ana: Person, ben: Person, postgresql_url: str, execute: Execute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One user's requests hold at most SHARE connections; more requests wait for POOL_TIMEOUT, and get a 503."""
    path, limit = f"/api/tasks/{ana.make()['id']}", 1.5
    monkeypatch.setattr("taskapi.database.engine.POOL_TIMEOUT", limit)  # after the app is made: its pool has 2 s
    monkeypatch.setattr("taskapi.database.engine.REQUEST_LIMIT", PATIENCE)

    def update(number: int) -> tuple[tuple[int, object, str | None], float]:
        began = time.monotonic()
        answer = answer_to(ana, "PUT", path, json={"title": f"{number}"})
        return answer, time.monotonic() - began

    with ThreadPoolExecutor(POOL_SIZE) as threads, closing(psycopg2.connect(postgresql_url)) as other:
        other.cursor().execute("SELECT * FROM tasks FOR UPDATE")
        updates = [threads.submit(update, number) for number in range(POOL_SIZE)]
        deadline = time.monotonic() + PATIENCE
        while len(execute(f"SELECT 1 {OWN_CONNECTIONS} AND wait_event_type = 'Lock'")) < SHARE:
            assert time.monotonic() < deadline

        began = time.monotonic()
        created, listed = ben.call("POST", json={"title": "Feed the cat"}), ben.call("GET")
        ready = ana.app.test_client().get("/readyz")
        took = time.monotonic() - began
        refused = [one.result() for one in islice(as_completed(updates, PATIENCE), POOL_SIZE - SHARE)]
        other.rollback()
        answers = [one.result() for one in updates]

    assert [response.status_code for response in (created, listed, ready)] == [201, 200, 200]
    assert took < limit
    assert [answer for answer, _ in refused if answer != (503, UNAVAILABLE, "1")] == []
    assert [seconds for _, seconds in refused if not limit <= seconds < limit + 2] == []
    assert sorted(answer[0] for answer, _ in answers) == [200] * SHARE + [503] * (POOL_SIZE - SHARE)
    assert ana.call("GET").status_code == 200


def test_deadline_costs_no_other_connection(app: Flask, ana: Person, locked: str) -> None:
    """The connection that took too long is closed; the idle ones stay open."""

    def connections() -> set[int]:
        with app.app_context(), ExitStack() as stack:
            pool = [stack.enter_context(engine.connect()) for engine in db.engines.values() for _ in range(2)]
            return {connection.scalar(text("SELECT pg_backend_pid()")) for connection in pool}

    before = connections()

    assert answer_to(ana, "DELETE", locked) == (503, UNAVAILABLE, "1")
    assert len(before & connections()) == len(before) - 1


def test_deadline_is_the_requests(app: Flask, ana: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several statements share one limit."""
    monkeypatch.setattr("taskapi.database.engine.REQUEST_LIMIT", 0.4)
    show(app, *["SELECT 1 FROM pg_sleep(0.25)"] * 2)

    assert answer_to(ana, "GET", "/run") == (503, UNAVAILABLE, "1")


def test_wait_for_a_connection_counts(make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> None:
    """A request's time for the database begins before it has a connection."""
    monkeypatch.setattr("taskapi.database.engine.POOL_SIZE", 1)
    monkeypatch.setattr("taskapi.database.engine.REQUEST_LIMIT", 1.0)
    app = make_app()
    show(app, "SELECT 1 FROM pg_sleep(0.6)")
    with app.app_context():
        connection = db.engines["autocommit"].connect()
    Timer(0.6, connection.close).start()

    assert answer_to(Person(app), "GET", "/run") == (503, UNAVAILABLE, "1")


def test_outside_a_request_there_is_no_deadline(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration, flask seed or an export may take as long as it needs."""
    monkeypatch.setattr("taskapi.database.engine.REQUEST_LIMIT", 0.0)

    with app.app_context():
        assert db.session.scalar(text("SELECT 1 FROM pg_sleep(0.1)")) == 1


def test_used_up_pool_answers_503(make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> None:
    """A request without a free connection waits for POOL_TIMEOUT; when there is one again, it is served."""
    monkeypatch.setattr("taskapi.database.engine.POOL_SIZE", 1)
    monkeypatch.setattr("taskapi.database.engine.POOL_TIMEOUT", 0.1)
    app = make_app()
    ana = Person(app)

    with app.app_context(), ExitStack() as stack:
        for engine in db.engines.values():
            stack.enter_context(engine.connect())
        began = time.monotonic()
        assert answer_to(ana, "GET") == (503, UNAVAILABLE, "1")
        assert time.monotonic() - began < 5

    assert answer_to(ana, "GET") == (200, [], None)


@pytest.mark.parametrize("server", [closed_port, silent_server])
def test_unreachable_server_answers_503(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch, server: Callable[[], Any]
) -> None:
    """Connecting counts, too: to a port where no server listens, or to a server that never answers."""
    monkeypatch.setattr("taskapi.database.engine.REQUEST_LIMIT", 0.3)
    with server() as port:
        ana = Person(make_app(DATABASE_URL=f"postgresql://ana:password@127.0.0.1:{port}/taskapi"))

        assert answer_to(ana, "POST", json={"title": "Water the plants"}) == (503, UNAVAILABLE, "1")


@pytest.mark.own_database
def test_database_that_goes_and_comes_back(ana: Person, execute: Execute) -> None:
    """When it is back, requests are served again."""
    task = ana.make()

    execute("UPDATE pg_database SET datallowconn = false WHERE datname = current_database()")
    execute(HANG_UP)
    during = answer_to(ana, "GET")
    execute("UPDATE pg_database SET datallowconn = true WHERE datname = current_database()")

    assert during == (503, UNAVAILABLE, "1")
    assert answer_to(ana, "GET") == (200, [task], None)


@pytest.mark.own_database
def test_read_only_database_answers_503_to_writers(ana: Person, execute: Execute) -> None:
    """During a failover it may be a standby: reading goes on, and its connections are not kept for later."""
    task = ana.make()
    [(name,)] = execute("SELECT current_database()")

    execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    execute(HANG_UP)
    written = answer_to(ana, "POST", json={"title": "Feed the cat"})
    read = answer_to(ana, "GET")
    execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")

    assert written == (503, UNAVAILABLE, "1")
    assert read == (200, [task], None)
    assert ana.call("POST", json={"title": "Feed the cat"}).status_code == 201


PASSING = ["08006", "25006", "40002", "53300", "55P03", "57014", "57P03"]
RAISE = "DO $$ BEGIN RAISE EXCEPTION 'Key (email)=(x@y.z)' USING ERRCODE = '{}'; END $$"
LASTING = ["0A000", "22001", "23505", "25001", "42P01", "55000", "P0001", "XX000"]


def test_sqlstate_decides(app: Flask, ana: Person, caplog: pytest.LogCaptureFixture) -> None:
    """503 is for what passes by itself (PostgreSQL's appendix A); the log has the state, and no values of rows."""

    def view(state: str) -> str:
        return str(run(text(RAISE.format(state))))

    app.add_url_rule("/raise/<state>", view_func=view)

    answers = {state: answer_to(ana, "GET", f"/raise/{state}") for state in PASSING + LASTING}

    passing, lasting = (503, UNAVAILABLE, "1"), (500, FAULT, None)
    assert answers == dict.fromkeys(PASSING, passing) | dict.fromkeys(LASTING, lasting)
    logged = [vars(record) for record in caplog.records if "error" in vars(record)]
    assert [line["error"].split()[-1] for line in logged] == PASSING + LASTING
    assert "x@y.z" not in str(logged)


@pytest.mark.own_database
@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_contention_is_retried(app: Flask, ana: Person, execute: Execute, state: str) -> None:
    """After a serialization failure or a deadlock nothing was done, and the statement runs again."""
    execute("CREATE SEQUENCE tries")
    give_way = f"IF nextval('tries') < 4 THEN RAISE '' USING ERRCODE = '{state}'; END IF;"
    show(app, f"DO $$ BEGIN {give_way} END $$")

    assert answer_to(ana, "GET", "/run") == (200, [[]], None)
    assert execute("SELECT last_value FROM tries") == [(4,)]


def test_endless_contention_answers_503(app: Flask, ana: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is retried until the deadline."""
    monkeypatch.setattr("taskapi.database.engine.REQUEST_LIMIT", 0.4)
    show(app, "DO $$ BEGIN RAISE '' USING ERRCODE = '40001'; END $$")

    assert answer_to(ana, "GET", "/run") == (503, UNAVAILABLE, "1")


@pytest.mark.own_database
def test_refused_statement_is_not_tried_again(app: Flask, ana: Person, execute: Execute) -> None:
    """A statement runs again only if the connection is dead."""
    execute("CREATE SEQUENCE tries")
    show(app, "DO $$ BEGIN PERFORM nextval('tries'); RAISE EXCEPTION 'no'; END $$")

    assert answer_to(ana, "GET", "/run") == (500, FAULT, None)
    assert execute("SELECT last_value, is_called FROM tries") == [(1, True)]


def test_create_outlives_the_deletion_of_its_user(ana: Person, execute: Execute) -> None:
    """A create that waits for the deletion makes the user's row again."""
    ana.make()
    waiting = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    with ThreadPoolExecutor(1) as pool, ana.app.app_context():
        db.session.execute(delete(User).where(User.id == ana.id))
        created = pool.submit(ana.call, "POST", json={"title": "Feed the cat"})
        while not execute(waiting):
            assert not created.done()
        db.session.commit()

        assert created.result().status_code == 201
    assert ana.titles() == ["Feed the cat"]
    assert execute("SELECT id, email FROM users") == [(ana.id, "ana@example.com")]


@pytest.mark.own_database
def test_broken_rule_of_the_database_is_a_fault(ana: Person, execute: Execute) -> None:
    """A create writes the owner's row only if that row is missing."""
    ana.make()
    execute("ALTER TABLE tasks ADD CHECK (title <> 'Feed the cat')")

    assert answer_to(ana, "POST", json={"title": "Feed the cat"}) == (500, FAULT, None)
