"""The cache of an issuer's keys: who waits, how often it fetches, what outlives the endpoint. Tests set its clock."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Flask

from tests.keyserver import DRIP, DRIP_GZIP, Answer, Clock, KeyServer, drip, hang, http, key_set, silent
from tests.servers import PATIENCE, silent_server
from tests.tokens import INVALID, ISSUER, NO_KEYS, Members, ask, ed25519, forge, me_app

ALWAYS: Members = {"exp": 253402300799}
OLD, NEW = ed25519("old"), ed25519("new")
KNOWN, ROTATED, UNKNOWN = OLD.token(claims=ALWAYS), NEW.token(claims=ALWAYS), ed25519("x").token(claims=ALWAYS)
DOWN = http(b"", "500 Internal Server Error")
HOUR = 3600.0

# Each is refused before its key is looked for.
HOPELESS = [
    "x", "x.y.z", "é", ".", "..", forge(), forge({"alg": "none"}), OLD.token({"crit": ["x"]}), OLD.token({"kid": 1}),
    OLD.token({"zip": "DEF"}), OLD.token({"typ": "dpop+jwt"}), OLD.token({"b64": False}), OLD.token({"alg": "RS512"}),
    OLD.token({"alg": ...}), f"{UNKNOWN}=", f"{UNKNOWN}.x", UNKNOWN.rpartition(".")[0], f"{UNKNOWN}, Bearer {UNKNOWN}",
]


@pytest.fixture
def server(clock: Clock) -> Iterator[KeyServer]:
    """The issuer publishes one key."""
    with KeyServer(OLD.jwk()) as server:
        yield server


@pytest.fixture
def app(server: KeyServer) -> Flask:
    """It has fetched no keys yet."""
    return me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER)


@pytest.fixture
def running(app: Flask) -> Flask:
    """It has the issuer's key."""
    assert ask(app, KNOWN).status_code == 200
    return app


def _statuses(app: Flask, *tokens: str) -> list[int]:
    return [ask(app, token).status_code for token in tokens]


def test_nothing_is_fetched_before_a_token_needs_a_key(app: Flask, server: KeyServer) -> None:
    """A start does not depend on the endpoint, and a token that no key could verify causes no fetch."""
    client = app.test_client()

    assert client.get("/healthz").status_code == 200
    assert client.get("/api/tasks").status_code == 401
    assert _statuses(app, *HOPELESS) == [401] * len(HOPELESS)
    assert server.asked == []
    assert _statuses(app, KNOWN) == [200]
    assert server.asked == ["/keys"]


def test_hopeless_tokens_cause_no_fetch_later_either(running: Flask, server: KeyServer, clock: Clock) -> None:
    """With keys, a token that is refused for its form, its algorithm or its claims causes no fetch."""
    wrong = [OLD.token(claims=claims) for claims in ({"exp": 0}, {"iss": "x"}, {"sub": 1}, {"nbf": 253402300799})]

    assert _statuses(running, *HOPELESS, *wrong) == [401] * (len(HOPELESS) + len(wrong))
    clock.now += 60
    assert _statuses(running, *HOPELESS, *wrong) == [401] * (len(HOPELESS) + len(wrong))
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
    """A new key is fetched with its first token, and the one that is no longer published is gone."""
    server.publish(NEW.jwk())

    assert _statuses(running, ROTATED, ROTATED) == [200, 200]
    assert len(server.asked) == 2
    assert _statuses(running, KNOWN) == [401]


def test_first_load_and_renewal_do_not_count(app: Flask, server: KeyServer, clock: Clock) -> None:
    """A key that is rotated right after a first load or a renewal works at its first use, too."""
    assert _statuses(app, KNOWN) == [200]
    server.publish(NEW.jwk())
    assert _statuses(app, ROTATED) == [200]

    clock.now += 300
    assert _statuses(app, ROTATED, UNKNOWN) == [200, 401]  # the renewal, which the second joins, and a fetch of its own
    assert len(server.asked) == 4


