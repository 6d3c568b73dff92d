"""Which of the keys that an issuer publishes are used, and for which tokens; the others are skipped with a WARNING."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flask import Flask
from jwt.algorithms import requires_cryptography as ALGORITHMS

from tests.keyserver import Clock, KeyServer, http
from tests.people import SECRET
from tests.tokens import (
    CLAIMS, INVALID, ISSUER, NO_KEYS, USER, KeyPair, Members, ask, b64, ed448, ed25519, forge, me_app, p256, rsa_key
)

ALWAYS: Members = {"exp": 253402300799}
GOOD = ed25519("good")
TOKEN, UNKNOWN = GOOD.token(claims=ALWAYS), ed25519("unknown").token(claims=ALWAYS)
CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1(), "ES521": ec.SECP521R1(),
    "ES256K": ec.SECP256K1(),
}


@cache
def _pair(algorithm: str) -> KeyPair:
    """Return a key for an algorithm, with the algorithm's name as its id."""
    if algorithm == "EdDSA":
        return ed25519(algorithm)
    if algorithm in CURVES:
        return KeyPair(algorithm, ec.generate_private_key(CURVES[algorithm]), algorithm)
    return rsa_key("rsa")._replace(alg=algorithm, kid=algorithm)


# As Microsoft's libraries for .NET write a key: each member that a key of any kind may have.
EMPTY: Members = {
    "additionalData": {}, "alg": None, "crv": None, "d": None, "dp": None, "dq": None, "e": None, "k": None,
    "key_ops": [], "keyOps": [], "n": None, "oth": [], "p": None, "q": None, "qi": None, "use": None, "x": None,
    "x5c": [], "x5t": None, "x5t#S256": None, "x5u": None, "y": None, "keySize": 2048, "hasPrivateKey": False,
    "cryptoProviderFactory": {"cryptoProviderCache": {}, "customCryptoProvider": None},
}
EMPTY_TEXT = {name: "" for name in EMPTY}

UNFIT: list[Members] = [
    {"use": "enc"}, {"use": "SIG"}, {"use": ["sig"]}, {"key_ops": ["sign"]}, {"key_ops": 1}, {"alg": "RS256"},
    {"alg": "ES384"}, {"alg": "HS256"}, {"alg": ["EdDSA"]}, {"alg": 0}, {"kid": 1}, {"kid": "other"}, {"kid": 0},
    {"kty": "RSA"}, {"kty": ...}, {"kty": "oct"}, {"crv": "X25519"}, {"crv": ...}, {"x": ...},
]
# Each would verify the token beside it, if it were used.
REFUSED: dict[str, tuple[Members, str]] = {
    "symmetric": ({"kty": "oct", "k": b64(SECRET.encode()), "kid": "k1", "alg": "HS256"}, forge({"kid": "k1"}, ALWAYS)),
    **{
        f"{pair.alg}-{members}": (pair.jwk(**members), pair.token(claims=ALWAYS))
        for pair in (ed25519(), p256())
        for members in UNFIT
    },
    **{f"{name}-as-ES256": (_pair(name).jwk(), _pair(name).token({"alg": "ES256"}, ALWAYS)) for name in CURVES},
    **{name: (_pair(name).jwk(), _pair(name).token(claims=ALWAYS)) for name in CURVES},
}
for name in ("ES256-as-ES256", "ES256"):
    del REFUSED[name]  # these are right

TAKEN: list[Members] = [
    {}, {"use": "sig"}, {"alg": "OWN"}, {"key_ops": ["verify"]}, {"key_ops": ["sign", "verify"], "ext": True},
    {"x5c": ["AAAA"], "x5t": "AA", "unknown": {"a": [None]}}, {"use": None, "alg": None, "key_ops": None},
    {"use": "", "alg": "", "key_ops": []}, {"kid": None}, {"kid": ""}, {"kid": ...},
]


@pytest.fixture
def server(clock: Clock) -> Iterator[KeyServer]:
    """The issuer's endpoint."""
    with KeyServer(GOOD.jwk()) as server:
        yield server


@pytest.fixture
def app(server: KeyServer) -> Flask:
    """It takes the issuer's tokens."""
    return me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER)


