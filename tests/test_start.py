"""What the start says: what the service runs on, and that the development secret is public."""

from collections.abc import Callable

import click
import pytest
from flask import Flask

from taskapi.config import DEVELOPMENT_SECRET


def test_development_secret_is_called_public(make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture) -> None:
    """Each start in debug mode warns, and never shows the secret."""
    make_app(FLASK_DEBUG="1", JWT_SECRET=DEVELOPMENT_SECRET)

    assert [record.levelname for record in caplog.records if "public" in record.getMessage()] == ["WARNING"]
    assert DEVELOPMENT_SECRET not in caplog.text


@pytest.mark.parametrize(("command", "starts"), [("run", True), ("token", False)])
def test_command_that_does_not_serve_says_nothing(
    make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture, command: str, starts: bool
) -> None:
    """`flask token` prints the token alone."""
    caplog.clear()
    with click.Context(click.Command(command), info_name=command):
        make_app()

    assert any(record.getMessage().startswith("Starting on") for record in caplog.records) == starts
