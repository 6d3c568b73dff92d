"""How PostgreSQL is connected to: names, several hosts, and connections that are idle for a while."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from flask import Flask

from taskapi.config import SettingsError
from taskapi.database.models import db
from tests.people import Person
from tests.servers import Proxy
from tests.test_faults import UNAVAILABLE

HOSTS = [
    "localhost:{port}",  # which is ::1 first, where no server listens
    "127.0.0.1:{port}",
    "127.0.0.1:{port},away.invalid:{port}",
    "away.invalid:{port},localhost:{port}",
    "a..b:{port},localhost:{port}",
    "%2Fnowhere:{port},localhost:{port}",
    "away.invalid,localhost/{name}?port={port}",
    "away.invalid:{port}/{name}?hostaddr=127.0.0.1",
    "[::1]:{port},127.0.0.1:{port}",
    "[::1]:{port},localhost:{port}",
]

MakeApp = Callable[..., Flask]


@pytest.fixture
def database_url(postgresql_url: str) -> str:
    """PostgreSQL alone."""
    return postgresql_url


@pytest.fixture
def proxy(postgresql_url: str) -> Iterator[Proxy]:
    """The database at a port of 127.0.0.1."""
    with Proxy(postgresql_url, b"nothing", run_it=False, times=0) as proxy:
        yield proxy


@pytest.mark.parametrize("hosts", HOSTS)
def test_hosts_are_tried_in_turn(make_app: MakeApp, proxy: Proxy, hosts: str) -> None:
    """Each address of each host is tried (LIBPQ-MULTIPLE-HOSTS). A host without an address is skipped."""
    name = proxy.url.rpartition("/")[2].partition("?")[0]
    hosts = (hosts if "?" in hosts else hosts + "/{name}").format(port=proxy.server_address[1], name=name)
    ana = Person(make_app(DATABASE_URL=f"postgresql://postgres@{hosts}"))

    assert ana.call("GET").json == []


@pytest.mark.parametrize(
    ("hosts", "problem"),
    [
        ("away.invalid,a..b", "no address of away.invalid, a..b is known"),
        ("%2Fnowhere", 'connection to server on socket "/nowhere/'),
        ("%40nowhere", 'connection to server on socket "@nowhere/'),
    ],
)
def test_host_that_is_not_there_answers_503(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture, hosts: str, problem: str
) -> None:
    """The log names the host. A path, or a name that begins with @, is a socket of this machine."""
    response = Person(make_app(DATABASE_URL=f"postgresql://a:hunter2@{hosts}/taskapi")).call("GET")

    assert (response.status_code, response.json) == (503, UNAVAILABLE)
    assert vars(caplog.records[-1])["error"].startswith(f"OperationalError {problem}")


def test_silent_name_server_answers_503(make_app: MakeApp, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name lookup counts towards the deadline, and does not block a gevent worker, as libpq's would."""
    answered, look_up = Event(), socket.getaddrinfo

    def hang(*args: Any, **options: Any) -> Any:
        answered.wait()
        return look_up(*args, **options)

    monkeypatch.setattr("taskapi.database.engine.REQUEST_LIMIT", 0.2)
    monkeypatch.setattr("socket.getaddrinfo", hang)
    ana = Person(make_app(DATABASE_URL=proxy.url.replace("127.0.0.1", "localhost")))
    others = {*threading.enumerate()}
    response = ana.call("GET")
    [lookup] = {*threading.enumerate()} - others
    answered.set()

    assert (response.status_code, response.json) == (503, UNAVAILABLE)
    assert lookup.daemon  # and a process that stops need not wait for it
    monkeypatch.undo()
    assert ana.call("GET").status_code == 200


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        ("localhost/{name}", {"PGPORT": "{port}"}),
        ("/{name}", {"PGHOST": "127.0.0.1", "PGPORT": "{port}"}),
        ("away.invalid:{port}/{name}", {"PGHOSTADDR": "127.0.0.1"}),
        ("away.invalid/{name}&service=x", {"PGSERVICEFILE": "{file}"}),
        ("away.invalid/{name}", {"PGSERVICEFILE": "{file}", "PGSERVICE": "x"}),
    ],
)
def test_environment_has_its_say(
    make_app: MakeApp, proxy: Proxy, tmp_path: Path, url: str, settings: dict[str, str]
) -> None:
    """libpq's variables give what the URL leaves out, such as a port or an address."""
    name, port, file = proxy.url.rpartition("/")[2], proxy.server_address[1], tmp_path / "services"
    file.write_text(f"[x]\nhostaddr=127.0.0.1\nport={port}\n")
    with pytest.MonkeyPatch.context() as environment:
        for setting, value in settings.items():
            environment.setenv(setting, value.format(port=port, file=file))
        ana = Person(make_app(DATABASE_URL="postgresql://postgres@" + url.format(name=name, port=port)))

        assert ana.call("GET").json == []


