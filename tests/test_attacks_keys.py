"""Forged tokens against an issuer's public keys: other algorithms, other keys, and keys that a token brings along."""

import json
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask

from tests.keyserver import KeyServer, key_set
from tests.tokens import (
    INVALID, ISSUER, NOW, KeyPair, Members, ask, b64, dump, ed448, ed25519, forge, hs256, me_app, p256, refusal,
    rsa_key, whole,
)

ED, EC = ed25519("ed"), p256("ec")
RSA = partial(rsa_key, "rsa")  # made when first needed


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    """Time stands still, except the monotonic clock of the key set."""
    with time_machine.travel(NOW, tick=False):
        yield


@pytest.fixture
def server() -> Iterator[KeyServer]:
    """The issuer publishes a key for each algorithm."""
    with KeyServer(ED.jwk(), EC.jwk(), RSA().jwk()) as server:
        yield server


@pytest.fixture
def app(server: KeyServer) -> Flask:
    """It takes the issuer's tokens, and has no database."""
    return me_app(JWT_JWKS_URL=server.url, JWT_ISSUER=ISSUER)


def _public(form: PublicFormat, encoding: Encoding, pair: Callable[[], KeyPair]) -> bytes:
    data: bytes = pair().private.public_key().public_bytes(encoding, form)
    return data


def _jwk(pair: Callable[[], KeyPair]) -> bytes:
    return dump(pair().jwk())


PEM = partial(_public, PublicFormat.SubjectPublicKeyInfo, Encoding.PEM)
PUBLIC_FORMS: dict[str, Callable[[Callable[[], KeyPair]], bytes]] = {
    "pem": PEM,
    "pem-without-line-end": lambda pair: PEM(pair).rstrip(),
    "pem-with-crlf": lambda pair: PEM(pair).replace(b"\n", b"\r\n"),
    "pem-body": lambda pair: b"".join(PEM(pair).splitlines()[1:-1]),
    "der": partial(_public, PublicFormat.SubjectPublicKeyInfo, Encoding.DER),
    "openssh": partial(_public, PublicFormat.OpenSSH, Encoding.OpenSSH),
    "jwk": _jwk,
    "jwk-in-compact-form": lambda pair: _jwk(pair).replace(b" ", b""),
    "number-of-the-jwk": lambda pair: str(pair().jwk().get("n", pair().jwk().get("x"))).encode(),
    "whole-key-set": lambda pair: key_set(pair().jwk()).partition(b"\r\n\r\n")[2],
}
PAIRS: dict[str, Callable[[], KeyPair]] = {"rsa": RSA, "ec": lambda: EC, "ed": lambda: ED}


@pytest.mark.parametrize("name", PAIRS)
def test_public_key_is_not_an_hmac_secret(app: Flask, name: str) -> None:
    """Public keys are public: a token signed with one as an HMAC secret is refused (RFC 8725 section 2.1)."""
    for form, secret in PUBLIC_FORMS.items():
        sign = partial(hs256, secret=secret(PAIRS[name]))
        for alg in ("HS256", PAIRS[name]().alg):
            assert whole(ask(app, forge({"alg": alg, "kid": name}, sign=sign))) == refusal(INVALID), (form, alg)


def _asn1_signature(signed: bytes) -> bytes:
    raw = EC.sign(signed)
    return encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))


