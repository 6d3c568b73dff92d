"""Users' rows: the first task makes one, and an email is never used to identify a user."""

import pytest
from flask import Flask
from sqlalchemy import delete, select

from taskapi.database.models import Task, User, db
from tests.people import Person


def emails(app: Flask, *people: Person) -> list[str | None]:
    """Return these people's emails as the database has them."""
    with app.app_context():
        rows = {user.id: user.email for user in db.session.scalars(select(User))}
    assert len(rows) == len(people)
    return [rows[person.id] for person in people]


def test_first_task_makes_the_row(ana: Person) -> None:
    """A list does not make the row; a task does, with the token's email."""
    ana.call("GET")
    assert [] == emails(ana.app)

    ana.make()

    assert ["ana@example.com"] == emails(ana.app, ana)


def test_refused_create_makes_no_row(ana: Person) -> None:
    """A user without a task has no row."""
    ana.call("POST", json={"title": ""})

    assert [] == emails(ana.app)


def test_newest_email_is_kept(ana: Person) -> None:
    """A create writes it to the row."""
    ana.make()

    Person(ana.app, sub=ana.id, email="new@example.com").make()

    assert ["new@example.com"] == emails(ana.app, ana)
    assert len(ana.stored()) == 2


def test_token_without_a_verified_email_changes_none(ana: Person) -> None:
    """A token without an email, or with an unverified one, keeps the row's; the task is made all the same."""
    ana.make()
    for claims in (
        {},
        {"email": None},
        {"email": ""},
        {"email": "other@example.com", "email_verified": False},
        {"email": "other@example.com", "email_verified": "false"},
    ):
        Person(ana.app, sub=ana.id, **claims).make()

        assert emails(ana.app, ana) == ["ana@example.com"], claims


@pytest.mark.parametrize("verified", [True, "true", None])
def test_verified_email_counts(app: Flask, verified: object) -> None:
    """An email counts, too, if the token does not say whether it is verified."""
    person = Person(app, email="ana@example.com", email_verified=verified)

    person.make()

    assert ["ana@example.com"] == emails(app, person)


def test_unverified_email_is_taken_from_no_user(ana: Person) -> None:
    """An account with an unverified email can't take it."""
    ana.make()
    stranger = Person(ana.app, email="ana@example.com", email_verified=False)

    stranger.make()

    assert ["ana@example.com", None] == emails(ana.app, ana, stranger)


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_only_a_create_writes_the_email(ana: Person, method: str) -> None:
    """No other request changes the users table."""
    path = f"/api/tasks/{ana.make()['id']}"

    response = Person(ana.app, sub=ana.id, email="new@example.com").call(method, path, json={"title": "Buy plants"})

    assert response.status_code == 200
    assert ["ana@example.com"] == emails(ana.app, ana)


def test_email_moves_to_the_newest_sub_and_no_task_with_it(ana: Person) -> None:
    """The old row's becomes null; its user keeps the tasks, and gets the email back by showing it again."""
    task = ana.make()
    namesake = Person(ana.app, email="ana@example.com")

    own = namesake.make()

    assert [None, "ana@example.com"] == emails(ana.app, ana, namesake)
    assert [[task], [own]] == [person.call("GET").json for person in (ana, namesake)]
    ana.make()
    assert ["ana@example.com", None] == emails(ana.app, ana, namesake)
    assert [2, 1] == [len(person.stored()) for person in (ana, namesake)]


def test_email_moves_to_a_user_who_has_a_row_already(ana: Person, ben: Person) -> None:
    """A new email of a known user is taken from its holder in the same way."""
    ana.make(), ben.make()

    Person(ana.app, sub=ben.id, email="ana@example.com").make()

    assert [None, "ana@example.com"] == emails(ana.app, ana, ben)
    assert [1, 2] == [len(ana.stored()), len(ben.stored())]


def test_database_deletes_a_users_tasks_with_the_user(ana: Person, ben: Person) -> None:
    """It does so for every client that deletes the row; others' tasks stay, and the user may come back."""
    ana.make(), ana.make(), ben.make()
    with ana.app.app_context(), db.session.begin():
        db.session.execute(delete(User).where(User.id == ana.id))

    with ana.app.app_context():
        assert [ben.id] == list(db.session.scalars(select(Task.user_id)))
    ana.make()
    assert len(ana.stored()) == 1
