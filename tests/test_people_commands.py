"""flask user: show, and what all three commands have in common."""

import re
from contextlib import redirect_stdout
from uuid import uuid4

import click
import pytest
from flask import Flask

from taskapi.models import db
from taskapi.people import user
from tests.commands import invoke, users
from tests.people import Person


NOBODY = "00000000-0000-4000-8000-000000000000"


def test_show(ana: Person, ben: Person) -> None:
    """It counts the tasks and tells when she began and when she last changed anything."""
    first, *_ = ana.make(), ana.make(), ana.make()
    changed = ana.call("PUT", f"/api/tasks/{first['id']}", json={"is_completed": True}).json
    ben.make()

    result = invoke(ana.app, "show", "ana@example.com")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"id: {ana.id}\n"
        "e-mail: ana@example.com\n"
        "tasks: 3 (2 open, 1 completed)\n"
        f"first created: {first['created_at']}\n"
        f"last updated: {changed['updated_at']}\n"
    )


def test_show_of_a_user_without_anything(app: Flask) -> None:
    """Neither an address nor a task."""
    nobody = Person(app, email=None)
    nobody.call("DELETE", f"/api/tasks/{nobody.make()['id']}")

    result = invoke(app, "show", nobody.id)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"id: {nobody.id}\ne-mail: none\ntasks: 0 (0 open, 0 completed)\nfirst created: never\nlast updated: never\n"
    )


def test_a_user_has_an_id_in_either_case(ana: Person) -> None:
    """As everywhere."""
    ana.make()

    lower, upper = invoke(ana.app, "show", ana.id.lower()), invoke(ana.app, "show", ana.id.upper())

    assert (lower.exit_code, lower.stdout) == (upper.exit_code, upper.stdout) == (0, lower.stdout)
    assert lower.stdout.startswith(f"id: {ana.id}\n")


def test_an_address_in_the_form_of_an_id_names_nobody(app: Flask, ana: Person) -> None:
    """Who shows somebody's id as an address is not taken for them, nor they for him."""
    ana.make()
    mallory = Person(app, email=ana.id)
    mallory.make()
    stray = Person(app, email=str(uuid4()).upper())
    stray.make()

    assert invoke(app, "show", ana.id).stdout.startswith(f"id: {ana.id}\n")
    assert invoke(app, "show", users(app)[stray.id] or "").exit_code == 1


@pytest.mark.parametrize("command", ["show", "export", "delete", "delete --yes"])
@pytest.mark.parametrize("named", [NOBODY, "ANA@example.com", "%@example.com", "", "a\0", "a\udcff@example.com"])
def test_unknown_users(ana: Person, command: str, named: str) -> None:
    """It says so and no more; addresses count as stored."""
    ana.make()

    result = invoke(ana.app, *command.split(), named, answer="y\n")

    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "Error: no such user\n")
    assert users(ana.app) == {ana.id: "ana@example.com"}


@pytest.mark.own_database
@pytest.mark.parametrize("command", ["show", "export", "delete --yes"])
def test_database_without_tables_is_an_error(app: Flask, command: str) -> None:
    """Told in a line, not in a stack trace."""
    with app.app_context():
        db.drop_all()

    result = invoke(app, *command.split(), "ana@example.com")

    assert (result.exit_code, result.stdout) == (1, "")
    assert re.match(r'Error: (no such table: users|relation "users" does not exist)', result.stderr)


@pytest.mark.parametrize("command", ["show", "export", "delete --yes"])
def test_closed_stdout_is_an_error(ana: Person, command: str) -> None:
    """Nothing is read or deleted with nobody to tell, as by >&-."""
    ana.make()

    with redirect_stdout(None), ana.app.app_context(), pytest.raises(click.ClickException, match="stdout is closed"):
        user.main([*command.split(), ana.id], standalone_mode=False)

    assert len(ana.stored()) == 1
