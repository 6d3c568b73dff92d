"""How long a request may wait for the database: one limit, on this side, for connecting and for every statement."""

from time import monotonic

from flask import g, has_request_context

# Seconds for all of a request's statements, repeats included; whoever has to answer sooner sets g.database_deadline.
REQUEST_LIMIT = 4.5


def milliseconds_left() -> float | None:
    """Return how long the request may still wait for the database; None outside a request, which may for ever."""
    if not has_request_context():
        return None
    deadline: float = g.setdefault("database_deadline", monotonic() + REQUEST_LIMIT)
    return max(0.0, deadline - monotonic()) * 1000
