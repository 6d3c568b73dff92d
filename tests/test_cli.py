"""flask token, flask seed, flask shell."""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import event, func, select

from taskapi.database.models import Task, User, db
from tests.people import Person


def invoke(app: Flask, *args: str) -> Result:
    """Run a flask command, in an app context as flask itself does."""
    with app.app_context():
        return app.test_cli_runner().invoke(args=args)


def user_of(app: Flask, token: str) -> dict[str, Any]:
    """Create a task with the token, and return it."""
    response = app.test_client().post(
        "/api/tasks", json={"title": "Water the plants"}, headers={"Authorization": f"Bearer {token}"}
    )
    assert response.status_code == 201, response.text
    task: dict[str, Any] = response.get_json()
    return task


def claims_of(token: str) -> dict[str, Any]:
    """Read a token without verifying it."""
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    return claims


def users(app: Flask) -> list[tuple[str | None, int]]:
    """Return each user's address and number of tasks."""
    counted = select(User.email, func.count(Task.id)).outerjoin(Task).group_by(User.id).order_by(User.email)
    with app.app_context():
        return [(email, count) for email, count in db.session.execute(counted)]


def test_token_is_accepted(make_app: Callable[..., Flask]) -> None:
    """It is one line, whatever issuer and audience are asked for, and the same user each time."""
    app = make_app(JWT_ISSUER="https://issuer.example", JWT_AUDIENCE="taskapi")
    first, second = (invoke(app, "token", "ana@example.com").stdout for _ in range(2))

    assert first.count("\n") == 1
    assert user_of(app, first.strip())["user_id"] == user_of(app, second.strip())["user_id"]
    assert users(app) == [("ana@example.com", 2)]


def test_token_of_a_sub(app: Flask) -> None:
    """--sub says who it is."""
    sub = str(uuid4())

    assert user_of(app, invoke(app, "token", "ana@example.com", "--sub", sub).stdout.strip())["user_id"] == sub


@pytest.mark.parametrize(("args", "days"), [([], 1), (["--days", "30"], 30)])
def test_token_lives_for_days(app: Flask, args: list[str], days: int) -> None:
    """--days says how long; a day when not given."""
    claims = claims_of(invoke(app, "token", "ana@example.com", *args).stdout)

    assert claims["exp"] - claims["iat"] == days * 86400


@pytest.mark.parametrize("args", ["token", "token a@b.c --days 0", "seed", "seed a@b.c --count 0"])
def test_misuse_is_refused(app: Flask, args: str) -> None:
    """Without an address, or with nothing at all to do, nothing is done."""
    result = invoke(app, *args.split())

    assert (result.exit_code, result.stdout) == (2, "")
    assert users(app) == []


def test_token_needs_the_secret(make_app: Callable[..., Flask]) -> None:
    """Where an issuer makes the tokens, this command can't."""
    app = make_app(JWT_SECRET="", JWT_JWKS_URL="https://issuer.example/jwks", JWT_ISSUER="https://issuer.example")

    result = invoke(app, "token", "ana@example.com")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "JWT_JWKS_URL" in result.stderr


def test_seed_makes_a_user(app: Flask) -> None:
    """A new address gets a user, whom the token for the same address names."""
    result = invoke(app, "seed", "ana@example.com")

    assert (result.exit_code, result.output) == (0, "20 tasks for ana@example.com.\n")
    assert users(app) == [("ana@example.com", 20)]
    user_of(app, invoke(app, "token", "ana@example.com").stdout.strip())
    assert users(app) == [("ana@example.com", 21)]


def test_seed_finds_the_user(app: Flask, ana: Person, ben: Person) -> None:
    """An address that somebody has gets them more tasks, and nobody else any."""
    ana.make()
    ben.make()

    result = invoke(app, "seed", "ana@example.com", "--count", "3")

    assert (result.exit_code, result.output) == (0, "3 tasks for ana@example.com.\n")
    assert users(app) == [("ana@example.com", 4), ("ben@example.com", 1)]


def test_seed_gives_an_address_back(app: Flask) -> None:
    """The user that the token names may have lost the address, or shown another since."""
    invoke(app, "seed", "ana@example.com", "--count", "1")
    with app.app_context(), db.session.begin():
        db.session.scalars(select(User)).one().email = None

    result = invoke(app, "seed", "ana@example.com", "--count", "1")

    assert result.exit_code == 0, result.output
    assert users(app) == [("ana@example.com", 2)]


