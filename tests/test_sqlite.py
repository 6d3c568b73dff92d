"""Faults of SQLite: a file that is locked, read-only, full, missing or no database."""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Timer

import pytest
from flask import Flask
from sqlalchemy import event, select

from taskapi.database.models import User, db
from tests.people import Person

pytestmark = pytest.mark.own_database

UNAVAILABLE = {"error": "The database is not available. Try again.", "code": "DATABASE_ERROR"}
FAULT = {"error": "Something went wrong on our side.", "code": "DATABASE_ERROR"}
NEW = {"title": "Feed the cat"}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Only SQLite: these are its faults."""
    return sqlite_url


@pytest.fixture
def file(sqlite_url: str) -> Path:
    """The database's file."""
    return Path(sqlite_url.removeprefix("sqlite:///"))


@pytest.fixture
def locked(ana: Person, file: Path) -> Iterator[None]:
    """Another process writes, and does not end its transaction."""
    ana.make()
    with closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield


def test_locked_file_answers_503_to_writers(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch, ana: Person, locked: None
) -> None:
    """A writer waits until its deadline; readers do not wait at all."""
    monkeypatch.setattr("taskapi.database.engine.REQUEST_LIMIT", 0.1)
    caller = Person(make_app(), sub=ana.id, email="ana@example.com")

    began = time.monotonic()

    written, read = caller.call("POST", json=NEW), caller.call("GET")

    assert time.monotonic() - began < 2
    assert (written.status_code, written.json, written.headers["Retry-After"]) == (503, UNAVAILABLE, "1")
    assert (read.status_code, len(read.get_json())) == (200, 1)


def test_writer_waits_for_another(ana: Person, file: Path) -> None:
    """If the other ends in time, the request succeeds."""
    ana.make()
    with closing(sqlite3.connect(file, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        end = Timer(0.2, other.rollback)
        end.start()

        assert ana.call("POST", json=NEW).status_code == 201
        end.join()


def test_read_only_file_answers_503_to_writers(make_app: Callable[..., Flask], ana: Person) -> None:
    """A read-only file system may be mounted writable again; reading goes on."""
    task = ana.make()
    caller = Person(make_app(), sub=ana.id)
    with caller.app.app_context():
        for engine in db.engines.values():
            event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only = 1"))

    written, read = caller.call("POST", json=NEW), caller.call("GET")

    assert (written.status_code, written.json, written.headers["Retry-After"]) == (503, UNAVAILABLE, "1")
    assert (read.status_code, read.json) == (200, [task])


def test_full_disk_answers_503(app: Flask, ana: Person) -> None:
    """A disk may have room again."""
    with app.app_context():
        for engine in db.engines.values():
            event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count = 1"))

    responses = [ana.call("POST", json=NEW | {"description": "d" * 2000}) for _ in range(10)]

    last = responses[-1]
    assert (last.status_code, last.json, last.headers["Retry-After"]) == (503, UNAVAILABLE, "1")


def test_missing_folder_answers_503(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """A volume may not be mounted yet."""
    response = Person(make_app(DATABASE_URL=f"sqlite:///{tmp_path}/gone/taskapi.sqlite3")).call("GET")

    assert (response.status_code, response.json, response.headers["Retry-After"]) == (503, UNAVAILABLE, "1")
    assert str(tmp_path) not in response.text


def test_file_that_is_no_database_answers_500(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    """Waiting does not help here."""
    (tmp_path / "notes.txt").write_text("Water the plants. " * 100)

    response = Person(make_app(DATABASE_URL=f"sqlite:///{tmp_path}/notes.txt")).call("GET")

    assert (response.status_code, response.json) == (500, FAULT)
    assert "Retry-After" not in response.headers


def test_search_that_takes_too_long_answers_503(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite itself has no limit for a statement."""
    with app.app_context():
        assert app.test_cli_runner().invoke(args=["seed", "ana@example.com", "--count", "2000"]).exit_code == 0
        owner = db.session.scalars(select(User.id)).one()
    monkeypatch.setattr("taskapi.database.engine.REQUEST_LIMIT", 0.0)

    response = Person(app, sub=owner).call("GET", "/api/tasks?q=nothing+like+it")

    assert (response.status_code, response.json) == (503, UNAVAILABLE)
