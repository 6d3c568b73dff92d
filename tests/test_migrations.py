"""The schema: made by migrations, the same as the models', and kept by the database itself."""

import shutil
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest
from alembic.script import ScriptDirectory
from flask import Flask
from flask_migrate import downgrade, revision, stamp, upgrade
from sqlalchemy import delete, event, inspect, select, text
from sqlalchemy.exc import IntegrityError

from taskapi import create_app
from taskapi.database.engine import MIGRATIONS, REQUEST_LIMIT
from taskapi.database.models import Task, User, db
from tests.conftest import dispose
from tests.people import SECRET, Person
from tests.servers import PROJECT, copy_project, run
from tests.test_role import execute

NAMES_HAVE_TO_BE_UNIQUE = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{next}", "{head}"


def upgrade():
    with op.batch_alter_table("users") as batch:
        batch.add_column(sa.Column("name", sa.Text()))
        batch.create_unique_constraint("uq_users_name", ["name"])
"""


# A column that the code before it does not know may be null.
ANOTHER_COLUMN = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{next}", "{head}"


def upgrade():
    op.add_column("tasks", sa.Column("of_a_test", sa.Date()))


def downgrade():
    with op.batch_alter_table("tasks") as batch:
        batch.drop_column("of_a_test")
"""

# What a developer adds to the models: a table, and in another a time, an index and a key of two columns.
A_TABLE = """

from sqlalchemy import Column, ForeignKeyConstraint


class Note(db.Model):
    __tablename__ = "notes"

    user_id: Mapped[str] = mapped_column(Uuid(as_uuid=False), ForeignKey("users.id"), primary_key=True)
    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


TASKS.append_column(Column("note_id", Uuid(as_uuid=False)))
TASKS.append_column(Column("due_at", UtcDateTime))
TASKS.append_constraint(ForeignKeyConstraint(["user_id", "note_id"], ["notes.user_id", "notes.id"]))
Index(None, TASKS.c.user_id, TASKS.c.due_at)
"""
MIGRATE = """
from flask_migrate import check, downgrade, migrate, revision, upgrade
from wsgi import app

with app.app_context():
    upgrade()
    migrate(message="A table of notes.")
    upgrade()
    check()
    downgrade(revision="0001")
    upgrade()
    revision(message="To be written by hand")
"""
UP_AND_DOWN = ["upgrade", "downgrade", "upgrade"]


def scripts_with(folder: Path, migration: str) -> Path:
    """Return a copy of the migrations with one more."""
    scripts = shutil.copytree(MIGRATIONS, folder / "migrations")
    head = str(ScriptDirectory(str(MIGRATIONS)).get_current_head())
    text = migration.replace("{head}", head).replace("{next}", f"{int(head) + 1:04}")
    (scripts / "versions" / "another.py").write_text(text)
    return scripts


def migrate(app: Flask, *steps: Callable[..., None]) -> None:
    """Run migrations as flask db does."""
    for step in steps:
        with app.app_context():
            step(**{"revision": "base"} if step is downgrade else {})


@pytest.mark.own_database
def test_new_migration_is_given_the_next_number(app: Flask, tmp_path: Path) -> None:
    """/readyz goes by numbers, which no developer has to know."""
    scripts = scripts_with(tmp_path, ANOTHER_COLUMN)
    with app.app_context():
        stamp(directory=str(scripts), revision="head")
        revision(directory=str(scripts), message="Due dates.")

    newest, another, *_ = ScriptDirectory(str(scripts)).walk_revisions()
    assert (newest.revision, newest.down_revision) == (f"{int(another.revision) + 1:04}", another.revision)
    assert Path(newest.path).name == f"{newest.revision}_due_dates.py"
    assert newest.longdoc == "Due dates."


@pytest.mark.own_database
@pytest.mark.slow
def test_migration_is_written_as_it_should_be(tmp_path: Path, database_url: str) -> None:
    """A migration that flask db migrate writes passes flake8, and runs up and down."""
    folder = tmp_path / "project"
    shutil.copytree(PROJECT / "taskapi", folder / "taskapi")
    shutil.copy(PROJECT / "wsgi.py", folder)
    shutil.copy(PROJECT / "setup.cfg", folder)
    with (folder / "taskapi" / "database" / "models.py").open("a") as models:
        models.write(A_TABLE)
    versions = folder / "taskapi" / "database" / "migrations" / "versions"
    before = {*versions.glob("*.py")}

    migrated = run("python", "-c", MIGRATE, cwd=folder, DATABASE_URL=database_url, JWT_SECRET=SECRET)
    style = run("flake8", str(versions), cwd=folder)

    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert len({*versions.glob("*.py")} - before) == 2
    assert (style.returncode, style.stdout) == (0, "")


