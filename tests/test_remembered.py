"""Verified tokens are remembered: what is checked on each request all the same, and what is never kept."""

from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import time_machine
from flask import Flask

from taskapi.auth.tokens import identify
from tests.keyserver import Clock, KeyServer
from tests.tokens import EXPIRED, INVALID, ISSUER, NOW, USER, Members, ask, ed25519, forge, hs256, me_app

BEN = "0f8fad5b-d9cb-469f-a165-70867728950e"


@pytest.fixture
def traveller() -> Iterator[time_machine.Traveller]:
    """The time of day, which moves when the test says so."""
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens that PyJWT has verified, in order."""
    tokens: list[str] = []
    decode = jwt.decode

    def note(token: str, *given: Any, **rules: Any) -> Any:
        tokens.append(token)
        return decode(token, *given, **rules)

    monkeypatch.setattr("jwt.decode", note)
    return tokens


def _statuses(app: Flask, *tokens: str) -> list[int]:
    return [ask(app, token).status_code for token in tokens]


@pytest.mark.usefixtures("frozen")
def test_signature_is_verified_once_for_many_requests(decoded: list[str]) -> None:
    """The second request with a token costs no second verification; each token shows its own user."""
    app = me_app()
    ana, ben = forge(claims={"email": "ana@example.com"}), forge(claims={"sub": BEN})

    answers = [ask(app, token).json for token in (ana, ben) * 10]

    assert answers == [{"id": USER, "email": "ana@example.com"}, {"id": BEN, "email": None}] * 10
    assert decoded == [ana, ben]


def test_remembered_token_expires(traveller: time_machine.Traveller, decoded: list[str]) -> None:
    """exp is compared with the time of each request, to the second, with the leeway."""
    app = me_app(JWT_LEEWAY="5")
    token = forge(claims={"exp": NOW + 60.9})

    answers = []
    for second in (NOW, NOW + 64.999, NOW + 65, NOW + 66, NOW + 1e6):
        traveller.move_to(second)
        answers.append(ask(app, token).json)

    assert answers == [{"id": USER, "email": None}] * 2 + [EXPIRED] * 3
    assert decoded == [token]


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_token_of_the_future_is_valid_when_its_time_comes(
    traveller: time_machine.Traveller, decoded: list[str], name: str
) -> None:
    """A refusal is not kept: the same token is verified anew, until it is right."""
    app = me_app(JWT_LEEWAY="0")
    token = forge(claims={name: NOW + 60})

    answers = []
    for second in (NOW, NOW + 59, NOW + 60, NOW + 61):
        traveller.move_to(second)
        answers.append(ask(app, token).json)

    assert answers == [INVALID, INVALID] + [{"id": USER, "email": None}] * 2
    assert decoded.count(token) == 3


def test_expired_token_stays_expired(traveller: time_machine.Traveller) -> None:
    """A token that is first seen after its end is never valid."""
    app = me_app()
    token = forge(claims={"exp": NOW - 31})

    assert [ask(app, token).json for _ in range(3)] == [EXPIRED] * 3


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize(
    "token",
    [forge(claims={"sub": 1}), forge(claims={"iss": "x"}), forge(sign=lambda signed: hs256(signed, b"x" * 32))],
    ids=["claims", "issuer", "signature"],
)
def test_refusal_is_not_kept(decoded: list[str], token: str) -> None:
    """A refused token is verified each time."""
    app = me_app(JWT_ISSUER=ISSUER)

    assert [ask(app, token).json for _ in range(3)] == [INVALID] * 3
    assert decoded.count(token) >= 3


def test_key_that_is_no_longer_published_verifies_nothing(clock: Clock, decoded: list[str]) -> None:
    """After a renewal without its key a remembered token is refused; with its key it is verified anew and passes."""
    old, new = ed25519("old"), ed25519("new")
    first, second = (pair.token(claims={"exp": 253402300799}) for pair in (old, new))
    with KeyServer(old.jwk(), new.jwk()) as server:
        app = me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER)
        assert _statuses(app, first, second, first, second) == [200] * 4
        assert decoded == [first, second]

        server.publish(new.jwk())
        clock.now += 300
        _statuses(app, ed25519("unknown").token())  # waits for the renewal
        decoded.clear()

        assert [ask(app, token).json for token in (first, second) * 2] == [INVALID, {"id": USER, "email": None}] * 2
        assert decoded.count(second) == 1


def test_key_replaced_under_its_id_verifies_nothing_of_the_old(clock: Clock) -> None:
    """What was verified with the key before, of the same id, has to be verified with the new one."""
    old, new = ed25519("k"), ed25519("k")
    token, newer = (pair.token(claims={"exp": 253402300799}) for pair in (old, new))
    with KeyServer(old.jwk()) as server:
        app = me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER)
        assert _statuses(app, token) == [200]
        server.publish(new.jwk())

        assert _statuses(app, newer, token) == [200, 401]


def test_remembered_token_needs_keys_that_are_usable(clock: Clock) -> None:
    """A day after the endpoint went away no token passes, remembered or not."""
    pair = ed25519()
    token = pair.token(claims={"exp": 253402300799})
    with KeyServer(pair.jwk()) as server:
        app = me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER)
        assert _statuses(app, token) == [200]
        server.answer = b""
        clock.now += 300
        _statuses(app, ed25519("unknown").token())  # waits for the renewal
        clock.now += 24 * 3600
        assert _statuses(app, token) == [200]
        clock.now += 1

        assert _statuses(app, token) == [503]


OTHER = "another secret that is as long as the one that tests know"
APART: list[tuple[Members, Members, Members]] = [
    # The settings of an app that takes the token, those of one that does not, and the token's claims.
    ({}, {"JWT_SECRET": OTHER}, {}),
    ({"JWT_ISSUER": ISSUER}, {"JWT_ISSUER": "https://other.example.com"}, {}),
    ({}, {"JWT_ISSUER": "https://other.example.com"}, {}),
    ({"JWT_AUDIENCE": "a"}, {"JWT_AUDIENCE": "b"}, {"aud": "a"}),
    ({}, {"JWT_AUDIENCE": "b"}, {"aud": "a"}),
    ({"JWT_LEEWAY": "300"}, {"JWT_LEEWAY": "30"}, {"nbf": NOW + 200}),
]


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize(("settings", "others", "claims"), APART)
def test_apps_do_not_share_what_they_remember(settings: Members, others: Members, claims: Members) -> None:
    """What one app of a process has verified, another with other settings verifies for itself, and refuses."""
    token = forge(claims=claims)
    taking, refusing = me_app(**settings), me_app(**others)

    assert [ask(app, token).status_code for app in (taking, refusing, taking, refusing)] == [200, 401, 200, 401]


@pytest.mark.usefixtures("frozen")
def test_apps_with_key_sets_do_not_share_what_they_remember() -> None:
    """The same key id at two issuers' URLs means two keys."""
    ours, theirs = ed25519(), ed25519()
    with KeyServer(ours.jwk()) as server, KeyServer(theirs.jwk()) as other:
        apps = [me_app(JWT_JWKS_URL=each.url, JWT_ISSUER=ISSUER) for each in (server, other)]

        assert [ask(app, ours.token()).status_code for app in apps * 2] == [200, 401] * 2


@pytest.mark.usefixtures("frozen")
def test_memory_is_bounded(decoded: list[str]) -> None:
    """A user may have any number of tokens made; the ones that were used longest ago are forgotten."""
    app = me_app()
    keys = app.extensions["taskapi.keys"]
    tokens = [forge(claims={"sub": f"user {number}"}) for number in range(1025)]

    for token in (*tokens, tokens[0], tokens[-1]):
        identify(token, keys, app.config)

    assert decoded == [*tokens, tokens[0]]
