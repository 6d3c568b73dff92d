"""What an endpoint may answer, and which of the keys that it publishes count."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask

from tests.keyserver import Answer, Clock, KeyServer, flood, http, key_set, reset
from tests.servers import PATIENCE
from tests.people import SECRET
from tests.tokens import (
    INVALID, ISSUER, NO_KEYS, USER, KeyPair, Members, ask, b64, dump, ed448, ed25519, forge, me_app, p256, rsa_key
)

ALWAYS: Members = {"exp": 253402300799}
GOOD = ed25519("good")
TOKEN, UNKNOWN = GOOD.token(claims=ALWAYS), ed25519("unknown").token(claims=ALWAYS)
GOOD_SET = dump({"keys": [GOOD.jwk()]})
NAMELESS, ED448 = p256(), ed448()
P384 = KeyPair("ES384", ec.generate_private_key(ec.SECP384R1()), "k1")
SECP256K1 = KeyPair("ES256K", ec.generate_private_key(ec.SECP256K1()), "k1")


def _cut(server: KeyServer, connection: socket.socket) -> None:
    connection.sendall(http(GOOD_SET)[:-20])


ANSWERS: dict[str, Answer] = {
    "html": http(b"<!doctype html><title>Welcome</title>"),
    "nothing": b"",
    "reset-connection": reset,
    "half-a-body": _cut,
    "half-a-json": http(GOOD_SET[:-20]),
    "empty-body": http(b""),
    "status-204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "status-500": http(GOOD_SET, "500 Internal Server Error"),
    "status-404": http(GOOD_SET, "404 Not Found"),
    "status-206": http(GOOD_SET, "206 Partial Content"),
    "redirect": http(b"", "302 Found", "Location: /elsewhere"),
    "permanent-redirect": http(GOOD_SET, "308 Permanent Redirect", "Location: /elsewhere"),
    "no-http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "status-line-without-end": b"HTTP/1.1 200 " + b"O" * 70_000,
    "too-many-headers": http(GOOD_SET, "200 OK", *["X: y"] * 200),
    "65-kib": http(GOOD_SET + b" " * (65 * 1024 - len(GOOD_SET))),
    "one-byte-over-64-kib": http(GOOD_SET + b" " * (64 * 1024 + 1 - len(GOOD_SET))),
    "no-utf-8": http(GOOD_SET.replace(b"good", b"\xff\xfe")),
    "utf-16": http(GOOD_SET.decode().encode("utf-16")),
    "deep": http(b"[" * 60_000),
    "nan": http(GOOD_SET.replace(b"{", b'{"x": NaN, ', 1)),
    "list": http(dump([GOOD.jwk()])),
    "string": http(b'"keys"'),
    "null": http(b"null"),
    "number": http(b"1"),
    "one-key-alone": http(dump(GOOD.jwk())),
    "no-keys-member": http(b"{}"),
    "empty-set": key_set(),
    "keys-null": http(b'{"keys": null}'),
    "keys-number": http(b'{"keys": 1}'),
    "keys-text": http(b'{"keys": "abc"}'),
    "keys-object": http(dump({"keys": {"good": GOOD.jwk()}})),
    "no-usable-key": key_set(P384.jwk(), {"kty": "oct", "k": b64(SECRET.encode())}, None),
}

GARBAGE: list[Any] = [
    None, 1, True, "x", [], {}, [GOOD.jwk()], {"kty": None}, {"kty": ["OKP"]}, {"kty": "OKP"}, {"kty": "RSA"},
    {"kty": "EC", "crv": "P-256", "x": "", "y": ""}, {"kty": "EC", "crv": "P-256", "x": b64(b"\1" * 32), "y": 1},
    {"kty": "EC", "crv": "P-256", "x": b64(b"\1" * 32), "y": b64(b"\1" * 32)},  # not on the curve
    {"kty": "OKP", "crv": "Ed25519", "x": "AA"}, {"kty": "OKP", "crv": "Ed25519", "x": "é" * 43},
    {"kty": "OKP", "crv": "Ed25519", "x": None}, {"kty": "OKP", "crv": ["Ed25519"], "x": GOOD.jwk()["x"]},
    {"kty": "RSA", "n": "", "e": ""}, {"kty": "RSA", "n": "*", "e": "AQAB"}, {"kty": "RSA", "n": b64(b"\xff" * 256)},
    {"kty": "RSA", "n": b64(b"\xff" * 256), "e": "AA"}, {"kty": "RSA", "n": b64(b"\xff" * 256), "e": "AQ"},
]

UNFIT: list[Members] = [
    {"use": "enc"}, {"use": "SIG"}, {"use": None}, {"use": ["sig"]}, {"key_ops": []}, {"key_ops": ["sign"]},
    {"key_ops": "verify"}, {"key_ops": None}, {"alg": "RS256"}, {"alg": "ES384"}, {"alg": "HS256"}, {"alg": None},
    {"alg": ["EdDSA"]}, {"kid": 1}, {"kid": None}, {"kid": "other"}, {"kid": ...}, {"kty": "RSA"}, {"kty": ...},
    {"crv": "X25519"}, {"crv": ...}, {"x": ...},
]

# Each would verify the token beside it, if it were taken.
REFUSED: dict[str, tuple[Members, str]] = {
    "symmetric": (
        {"kty": "oct", "k": b64(SECRET.encode()), "kid": "k1", "alg": "HS256"},
        forge({"kid": "k1"}, ALWAYS),
    ),
    **{
        f"{pair.alg}-{members}": (pair.jwk(**members), pair.token(claims=ALWAYS))
        for pair in (ed25519(), p256())
        for members in UNFIT
    },
    "kid-number-and-none-in-the-token": (NAMELESS.jwk(kid=1), NAMELESS.token({"kid": ...}, ALWAYS)),
    "ed448": (ED448.jwk(), ED448.token(claims=ALWAYS)),
    "p384-as-es256": (P384.jwk(), P384.token({"alg": "ES256"}, ALWAYS)),
    "p384": (P384.jwk(), P384.token(claims=ALWAYS)),
    "secp256k1-as-es256": (SECP256K1.jwk(), SECP256K1.token({"alg": "ES256"}, ALWAYS)),
    "secp256k1": (SECP256K1.jwk(), SECP256K1.token(claims=ALWAYS)),
}
TAKEN: list[Members] = [
    {}, {"use": "sig"}, {"alg": "OWN"}, {"key_ops": ["verify"]}, {"key_ops": ["sign", "verify"], "ext": True},
    {"x5c": ["AAAA"], "x5t": "AA", "unknown": {"a": [None]}}, {"d": "A" * 43, "p": "AQ", "q": 1, "oth": []},
]


@pytest.fixture
def server(clock: Clock) -> Iterator[KeyServer]:
    """The issuer's endpoint, in good order at first."""
    with KeyServer(GOOD.jwk()) as server:
        yield server


