"""Timestamps are UTC, in every time zone of the database and the machine."""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from flask import Flask
from sqlalchemy.exc import StatementError

from taskapi.database.models import Task, User, db
from tests.people import Person

TOKYO = timezone(timedelta(hours=9))


def store(person: Person, created_at: datetime) -> None:
    """Store a task as a developer does in flask shell."""
    with person.app.app_context(), db.session.begin():
        db.session.add(User(id=person.id))
        db.session.flush()
        db.session.add(
            Task(
                user_id=person.id,
                id="0f8fad5b-d9cb-469f-a165-70867728950e",
                title="Water the plants",
                created_at=created_at,
                updated_at=created_at,
            )
        )


def test_sessions_time_zone_does_not_show(make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> None:
    """A database session in another zone gives the same times; PGTZ is set before the app connects."""
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    ana = Person(make_app())
    task = ana.make()

    assert abs(datetime.now(UTC) - datetime.fromisoformat(task["created_at"])) < timedelta(minutes=1)
    assert [task] == ana.call("GET").json
    changed = ana.call("PATCH", f"/api/tasks/{task['id']}", json={"title": "B"}, headers={"If-Match": "*"})
    assert "Z" == changed.json["updated_at"][-1]
    assert [row.updated_at.utcoffset() for row in ana.stored()] == [timedelta(0)]


@pytest.fixture
def machine_in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose local time is nine hours ahead of UTC."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("machine_in_tokyo")
def test_machines_time_zone_does_not_show(ana: Person) -> None:
    """The service makes and returns UTC in every time zone."""
    task = ana.make()

    assert abs(datetime.now(UTC) - datetime.fromisoformat(task["created_at"])) < timedelta(minutes=1)
    assert [task] == ana.call("GET").json
    assert "Z" == task["created_at"][-1]
    assert [row.created_at.isoformat(timespec="microseconds") for row in ana.stored()] == [
        task["created_at"].replace("Z", "+00:00")
    ]


def test_time_of_another_zone_is_stored_as_utc(ana: Person) -> None:
    """It is the same point in time."""
    store(ana, datetime(2026, 1, 1, 8, 30, tzinfo=TOKYO))

    assert ["2025-12-31T23:30:00.000000Z"] == [task["created_at"] for task in ana.call("GET").json]


def test_time_without_a_zone_is_refused(ana: Person) -> None:
    """A naive time is ambiguous."""
    with pytest.raises(StatementError, match="a naive datetime"):
        store(ana, datetime(2026, 1, 1, 8, 30))

    assert ana.stored() == []
