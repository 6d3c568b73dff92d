"""PostgreSQL with other encodings: a database that can't hold all of Unicode is refused."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg2
import pytest
from flask_migrate import upgrade
from psycopg2.sql import SQL, Identifier

from taskapi import create_app
from tests.conftest import dispose
from tests.people import SECRET, Person

TEXT = "日本 é 😀"

Make = Callable[[str], str]


@pytest.fixture
def make(postgresql: Callable[[str], str]) -> Iterator[Make]:
    """Make an empty database of an encoding, and return its URL."""
    name = Identifier(f"t{uuid4().hex}")
    connection = psycopg2.connect(postgresql("postgres"))
    connection.autocommit = True

    def make(encoding: str) -> str:
        with connection.cursor() as cursor:
            statement = "CREATE DATABASE {} TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING %s"
            cursor.execute(SQL(statement).format(name), [encoding])
            cursor.execute(SQL("ALTER DATABASE {} SET client_encoding = 'LATIN1'").format(name))
        return postgresql(name.string)

    yield make
    with connection.cursor() as cursor:
        cursor.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(name))
    connection.close()


@pytest.mark.parametrize("encoding", ["UTF8", "SQL_ASCII"])
def test_text_is_stored_as_sent(make: Make, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default encoding of the database's sessions or of the environment does not matter."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    app = create_app({"DATABASE_URL": make(encoding), "JWT_SECRET": SECRET})
    with app.app_context():
        upgrade()
    ana = Person(app)

    task = ana.make(title=TEXT, description=TEXT)

    assert (task["title"], task["description"]) == (TEXT, TEXT)
    assert ana.call("GET", "/api/tasks?q=本").json == [task]
    dispose(app)


def test_database_that_cannot_hold_every_text_is_refused(make: Make) -> None:
    """flask db upgrade refuses it in one line."""
    app = create_app({"DATABASE_URL": make("LATIN1"), "JWT_SECRET": SECRET})

    with app.app_context(), pytest.raises(SystemExit) as refused:
        upgrade()

    assert refused.value.code == (
        "The database's encoding is LATIN1, which can't hold every title: make one in UTF8."
    )
    dispose(app)