@pytest.fixture
def app(server: KeyServer) -> Flask:
    """It takes the issuer's tokens."""
    return me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER)


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage()[:13] for record in caplog.records if record.name == "taskapi.auth.keys"]


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_bad_answer_is_survived(
    app: Flask, server: KeyServer, clock: Clock, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    """Whatever comes instead of keys, the first requests get 503, later ones go on; each outage is logged once."""
    server.answer = answer
    assert [ask(app, TOKEN).json for clock.now in (0, 1, 2)] == [NO_KEYS] * 3
    assert _warnings(caplog) == ["no keys from "]

    server.publish(GOOD.jwk())
    clock.now = 3
    assert ask(app, TOKEN).status_code == 200

    server.answer = answer
    clock.now = 400
    assert [ask(app, UNKNOWN).json, ask(app, TOKEN).json] == [INVALID, {"id": USER, "email": None}]
    clock.now = 800
    assert [ask(app, UNKNOWN).json, ask(app, TOKEN).json] == [INVALID, {"id": USER, "email": None}]
    assert _warnings(caplog) == ["no keys from "] * 2
    assert set(server.asked) == {"/keys"}  # no redirect was followed


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(key_set(), "no usable key"), (http(b"{}", "404 Not Found"), "ValueError('status 404, 2 bytes')")],
)
def test_outage_is_logged_with_its_reason(
    app: Flask, server: KeyServer, caplog: pytest.LogCaptureFixture, answer: Answer, reason: str
) -> None:
    """Whoever reads the log learns where to look, and for what."""
    server.answer = answer

    assert ask(app, TOKEN).json == NO_KEYS
    assert [record.getMessage() for record in caplog.records if record.name == "taskapi.auth.keys"] == [
        f"no keys from {server.url}: {reason}"
    ]


def test_no_more_is_read_than_the_limit(app: Flask, server: KeyServer) -> None:
    """An endpoint that sends without end fills nobody's memory."""
    server.answer = flood

    assert ask(app, TOKEN).json == NO_KEYS
    assert server.left.wait(PATIENCE)


def test_key_set_of_64_kib_is_taken(app: Flask, server: KeyServer) -> None:
    """The limit itself is within it."""
    server.answer = http(GOOD_SET + b" " * (64 * 1024 - len(GOOD_SET)))

    assert ask(app, TOKEN).status_code == 200


def test_garbage_among_good_keys_does_no_harm(app: Flask, server: KeyServer) -> None:
    """Each key is read for itself."""
    server.publish(*GARBAGE, GOOD.jwk(), *GARBAGE)

    assert ask(app, TOKEN).status_code == 200


@pytest.mark.parametrize(("jwk", "token"), REFUSED.values(), ids=REFUSED)
def test_unfit_key_is_not_used(app: Flask, server: KeyServer, jwk: Members, token: str) -> None:
    """A key counts for the one algorithm that its publisher means it for, by its own id, and only for signatures."""
    server.publish(jwk, GOOD.jwk())

    assert [ask(app, token).json, ask(app, TOKEN).json] == [INVALID, {"id": USER, "email": None}]


