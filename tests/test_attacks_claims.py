"""Misused tokens: claims of wrong types and values, and their times; each is signed as it should be."""

from typing import Any

import pytest
from flask import Flask

from tests.tokens import (
    CLAIMS, EXPIRED, INVALID, ISSUER, NOW, USER, Members, ask, dump, forge, me_app, merge, refusal, whole
)

pytestmark = pytest.mark.usefixtures("frozen")

AUDIENCE = "https://api.example.com"
LEEWAY = 30
LONG_AGO = NOW - 3600

WRONG: list[tuple[str, list[Any]]] = [
    ("exp", [..., None, "", str(NOW + 600), True, [], [NOW + 600], {}, 1e300, 10**30, -(10**30), 253402300800]),
    ("nbf", [None, "", str(NOW), True, False, [], {}, NOW + 31, 10**30, -(10**30)]),
    ("iat", [None, "", str(NOW), True, False, [], {}, NOW + 31, 10**30, -(10**30)]),
    ("iss", [..., None, "", 1, True, [ISSUER], {"a": ISSUER}, f"{ISSUER}/", f"{ISSUER} ", ISSUER.upper(), "\ud800"]),
    ("aud", [..., None, "", 1, True, [], {}, {AUDIENCE: 1}, f"{AUDIENCE}/", [[AUDIENCE]], [AUDIENCE, 1], [None]]),
    ("sub", [..., None, "", 1, 1.5, True, [], [USER], {}, "x" * 256, "\0", "a\0b", "a\nb", "\x7f", "a\x85b"]),
    ("sub", ["\ud800", "\udfff\ud800", "\u200b", "\u202e", "\u2028", "\ue000", "\uffff", "\xad"]),
    ("jti", [None, 1, True, [], {}]),
    ("email", [1, True, False, [], ["a@example.com"], {}]),
]
PARAMS = [pytest.param({name: value}, id=f"{name}-{value!r:.40}") for name, values in WRONG for value in values]

# Members in the raw, as Python's json would not write them.
RAW = {
    "exp-nan": b'"exp":NaN',
    "exp-infinity": b'"exp":Infinity',
    "exp-1e400": b'"exp":1e400',
    "exp-minus-1e400": b'"exp":-1e400',
    "exp-of-5000-digits": b'"exp":' + b"9" * 5000,
    "exp-of-4000-digits": b'"exp":' + b"9" * 4000,
    "exp-with-leading-zero": b'"exp":01700000600',
    "exp-with-plus": b'"exp":+1700000600',
    "exp-hexadecimal": b'"exp":0x7fffffff',
    "exp-with-underscore": b'"exp":1_700_000_600',
    "nbf-minus-infinity": b'"nbf":-Infinity,"exp":1700000600',
    "comment": b'"exp":1700000600/**/',
    "trailing-comma": b'"exp":1700000600,',
    "line-feed-in-a-string": b'"x":"\n","exp":1700000600',
    "deep-nesting": b'"x":' + b"[" * 100_000 + b"]" * 100_000 + b',"exp":1700000600',
}

TIMES: list[tuple[Members, dict[str, str] | None]] = [
    ({"exp": NOW - LEEWAY + 1}, None),
    ({"exp": NOW - LEEWAY + 1.5}, None),
    ({"exp": NOW - LEEWAY + 0.999}, EXPIRED),
    ({"exp": NOW - LEEWAY}, EXPIRED),
    ({"exp": NOW - LEEWAY - 1}, EXPIRED),
    ({"exp": float(LONG_AGO)}, EXPIRED),
    ({"exp": 0}, EXPIRED),
    ({"exp": -1}, EXPIRED),
    ({"exp": 253402300799}, None),
    ({"exp": NOW + 600.5}, None),
    ({"nbf": NOW + LEEWAY}, None),
    ({"nbf": NOW + LEEWAY + 0.999}, None),
    ({"nbf": NOW + LEEWAY + 1}, INVALID),
    ({"nbf": -1.5}, None),
    ({"iat": NOW + LEEWAY}, None),
    ({"iat": NOW + LEEWAY + 0.999}, None),
    ({"iat": NOW + LEEWAY + 1}, INVALID),
    ({"iat": NOW - 1e6, "nbf": NOW - 1e6}, None),
]

HEADERS: list[Members] = [{"alg": "none"}, {"typ": "JWS"}, {"crit": ["exp"]}, {"zip": "DEF"}, {"b64": True}, {"kid": 1}]
BOTH = [
    *[pytest.param({}, {name: value}, id=f"{name}-{value!r:.40}") for name, values in WRONG[1:] for value in values],
    *[pytest.param(members, {}, id=str(members)) for members in HEADERS],
]


@pytest.fixture(scope="module")
def app() -> Flask:
    """It has a secret, an issuer and an audience, and no database."""
    return me_app(JWT_ISSUER=ISSUER, JWT_AUDIENCE=AUDIENCE)


def _token(claims: Members, header: Members = {}) -> str:
    return forge(header, {"aud": AUDIENCE, **claims})


@pytest.mark.parametrize("claims", PARAMS)
def test_wrong_claim_is_invalid(app: Flask, claims: Members) -> None:
    """A registered claim of a wrong type or value is refused, required or not."""
    assert whole(ask(app, _token(claims))) == refusal(INVALID)