def _warnings(caplog: pytest.LogCaptureFixture, server: KeyServer) -> list[str]:
    """Return what the log says of keys, after the URL."""
    messages = [record.getMessage() for record in caplog.records if record.name == "taskapi.auth.keys"]
    return [message.removeprefix(f"skipped a key of {server.url}: ") for message in messages]


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_each_algorithm_verifies_tokens_of_pyjwt(server: KeyServer, algorithm: str) -> None:
    """JWT_ALGORITHMS may name each public-key algorithm that PyJWT has."""
    pair, other = _pair(algorithm), p256("other")
    server.publish(*[_pair(name).jwk(alg=name) for name in sorted(ALGORITHMS)])
    app = me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER, JWT_ALGORITHMS=",".join(sorted(ALGORITHMS)))
    token, forged = (
        jwt.encode({**CLAIMS, **ALWAYS}, each.private, each.alg, {"kid": pair.kid}) for each in (pair, other)
    )

    assert ask(app, token).json == {"id": USER, "email": None}
    assert ask(app, forged).json == INVALID


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_algorithm_that_is_not_named_is_refused(server: KeyServer, algorithm: str) -> None:
    """A key without alg serves the algorithms of its kind that JWT_ALGORITHMS names, and no other."""
    pair = _pair(algorithm)
    server.publish(pair.jwk(), GOOD.jwk(), p256().jwk())
    others = ",".join(sorted(ALGORITHMS - {algorithm}))
    app = me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER, JWT_ALGORITHMS=others)

    assert ask(app, pair.token(claims=ALWAYS)).json == INVALID


def test_both_curves_of_eddsa_verify(app: Flask, server: KeyServer) -> None:
    """EdDSA is Ed25519 and Ed448 (RFC 8037 section 3.1)."""
    pairs = [ed25519("25519"), ed448("448")]
    server.publish(*[pair.jwk() for pair in pairs])

    assert [ask(app, pair.token(claims=ALWAYS)).status_code for pair in pairs] == [200, 200]


@pytest.mark.parametrize("empty", [EMPTY, EMPTY_TEXT], ids=["null", "text"])
def test_empty_members_count_as_absent(
    app: Flask, server: KeyServer, caplog: pytest.LogCaptureFixture, empty: Members
) -> None:
    """Keys with all members that there are, most of them null or empty, as .NET writes them, are used."""
    pairs = [_pair(name) for name in ("RS256", "ES256", "EdDSA")]
    server.publish(*[{**empty, **pair.jwk()} for pair in pairs])

    assert [ask(app, pair.token(claims=ALWAYS)).status_code for pair in pairs] == [200] * 3
    assert _warnings(caplog, server) == []


def test_unfit_key_is_not_used(server: KeyServer) -> None:
    """A key counts for the one algorithm that its publisher means it for, by its own id, and only for signatures."""
    for name, (jwk, token) in REFUSED.items():
        server.publish(jwk, GOOD.jwk())
        app = me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER)

        assert [ask(app, token).json, ask(app, TOKEN).json] == [INVALID, {"id": USER, "email": None}], name


def test_fit_key_is_used(server: KeyServer) -> None:
    """alg, use, key_ops and kid may be missing or empty; other members of a key are ignored."""
    pairs = [ed25519("ed"), p256("ec"), rsa_key("rsa")]
    for members in TAKEN:
        own = [{name: pair.alg if value == "OWN" else value for name, value in members.items()} for pair in pairs]
        server.publish(*[pair.jwk(**one) for pair, one in zip(pairs, own, strict=True)])
        app = me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER)

        assert [ask(app, pair.token(claims=ALWAYS)).status_code for pair in pairs] == [200] * 3, members


def test_token_without_key_id_needs_one_key_that_fits(app: Flask, server: KeyServer, clock: Clock) -> None:
    """It is verified if only one key fits its algorithm."""
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


def test_several_keys_of_one_id_are_tried(app: Flask, server: KeyServer) -> None:
    """An issuer may use a key id for one key of each algorithm, or for a key and its successor."""
    pairs = [ed25519(), p256(), rsa_key(), ed25519()]
    server.publish(*[pair.jwk() for pair in pairs])

    assert [ask(app, pair.token(claims=ALWAYS)).status_code for pair in pairs] == [200] * 4


def test_keys_without_id_are_tried_for_any(app: Flask, server: KeyServer) -> None:
    """A key without an id fits any token of its algorithm; it must still have made the signature."""
    pairs, other = [ed25519("a"), ed25519("b")], ed25519("c")
    server.publish(*[pair.jwk(kid=...) for pair in pairs])

    assert [ask(app, pair.token(claims=ALWAYS)).status_code for pair in (*pairs, other)] == [200, 200, 401]


def test_subset_of_algorithms_is_obeyed(server: KeyServer) -> None:
    """JWT_ALGORITHMS excludes all others, even where the endpoint publishes keys for them."""
    pairs = [ed25519("ed"), p256("ec"), rsa_key("rsa")]
    server.publish(*[pair.jwk() for pair in pairs])
    tokens = [pair.token(claims=ALWAYS) for pair in pairs]

    for names, expected in (("ES256", [401, 200, 401]), ("RS256, EdDSA", [200, 401, 200])):
        app = me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER, JWT_ALGORITHMS=names)
        assert [ask(app, token).status_code for token in tokens] == expected


