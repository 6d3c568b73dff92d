"""flask token, flask seed, flask shell, and the one line in which a command without its database ends."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from click.testing import Result
from flask import Flask
from flask.cli import ScriptInfo
from sqlalchemy import event, func, select

from taskapi import create_app
from taskapi.database.models import Task, User, db
from tests.conftest import dispose
from tests.people import SECRET, Person
from tests.servers import PATIENCE, closed_port, copy_project, run
from tests.test_role import execute


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
    """The token has the issuer and audience of the settings, and the same user each time."""
    app = make_app(JWT_ISSUER="https://issuer.example", JWT_AUDIENCE="taskapi")
    first, second = (invoke(app, "token", "ana@example.com").stdout for _ in range(2))

    assert first.count("\n") == 1
    assert user_of(app, first.strip())["user_id"] == user_of(app, second.strip())["user_id"]
    assert users(app) == [("ana@example.com", 2)]


def test_token_of_a_sub(app: Flask) -> None:
    """--sub gives the user's subject."""
    sub = str(uuid4())

    assert user_of(app, invoke(app, "token", "ana@example.com", "--sub", sub).stdout.strip())["user_id"] == sub


@pytest.mark.parametrize(("args", "days"), [([], 1), (["--days", "30"], 30)])
def test_token_lives_for_days(app: Flask, args: list[str], days: int) -> None:
    """A token lives for --days, and for one day when not given."""
    claims = claims_of(invoke(app, "token", "ana@example.com", *args).stdout)

    assert claims["exp"] - claims["iat"] == days * 86400


@pytest.mark.parametrize("args", ["token", "token a@b.c --days 0", "seed", "seed a@b.c --count 0"])
def test_misuse_is_refused(app: Flask, args: str) -> None:
    """Without an email, or with 0 days or tasks, the command refuses."""
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
    """A new email gets a user, which is the user of a token for the same email."""
    result = invoke(app, "seed", "ana@example.com")

    assert (result.exit_code, result.output) == (0, "20 tasks for ana@example.com.\n")
    assert users(app) == [("ana@example.com", 20)]
    user_of(app, invoke(app, "token", "ana@example.com").stdout.strip())
    assert users(app) == [("ana@example.com", 21)]


def test_seed_finds_the_user(app: Flask, ana: Person, ben: Person) -> None:
    """The user with that address gets more tasks, and no other user any."""
    ana.make()
    ben.make()

    result = invoke(app, "seed", "ana@example.com", "--count", "3")

    assert (result.exit_code, result.output) == (0, "3 tasks for ana@example.com.\n")
    assert users(app) == [("ana@example.com", 4), ("ben@example.com", 1)]


def test_seed_gives_an_address_back(app: Flask) -> None:
    """The user may have lost the email since."""
    invoke(app, "seed", "ana@example.com", "--count", "1")
    with app.app_context(), db.session.begin():
        db.session.scalars(select(User)).one().email = None

    result = invoke(app, "seed", "ana@example.com", "--count", "1")

    assert result.exit_code == 0, result.output
    assert users(app) == [("ana@example.com", 2)]


def test_seeded_tasks_are_real(app: Flask) -> None:
    """The API shows a seeded task, and takes it back."""
    invoke(app, "seed", "ana@example.com", "--count", "30")
    owner = Person(app, sub=claims_of(invoke(app, "token", "ana@example.com").stdout)["sub"])

    tasks = owner.call("GET").get_json()

    assert len(tasks) == 30
    statuses = [owner.call("PUT", f"/api/tasks/{task['id']}", json=task).status_code for task in tasks]
    assert statuses == [200] * 30
    assert all(task["created_at"] <= task["updated_at"] for task in tasks)


def test_seeded_tasks_differ(app: Flask) -> None:
    """The newest is Task 1; some have a note and some are done, so that a list shows each kind."""
    invoke(app, "seed", "ana@example.com", "--count", "8")
    owner = Person(app, sub=claims_of(invoke(app, "token", "ana@example.com").stdout)["sub"])

    tasks = owner.call("GET").get_json()

    assert [task["title"] for task in tasks] == [f"Task {number}" for number in range(1, 9)]
    assert [task["title"] for task in tasks if task["description"]] == ["Task 1", "Task 4", "Task 7"]
    assert [task["title"] for task in tasks if task["is_completed"]] == ["Task 4", "Task 8"]


def test_seed_makes_as_many_as_asked_for(app: Flask) -> None:
    """Many tasks take several statements; the last has fewer rows."""
    result = invoke(app, "seed", "ana@example.com", "--count", "2001")

    assert (result.exit_code, result.output) == (0, "2001 tasks for ana@example.com.\n")
    assert users(app) == [("ana@example.com", 2001)]


def test_failed_seed_leaves_nothing(make_app: Callable[..., Flask]) -> None:
    """It is one transaction."""
    app, batches = make_app(), []

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
    """Outside requests a rollback undoes what was not committed."""
    ana.make()
    with app.app_context():
        db.session.scalars(select(Task)).one().title = "Changed"
        db.session.add(User(id=str(uuid4()), email="new@example.com"))
        db.session.flush()
        db.session.rollback()

    assert ana.titles() == ["Water the plants"]
    assert users(app) == [("ana@example.com", 1)]


