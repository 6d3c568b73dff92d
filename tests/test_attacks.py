"""Forged and mangled tokens: their parts, their base64url and their signature."""

import base64
from collections.abc import Callable
from functools import partial

import pytest
from flask import Flask

from tests.people import SECRET
from tests.tokens import (
    CLAIMS, HEADER, INVALID, ME, NOW, USER, Members, ask, b64, dump, forge, hs256, me_app, refusal, whole
)

pytestmark = pytest.mark.usefixtures("frozen")

GOOD = forge()
HEAD, PAYLOAD, SIGNATURE = GOOD.split(".")
SIGNED = f"{HEAD}.{PAYLOAD}"


def _resign(signed: str) -> str:
    """Sign parts that are not base64url as if they were."""
    return f"{signed}.{b64(hs256(signed.encode()))}"


def _loosen(part: str) -> str:
    """Set bits behind the part's last byte, which a lax decoder ignores."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(part) % 4 in (2, 3), "no such bits"
    return part[:-1] + alphabet[alphabet.index(part[-1]) + 1]


def _bent(part: str, bent: str) -> str:
    """Return the good token with one part replaced, and signed anew unless that is the part."""
    if part == SIGNATURE:
        return f"{SIGNED}.{bent}"
    return _resign(SIGNED.replace(part, bent))


@pytest.fixture(scope="module")
def app() -> Flask:
    """It has a secret, and no database."""
    return me_app()


SHAPES = [
    pytest.param("x", id="one-letter"),
    pytest.param(".", id="a-dot"),
    pytest.param("..", id="two-dots"),
    pytest.param(HEAD, id="header-alone"),
    pytest.param(SIGNED, id="no-signature-part"),
    pytest.param(f"{SIGNED}.", id="empty-signature"),
    pytest.param(f".{PAYLOAD}.{SIGNATURE}", id="empty-header"),
    pytest.param(f"{HEAD}..{SIGNATURE}", id="empty-payload"),
    pytest.param(f".{SIGNED}.{SIGNATURE}", id="leading-dot"),
    pytest.param(f"{GOOD}.", id="trailing-dot"),
    pytest.param(f"{GOOD}.{SIGNATURE}", id="four-parts"),
    pytest.param(f"{GOOD}.{SIGNATURE}.{SIGNATURE}", id="five-parts-as-in-jwe"),
    pytest.param(f"{PAYLOAD}.{HEAD}.{SIGNATURE}", id="header-and-payload-swapped"),
    pytest.param(f"{GOOD} ", id="trailing-space"),
    pytest.param(f"{GOOD}\t", id="trailing-tab"),
    pytest.param(f"{HEAD}. {PAYLOAD}.{SIGNATURE}", id="space-inside"),
    pytest.param(f"{GOOD},", id="trailing-comma"),
    pytest.param(f"{GOOD}, Bearer {GOOD}", id="two-headers-joined"),
    pytest.param(f"{GOOD},Basic eDp5", id="two-schemes-joined"),
    pytest.param(f'"{GOOD}"', id="in-quotes"),
    pytest.param(f"Bearer {GOOD}", id="scheme-twice"),
    pytest.param(f"token={GOOD}", id="as-a-parameter"),
    pytest.param(GOOD.replace(".", "%2E"), id="percent-encoded-dots"),
    pytest.param(GOOD.replace(".", "\u2024"), id="dots-that-only-look-so"),
    pytest.param(f"{HEAD}\u0661.{PAYLOAD}.{SIGNATURE}", id="arabic-digit"),
    pytest.param(f"{SIGNED}.{SIGNATURE}\u00e9", id="non-ascii-letter"),
    pytest.param(dump({"protected": HEAD, "payload": PAYLOAD, "signature": SIGNATURE}).decode(), id="jws-as-json"),
    pytest.param("x" * 1024 * 1024, id="one-mebibyte-in-one-part"),
    pytest.param(f"{HEAD}.{'A' * 1024 * 1024}.{SIGNATURE}", id="one-mebibyte-of-payload"),
    pytest.param("." * 64 * 1024, id="64-kibi-dots"),
]

BENDS: dict[str, Callable[[str], str]] = {
    "padded": lambda part: part + "=" * (-len(part) % 4 or 4),
    "percent-padded": lambda part: f"{part}%3D",
    "with-trailing-bits": lambda part: _loosen(part) if len(part) % 4 else f"{part}A",
    "one-character-over": lambda part: part + "A" * ((1 - len(part)) % 4 or 4),
    "cut": lambda part: part[:-4],
    "with-plus": lambda part: f"{part[:4]}+{part[5:]}",
    "with-slash": lambda part: f"{part[:4]}/{part[5:]}",
    "with-stray-star": lambda part: f"{part[:4]}*{part[4:]}",
    "with-percent-line-feed": lambda part: f"{part[:4]}%0A{part[4:]}",
    "in-hexadecimal": lambda part: part.encode().hex(),
}
ENCODINGS = [
    pytest.param(_bent(part, bend(part)), id=f"{name}-{fault}")
    for name, part in (("header", HEAD), ("payload", PAYLOAD), ("signature", SIGNATURE))
    for fault, bend in BENDS.items()
]


def _pad(members: Members) -> str:
    """Return a part with the padding that base64 wants and JWS leaves out (RFC 7515 section 2)."""
    encoded = base64.urlsafe_b64encode(dump(members)).decode()
    assert encoded.endswith("="), "nothing to pad"
    return encoded


PADDED = [
    pytest.param(_resign(f"{_pad(HEADER | {'x': 1})}.{PAYLOAD}"), id="header-with-right-padding"),
    pytest.param(_resign(f"{HEAD}.{_pad(CLAIMS | {'x': 12})}"), id="payload-with-right-padding"),
    pytest.param(f"{SIGNED}.{SIGNATURE}=", id="signature-with-right-padding"),
]


def _tamper(payload: Members) -> str:
    return f"{HEAD}.{b64(dump({**CLAIMS, **payload}))}.{SIGNATURE}"


SIGNATURES = [
    pytest.param(_tamper({"sub": "0" * 8 + USER[8:]}), id="payload-of-another-user"),
    pytest.param(_tamper({"exp": NOW + 601}), id="payload-prolonged"),
    pytest.param(f"{b64(dump({'typ': 'JWT', 'alg': 'HS256'}))}.{PAYLOAD}.{SIGNATURE}", id="header-in-another-order"),
    pytest.param(f"{SIGNED}.{b64(bytes(32))}", id="all-zero"),
    pytest.param(f"{SIGNED}.{b64(hs256(SIGNED.encode())[:31])}", id="cut-by-a-byte"),
    pytest.param(f"{SIGNED}.{b64(hs256(SIGNED.encode())[:1])}", id="first-byte-alone"),
    pytest.param(f"{SIGNED}.{b64(hs256(SIGNED.encode()) + bytes(1))}", id="one-byte-longer"),
    pytest.param(f"{SIGNED}.{b64(hs256(SIGNED.encode()).hex().encode())}", id="in-hexadecimal"),
    pytest.param(f"{SIGNED}.{b64(hs256(PAYLOAD.encode()))}", id="of-the-payload-alone"),
    pytest.param(f"{SIGNED}.{b64(hs256(dump(HEADER) + b'.' + dump(CLAIMS)))}", id="of-the-decoded-parts"),
    *[
        pytest.param(forge(sign=partial(hs256, secret=key)), id=f"by-{name}")
        for name, key in {
            "an-empty-secret": b"",
            "a-zero-byte": b"\0",
            "the-word-secret": b"secret",
            "the-secret-without-its-end": SECRET.encode()[:-1],
            "the-secret-with-a-line-end": SECRET.encode() + b"\n",
            "the-secret-in-upper-case": SECRET.upper().encode(),
            "the-issuer": b"https://issuer.example.com",
            "the-development-secret": b"known-to-everyone-for-development-only",
        }.items()
    ],
]


@pytest.mark.parametrize("token", [*SHAPES, *ENCODINGS, *PADDED, *SIGNATURES])
def test_malformed_or_forged_token_is_invalid(app: Flask, token: str) -> None:
    """A token must be well-formed and have the right signature. The answer does not say why it is refused."""
    assert whole(ask(app, token)) == refusal(INVALID)


def test_scheme_in_any_case_passes(app: Flask) -> None:
    """A scheme's name is case-insensitive (RFC 9110 section 11.1)."""
    headers = [f"{scheme}{GOOD}" for scheme in ("Bearer ", "bearer ", "BEARER ", "bEaReR ", "Bearer   ")]

    responses = [app.test_client().get(ME, headers={"Authorization": header}) for header in headers]

    assert [response.status_code for response in responses] == [200] * len(headers)


def test_token_on_several_headers_is_invalid(app: Flask) -> None:
    """Two Authorization headers are refused, even with the same right token."""
    headers = [("Authorization", f"Bearer {GOOD}"), ("Authorization", f"Bearer {GOOD}"), ("X-Request-ID", "same")]

    assert whole(app.test_client().get(ME, headers=headers)) == refusal(INVALID)


def test_database_is_down_meanwhile(app: Flask) -> None:
    """The app of these tests has no database: it refuses tokens without one, and answers 503 to a good token."""
    response = app.test_client().get("/api/tasks", headers={"Authorization": f"Bearer {GOOD}"})

    assert response.status_code == 503
    assert response.json == {"error": "The database is not available. Try again.", "code": "DATABASE_ERROR"}
    assert response.headers["Retry-After"] == "1"