@pytest.mark.parametrize(("header", "claims"), BOTH)
def test_expired_token_with_another_fault_is_invalid(app: Flask, header: Members, claims: Members) -> None:
    """TOKEN_EXPIRED is for a token with no other fault."""
    assert whole(ask(app, _token({"exp": LONG_AGO, **claims}, header))) == refusal(INVALID)


def test_expired_token_of_another_secret_is_invalid(app: Flask) -> None:
    """A forged token is INVALID_TOKEN, expired or not."""
    token = _token({"exp": LONG_AGO})

    assert whole(ask(app, token)) == refusal(EXPIRED)
    assert whole(ask(app, token[:-4])) == refusal(INVALID)


@pytest.mark.parametrize("members", RAW.values(), ids=RAW)
def test_claim_that_is_not_json_is_invalid(app: Flask, members: bytes) -> None:
    """A payload that is not JSON, or has a number that JSON does not have, is refused."""
    rest = dump(merge(CLAIMS, {"aud": AUDIENCE, "exp": ...}))[:-1]

    assert whole(ask(app, forge(claims=rest + b"," + members + b"}"))) == refusal(INVALID)


@pytest.mark.parametrize(("claims", "expected"), [pytest.param(*case, id=str(case[0])) for case in TIMES])
def test_times_are_compared_in_whole_seconds(app: Flask, claims: Members, expected: dict[str, str] | None) -> None:
    """Clocks may differ by the leeway and no more; a token expires at exp, not after it (RFC 7519 section 4.1.4)."""
    response = ask(app, _token(claims))

    if expected is None:
        assert (response.status_code, response.json) == (200, {"id": USER, "email": None})
    else:
        assert whole(response) == refusal(expected)


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({}, id="plain"),
        pytest.param({"aud": [AUDIENCE]}, id="aud-list"),
        pytest.param({"aud": ["https://other.example.com", AUDIENCE]}, id="aud-longer-list"),
        pytest.param({"jti": ""}, id="jti-empty"),
        pytest.param({"x": {"iss": 1, "exp": None}, "azp": 1, "name": None, "scope": []}, id="unknown-claims"),
        pytest.param({"nonce": 2**70, "ratio": 0.1}, id="large-number-elsewhere"),
        pytest.param({"email": None}, id="email-null"),
        *(pytest.param({"email": each}, id=f"email-{each!a:.20}") for each in ("", "a\n@b", "\0", "\ud800", "x" * 255)),
        pytest.param({"email": "a\n@b", "email_verified": False}, id="email-unverified"),
    ],
)
def test_right_claims_pass(app: Flask, claims: Members) -> None:
    """Right claims pass, and the types of other claims do not matter."""
    response = ask(app, _token(claims))

    assert (response.status_code, response.json) == (200, {"id": USER, "email": None})


@pytest.mark.parametrize("subject", ["x", "x" * 255, "0", " a b ", "auth0|1", "用户", "é" * 255, "\U0001f30d" * 255])
def test_printable_subject_passes(app: Flask, subject: str) -> None:
    """A subject is 1 to 255 printable characters of any script."""
    assert ask(app, _token({"sub": subject})).status_code == 200


@pytest.mark.parametrize("issuer", [None, 1, True, [], [ISSUER], {}, "\ud800"])
def test_wrong_issuer_is_invalid_without_the_setting(issuer: Any) -> None:
    """Without JWT_ISSUER the issuer is still text, and text that UTF-8 can hold."""
    assert whole(ask(me_app(), forge(claims={"iss": issuer, "sub": "auth0|1"}))) == refusal(INVALID)


@pytest.mark.parametrize("audience", [None, 1, True, {}, {AUDIENCE: 1}, [[AUDIENCE]], [AUDIENCE, 1], [None]])
def test_wrong_audience_is_invalid_without_the_setting(audience: Any) -> None:
    """Without JWT_AUDIENCE the audience is still text, or a list of texts."""
    assert whole(ask(me_app(), forge(claims={"aud": audience}))) == refusal(INVALID)


DEEP = b"[" * 400 + b"]" * 400
CLAIMS_JSON = dump(merge(CLAIMS, {"aud": AUDIENCE}))[:-1]  # without the closing brace
ODD: dict[str, tuple[bytes, bytes]] = {
    "member-twice": (b'{"alg":"none","alg":"HS256"}', CLAIMS_JSON + b',"sub":"x","sub":"%s"}' % USER.encode()),
    "nesting-in-unused-members": (b'{"alg":"HS256","x":%s}' % DEEP, CLAIMS_JSON + b',"x":%s}' % DEEP),
    "nan-in-unused-members": (b'{"alg":"HS256","x":NaN}', CLAIMS_JSON + b',"x":[Infinity,1e999]}'),
    "byte-order-mark": (b'\xef\xbb\xbf{"alg":"HS256"}', b"\xef\xbb\xbf" + CLAIMS_JSON + b"}"),
    "white-space": (b' {"alg" :\n"HS256"}\r\n', CLAIMS_JSON + b"\t}  "),
}


@pytest.mark.parametrize(("header", "claims"), ODD.values(), ids=ODD)
def test_odd_text_of_the_issuer_passes(app: Flask, header: bytes, claims: bytes) -> None:
    """Odd JSON that PyJWT reads is accepted, if the signature and each registered claim are right."""
    response = ask(app, forge(header, claims))

    assert (response.status_code, response.json) == (200, {"id": USER, "email": None})