FORGED: dict[str, Callable[[], str]] = {
    "of-another-ed25519-key": lambda: ed25519("ed").token(),
    "of-another-p256-key": lambda: p256("ec").token(),
    "of-another-rsa-key": lambda: rsa_key("other").token({"kid": "rsa"}),
    "of-another-ed448-key": lambda: ed448("ed").token(),
    "of-a-p384-key": lambda: KeyPair("ES384", ec.generate_private_key(ec.SECP384R1()), "ec").token({"alg": "ES256"}),
    "of-a-secp256k1-key": lambda: KeyPair("ES256K", ec.generate_private_key(ec.SECP256K1()), "ec").token(
        {"alg": "ES256"}
    ),
    "rs512-by-the-rsa-key": lambda: RSA()._replace(alg="RS512").token(),
    "rs512-called-rs256": lambda: RSA()._replace(alg="RS512").token({"alg": "RS256"}),
    "ps256-by-the-rsa-key": lambda: RSA()._replace(alg="PS256").token(),
    "ps256-called-rs256": lambda: RSA()._replace(alg="PS256").token({"alg": "RS256"}),
    "es256-called-eddsa": lambda: EC.token({"alg": "EdDSA"}),
    "eddsa-called-es256": lambda: ED.token({"alg": "ES256"}),
    "rs256-called-es256": lambda: RSA().token({"alg": "ES256"}),
    "es256-with-the-kid-of-ed": lambda: EC.token({"kid": "ed"}),
    "eddsa-with-the-kid-of-ec": lambda: ED.token({"kid": "ec"}),
    "eddsa-in-lower-case": lambda: ED.token({"alg": "eddsa"}),
    "alg-list": lambda: ED.token({"alg": ["EdDSA"]}),
    "alg-missing": lambda: ED.token({"alg": ...}),
    "alg-none": lambda: ED.token({"alg": "none"}),
    "kid-number": lambda: ED.token({"kid": 0}),
    "kid-list": lambda: ED.token({"kid": ["ed"]}),
    "kid-in-upper-case": lambda: ED.token({"kid": "ED"}),
    "kid-path": lambda: ED.token({"kid": "../../dev/null"}),
    "kid-sql": lambda: ED.token({"kid": "' UNION SELECT 'x' --"}),
    "kid-surrogate": lambda: ED.token({"kid": "\ud800"}),
    "es256-all-zero": lambda: forge({"alg": "ES256", "kid": "ec"}, sign=lambda signed: bytes(64)),
    "es256-r-and-s-one": lambda: forge({"alg": "ES256", "kid": "ec"}, sign=lambda signed: (bytes(31) + b"\1") * 2),
    "es256-in-asn1": lambda: forge({"alg": "ES256", "kid": "ec"}, sign=_asn1_signature),
    "es256-one-byte-longer": lambda: forge({"alg": "ES256", "kid": "ec"}, sign=lambda signed: EC.sign(signed) + b"\0"),
    "es256-empty": lambda: forge({"alg": "ES256", "kid": "ec"}, sign=lambda signed: b""),
    "eddsa-all-zero": lambda: forge({"alg": "EdDSA", "kid": "ed"}, sign=lambda signed: bytes(64)),
    "eddsa-cut": lambda: forge({"alg": "EdDSA", "kid": "ed"}, sign=lambda signed: ED.sign(signed)[:-1]),
    "rs256-all-zero": lambda: forge({"alg": "RS256", "kid": "rsa"}, sign=lambda signed: bytes(256)),
    "rs256-one": lambda: forge({"alg": "RS256", "kid": "rsa"}, sign=lambda signed: bytes(255) + b"\1"),
    "wrong-issuer": lambda: ED.token(claims={"iss": "https://evil.example.com"}),
    "no-issuer": lambda: ED.token(claims={"iss": ...}),
    "expired-and-wrong-issuer": lambda: ED.token(claims={"exp": 0, "iss": f"{ISSUER}/"}),
    "expired-and-of-another-key": lambda: ed25519("ed").token(claims={"exp": 0}),
}


def test_forged_token_is_invalid(app: Flask, server: KeyServer) -> None:
    """A key serves its one algorithm, all answers are the same, and the key set is fetched twice at most."""
    for name, make_token in FORGED.items():
        assert whole(ask(app, make_token())) == refusal(INVALID), name
    assert len(server.asked) == 2  # the first load, and one look for an unknown key


def _brought(pair: KeyPair, url: str) -> dict[str, Members]:
    """Return the headers that would have a careless verifier use the token's own key."""
    der = b64(pair.private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return {
        "jwk": {"jwk": pair.jwk()},
        "jwk-as-text": {"jwk": json.dumps(pair.jwk())},
        "jku": {"jku": f"{url}/jku"},
        "x5u": {"x5u": f"{url}/x5u"},
        "x5c": {"x5c": [der]},
        "x5t": {"x5t": "AAAA", "x5t#S256": "AAAA"},
        "kid-url": {"kid": f"{url}/kid"},
        "kid-that-is-a-jwk": {"kid": json.dumps(pair.jwk())},
        "all": {"jwk": pair.jwk(), "jku": f"{url}/jku", "x5u": f"{url}/x5u", "x5c": [der]},
    }


@pytest.mark.parametrize("kid", [..., "ed", "new"])
def test_key_that_a_token_brings_is_not_used(app: Flask, server: KeyServer, kid: str) -> None:
    """A key inside a token is not used, and a URL inside a token is not fetched."""
    forger = ed25519("new")
    with KeyServer(forger.jwk()) as own:
        for name, header in _brought(forger, own.origin).items():
            assert whole(ask(app, forger.token({"kid": kid} | dict(header)))) == refusal(INVALID), name
        assert own.asked == []
    assert set(server.asked) == {"/keys"}


def test_right_token_passes_and_its_urls_are_ignored(app: Flask, server: KeyServer) -> None:
    """A key that a right token names beside its own is ignored like any unknown member."""
    with KeyServer() as other:
        for name, header in _brought(ed25519(), other.origin).items():
            if "kid" not in name:
                assert ask(app, ED.token(header)).status_code == 200, name
        assert other.asked == []
    assert server.asked == ["/keys"]


def test_right_tokens_pass(app: Flask) -> None:
    """The tokens from which the forgeries are made are valid."""
    tokens = [ED.token(), EC.token(), RSA().token(), ED.token({"kid": ...}), RSA().token({"typ": "at+jwt"})]

    assert [ask(app, token).status_code for token in tokens] == [200] * len(tokens)