def test_short_rsa_key_is_not_used(app: Flask, server: KeyServer) -> None:
    """RFC 7518 section 3.3 wants 2,048 bits."""
    server.publish(rsa_key("short", 1024).jwk(), rsa_key("long").jwk())

    tokens = [rsa_key("short", 1024).token(claims=ALWAYS), rsa_key("long").token(claims=ALWAYS)]
    assert [ask(app, token).status_code for token in tokens] == [401, 200]


@pytest.mark.parametrize("members", TAKEN, ids=str)
def test_fit_key_is_used(app: Flask, server: KeyServer, members: Members) -> None:
    """alg, use and key_ops may be missing; what else a key carries, private members included, is not looked at."""
    pairs = [ed25519("ed"), p256("ec"), rsa_key("rsa")]
    own = [{name: pair.alg if value == "OWN" else value for name, value in members.items()} for pair in pairs]
    server.publish(*[pair.jwk(**one) for pair, one in zip(pairs, own, strict=True)])

    assert [ask(app, pair.token(claims=ALWAYS)).status_code for pair in pairs] == [200] * 3


def test_token_without_key_id_needs_one_key_that_fits(app: Flask, server: KeyServer, clock: Clock) -> None:
    """It is taken where no other key of its algorithm could be meant."""
    first, second = ed25519("a"), ed25519("b")
    tokens = [pair.token({"kid": ...}, ALWAYS) for pair in (first, second)]
    for jwks, expected in (
        ([first.jwk(), p256().jwk(), rsa_key().jwk()], [200, 401]),
        ([first.jwk(kid=...)], [200, 401]),
        ([first.jwk(), second.jwk()], [401, 401]),
        ([first.jwk(kid=...), second.jwk(kid=...)], [401, 401]),
        ([first.jwk(use="enc"), second.jwk()], [401, 200]),
    ):
        server.publish(*jwks)
        clock.now += 300

        assert ask(app, UNKNOWN).json == INVALID  # waits for the renewal
        assert [ask(app, token).status_code for token in tokens] == expected


def test_two_keys_of_one_id_are_both_tried(app: Flask, server: KeyServer) -> None:
    """An issuer may use a key id for one key of each algorithm, or for a key and its successor."""
    pairs = [ed25519(), p256(), rsa_key(), ed25519()]
    server.publish(*[pair.jwk() for pair in pairs])

    assert [ask(app, pair.token(claims=ALWAYS)).status_code for pair in pairs] == [200] * 4


def test_subset_of_algorithms_is_obeyed(server: KeyServer) -> None:
    """JWT_ALGORITHMS leaves nothing of the others, whatever the endpoint publishes."""
    pairs = [ed25519("ed"), p256("ec"), rsa_key("rsa")]
    server.publish(*[pair.jwk() for pair in pairs])
    tokens = [pair.token(claims=ALWAYS) for pair in pairs]

    for names, expected in (("ES256", [401, 200, 401]), ("RS256, EdDSA", [200, 401, 200])):
        app = me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER, JWT_ALGORITHMS=names)
        assert [ask(app, token).status_code for token in tokens] == expected


def test_no_proxy_is_asked(app: Flask, server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy could answer with keys of its own."""
    with KeyServer() as proxy:
        monkeypatch.setenv("http_proxy", proxy.origin)
        monkeypatch.setenv("ALL_PROXY", proxy.origin)

        assert ask(app, TOKEN).status_code == 200
        assert proxy.asked == []


def test_request_says_no_more_than_it_has_to(app: Flask, server: KeyServer) -> None:
    """What asks has a name, without which some firewalls let nobody in; who it asks for is nobody's business."""
    assert ask(app, TOKEN).status_code == 200
    host = server.origin.removeprefix("http://")
    [head] = server.heads
    assert head[:2] == ["GET /keys HTTP/1.1", f"Host: {host}"]
    assert {*head[2:]} == {"Accept-Encoding: identity", "Accept: application/json", "User-Agent: taskapi"}


def test_https_is_https(server: KeyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that anybody on the way could have changed are never taken for it."""
    monkeypatch.setattr("taskapi.auth.keys.WAIT_LIMIT", 0.2)
    app = me_app(JWT_JWKS_URL=server.url.replace("http:", "https:"), JWT_ISSUER=ISSUER)

    assert (ask(app, TOKEN).status_code, server.asked) == (503, [])


def test_query_of_the_url_is_sent(server: KeyServer) -> None:
    """The whole address is asked for, but for its fragment."""
    app = me_app(JWT_JWKS_URL=f"{server.origin}/a/b%20c?d=e&f=%2F#g", JWT_ISSUER=ISSUER)
    bare = me_app(JWT_JWKS_URL=server.origin, JWT_ISSUER=ISSUER)

    assert [ask(app, TOKEN).status_code, ask(bare, TOKEN).status_code] == [200, 200]
    assert server.asked == ["/a/b%20c?d=e&f=%2F", "/"]
