"""The cache of an issuer's keys: who waits, how often it fetches, what outlives the endpoint; the clock is ours."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask

from tests.keyserver import Answer, Clock, KeyServer, drip, hang, http, key_set, silent
from tests.servers import PATIENCE, silent_server
from tests.tokens import HEADER, INVALID, ISSUER, NO_KEYS, Members, ask, ed25519, forge, me_app

ALWAYS: Members = {"exp": 253402300799}
OLD, NEW = ed25519("old"), ed25519("new")
KNOWN, ROTATED, UNKNOWN = OLD.token(claims=ALWAYS), NEW.token(claims=ALWAYS), ed25519("x").token(claims=ALWAYS)
DOWN = http(b"", "500 Internal Server Error")
HOUR = 3600.0


@pytest.fixture
def server(clock: Clock) -> Iterator[KeyServer]:
    """The issuer publishes one key."""
    with KeyServer(OLD.jwk()) as server:
        yield server


@pytest.fixture
def app(server: KeyServer) -> Flask:
    """It has asked for no keys yet."""
    return me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER)


@pytest.fixture
def running(app: Flask) -> Flask:
    """It has the issuer's key."""
    assert ask(app, KNOWN).status_code == 200
    return app


def _statuses(app: Flask, *tokens: str) -> list[int]:
    return [ask(app, token).status_code for token in tokens]


def test_nothing_is_fetched_before_a_token_needs_a_key(app: Flask, server: KeyServer) -> None:
    """A start does not depend on the endpoint, and what no key could verify costs no fetch."""
    client = app.test_client()
    hopeless = ["x", "x.y.z", forge(), forge({"alg": "none"}), forge(HEADER | {"alg": "EdDSA", "crit": ["x"]}), "é"]

    assert client.get("/healthz").status_code == 200
    assert client.get("/api/tasks").status_code == 401
    assert _statuses(app, *hopeless) == [401] * len(hopeless)
    assert server.asked == []
    assert _statuses(app, KNOWN) == [200]
    assert server.asked == ["/keys"]


def test_keys_are_fetched_once_for_many(app: Flask, server: KeyServer) -> None:
    """Requests that come at once while there are no keys share one fetch."""
    server.answer = hang
    with ThreadPoolExecutor(8) as pool:
        statuses = pool.map(lambda _: ask(app, KNOWN).status_code, range(8))
        assert server.was_asked.wait(PATIENCE)
        server.let_go.set()

        assert list(statuses) == [200] * 8
    assert server.asked == ["/keys"]


def test_rotated_key_works_at_its_first_use(running: Flask, server: KeyServer) -> None:
    """A new key is there when its first token is, and the one that is no longer published is gone."""
    server.publish(NEW.jwk())

    assert _statuses(running, ROTATED, ROTATED) == [200, 200]
    assert len(server.asked) == 2
    assert _statuses(running, KNOWN) == [401]


def test_rotations_need_not_wait_for_each_other(running: Flask, server: KeyServer, clock: Clock) -> None:
    """A fetch that brought what was asked for is not one in vain, but for one that shows other keys each time."""
    statuses = []
    for seconds in (0, 10, 10, 30):
        clock.now += seconds
        pair = ed25519(f"x{clock.now}")
        server.publish(pair.jwk())
        statuses += _statuses(running, pair.token(claims=ALWAYS))

    assert statuses == [200, 200, 401, 200]
    assert len(server.asked) == 4


def test_key_rotated_during_a_fetch_works_at_its_first_use(running: Flask, server: KeyServer, clock: Clock) -> None:
    """A fetch that began before the rotation is not the last word."""
    server.was_asked.clear()
    server.answer = hang  # and then the old key
    clock.now += HOUR
    assert _statuses(running, KNOWN) == [200]
    assert server.was_asked.wait(PATIENCE)

    server.answer = key_set(NEW.jwk())
    threading.Timer(0.3, server.let_go.set).start()
    assert _statuses(running, ROTATED) == [200]


def test_key_replaced_under_its_id_works_at_its_first_use(running: Flask, server: KeyServer) -> None:
    """Not every issuer gives a new key a new id."""
    replaced = ed25519("old")
    server.publish(replaced.jwk())

    assert _statuses(running, replaced.token(claims=ALWAYS)) == [200]
    assert len(server.asked) == 2
    assert _statuses(running, KNOWN) == [401]


