"""Tokens built part by part, as no library would, and an app that shows the user of a token."""

import base64
import hmac
import json
from collections.abc import Callable, Mapping
from functools import cache
from types import EllipsisType
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flask import Flask, g
from werkzeug.test import TestResponse

from taskapi import create_app
from tests.people import SECRET

NOW = 1_700_000_000  # Unix time at which these tests stand still
USER = "5a1f0c7e-3b52-4c39-9d3e-0d1c2b3a4f5e"
ISSUER = "https://issuer.example.com"
HEADER = {"alg": "HS256", "typ": "JWT"}
CLAIMS = {"iss": ISSUER, "sub": USER, "exp": NOW + 600}

ME = "/api/tasks/me"
NOWHERE = "postgresql://127.0.0.1:1/nothing"  # there is no database, as nothing here needs one

NO_TOKEN = {"error": "Send a bearer token.", "code": "UNAUTHORIZED"}
INVALID = {"error": "The token is not valid.", "code": "INVALID_TOKEN"}
EXPIRED = {"error": "The token has expired.", "code": "TOKEN_EXPIRED"}
NO_KEYS = {"error": "The keys that verify tokens are not available. Try again.", "code": "INTERNAL_ERROR"}
CHALLENGE = 'Bearer realm="taskapi", error="invalid_token"'

Members = Mapping[str, Any]


def b64(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def merge(members: Members, changes: Members) -> dict[str, Any]:
    """Return members with the changes; what is changed to ... is left out."""
    return {name: value for name, value in {**members, **changes}.items() if not isinstance(value, EllipsisType)}


def dump(value: Any) -> bytes:
    """Return JSON text; Python's own json writes NaN and lone surrogates too."""
    return json.dumps(value).encode()


def hs256(signed: bytes, secret: bytes = SECRET.encode()) -> bytes:
    """Sign as the issuer that shares the secret does."""
    return hmac.digest(secret, signed, "sha256")


def forge(
    header: Members | bytes = {}, claims: Members | bytes = {}, sign: Callable[[bytes], bytes] = hs256
) -> str:
    """Return a token signed over exactly these parts: bytes go in as they are, other members beside the usual ones."""
    parts = [
        part if isinstance(part, bytes) else dump(merge(usual, part))
        for part, usual in ((header, HEADER), (claims, CLAIMS))
    ]
    signed = ".".join(map(b64, parts))
    return f"{signed}.{b64(sign(signed.encode()))}"


class KeyPair(NamedTuple):
    """An issuer's private key, with the algorithm and the key id that it goes by."""

    alg: str
    private: Any
    kid: str = "k1"

    def sign(self, signed: bytes) -> bytes:
        """Return the signature by the key's algorithm."""
        return jwt.get_algorithm_by_name(self.alg).sign(signed, self.private)

    def jwk(self, **changes: Any) -> dict[str, Any]:
        """Return the public half: kty, its numbers and kid, no more unless changes say so."""
        public = jwt.get_algorithm_by_name(self.alg).to_jwk(self.private.public_key(), as_dict=True)
        return merge(public, {"key_ops": ..., "kid": self.kid} | changes)

    def token(self, header: Members = {}, claims: Members = {}) -> str:
        """Return a token of this key."""
        return forge({"alg": self.alg, "kid": self.kid} | dict(header), claims, self.sign)


def ed25519(kid: str = "k1") -> KeyPair:
    """Return a fresh key for EdDSA."""
    return KeyPair("EdDSA", Ed25519PrivateKey.generate(), kid)


def ed448(kid: str = "k1") -> KeyPair:
    """Return a fresh key for EdDSA on the other curve (RFC 8037 section 3.1)."""
    return KeyPair("EdDSA", Ed448PrivateKey.generate(), kid)


def p256(kid: str = "k1") -> KeyPair:
    """Return a fresh key for ES256."""
    return KeyPair("ES256", ec.generate_private_key(ec.SECP256R1()), kid)


@cache
def rsa_key(kid: str = "k1", bits: int = 2048) -> KeyPair:
    """Return a key for RS256; to make one takes a tenth of a second, so each is made once."""
    return KeyPair("RS256", rsa.generate_private_key(65537, bits), kid)


def me_app(**settings: str) -> Flask:
    """Return an app with a route that shows g.user; it has a secret unless told otherwise, and no database."""
    secret = {} if "JWT_JWKS_URL" in settings else {"JWT_SECRET": SECRET}
    app = create_app({"DATABASE_URL": NOWHERE, **secret, **settings})

    @app.get(ME)
    def me() -> dict[str, str | None]:
        user: dict[str, str | None] = g.user._asdict()
        return user

    return app


def ask(app: Flask, token: str) -> TestResponse:
    """Ask the app for the user of a token."""
    return app.test_client().get(ME, headers={"Authorization": f"Bearer {token}", "X-Request-ID": "same"})


def whole(response: TestResponse) -> tuple[int, dict[str, str], Any]:
    """Return all that the answer says."""
    return response.status_code, dict(response.headers), json.loads(response.data)


def refusal(body: Members) -> tuple[int, dict[str, str], Any]:
    """Return all that the answer to a refused token says: it is the same for every fault."""
    headers = {
        "Cache-Control": "private, no-cache",
        "Content-Length": str(len(json.dumps(body, separators=(",", ":")))),
        "Content-Type": "application/json",
        "Vary": "Origin",
        "WWW-Authenticate": CHALLENGE,
        "X-Content-Type-Options": "nosniff",
        "X-Request-ID": "same",
    }
    return 401, headers, body
