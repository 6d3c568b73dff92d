"""Fetch a key set (RFC 7517), and read the keys in it that verify tokens."""

import json
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any
from urllib.request import HTTPRedirectHandler, Request, build_opener
from zlib import decompressobj

from jwt import PyJWK

FETCH_LIMIT = 10.0  # seconds for a fetch, also after the request stops waiting
MAX_BYTES = 64 * 1024  # of a key set; real ones have two or three keys, under 10 KiB
GZIP = 31  # zlib's wbits: a gzip header, and the largest window
MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
ABSENT: tuple[Any, ...] = (None, "", [], {})

# The algorithms of a curve, or of RSA (RFC 7518 section 3.1, RFC 8037 section 3.1, RFC 8812 section 3.2). PyJWT calls
# ES512 by two names.
SHAPES = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512", "ES521"),
    "secp256k1": ("ES256K",),
    "Ed25519": ("EdDSA",),
    "Ed448": ("EdDSA",),
}


class NoRedirects(HTTPRedirectHandler):
    """Refuse redirects, with an error that names the status: keys come only from JWT_JWKS_URL."""

    def redirect_request(self, *args: Any) -> None:
        """Refuse."""


def fetch(url: str) -> Sequence[Any]:
    """Return the JWKs at a URL; a bad answer raises any of a dozen exceptions."""
    deadline = monotonic() + FETCH_LIMIT
    request = Request(url, headers={"Accept": "application/json", "User-Agent": "taskapi"})
    document = b""
    with build_opener(NoRedirects).open(request, timeout=FETCH_LIMIT) as response:
        while part := response.read1(MAX_BYTES):
            document += part
            if len(document) > MAX_BYTES or monotonic() > deadline:
                raise ValueError("too long or too slow")
    if response.headers.get("Content-Encoding") == "gzip":  # some servers compress, though urllib asks for no encoding
        document = decompressobj(GZIP).decompress(document, MAX_BYTES)
    jwks: Sequence[Any] = json.loads(document)["keys"]
    return jwks


def read_keys(jwk: Any, algorithms: Sequence[str], skipped: set[str]) -> list[PyJWK]:
    """Return the key, once for each algorithm that it serves; note in skipped why it can't be used.

    Members that are null or empty count as absent. A key of another use (RFC 7517 section 4) is left out silently.
    """
    members = {name: value for name, value in jwk.items() if value not in ABSENT} if isinstance(jwk, dict) else {}
    members.pop("d", None)  # if a private key is published, use its public half
    try:
        if members.get("use", "sig") != "sig" or "verify" not in members.get("key_ops", ["verify"]):
            return []
        return [_read_key(members, algorithm) for algorithm in _fitting(members, algorithms)]
    except Exception as error:  # PyJWT and cryptography raise a dozen kinds, some of which quote the key
        reason = error if type(error) is ValueError else type(error).__name__
        skipped.add(f"kid {members.get('kid')!r:.100}: {reason}")
        return []


def _fitting(members: Mapping[str, Any], algorithms: Sequence[str]) -> Sequence[str]:
    if members.get("kty") == "oct":  # a secret is not a public key
        return []
    shape, alg = members.get("crv", members.get("kty")), members.get("alg")
    fitting = [name for name in algorithms if name in SHAPES.get(shape, ()) and alg in (None, name)]
    if not fitting:
        raise ValueError(f"a key of {shape!r:.50} with alg {alg!r:.50} serves none of {', '.join(algorithms)}")
    return fitting


def _read_key(members: Mapping[str, Any], algorithm: str) -> PyJWK:
    key = PyJWK(dict(members), algorithm)
    if members["kty"] == "RSA" and key.key.key_size < MIN_RSA_BITS:
        raise ValueError(f"an RSA key of {key.key.key_size} bits is below {MIN_RSA_BITS}")
    return key