def test_next_rotation_waits_out_the_30_s(running: Flask, server: KeyServer, clock: Clock) -> None:
    """After any fetch for an unknown key, even one that brought it, the next one comes 30 s later."""
    statuses = []
    for seconds in (0, 10, 19, 1):
        clock.now += seconds
        pair = ed25519(f"x{clock.now}")
        server.publish(pair.jwk())
        statuses += _statuses(running, pair.token(claims=ALWAYS))

    assert statuses == [200, 401, 401, 200]
    assert len(server.asked) == 3


def test_key_rotated_during_a_fetch_works_at_its_first_use(running: Flask, server: KeyServer, clock: Clock) -> None:
    """A fetch that began before the rotation is followed by one that began after it."""
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


def test_known_key_does_not_wait_for_the_renewal(running: Flask, server: KeyServer, clock: Clock) -> None:
    """A known key works at once while the renewal hangs; the keys of the renewal count when they come."""
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
    assert time.monotonic() - began < 2  # a request waits 3 s for a fetch
    assert len(server.asked) == 2

    server.let_go.set()
    assert _statuses(running, ROTATED, KNOWN) == [200, 401]


def test_known_key_does_not_wait_for_an_endpoint_that_hangs(running: Flask, server: KeyServer, clock: Clock) -> None:
    """Renewals that hang do not pile up, and a known key works at once during each."""
    server.answer = hang
    server.was_asked.clear()
    began = time.monotonic()
    for _ in range(20):
        clock.now += 300
        assert _statuses(running, KNOWN) == [200]
    assert server.was_asked.wait(PATIENCE)

    assert time.monotonic() - began < 2  # a request waits 3 s for a fetch
    assert len(server.asked) == 2


def test_unknown_key_makes_no_other_request_wait(running: Flask, server: KeyServer) -> None:
    """A request with a known key is served while another request waits for a fetch that hangs."""
    server.answer = hang
    server.was_asked.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, running, UNKNOWN)
        assert server.was_asked.wait(PATIENCE)

        assert _statuses(running, KNOWN) == [200]
        assert not waiting.done()
        server.let_go.set()
        assert waiting.result().json == INVALID


@pytest.mark.slow
@pytest.mark.parametrize("is_down", [False, True])
def test_flood_of_unknown_keys_causes_one_fetch_in_30_s(
    running: Flask, server: KeyServer, clock: Clock, is_down: bool
) -> None:
    """Eight at a time: one fetch, though it may fail, until 30 s are over."""
    server.answer = DOWN if is_down else server.answer
    flood = [ed25519(f"x{number}").token(claims=ALWAYS) for number in range(40)] + [OLD.token({"kid": ...})] * 8
    flood += [OLD.token()] * 8
    flood[40:] = [token[:-6] + "AAAAAA" for token in flood[40:]]  # no key id or a known one, and a wrong signature
    for fetches, seconds in ((2, 0), (2, 29), (3, 1), (3, 29), (4, 1)):
        clock.now += seconds
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda token: ask(running, token).json, flood))

        assert answers == [INVALID] * len(flood)
        assert len(server.asked) == fetches
        assert _statuses(running, KNOWN) == [200]


def test_known_keys_outlive_the_endpoint_by_a_day(running: Flask, server: KeyServer, clock: Clock) -> None:
    """A known key works for a day of failed renewals. After that the answer is 503 until a fetch succeeds."""
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
    """Three outages of half a day are not an outage of a whole day."""
    for _ in range(3):
        clock.now += 300
        server.answer = DOWN
        assert _statuses(running, KNOWN, UNKNOWN) == [200, 401]
        clock.now += 12 * HOUR
        server.publish(OLD.jwk())
        assert _statuses(running, KNOWN, UNKNOWN) == [200, 401]


def test_withdrawn_key_is_refused_after_days_without_a_request(
    running: Flask, server: KeyServer, clock: Clock
) -> None:
    """Keys that were fetched more than a day ago are renewed before they are used, if the endpoint answers."""
    server.publish(NEW.jwk())
    clock.now += 25 * HOUR

    assert _statuses(running, KNOWN, ROTATED) == [401, 200]


def test_known_key_works_after_days_without_a_request_and_an_endpoint(
    running: Flask, server: KeyServer, clock: Clock
) -> None:
    """The day of a failing endpoint begins with the first fetch that fails."""
    server.answer = DOWN
    clock.now += 25 * HOUR

    assert _statuses(running, KNOWN, UNKNOWN) == [200, 401]