@pytest.mark.parametrize("hosts", ["localhost", "localhost,localhost,localhost"])
def test_hosts_and_ports_must_be_as_many(make_app: MakeApp, hosts: str) -> None:
    """Otherwise the start stops."""
    with pytest.raises(SettingsError, match="DATABASE_URL is refused by libpq"):
        make_app(DATABASE_URL=f"postgresql:///x?host={hosts}&port=5432,5433")


def test_slow_name_is_waited_for(make_app: MakeApp, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is no other host, a slow lookup is waited for."""
    look_up = socket.getaddrinfo

    def dawdle(*args: Any, **options: Any) -> Any:
        time.sleep(0.5)
        return look_up(*args, **options)

    monkeypatch.setattr("taskapi.database.postgresql.LOOKUP_LIMIT", 0.1)
    monkeypatch.setattr("socket.getaddrinfo", dawdle)

    assert Person(make_app(DATABASE_URL=proxy.url.replace("127.0.0.1", "localhost"))).call("GET").json == []


def test_hanging_name_is_passed_over(make_app: MakeApp, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another host is known by then, a hanging lookup is not waited for."""
    answered, look_up = Event(), socket.getaddrinfo

    def hang(host: str, *args: Any, **options: Any) -> Any:
        if host == "slow.invalid":
            answered.wait()
        return look_up(host, *args, **options)

    monkeypatch.setattr("taskapi.database.postgresql.LOOKUP_LIMIT", 0.2)
    monkeypatch.setattr("socket.getaddrinfo", hang)
    hosts = "localhost:{0},slow.invalid:{0}".format(proxy.server_address[1])
    ana = Person(make_app(DATABASE_URL=f"postgresql://postgres@{hosts}/{proxy.url.rpartition('/')[2]}"))
    response = ana.call("GET")
    answered.set()

    assert response.json == []


def test_address_is_tried_once(make_app: MakeApp, proxy: Proxy) -> None:
    """Name services may give each address several times."""
    app = make_app(DATABASE_URL=proxy.url.replace("127.0.0.1", "localhost"))
    with app.app_context(), db.engines["autocommit"].connect() as connection:
        raw: Any = connection.connection.dbapi_connection
        addresses = raw.info.dsn_parameters["hostaddr"].split(",")
        assert sorted(addresses) == sorted({*addresses, "127.0.0.1"})


@pytest.mark.parametrize(("parameters", "seconds"), [("", [30, 10, 3]), ("&keepalives_idle=5", [5, 10, 3])])
def test_silence_is_asked_about(make_app: MakeApp, proxy: Proxy, parameters: str, seconds: list[int]) -> None:
    """TCP keepalive keeps idle connections open in routers, and finds connections that are cut."""
    app = make_app(DATABASE_URL=proxy.url + parameters)
    with app.app_context(), db.engines["autocommit"].connect() as connection:
        raw: Any = connection.connection.dbapi_connection
        with socket.socket(fileno=socket.dup(raw.fileno())) as end:
            options = [socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT]
            assert [end.getsockopt(socket.IPPROTO_TCP, option) for option in options] == seconds
