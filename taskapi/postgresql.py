"""How PostgreSQL is connected to and waited for: nobody's wait is anybody else's, or longer than it may be."""

import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from threading import Thread
from typing import Any

import psycopg2
from psycopg2 import extensions

from taskapi.deadline import milliseconds_left

DEFAULTS = {
    "fallback_application_name": "taskapi",
    # Seconds until a silent connection is asked whether it is there, seconds between, and times. Routers and firewalls
    # forget, without a word, who says nothing for some minutes; the next request on it would wait in vain.
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}


class DeadlineExceeded(psycopg2.OperationalError):
    """The request's time for the database is over."""


def connect(url: str) -> extensions.connection:
    """Connect to a URL as libpq reads it: several hosts, sslmode, channel_binding and whatever it learns next."""
    parts: dict[str, Any] = DEFAULTS | extensions.parse_dsn(url)
    if "host" in parts and "hostaddr" not in parts:
        parts |= _look_up(parts["host"].split(","), parts.get("port", "").split(","))
    # Whatever the server, the role or the environment says of encodings, text is any of Unicode here.
    connection: extensions.connection = psycopg2.connect(**parts | {"client_encoding": "utf8"})
    return connection


def _look_up(hosts: list[str], ports: list[str]) -> Mapping[str, str]:
    """Return the hosts with their addresses, for libpq, which would stop the whole process while it looks them up.

    Raises DeadlineExceeded, and psycopg2.OperationalError where no host has an address. What the lists mean:
    postgresql.org/docs/current/libpq-connect.html#LIBPQ-MULTIPLE-HOSTS
    """
    found: list[tuple[str, str, str]] = []
    lookup = Thread(target=lambda: found.extend(_addresses(hosts, ports)), daemon=True)
    lookup.start()
    left = milliseconds_left()
    lookup.join(left and left / 1000)
    if lookup.is_alive():
        raise DeadlineExceeded
    if not found:
        raise psycopg2.OperationalError(f"no address of {', '.join(hosts)} is known")
    return dict(zip(("host", "hostaddr", "port"), map(",".join, zip(*found))))


def _addresses(hosts: list[str], ports: list[str]) -> Iterator[tuple[str, str, str]]:
    """Each host, address and port; a host without an address has none here."""
    for host, port in zip(hosts, ports * len(hosts)):  # one port is that of all
        if host.startswith(("/", "@")):  # a socket of this machine
            yield host, "", port
            continue
        with suppress(OSError, UnicodeError):
            for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
                yield host, str(address[0]), port


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
