"""How long a request may wait for the database: one limit, on this side, for connecting and for every statement."""

import select
from time import monotonic
from typing import Any

import psycopg2
from flask import g, has_request_context
from psycopg2 import extensions

# Seconds for all of a request's statements, repeats included; whoever has to answer sooner sets g.database_deadline.
REQUEST_LIMIT = 4.5


class DeadlineExceeded(psycopg2.OperationalError):
    """The request's time for the database is over."""


def milliseconds_left() -> float | None:
    """Return how long the request may still wait for the database; None outside a request, which may for ever."""
    if not has_request_context():
        return None
    deadline: float = g.setdefault("database_deadline", monotonic() + REQUEST_LIMIT)
    return max(0.0, deadline - monotonic()) * 1000


def _wait(connection: Any) -> None:
    """Wait for PostgreSQL no longer than the request may.

    psycopg2 closes the connection when this raises. Nothing is cancelled: a write that waits for a synchronous
    standby would then be reported as done. Source: psycopg.org/docs/advanced.html#support-for-coroutine-libraries
    """
    while (state := connection.poll()) != extensions.POLL_OK:
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
        if not poller.poll(milliseconds_left()):
            raise DeadlineExceeded


extensions.set_wait_callback(_wait)