X = b64(b"\1" * 32)  # not the coordinate of a point on the curve beside itself
N = b64(b"\xff" * 256)
SKIPPED: dict[str, tuple[Any, str]] = {
    "alg-ed25519": (GOOD.jwk(kid="bad", alg="Ed25519"), "alg 'Ed25519' serves none of"),
    "alg-number": (GOOD.jwk(kid="bad", alg=1), "alg 1 serves none of"),
    "rsa-of-1024-bits": (rsa_key("bad", 1024).jwk(), "1024 bits"),
    "rsa-of-1024-bits-for-ps256": (rsa_key("bad", 1024).jwk(alg="PS256"), "1024 bits"),
    "rsa-of-2047-bits": ({"kty": "RSA", "kid": "bad", "n": b64(b"\x7f" + b"\xff" * 255), "e": "AQAB"}, "2047 bits"),
    "curve-p-384": (_pair("ES384").jwk(kid="bad", alg="ES384"), "a key of 'P-384' with alg 'ES384'"),
    "curve-secp256k1": (_pair("ES256K").jwk(kid="bad"), "a key of 'secp256k1' with alg None"),
    "curve-x25519": (GOOD.jwk(kid="bad", crv="X25519"), "'X25519'"),
    "curve-list": (GOOD.jwk(kid="bad", crv=["Ed25519"]), "TypeError"),
    "curve-missing": (GOOD.jwk(kid="bad", crv=...), "'OKP'"),
    "kty-missing": (GOOD.jwk(kid="bad", kty=...), "InvalidKeyError"),
    "kty-and-curve-disagree": (GOOD.jwk(kid="bad", kty="EC"), "InvalidKeyError"),
    "kty-unknown": ({"kty": "AKP", "alg": "ML-DSA-44", "kid": "bad"}, "'AKP'"),
    "key-ops-number": (GOOD.jwk(kid="bad", key_ops=5), "TypeError"),
    "not-on-the-curve": ({"kty": "EC", "crv": "P-256", "kid": "bad", "x": X, "y": X}, "InvalidKeyError"),
    "coordinate-number": ({"kty": "EC", "crv": "P-256", "kid": "bad", "x": X, "y": 1}, "InvalidKeyError"),
    "coordinate-empty": ({"kty": "EC", "crv": "P-256", "kid": "bad", "x": "", "y": X}, "InvalidKeyError"),
    "too-short": (GOOD.jwk(kid="bad", x="AA"), "InvalidKeyError"),
    "not-ascii": (GOOD.jwk(kid="bad", x="é" * 43), "InvalidKeyError"),
    "lone-surrogate": (GOOD.jwk(kid="bad", x="\ud800" * 43), "InvalidKeyError"),
    "modulus-alone": ({"kty": "RSA", "kid": "bad", "n": N}, "InvalidKeyError"),
    "exponent-zero": ({"kty": "RSA", "kid": "bad", "n": N, "e": "AA"}, "InvalidKeyError"),
    "exponent-one": ({"kty": "RSA", "kid": "bad", "n": N, "e": "AQ"}, "InvalidKeyError"),
    "modulus-zero": ({"kty": "RSA", "kid": "bad", "n": "AA", "e": "AQAB"}, "InvalidKeyError"),
}


@pytest.mark.parametrize(("jwk", "reason"), SKIPPED.values(), ids=SKIPPED)
def test_unusable_key_is_skipped_with_one_warning(
    server: KeyServer, clock: Clock, caplog: pytest.LogCaptureFixture, jwk: Any, reason: str
) -> None:
    """One WARNING names its key id and the reason, over all renewals, outages and fetches; the others are used."""
    server.publish(jwk, GOOD.jwk(), {**jwk, "kid": "worse"})
    good = server.answer
    app = me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER, JWT_ALGORITHMS="RS256,PS256,ES256,EdDSA")

    for answer in (good, good, http(b"", "500 Oops"), good, good):
        server.answer = answer
        assert [ask(app, token).status_code for token in (TOKEN, UNKNOWN)] == [200, 401]
        clock.now += 300
    assert len(server.asked) >= 5
    bad, worse, *outage = sorted(_warnings(caplog, server))
    assert (bad.startswith("kid 'bad': "), worse.startswith("kid 'worse': ")) == (True, True)
    assert reason in bad
    assert [words[:13] for words in outage] == ["no keys from "]


GARBAGE: list[Any] = [None, 1, True, "x", [], {}, [{}], {"kty": None}, {"kid": None}]


