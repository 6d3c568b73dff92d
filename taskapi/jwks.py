"""Fetch a key set, and take from it what can verify a token."""

from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPSConnection
from socket import SHUT_RDWR, socket
from threading import Timer
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import jwt
import orjson
from jwt.algorithms import Algorithm

FETCH_LIMIT = 3.0  # seconds
MAX_BYTES = 64 * 1024  # of a key set; real ones have two or three keys, under 10 KiB
MIN_RSA_BITS = 2048  # RFC 7518 section 3.3

# What a key must be for an algorithm (RFC 7518 section 6, RFC 8037 section 2), and which members are its public half.
_KINDS = {
    "RS256": ({"kty": "RSA"}, ("kty", "n", "e")),
    "ES256": ({"kty": "EC", "crv": "P-256"}, ("kty", "crv", "x", "y")),
    "EdDSA": ({"kty": "OKP", "crv": "Ed25519"}, ("kty", "crv", "x")),
}


class Key(NamedTuple):
    """One public key, bound to one algorithm: what a token says of its own can only agree."""

    kid: str | None
    alg: str
    algorithm: Algorithm
    material: Any


def fetch_keys(url: str, algorithms: Sequence[str]) -> list[Key]:
    """Return the usable keys at url; raise OSError, http.client.HTTPException, ValueError, KeyError or TypeError."""
    jwks = orjson.loads(_download(url))["keys"]
    return [key for jwk in jwks for alg in algorithms if (key := _read_key(jwk, alg)) is not None]


def _download(url: str) -> bytes:
    """Follow no redirect, ask no proxy, and take no more than MAX_BYTES."""
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.netloc, timeout=FETCH_LIMIT)
    connection.connect()
    # The connection's own timeout begins anew with every byte; this one does not, and wakes whoever reads.
    watchdog = Timer(FETCH_LIMIT, _hang_up, [connection.sock])
    watchdog.start()
    try:
        target = urlunsplit(("", "", parts.path, parts.query, ""))
        connection.request("GET", target, headers={"Accept": "application/json", "User-Agent": "taskapi"})
        response = connection.getresponse()
        document = response.read(MAX_BYTES + 1)
    finally:
        watchdog.cancel()
        connection.close()
    if response.status != HTTPStatus.OK or len(document) > MAX_BYTES:
        raise ValueError(f"status {response.status}, {len(document)} bytes")
    return document


def _hang_up(connection: socket) -> None:
    with suppress(OSError):
        connection.shutdown(SHUT_RDWR)


def _read_key(jwk: Any, alg: str) -> Key | None:
    """Return the key if it is one that its publisher means for this algorithm (RFC 7517 section 4), else None."""
    kind, public = _KINDS[alg]
    algorithm = jwt.get_algorithm_by_name(alg)
    try:
        is_meant = (
            kind.items() <= jwk.items()
            and jwk.get("alg", alg) == alg
            and jwk.get("use", "sig") == "sig"
            and "verify" in list(jwk.get("key_ops", ["verify"]))
            and isinstance(jwk.get("kid", ""), str)
        )
        material: Any = algorithm.from_jwk({member: jwk[member] for member in public}) if is_meant else None
    except Exception:  # one that can't be read is as good as none; PyJWT and cryptography raise a dozen kinds
        return None
    if material is None or (alg == "RS256" and material.key_size < MIN_RSA_BITS):
        return None
    return Key(jwk.get("kid"), alg, algorithm, material)