def test_commit_keeps(app: Flask, ana: Person) -> None:
    """A request sees what was committed."""
    ana.make()
    with app.app_context():
        db.session.scalars(select(Task)).one().title = "Changed"
        db.session.commit()

    assert ana.titles() == ["Changed"]


@pytest.mark.parametrize(
    ("args", "longest"), [(["token"], 254), (["seed"], 254), (["token", "ana@example.com", "--sub"], 255)]
)
def test_what_no_token_could_hold_is_refused(app: Flask, args: list[str], longest: int) -> None:
    """The service would refuse the token, or forget the address."""
    for value in ("", "a\n@b", "a\udcff@b", "x" * (longest + 1)):
        result = invoke(app, *args, value)

        assert (result.exit_code, result.stdout, users(app)) == (2, "", [])
        assert "must be printable text" in result.stderr
    assert invoke(app, *args, "x" * longest).exit_code == 0


def end_of(url: str, *args: str) -> str:
    """Run a flask command that is to end with one line, and return the line."""
    app = create_app({"DATABASE_URL": url, "JWT_SECRET": SECRET})
    with app.app_context(), pytest.raises(SystemExit) as end:
        app.cli.main(args, obj=ScriptInfo(create_app=lambda: app))
    dispose(app)
    assert isinstance(end.value.code, str)  # which Python writes to stderr, to exit with 1
    return end.value.code


@pytest.fixture
def role(postgresql_url: str) -> Iterator[str]:
    """A role that may connect to the migrated database, and no more."""
    name = f"r{uuid4().hex}"
    execute(postgresql_url, f"CREATE ROLE {name} LOGIN PASSWORD 'hunter1'")
    yield name
    execute(postgresql_url, f"DROP ROLE {name}")


@pytest.fixture
def role_with_password(role: str, postgresql_url: str) -> Iterator[str]:
    """The same, and the server asks it for its password."""
    rules = Path(execute(postgresql_url, "SHOW hba_file")[0])
    before = rules.read_text()
    rules.write_text(f"local all {role} scram-sha-256\n{before}")
    execute(postgresql_url, "SELECT pg_reload_conf()")
    deadline = monotonic() + PATIENCE
    with suppress(psycopg2.OperationalError):
        while monotonic() < deadline:
            psycopg2.connect(url_as(postgresql_url, f"{role}:hunter2")).close()
    yield role
    rules.write_text(before)
    execute(postgresql_url, "SELECT pg_reload_conf()")


def url_as(postgresql_url: str, user: str) -> str:
    """Return the URL for another user than the server's own."""
    return postgresql_url.replace("//postgres:@", f"//{user}@")


COMMANDS = pytest.mark.parametrize("command", ["db upgrade", "db current", "seed ana@example.com"])


@COMMANDS
def test_wrong_password_is_one_line(postgresql_url: str, role_with_password: str, command: str) -> None:
    """It is the database's own line, without the password."""
    line = end_of(url_as(postgresql_url, f"{role_with_password}:hunter2"), *command.split())

    assert (line.startswith("The database says: "), "\n" in line, "hunter2" in line) == (True, False, False)
    assert role_with_password in line


@COMMANDS
@pytest.mark.parametrize("url", ["postgresql://ana:hunter2@127.0.0.1:{port}/taskapi", "sqlite:////nowhere/at/all"])
def test_database_that_is_away_is_one_line(command: str, url: str) -> None:
    """There is no server at that port, and no folder for that file."""
    with closed_port() as port:
        line = end_of(url.format(port=port), *command.split())

    assert (line.startswith("The database says: "), "\n" in line, "hunter2" in line) == (True, False, False)


@COMMANDS
def test_missing_right_is_one_line(postgresql_url: str, role: str, command: str) -> None:
    """A role that may read no table migrates nothing and seeds nothing."""
    line = end_of(url_as(postgresql_url, role), *command.split())

    assert (line.startswith("The database says: "), "\n" in line) == (True, False)


@pytest.mark.own_database
def test_missing_tables_are_one_line(database_url: str) -> None:
    """flask seed before the first flask db upgrade names the table."""
    app = create_app({"DATABASE_URL": database_url, "JWT_SECRET": SECRET})
    with app.app_context():
        db.drop_all()
    dispose(app)

    line = end_of(database_url, "seed", "ana@example.com")

    assert (line.startswith("The database says: "), "users" in line, "\n" in line) == (True, True, False)


def test_process_ends_with_that_line(tmp_path: Path) -> None:
    """Nothing else is on stderr, and the status is 1."""
    with closed_port() as port:
        url = f"postgresql://ana:hunter2@127.0.0.1:{port}/taskapi"
        result = run("flask", "db", "upgrade", cwd=copy_project(tmp_path), DATABASE_URL=url)

    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith("The database says: ")
