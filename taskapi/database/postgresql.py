"""Connect to PostgreSQL and wait for it without blocking other greenlets, within the request's deadline."""

import os
import re
import select
import socket
from contextlib import suppress
from contextvars import ContextVar
from threading import Thread
from time import monotonic
from typing import Any

import psycopg2
from psycopg2 import extensions

# When the request's time for the database ends, in seconds of the monotonic clock. None outside a request: no limit.
DEADLINE: ContextVar[float | None] = ContextVar("DEADLINE", default=None)

DEFAULTS = {
    "fallback_application_name": "taskapi",
    # Seconds of silence before the first probe, seconds between probes, number of probes. Firewalls drop silent
    # connections without notice; the next request on one would wait in vain.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
LOOKUP_LIMIT = 2.0  # seconds for the names of several hosts; those not found by then are left out
ADDRESS_OR_SOCKET = re.compile("[0-9.]*|[/@].*|.*:.*")  # IPv4, a Unix socket, IPv6


class DeadlineExceeded(psycopg2.OperationalError):
    """The request's time for the database has ended."""


def seconds_left() -> float | None:
    """Return how long the request may still wait for the database; None outside a request: no limit."""
    deadline = DEADLINE.get()
    return None if deadline is None else max(0.0, deadline - monotonic())


def connect(url: str) -> extensions.connection:
    """Connect to a URL as libpq reads it."""
    parts: dict[str, Any] = DEFAULTS | extensions.parse_dsn(url)
    hosts = (parts.get("host") or os.environ.get("PGHOST", "")).split(",")
    has_address = {"hostaddr", "service"} & parts.keys() or {"PGHOSTADDR", "PGSERVICE"} & os.environ.keys()
    if not has_address and not all(map(ADDRESS_OR_SOCKET.fullmatch, hosts)):
        parts |= _resolve(hosts, parts.get("port", "").split(","))
    # Override the encoding that the server, the role or the environment sets.
    connection: extensions.connection = psycopg2.connect(**parts | {"client_encoding": "utf8"})
    return connection


def _resolve(hosts: list[str], ports: list[str]) -> dict[str, str]:
    """Return the hosts with their addresses: libpq would block the whole process while it looks them up.

    Repeat a host for each of its addresses: libpq takes one address per host. Raises
    DeadlineExceeded, and psycopg2.OperationalError if no host has an address.
    Source: postgresql.org/docs/current/libpq-connect.html#LIBPQ-MULTIPLE-HOSTS
    """
    found: list[tuple[str, str, str]] = []
    lookup = Thread(target=_look_up, args=(hosts, ports * len(hosts), found), daemon=True)
    lookup.start()
    lookup.join(seconds_left() if len(hosts) == 1 else LOOKUP_LIMIT)
    if not found and lookup.is_alive():
        raise DeadlineExceeded
    if not found:
        raise psycopg2.OperationalError(f"no address of {', '.join(hosts)} is known")
    names = ("host", "hostaddr", "port") if len(ports) > 1 else ("host", "hostaddr")
    return dict(zip(names, map(",".join, zip(*found))))


def _look_up(hosts: list[str], ports: list[str], found: list[tuple[str, str, str]]) -> None:
    """Resolve each host; addresses and socket paths pass through."""
    for host, port in zip(hosts, ports):
        if ADDRESS_OR_SOCKET.fullmatch(host):
            found.append((host, "", port))
            continue
        with suppress(OSError, UnicodeError):
            for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
                found.append((host, str(address[0]), port))


def _wait(connection: Any) -> None:
    """Wait for PostgreSQL until the deadline.

    psycopg2 closes the connection when this raises. Nothing is cancelled: PostgreSQL would report success for a write
    that still waits for a synchronous standby. Source: psycopg.org/docs/advanced.html#support-for-coroutine-libraries
    """
    while (state := connection.poll()) != extensions.POLL_OK:
        if not _is_ready(connection.fileno(), state == extensions.POLL_READ, seconds_left()):
            raise DeadlineExceeded


def _is_ready(descriptor: int, to_read: bool, seconds: float | None) -> bool:
    if not hasattr(select, "poll"):  # Windows; elsewhere select() fails for descriptors above 1023
        watched = [descriptor]
        return any(select.select(watched if to_read else [], [] if to_read else watched, [], seconds))
    poller = select.poll()
    poller.register(descriptor, select.POLLIN if to_read else select.POLLOUT)
    return bool(poller.poll(None if seconds is None else seconds * 1000))


extensions.set_wait_callback(_wait)
