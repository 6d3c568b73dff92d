"""Many requests at the same time."""

from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from flask import Flask
from sqlalchemy import select
from werkzeug.test import TestResponse

from taskapi.database.models import User, db
from tests.people import Person

MANY = 20


def at_once(requests: Iterable[Callable[[], TestResponse]]) -> list[TestResponse]:
    """Send every request from a thread of its own, all released together."""
    waiting = list(requests)
    gate = Barrier(len(waiting))

    def send(request: Callable[[], TestResponse]) -> TestResponse:
        gate.wait()
        return request()

    with ThreadPoolExecutor(len(waiting)) as pool:
        return list(pool.map(send, waiting))


def statuses(responses: Iterable[TestResponse]) -> dict[int, int]:
    """Return how many responses have each status."""
    return Counter(response.status_code for response in responses)


def users(app: Flask) -> list[tuple[str, str | None]]:
    """Return all users' rows."""
    with app.app_context():
        return [(user.id, user.email) for user in db.session.scalars(select(User).order_by(User.id))]


@pytest.mark.parametrize("email", ["new@example.com", None])
def test_first_requests_of_a_new_user_make_one_user(app: Flask, email: str | None) -> None:
    """Each request makes its task, and none fails."""
    newcomer = Person(app, email=email)

    responses = at_once([partial(newcomer.call, "POST", json={"title": f"{n}"}) for n in range(MANY)])

    assert {201: MANY} == statuses(responses)
    assert [(newcomer.id, email)] == users(app)
    assert {f"{n}" for n in range(MANY)} == {row.title for row in newcomer.stored()}


@pytest.mark.parametrize("known", [True, False], ids=["known user", "new user"])
def test_creates_with_one_id_make_one_task(ana: Person, known: bool) -> None:
    """One makes it; the others get that task."""
    if known:
        ana.call("DELETE", f"/api/tasks/{ana.make()['id']}")
    task_id = str(uuid4())

    responses = at_once([partial(ana.call, "POST", json={"id": task_id, "title": f"{n}"}) for n in range(MANY)])

    assert {201: 1, 200: MANY - 1} == statuses(responses)
    assert 1 == len({response.data for response in responses})
    assert [responses[0].get_json()["title"]] == [row.title for row in ana.stored()]


@pytest.mark.parametrize("writers", [2, MANY])
def test_updates_of_one_version_have_one_winner(ana: Person, writers: int) -> None:
    """The check and the change are one statement, so no other change comes between them."""
    task = ana.make()
    path, condition = f"/api/tasks/{task['id']}", {"If-Match": f'"{task["updated_at"]}"'}

    responses = at_once(
        [partial(ana.call, "PATCH", path, json={"title": f"{n}"}, headers=condition) for n in range(writers)]
    )

    assert {200: 1, 412: writers - 1} == statuses(responses)
    [winner] = [response.get_json() for response in responses if response.status_code == 200]
    assert [winner["title"]] == [row.title for row in ana.stored()]
    assert winner == ana.call("GET", path).get_json()


@pytest.mark.parametrize("tick", [True, False], ids=["clock runs", "clock stands"])
def test_unconditional_updates_all_succeed_field_by_field(ana: Person, tick: bool) -> None:
    """No update overwrites a field that it did not give, and every change has its own ETag."""
    task = ana.make()
    path = f"/api/tasks/{task['id']}"
    changes: list[dict[str, Any]] = [{"title": "T"}, {"description": "D"}, {"is_completed": True}, {"title": "T"}] * 5

    with time_machine.travel(datetime.now(UTC), tick=tick):
        responses = at_once([partial(ana.call, "PATCH", path, json=fields) for fields in changes])

    assert {200: MANY} == statuses(responses)
    assert MANY == len({response.headers["ETag"] for response in responses})
    assert [("T", "D", True)] == [(row.title, row.description, row.is_completed) for row in ana.stored()]
    last = max(responses, key=lambda response: response.headers["ETag"])
    assert last.get_json() == ana.call("GET", path).get_json()


@pytest.mark.parametrize("conditional", [True, False])
def test_deletes_have_one_winner(ana: Person, conditional: bool) -> None:
    """One gets the task as it last was; for the others it does not exist any more."""
    task = ana.make()
    headers = {"If-Match": f'"{task["updated_at"]}"'} if conditional else {}

    responses = at_once([partial(ana.call, "DELETE", f"/api/tasks/{task['id']}", headers=headers)] * MANY)

    assert {200: 1, 404: MANY - 1} == statuses(responses)
    assert [task] == [response.get_json() for response in responses if response.status_code == 200]
    assert ana.stored() == []


def test_update_and_delete_of_one_version_have_one_winner(ana: Person) -> None:
    """Either the task is changed, or it is deleted as it was."""
    task = ana.make()
    path, headers = f"/api/tasks/{task['id']}", {"If-Match": f'"{task["updated_at"]}"'}
    update = [partial(ana.call, "PUT", path, json={"title": "B"}, headers=headers)]
    delete = [partial(ana.call, "DELETE", path, headers=headers)]

    responses = at_once(update * 5 + delete * 5)

    assert 1 == statuses(responses)[200]
    changed = any(response.status_code == 200 for response in responses[:5])
    assert (["B"] if changed else []) == [row.title for row in ana.stored()]


@pytest.mark.parametrize("held", [True, False], ids=["held by an older sub", "new"])
def test_one_of_many_subs_keeps_the_email_that_all_show(app: Flask, held: bool) -> None:
    """Each gets its task, one gets the email, and no task changes hands."""
    if held:
        Person(app, email="same@example.com").make()
    people = [Person(app, email="same@example.com") for _ in range(MANY)]

    responses = at_once([partial(person.call, "POST", json={"title": person.id}) for person in people])

    assert {201: MANY} == statuses(responses)
    assert [[person.id] for person in people] == [[row.title for row in person.stored()] for person in people]
    rows = users(app)
    assert (MANY + held, 1) == (len(rows), sum(email is not None for _, email in rows))


def test_users_may_swap_emails(ana: Person, ben: Person) -> None:
    """Each takes the email that the other has; both get their task all the same."""
    emails = ["ana@example.com", "ben@example.com"]
    for person in (ana, ben):
        person.make()

    for _ in range(MANY):
        emails.reverse()
        tokens = zip((ana, ben), emails, strict=True)
        swapped = [Person(ana.app, sub=person.id, email=email) for person, email in tokens]
        responses = at_once([partial(person.call, "POST", json={"title": "Swap"}) for person in swapped])
        assert {201: 2} == statuses(responses)

    assert [MANY + 1] * 2 == [len(person.stored()) for person in (ana, ben)]


BURST = 30  # requests of one page that opens


@pytest.mark.parametrize("method", ["GET", "PATCH"])
def test_burst_of_one_user_gets_no_503(ana: Person, method: str) -> None:
    """A user's requests share few connections, but quick ones wait for each other and all succeed."""
    paths = [f"/api/tasks/{ana.make()['id']}" for _ in range(BURST)]
    fields = {"title": "Feed the cat"} if method == "PATCH" else None

    responses = at_once([partial(ana.call, method, path, json=fields) for path in paths])

    assert {200: BURST} == statuses(responses)
