"""What docs/operating.md has an operator type to show, export and delete one person's data."""

import re

import psycopg2
import pytest
from flask import Flask

from tests.conftest import POSTGRESQL_ALONE
from tests.people import Person
from tests.servers import PROJECT

SHOW, EXPORT, DELETE = re.findall("```sql\n(.*?)```", (PROJECT / "docs" / "operating.md").read_text(), re.DOTALL)


@POSTGRESQL_ALONE
def test_one_person_is_shown_exported_and_deleted(app: Flask, ana: Person, ben: Person, postgresql_url: str) -> None:
    """The rows of the person whose email is given, all of them, and no other person's."""
    tasks = [ana.make(title="First"), ana.make(title="Second", is_completed=True)]
    kept = ben.make(title="Ben's")
    connection = psycopg2.connect(postgresql_url)
    connection.autocommit = True
    cursor = connection.cursor()

    cursor.execute(SHOW)
    assert cursor.fetchall() == [(ana.id, "ana@example.com", 2, 1)]
    cursor.execute(EXPORT)
    exported = [row for (row,) in cursor.fetchall()]
    assert [(row["id"], row["title"], row["is_completed"]) for row in exported] == [
        (task["id"], task["title"], task["is_completed"]) for task in tasks
    ]
    cursor.execute(DELETE)
    assert cursor.fetchall() == [(ana.id, "ana@example.com")]
    connection.close()

    assert ana.stored() == []
    assert ben.call("GET").json == [kept]


@pytest.mark.parametrize("statement", [SHOW, EXPORT, DELETE])
def test_each_statement_names_the_person_once(statement: str) -> None:
    """A forgotten condition would show or delete every person."""
    assert statement.count("'ana@example.com'") == 1