def test_renewal_makes_nobody_wait(running: Flask, server: KeyServer, clock: Clock) -> None:
    """A known key works at once while the renewal hangs; what the renewal brings is taken when it comes."""
    server.publish(NEW.jwk())
    server.answer = hang
    server.was_asked.clear()
    clock.now += 299
    assert _statuses(running, KNOWN) == [200]
    assert server.asked == ["/keys"]

    clock.now += 1
    began = time.monotonic()
    assert _statuses(running, KNOWN) == [200]
    assert server.was_asked.wait(PATIENCE)
    assert _statuses(running, KNOWN) == [200]
    assert time.monotonic() - began < 2  # a fetch is waited for 3 s
    assert len(server.asked) == 2

    server.let_go.set()
    assert _statuses(running, ROTATED, KNOWN) == [200, 401]


def test_unknown_key_makes_nobody_else_wait(running: Flask, server: KeyServer) -> None:
    """Whoever has a known key is served while another request waits for a fetch that hangs."""
    server.answer = hang
    server.was_asked.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, running, UNKNOWN)
        assert server.was_asked.wait(PATIENCE)

        assert _statuses(running, KNOWN) == [200]
        assert not waiting.done()
        server.let_go.set()
        assert waiting.result().json == INVALID


@pytest.mark.parametrize("is_down", [False, True])
def test_flood_of_unknown_keys_causes_one_fetch_in_30_s(
    running: Flask, server: KeyServer, clock: Clock, is_down: bool
) -> None:
    """Eight at a time: one fetch, though it may fail, until 30 s are over."""
    server.answer = DOWN if is_down else server.answer
    flood = [ed25519(f"x{number}").token(claims=ALWAYS) for number in range(40)] + [OLD.token({"kid": ...})] * 8
    flood += [OLD.token()] * 8
    flood[40:] = [token[:-6] + "AAAAAA" for token in flood[40:]]  # no key id or a known one, and nobody's signature
    for fetches, seconds in ((2, 0), (2, 29), (3, 1), (3, 29), (4, 1)):
        clock.now += seconds
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda token: ask(running, token).json, flood))

        assert answers == [INVALID] * len(flood)
        assert len(server.asked) == fetches
        assert _statuses(running, KNOWN) == [200]


def test_known_keys_outlive_the_endpoint_by_a_day(running: Flask, server: KeyServer, clock: Clock) -> None:
    """For a day of failed renewals nothing changes for a known key; after that there are no keys, until there are."""
    clock.now += 300
    server.answer = DOWN
    assert _statuses(running, KNOWN, UNKNOWN) == [200, 401]  # the second waits for what the first has begun
    for _ in range(24):
        assert _statuses(running, KNOWN, UNKNOWN) == [200, 401]
        clock.now += HOUR
    assert _statuses(running, KNOWN) == [200]

    clock.now += 1
    responses = [ask(running, KNOWN), ask(running, UNKNOWN)]
    assert [(response.status_code, response.json) for response in responses] == [(503, NO_KEYS)] * 2

    server.publish(NEW.jwk())
    clock.now += 1
    assert _statuses(running, ROTATED, KNOWN) == [200, 401]


def test_day_begins_anew_when_the_endpoint_was_back(running: Flask, server: KeyServer, clock: Clock) -> None:
    """Two nights of half a day each are not one of a whole day."""
    for _ in range(3):
        clock.now += 300
        server.answer = DOWN
        assert _statuses(running, KNOWN, UNKNOWN) == [200, 401]
        clock.now += 12 * HOUR
        server.publish(OLD.jwk())
        assert _statuses(running, KNOWN, UNKNOWN) == [200, 401]


def test_withdrawn_key_is_not_believed_after_days_without_a_request(
    running: Flask, server: KeyServer, clock: Clock
) -> None:
    """Keys last seen more than a day ago are looked at again before they are believed, if the endpoint is there."""
    server.publish(NEW.jwk())
    clock.now += 25 * HOUR

    assert _statuses(running, KNOWN, ROTATED) == [401, 200]