def test_seeded_tasks_are_real(app: Flask) -> None:
    """What is seeded is a task as any other: the API shows it, and takes it back."""
    invoke(app, "seed", "ana@example.com", "--count", "30")
    owner = Person(app, sub=claims_of(invoke(app, "token", "ana@example.com").stdout)["sub"])

    tasks = owner.call("GET").get_json()

    assert len(tasks) == 30
    statuses = [owner.call("PUT", f"/api/tasks/{task['id']}", json=task).status_code for task in tasks]
    assert statuses == [200] * 30
    assert all(task["created_at"] <= task["updated_at"] for task in tasks)


def test_seeded_tasks_are_plausible(app: Flask) -> None:
    """They are of the last 90 days; two in five are done, and changed since; half have a description."""
    invoke(app, "seed", "ana@example.com", "--count", "1000")
    now = datetime.now(UTC)
    with app.app_context():
        tasks = db.session.scalars(select(Task)).all()
    ages = [(now - task.created_at).days for task in tasks]
    done = [task for task in tasks if task.is_completed]
    described = [task for task in tasks if task.description is not None]

    assert (0 <= min(ages) < 5, 85 <= max(ages) < 90) == (True, True)
    assert (300 < len(done) < 500, 400 < len(described) < 600) == (True, True)
    assert [task for task in done if not task.created_at < task.updated_at < now] == []
    assert [task for task in tasks if task not in done and task.updated_at != task.created_at] == []
    assert [task.description for task in described] == [
        f"{task.title}.\nSee the notes of {task.created_at:%d %B}." for task in described
    ]


@pytest.mark.parametrize(("count", "shown"), [(1001, False), (5000, True)])
def test_seed_shows_a_bar_for_many(app: Flask, count: int, shown: bool) -> None:
    """Who waits sees how far it is."""
    result = invoke(app, "seed", "ana@example.com", "--count", str(count))

    assert users(app) == [("ana@example.com", count)]
    assert ("Tasks" in result.output) == shown
    assert result.output.endswith(f"{count} tasks for ana@example.com.\n")


def test_failed_seed_leaves_nothing(app: Flask) -> None:
    """It is one transaction: halfway is no result."""
    batches = []

    def fail_on_the_second(*args: Any) -> None:
        if "INSERT INTO tasks" in args[2]:
            batches.append(args)
            if len(batches) == 2:
                raise RuntimeError("the power went off")

    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", fail_on_the_second)

    result = invoke(app, "seed", "ana@example.com", "--count", "1001")

    assert (result.exit_code, len(batches)) == (1, 2)
    assert users(app) == []


def test_shell_has_what_one_needs(app: Flask) -> None:
    """flask shell begins with the database and the models."""
    with app.app_context():
        context = app.make_shell_context()

    assert (context["db"], context["User"], context["Task"]) == (db, User, Task)


def test_rollback_undoes(app: Flask, ana: Person) -> None:
    """Outside requests a transaction is one: what is not committed has not been."""
    ana.make()
    with app.app_context():
        db.session.scalars(select(Task)).one().title = "Changed"
        db.session.add(User(id=str(uuid4()), email="new@example.com"))
        db.session.flush()
        db.session.rollback()

    assert ana.titles() == ["Water the plants"]
    assert users(app) == [("ana@example.com", 1)]


def test_commit_keeps(app: Flask, ana: Person) -> None:
    """And what is committed is there for everybody."""
    ana.make()
    with app.app_context():
        db.session.scalars(select(Task)).one().title = "Changed"
        db.session.commit()

    assert ana.titles() == ["Changed"]


@pytest.mark.parametrize(
    ("args", "longest"), [(["token"], 254), (["seed"], 254), (["token", "ana@example.com", "--sub"], 255)]
)
def test_what_no_token_could_hold_is_refused(app: Flask, args: list[str], longest: int) -> None:
    """Nobody could use what came of it."""
    for value in ("", " ", "a\n@b", "a\udcff@b", "x" * (longest + 1)):
        result = invoke(app, *args, value)

        assert (result.exit_code, users(app)) == (2, [])
        assert result.stderr.endswith(f": must be 1 to {longest} printable characters\n")
    assert invoke(app, *args, "x" * longest).exit_code == 0


@pytest.mark.own_database
def test_seed_without_tables_says_so(app: Flask) -> None:
    """In a line, not in a stack trace."""
    with app.app_context():
        db.drop_all()

    result = invoke(app, "seed", "ana@example.com")

    assert result.exit_code == 1
    assert re.match(r'Error: (no such table: users|relation "users" does not exist)', result.output)