def test_garbage_among_the_keys_is_skipped_with_one_warning(
    server: KeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Each key is read for itself, and one without a key id is called None."""
    for garbage in GARBAGE:
        server.publish(garbage, GOOD.jwk(), garbage)
        app = me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER)

        assert ask(app, TOKEN).status_code == 200
        [warning] = _warnings(caplog, server)
        assert warning.startswith("kid None: "), garbage
        caplog.clear()


def test_change_of_the_unusable_keys_is_logged(
    app: Flask, server: KeyServer, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A key that comes later is named, and one that comes back is named again."""
    first, second = GOOD.jwk(kid="a", alg="Ed25519"), GOOD.jwk(kid="b", alg="Ed25519")
    named = []
    for jwks in ([first], [first, second], [second], [first, second]):
        server.publish(GOOD.jwk(), *jwks)
        assert [ask(app, token).status_code for token in (TOKEN, UNKNOWN)] == [200, 401]
        named.append([warning[5] for warning in _warnings(caplog, server)])
        caplog.clear()
        clock.now += 300

    assert named == [["a"], ["b"], [], ["a"]]


def test_long_key_id_is_cut_in_the_log(app: Flask, server: KeyServer, caplog: pytest.LogCaptureFixture) -> None:
    """A line of log stays one short line, though the id or the curve of a key is long or has line ends."""
    server.publish(GOOD.jwk(), GOOD.jwk(kid="a\n" * 5000, alg="b\r\n" * 5000, crv="c\n" * 5000))

    assert ask(app, TOKEN).status_code == 200
    [warning] = _warnings(caplog, server)
    assert len(warning) < 400
    assert "\n" not in warning


@pytest.mark.parametrize(
    "jwk",
    [
        rsa_key("enc").jwk(use="enc", alg="RSA-OAEP"), p256("enc").jwk(use="enc", alg="ECDH-ES"),
        {"kty": "OKP", "crv": "X25519", "x": X, "use": "enc"}, rsa_key("short", 1024).jwk(use="enc"),
        p256("wrap").jwk(key_ops=["deriveKey", "deriveBits"]), rsa_key("wrap").jwk(key_ops=["encrypt", "wrapKey"]),
        {"kty": "oct", "k": b64(SECRET.encode()), "kid": "k1", "alg": "HS256"}, {"kty": "oct"},
    ],
    ids=lambda jwk: f"{jwk['kty']}-{jwk.get('use', jwk.get('key_ops'))}",
)
def test_key_of_another_use_is_skipped_silently(
    app: Flask, server: KeyServer, caplog: pytest.LogCaptureFixture, jwk: Members
) -> None:
    """Issuers publish keys for encryption beside those for signatures; that is not a fault."""
    server.publish(jwk, GOOD.jwk())

    assert ask(app, TOKEN).status_code == 200
    assert _warnings(caplog, server) == []


def _private(pair: KeyPair) -> dict[str, Any]:
    """Return the private key as a JWK, which should never be published."""
    jwk = jwt.get_algorithm_by_name(pair.alg).to_jwk(pair.private, as_dict=True)
    assert "d" in jwk
    return {**jwk, "key_ops": None, "kid": pair.kid}


@pytest.mark.parametrize("name", ["RS256", "ES256", "EdDSA"])
def test_published_private_key_works_and_is_not_logged(
    app: Flask, server: KeyServer, clock: Clock, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """The public half verifies tokens; whether it is right or wrong, nothing of the private half gets into the log."""
    caplog.set_level("DEBUG")
    jwk = _private(_pair(name))
    public = _pair(name).jwk()
    wrong = [{**jwk, "alg": "x"}, {**jwk, "kty": None}, {**jwk, "kty": "EC"}, {**jwk, "x": "A", "n": "A"}]
    wrong += [{**jwk, "key_ops": 1}, {**jwk, "crv": [jwk["d"]]}]

    server.publish(jwk)
    assert ask(app, _pair(name).token(claims=ALWAYS)).status_code == 200
    clock.now += 300
    server.publish(GOOD.jwk(), *[{**each, "kid": str(number)} for number, each in enumerate(wrong)])
    assert [ask(app, token).status_code for token in (UNKNOWN, TOKEN)] == [401, 200]

    logged = "".join(f"{record.getMessage()} {record.exc_text} {record.__dict__}" for record in caplog.records)
    assert len(_warnings(caplog, server)) >= 4
    for secret in {value for member, value in jwk.items() if member not in public and isinstance(value, str)}:
        assert secret not in logged
    assert jwk["d"] not in logged


def test_key_set_of_private_keys_alone_is_not_logged(
    app: Flask, server: KeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no key can be used the answer is 503, and the log does not quote them."""
    server.publish({**_private(_pair("RS256")), "alg": "x"})

    assert ask(app, TOKEN).json == NO_KEYS
    assert _private(_pair("RS256"))["d"][:20] not in caplog.text
    assert _private(_pair("RS256"))["p"][:20] not in caplog.text