def test_first_load_that_fails_answers_503(app: Flask, server: KeyServer, clock: Clock) -> None:
    """Nobody is told that a token is wrong which nobody could check; a second later it is tried again."""
    server.answer = DOWN
    responses = [ask(app, token) for token in (KNOWN, UNKNOWN, KNOWN)]

    assert [(response.status_code, response.json) for response in responses] == [(503, NO_KEYS)] * 3
    assert [response.headers["Retry-After"] for response in responses] == ["1"] * 3
    assert not any("WWW-Authenticate" in response.headers for response in responses)
    assert len(server.asked) == 1

    server.publish(OLD.jwk())
    clock.now += 0.5
    assert _statuses(app, KNOWN) == [503]
    clock.now += 0.5
    assert _statuses(app, KNOWN) == [200]
    assert len(server.asked) == 2


def test_unreachable_endpoint_answers_503(clock: Clock) -> None:
    """Where nobody listens there are no keys."""
    app = me_app(JWT_JWKS_URL="http://127.0.0.1:1/keys", JWT_ISSUER=ISSUER)

    assert (ask(app, KNOWN).status_code, ask(app, KNOWN).json) == (503, NO_KEYS)


def test_slow_endpoint_is_given_up_after_3_s(server: KeyServer, app: Flask) -> None:
    """An answer that comes a byte at a time is waited for no longer than any other."""
    server.answer = drip
    began = time.monotonic()

    assert ask(app, KNOWN).json == NO_KEYS
    assert 2.5 < time.monotonic() - began < 4


def test_late_answer_changes_nothing(server: KeyServer, app: Flask, clock: Clock) -> None:
    """Keys that come after a newer fetch has brought others are older, and not taken."""
    server.answer = hang  # and then the old key
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, app, KNOWN)
        assert server.was_asked.wait(PATIENCE)
        clock.now += 4
        server.answer = key_set(NEW.jwk())
        assert _statuses(app, ROTATED) == [200]

        server.let_go.set()
        assert waiting.result().json == INVALID
    assert _statuses(app, ROTATED, KNOWN) == [200, 401]


def test_late_answer_is_better_than_none(
    server: KeyServer, app: Flask, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there are no keys, those of a fetch that was given up count; an endpoint may always be slow."""
    monkeypatch.setattr("taskapi.auth.keys.WAIT_LIMIT", 0.2)
    server.answer = hang
    assert ask(app, KNOWN).json == NO_KEYS
    clock.now += 4
    server.answer = silent
    assert ask(app, KNOWN).json == NO_KEYS

    server.let_go.set()
    deadline = time.monotonic() + PATIENCE
    while ask(app, KNOWN).status_code != 200:
        assert time.monotonic() < deadline


@pytest.mark.parametrize("answer", [silent, drip])
def test_fetch_ends_at_its_limit(
    server: KeyServer, app: Flask, clock: Clock, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    """A fetch that is given up hangs up, or each new one would leave a thread and a connection behind for hours."""
    for module in ("keys", "jwks"):
        monkeypatch.setattr(f"taskapi.{module}.FETCH_LIMIT", 0.2)
    server.answer = answer

    assert ask(app, KNOWN).json == NO_KEYS
    assert server.left.wait(2)


def test_handshake_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes connections and says nothing holds no thread for ever: TLS waits for its first word."""
    for module in ("keys", "jwks"):
        monkeypatch.setattr(f"taskapi.{module}.FETCH_LIMIT", 0.2)
    others = {*threading.enumerate()}
    with silent_server() as port:
        app = me_app(JWT_JWKS_URL=f"https://127.0.0.1:{port}/keys", JWT_ISSUER=ISSUER)

        assert ask(app, KNOWN).json == NO_KEYS
        [fetch] = {*threading.enumerate()} - others
        assert fetch.daemon  # and the process need not wait for it
        fetch.join(2)
        assert not fetch.is_alive()


def test_request_waits_no_longer_than_the_limit(
    server: KeyServer, app: Flask, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a fetch that does not end at its own, as where a name takes long to resolve."""
    monkeypatch.setattr("taskapi.auth.keys.WAIT_LIMIT", 0.2)
    server.answer = hang
    began = time.monotonic()

    assert ask(app, KNOWN).json == NO_KEYS
    assert time.monotonic() - began < 2