def test_first_load_that_fails_answers_503(app: Flask, server: KeyServer, clock: Clock) -> None:
    """Without keys no token is called wrong; a second later the service fetches them again."""
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
    """Where no server listens there are no keys."""
    app = me_app(JWT_JWKS_URL="http://127.0.0.1:1/keys", JWT_ISSUER=ISSUER)

    assert (ask(app, KNOWN).status_code, ask(app, KNOWN).json) == (503, NO_KEYS)


def test_fetch_that_cannot_begin_is_begun_again(app: Flask, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no thread can be started, one request fails, and a later one fetches the keys."""

    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("taskapi.auth.keys.Thread", NoThread)
        assert _statuses(app, KNOWN) == [500]
    clock.now += 1
    assert _statuses(app, KNOWN) == [200]


@pytest.mark.slow
def test_slow_endpoint_is_given_up_after_3_s(server: KeyServer, app: Flask) -> None:
    """A request waits no longer for an answer that comes a byte at a time than for any other."""
    server.answer = drip
    began = time.monotonic()

    assert ask(app, KNOWN).json == NO_KEYS
    assert 2.5 < time.monotonic() - began < 4


def test_late_keys_count(server: KeyServer, app: Flask, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys count when they come, though no request waits for them any more, and meanwhile no second fetch begins."""
    monkeypatch.setattr("taskapi.auth.keys.WAIT_LIMIT", 0.1)
    server.answer = hang
    assert _statuses(app, KNOWN) == [503]
    clock.now += 4
    assert _statuses(app, KNOWN) == [503]

    server.let_go.set()
    deadline = time.monotonic() + PATIENCE
    while ask(app, KNOWN).status_code != 200:
        assert time.monotonic() < deadline
    assert server.asked == ["/keys"]


@pytest.mark.parametrize(
    ("answer", "start"),
    [
        pytest.param(silent, b"", id="silent"),
        pytest.param(drip, DRIP, id="byte-by-byte"),
        pytest.param(drip, DRIP_GZIP, id="byte-by-byte-in-gzip"),
    ],
)
def test_fetch_ends_at_its_limit(
    server: KeyServer, app: Flask, clock: Clock, monkeypatch: pytest.MonkeyPatch, answer: Answer, start: bytes
) -> None:
    """A fetch hangs up at its limit; else each new one would leave a thread and a connection behind for hours."""
    monkeypatch.setattr("taskapi.auth.jwks.FETCH_LIMIT", 0.2)
    server.answer, server.drip_start = answer, start

    assert ask(app, KNOWN).json == NO_KEYS
    assert server.left.wait(2)

    server.publish(OLD.jwk())
    clock.now += 1
    assert _statuses(app, KNOWN) == [200]


def test_handshake_ends_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never begins the TLS handshake does not hold a thread without end."""
    monkeypatch.setattr("taskapi.auth.jwks.FETCH_LIMIT", 0.2)
    monkeypatch.setattr("taskapi.auth.keys.WAIT_LIMIT", 0.1)
    others = {*threading.enumerate()}
    with silent_server() as port:
        app = me_app(JWT_JWKS_URL=f"https://127.0.0.1:{port}/keys", JWT_ISSUER=ISSUER)

        assert ask(app, KNOWN).json == NO_KEYS
        [fetch] = [thread for thread in threading.enumerate() if thread not in others and "_load" in thread.name]
        assert fetch.daemon  # and the process need not wait for it
        fetch.join(2)
        assert not fetch.is_alive()


def test_request_waits_no_longer_than_the_limit(
    running: Flask, server: KeyServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is for all that a request waits for: it does not join the same fetch twice."""
    monkeypatch.setattr("taskapi.auth.keys.WAIT_LIMIT", 0.5)
    server.answer = hang
    clock.now += 300
    assert _statuses(running, KNOWN) == [200]
    began = time.monotonic()

    assert _statuses(running, UNKNOWN) == [401]
    assert 0.4 < time.monotonic() - began < 0.9
