"""flask token and flask seed."""

from datetime import UTC, datetime, timedelta
from uuid import uuid5

import click
import jwt
from flask import Flask, current_app
from flask.cli import with_appcontext
from sqlalchemy import insert, select

from taskapi.auth.tokens import CLAIMS, MAX_EMAIL, NAMESPACE
from taskapi.database.models import Task, User, db
from taskapi.errors import in_one_line

BATCH = 1000  # rows per statement; more are not faster


def init_app(app: Flask) -> None:
    """Add the commands."""
    app.cli.add_command(token)
    app.cli.add_command(seed)


def _check_claim(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse an invalid claim."""
    is_email = parameter.name == "email"
    if value is not None and (CLAIMS.validate({"sub": value, "exp": 0}) or (is_email and len(value) > MAX_EMAIL)):
        raise click.BadParameter("must be printable text, of at most 254 characters for an email and 255 for a subject")
    return value


@click.command()
@with_appcontext
@click.argument("email", callback=_check_claim)
@click.option("--sub", callback=_check_claim, help="The subject; one made from EMAIL when not given.")
@click.option("--days", type=click.IntRange(min=1, max=3650), default=1, show_default=True, help="Days it is valid.")
def token(email: str, sub: str | None, days: int) -> None:
    """Print a token for EMAIL, to try the API with."""
    config = current_app.config
    if config["JWT_SECRET"] is None:
        raise click.ClickException("JWT_JWKS_URL is set: only the issuer there has the private keys that sign tokens.")
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


def _default_sub(email: str) -> str:
    return str(uuid5(NAMESPACE, email))


@click.command()
@with_appcontext
@click.argument("email", callback=_check_claim)
@click.option("--count", type=click.IntRange(min=1), default=20, show_default=True, help="How many tasks.")
def seed(email: str, count: int) -> None:
    """Create tasks for the user with EMAIL, or else for the user of `flask token EMAIL`."""
    with in_one_line(), db.session.begin():
        owner = db.session.scalar(select(User.id).where(User.email == email))
        if owner is None:
            owner = _default_sub(email)  # a UUID, so it is the user's id
            db.session.merge(User(id=owner, email=email))
            db.session.flush()
        now = datetime.now(UTC)
        for start in range(1, count + 1, BATCH):
            rows = [_task(owner, number, now) for number in range(start, min(start + BATCH, count + 1))]
            db.session.execute(insert(Task), rows)
    click.echo(f"{count} tasks for {email}.")


def _task(owner: str, number: int, now: datetime) -> dict[str, object]:
    made = now - timedelta(minutes=number)
    note, is_completed = f"A note on task {number}." if number % 3 == 1 else None, number % 4 == 0
    row = {"user_id": owner, "title": f"Task {number}", "description": note, "is_completed": is_completed}
    return row | {"created_at": made, "updated_at": made}
