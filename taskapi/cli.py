"""flask token and flask seed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import uuid5

import click
import jwt
from flask import Flask, current_app
from flask.cli import with_appcontext
from sqlalchemy import insert, select

from taskapi import people
from taskapi.auth import MAX_EMAIL, NAMESPACE
from taskapi.models import Task, User, db
from taskapi.tokens import MAX_SUB, is_printable

_BATCH = 1000  # rows per statement; beyond it nothing gets faster
_MANY = 5000  # tasks; fewer are done before a bar is read

_VERBS = ("Buy", "Call", "Check", "Clean", "Draft", "Fix", "Order", "Plan", "Review", "Send", "Update", "Write")
_THINGS = ("budget", "contract", "garden", "invoice", "newsletter", "photos", "release notes", "report", "slides")
_WHENS = ("before lunch", "by Friday", "for the team", "next week", "this month", "today", "tomorrow", "with Ana")


def init_app(app: Flask) -> None:
    """Add the commands."""
    app.cli.add_command(token)
    app.cli.add_command(seed)
    app.cli.add_command(people.user)


def _default_sub(email: str) -> str:
    return str(uuid5(NAMESPACE, email))


def _claim(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """What a token's claim could not hold is no good here either."""
    longest = MAX_SUB if parameter.name == "sub" else MAX_EMAIL
    if value is not None and not (value.strip() and is_printable(value, longest)):
        raise click.BadParameter(f"must be 1 to {longest} printable characters")
    return value


@click.command()
@with_appcontext
@click.argument("email", callback=_claim)
@click.option("--sub", callback=_claim, help="The subject; one made from EMAIL when not given.")
@click.option("--days", type=click.IntRange(min=1, max=3650), default=1, show_default=True, help="Days it is valid.")
def token(email: str, sub: str | None, days: int) -> None:
    """Print a token for EMAIL, for trying things."""
    config = current_app.config
    if config["JWT_SECRET"] is None:
        raise click.ClickException("The issuer at JWT_JWKS_URL makes the tokens; its private keys are not here.")
    now = datetime.now(UTC)
    claims = {
        "iss": config["JWT_ISSUER"],
        "aud": config["JWT_AUDIENCE"],
        "sub": sub or _default_sub(email),
        "email": email,
        "iat": now,
        "exp": now + timedelta(days=days),
    }
    given = {name: value for name, value in claims.items() if value is not None}
    click.echo(jwt.encode(given, config["JWT_SECRET"], algorithm="HS256"))


@click.command()
@with_appcontext
@click.argument("email", callback=_claim)
@click.option("--count", type=click.IntRange(min=1), default=20, show_default=True, help="How many tasks.")
def seed(email: str, count: int) -> None:
    """Give the user with EMAIL plausible tasks: the one who has it, else the one that `flask token EMAIL` names."""
    with people.database_errors(), db.session.begin():
        owner = db.session.scalar(select(User.id).where(User.email == email))
        if owner is None:
            owner = _default_sub(email)  # a UUID, so the user's id as it is
            db.session.merge(User(id=owner, email=email))
            db.session.flush()
        with click.progressbar(length=count, label="Tasks", hidden=count < _MANY) as bar:
            for start in range(0, count, _BATCH):
                batch = list(_plausible_tasks(owner, min(_BATCH, count - start)))
                db.session.execute(insert(Task), batch)
                bar.update(len(batch))
    click.echo(f"{count} tasks for {email}.")


def _plausible_tasks(owner: str, count: int) -> Iterator[dict[str, Any]]:
    random = Random()
    now = datetime.now(UTC)
    for _ in range(count):
        made = now - timedelta(days=random.uniform(0, 90))
        done = random.random() < 0.4
        title = f"{random.choice(_VERBS)} the {random.choice(_THINGS)} {random.choice(_WHENS)}"
        yield {
            "user_id": owner,
            "title": title,
            "description": random.choice([None, f"{title}.\nSee the notes of {made:%d %B}."]),
            "is_completed": done,
            "created_at": made,
            "updated_at": made + (now - made) * random.random() if done else made,
        }