@pytest.mark.own_database
@pytest.mark.slow
def test_upgrades_at_once(database_url: str, tmp_path: Path) -> None:
    """Four instances that start together on an empty database each begin with flask db upgrade: all succeed."""
    if database_url.startswith("sqlite"):
        database_url = f"sqlite:///{tmp_path / 'empty.sqlite3'}"
    else:
        execute(database_url, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    settings = {"DATABASE_URL": database_url, "JWT_SECRET": SECRET, "FLASK_APP": "wsgi"}
    copy_project(tmp_path)

    with ThreadPoolExecutor(4) as pool:
        ended = [*pool.map(lambda _: run("flask", "db", "upgrade", cwd=tmp_path, **settings), range(4))]

    app = create_app(settings)
    assert [(process.returncode, process.stderr) for process in ended] == [(0, "")] * 4
    assert schema(app).keys() == {"alembic_version", *db.metadata.tables}
    assert app.test_client().get("/readyz").status_code == 200
    dispose(app)


def schema(app: Flask) -> dict[str, Any]:
    """Return what the database knows of each table."""
    with app.app_context():
        inspector = inspect(db.engine)
        return {
            table: {
                "columns": {column["name"]: column["nullable"] for column in inspector.get_columns(table)},
                "key": inspector.get_pk_constraint(table),
                "unique": inspector.get_unique_constraints(table),
                "foreign": inspector.get_foreign_keys(table),
                "indexes": [index for index in inspector.get_indexes(table) if not index.get("duplicates_constraint")],
            }
            for table in inspector.get_table_names()
        }


def save(app: Flask, *rows: object) -> None:
    """Add rows, past everything but the database."""
    with app.app_context(), db.session.begin():
        for row in rows:
            db.session.add(row)
            db.session.flush()


def task_of(user_id: str, **values: Any) -> Task:
    """Return a row to add."""
    now = datetime.now(UTC)
    defaults = {"id": str(uuid4()), "title": "Water the plants", "created_at": now, "updated_at": now}
    return Task(user_id=user_id, **defaults | values)


def test_models_and_migrations_agree(app: Flask) -> None:
    """Each change of a model has a migration."""
    with app.app_context():
        result = app.test_cli_runner().invoke(args=["db", "check"])

    assert (result.exit_code, result.exception) == (0, None)


@pytest.mark.own_database
def test_migrations_go_down_and_up_again(app: Flask) -> None:
    """An empty database comes back as it was."""
    before = schema(app)

    migrate(app, downgrade)
    below = schema(app)
    migrate(app, upgrade)

    assert list(below) == ["alembic_version"]
    assert schema(app) == before
    assert before.keys() == {"alembic_version", *db.metadata.tables}


@pytest.mark.own_database
def test_filled_database_goes_down_and_up_again(app: Flask, ana: Person, ben: Person) -> None:
    """Migrations work with rows, and the service works afterwards."""
    ana.make()
    ben.make()

    migrate(app, upgrade)  # which is up already
    kept = ana.titles()
    migrate(app, downgrade, downgrade, upgrade)

    assert kept == ["Water the plants"]
    assert ana.titles() == []
    assert ana.make(title="Feed the cat")["title"] == "Feed the cat"


@pytest.mark.own_database
def test_failed_migration_leaves_nothing(app: Flask) -> None:
    """Migrations are one transaction: one that fails halfway changes nothing."""
    migrate(app, downgrade)
    with app.app_context(), db.session.begin():
        db.session.execute(text("CREATE TABLE tasks (id INTEGER)"))

    with pytest.raises(SystemExit, match="^The database says: .*tasks"):
        migrate(app, upgrade)

    assert schema(app).keys() == {"alembic_version", "tasks"}


@pytest.mark.own_database
@pytest.mark.slow
def test_upgrade_and_downgrade_while_serving(app: Flask, ana: Person, tmp_path: Path, database_url: str) -> None:
    """The code before a migration serves during it and after it, on a filled table, and says that it is ready."""
    seeded = app.test_cli_runner().invoke(args=["seed", "big@example.com", "--count", "20000"])
    assert (seeded.exit_code, seeded.exception) == (0, None)
    folder, scripts = copy_project(tmp_path), scripts_with(tmp_path, ANOTHER_COLUMN)
    settings = {"DATABASE_URL": database_url, "JWT_SECRET": SECRET, "FLASK_APP": "wsgi"}
    over, statuses = Event(), Counter[int]()

    def work() -> None:
        while not over.is_set():
            path = f"/api/tasks/{ana.make()['id']}"
            for method, where, body in (("PUT", path, {"is_completed": True}), ("GET", "/api/tasks", None)):
                statuses[ana.call(method, where, json=body).status_code] += 1
            statuses[app.test_client().get("/readyz").status_code] += 1

    with ThreadPoolExecutor(2) as pool:
        workers = [pool.submit(work) for _ in range(2)]
        try:
            steps = [run("flask", "db", step, "-d", str(scripts), cwd=folder, **settings) for step in UP_AND_DOWN]
        finally:
            over.set()

    assert [(step.returncode, step.stderr) for step in steps] == [(0, "")] * len(UP_AND_DOWN)
    assert [worker.exception() for worker in workers] == [None, None]
    assert statuses.keys() == {200}
    assert len(ana.stored()) == statuses[200] // 3


@pytest.mark.own_database
def test_upgrade_gives_way(app: Flask, ana: Person, tmp_path: Path, database_url: str) -> None:
    """While another transaction holds the table, it gives up before a request would, and has changed nothing."""
    ana.make()
    before = schema(app)
    scripts = scripts_with(tmp_path, ANOTHER_COLUMN)

    is_sqlite = database_url.startswith("sqlite")
    with app.app_context():
        if is_sqlite:  # which waits for 5 s
            event.listen(db.engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 100"))
        db.session.execute(text("BEGIN IMMEDIATE" if is_sqlite else "LOCK TABLE tasks"))
        began = monotonic()
        with pytest.raises(SystemExit, match="^The database says: "):
            upgrade(directory=str(scripts))
        seconds = monotonic() - began
        db.session.rollback()

    assert is_sqlite or seconds < REQUEST_LIMIT  # requests wait behind it on PostgreSQL alone
    assert schema(app) == before
    with app.app_context():
        upgrade(directory=str(scripts))
    assert schema(app)["tasks"]["columns"].keys() == {*before["tasks"]["columns"], "of_a_test"}
    assert ana.titles() == ["Water the plants"]


def test_keys_and_indexes_are_in_the_database(app: Flask) -> None:
    """The owner is part of the key, and the newest tasks of one owner are one stretch of an index."""
    tables = schema(app)

    assert tables["tasks"]["key"]["constrained_columns"] == ["user_id", "id"]
    assert [index["column_names"] for index in tables["tasks"]["indexes"]] == [["user_id", "created_at", "id"]]
    [foreign] = tables["tasks"]["foreign"]
    assert (foreign["constrained_columns"], foreign["referred_table"]) == (["user_id"], "users")
    assert foreign["options"] == {"ondelete": "CASCADE"}
    assert [unique["column_names"] for unique in tables["users"]["unique"]] == [["email"]]


def test_broken_rules_are_refused_by_the_database(app: Flask) -> None:
    """A task needs a user; keys and emails are unique; several users may have no email."""
    ana, ben = str(uuid4()), str(uuid4())
    task = str(uuid4())
    save(app, User(id=ana, email="ana@example.com"), User(id=ben), User(id=str(uuid4())), task_of(ana, id=task))
    save(app, task_of(ben, id=task))

    for row in (
        task_of(str(uuid4())),
        task_of(ana, id=task),
        task_of(ana, title=None),
        User(id=ana),
        User(id=str(uuid4()), email="ana@example.com"),
    ):
        with pytest.raises(IntegrityError):
            save(app, row)

    with app.app_context():
        assert len(db.session.scalars(select(Task)).all()) == 2
        assert len(db.session.scalars(select(User)).all()) == 3


@pytest.mark.own_database
def test_altering_users_keeps_their_tasks(app: Flask, ana: Person, tmp_path: Path) -> None:
    """SQLite makes a new table to alter one, and drops the old, which must not delete the tasks of all users."""
    task = ana.make()
    scripts = scripts_with(tmp_path, NAMES_HAVE_TO_BE_UNIQUE)

    with app.app_context():
        upgrade(directory=str(scripts))

    assert [task["id"]] == [row.id for row in ana.stored()]
    with app.app_context():
        db.session.execute(delete(User))
        db.session.commit()
    assert [] == ana.stored()
