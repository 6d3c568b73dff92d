"""How PostgreSQL is connected to and waited for: nobody's wait is anybody else's, or longer than it may be."""

import os
import re
import select
import socket
from collections.abc import Mapping
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
# Seconds for the names of a URL: of one host, and of several, where those that are not found by then are passed over.
LOOKUP_LIMITS = (30.0, 2.0)
_NO_NAME = re.compile("[0-9.]*|[/@].*|.*:.*")  # none at all, an IPv4 address, a socket of this machine, an IPv6 address


class DeadlineExceeded(psycopg2.OperationalError):
    """The request's time for the database is over."""


def connect(url: str) -> extensions.connection:
    """Connect to a URL as libpq reads it: several hosts, sslmode, channel_binding and whatever it learns next."""
    parts: dict[str, Any] = DEFAULTS | extensions.parse_dsn(url)
    # Where an address is given, or a file may give one, there is nothing to look up.
    if {"hostaddr", "service"}.isdisjoint(parts) and {"PGHOSTADDR", "PGSERVICE"}.isdisjoint(os.environ):
        parts |= _look_up(parts.get("host", "").split(","), parts.get("port", "").split(","))
    # Whatever the server, the role or the environment says of encodings, text is any of Unicode here.
    connection: extensions.connection = psycopg2.connect(**parts | {"client_encoding": "utf8"})
    return connection


def _look_up(hosts: list[str], ports: list[str]) -> Mapping[str, str]:
    """Return the hosts with their addresses, for libpq, which would stop the whole process while it looks them up.

    Raises DeadlineExceeded, and psycopg2.OperationalError where no host has an address. What the lists mean:
    postgresql.org/docs/current/libpq-connect.html#LIBPQ-MULTIPLE-HOSTS
    """
    if all(map(_NO_NAME.fullmatch, hosts)) or len(ports) not in (1, len(hosts)):
        return {}  # as it is, or for libpq to refuse
    found: list[tuple[str, str, str]] = []
    lookup = Thread(target=_find, args=(hosts, ports * len(hosts), found), daemon=True)
    lookup.start()
    limit, left = LOOKUP_LIMITS[len(hosts) > 1], milliseconds_left()
    lookup.join(limit if left is None else min(limit, left / 1000))
    if not found and lookup.is_alive():
        raise DeadlineExceeded
    if not found:
        raise psycopg2.OperationalError(f"no address of {', '.join(hosts)} is known")
    names = ("host", "hostaddr", "port") if len(ports) > 1 else ("host", "hostaddr")
    return dict(zip(names, map(",".join, zip(*found))))


def _find(hosts: list[str], ports: list[str], found: list[tuple[str, str, str]]) -> None:
    """Add each host, address and port as it is found; what is no name needs no address."""
    for host, port in zip(hosts, ports):
        if _NO_NAME.fullmatch(host):
            found.append((host, "", port))
            continue
        with suppress(OSError, UnicodeError):
            for *_, address in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM):
                found.append((host, str(address[0]), port))


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
