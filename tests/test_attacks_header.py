"""Forged and misused tokens: a header that asks for something else, and parts that are not a JSON object."""

import json

import pytest
from flask import Flask

from tests.tokens import CLAIMS, HEADER, INVALID, NOW, USER, Members, ask, b64, dump, forge, me_app, refusal, whole

_, PAYLOAD, SIGNATURE = forge().split(".")
pytestmark = pytest.mark.usefixtures("frozen")

NONE = ["none", "None", "NONE", "nOnE", "none ", "", "null", "NoNe\0"]

HEADERS = [
    *[pytest.param({"alg": name}, id=f"alg-{name!r}") for name in NONE],
    *[pytest.param({"alg": name}, id=f"alg-{name}") for name in ("hs256", "HS384", "HS512", "RS256", "ES256", "EdDSA")],
    pytest.param({"alg": ...}, id="alg-missing"),
    pytest.param({"alg": None}, id="alg-null"),
    pytest.param({"alg": True}, id="alg-true"),
    pytest.param({"alg": 256}, id="alg-number"),
    pytest.param({"alg": ["HS256"]}, id="alg-list"),
    pytest.param({"alg": {"HS256": 1}}, id="alg-object"),
    pytest.param({"alg": "HS256 "}, id="alg-with-space"),
    pytest.param({"kid": 1}, id="kid-number"),
    pytest.param({"kid": None}, id="kid-null"),
    pytest.param({"kid": ["a"]}, id="kid-list"),
    pytest.param({"kid": {"a": "b"}}, id="kid-object"),
    pytest.param({"kid": False}, id="kid-false"),
    pytest.param({"crit": []}, id="crit-empty"),
    pytest.param({"crit": ["exp"], "exp": NOW + 600}, id="crit-exp"),
    pytest.param({"crit": ["b64"], "b64": False}, id="crit-b64"),
    pytest.param({"crit": None}, id="crit-null"),
    pytest.param({"crit": ["b64"], "b64": True}, id="crit-b64-true"),
    pytest.param({"b64": False}, id="b64-false"),
    pytest.param({"b64": True}, id="b64-true"),
    pytest.param({"zip": "DEF"}, id="zip-def"),
    pytest.param({"zip": None}, id="zip-null"),
    *[
        pytest.param({"typ": kind}, id=f"typ-{kind!r}")
        for kind in ("", "JWS", "JOSE", "JWE", "JWT ", "id_token", "rt+jwt", "logout+jwt", "dpop+jwt", "text/jwt", 1)
    ],
    pytest.param({"typ": None}, id="typ-null"),
    pytest.param({"typ": ["JWT"]}, id="typ-list"),
]

TEXTS = {
    "one-byte-too-few": b"",
    "unfinished": b"{",
    "null": b"null",
    "list": b"[]",
    "string": b'"text"',
    "number": b"1",
    "two-objects": b"{} {}",
    "single-quotes": b"{'alg': 'HS256'}",
    "zero-bytes": b"\0" * 64,
    "no-utf-8": b"\x80\x81\xfe\xff",
    "surrogate-in-utf-8": b'{"a": "\xed\xa0\x80"}',
    "100000-brackets": b"[" * 100_000,
    "100000-braces": b'{"a":' * 100_000,
}


@pytest.fixture(scope="module")
def app() -> Flask:
    """It has a secret, and no database."""
    return me_app()


@pytest.mark.parametrize("members", HEADERS)
def test_wrong_header_is_invalid(app: Flask, members: Members) -> None:
    """The signature is right each time; the header asks for what the service does not do."""
    assert whole(ask(app, forge(members))) == refusal(INVALID)


def test_extension_that_pyjwt_learns_is_still_invalid(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service supports no extension in crit, even if PyJWT learns one."""
    monkeypatch.setattr("jwt.api_jws.PyJWS._supported_crit", {"b64", "exp"})

    assert whole(ask(app, forge({"crit": ["exp"], "exp": NOW + 600}))) == refusal(INVALID)


@pytest.mark.parametrize("name", NONE)
@pytest.mark.parametrize("signature", ["", "A", "AA", SIGNATURE])
def test_unsigned_token_is_invalid(app: Flask, name: str, signature: str) -> None:
    """alg none is refused in every spelling."""
    assert whole(ask(app, f"{b64(dump(HEADER | {'alg': name}))}.{PAYLOAD}.{signature}")) == refusal(INVALID)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_part_that_is_not_a_json_object_is_invalid(app: Flask, text: bytes) -> None:
    """The signature is right each time; one of the parts is not a JSON object in UTF-8."""
    responses = [ask(app, token) for token in (forge(header=text), forge(claims=text))]

    assert list(map(whole, responses)) == [refusal(INVALID)] * 2


def test_part_in_latin_1_is_invalid(app: Flask) -> None:
    """The parts are UTF-8 (RFC 7519 section 3)."""
    header, claims = (json.dumps({**part, "x": "é"}, ensure_ascii=False) for part in (HEADER, CLAIMS))
    tokens = [forge(header=header.encode("latin-1")), forge(claims=claims.encode("latin-1"))]

    assert [whole(ask(app, token)) for token in tokens] == [refusal(INVALID)] * 2
    assert ask(app, forge(header.encode(), claims.encode())).status_code == 200


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({}, id="plain"),
        *[
            pytest.param({"typ": kind}, id=f"typ-{kind}")
            for kind in (..., "jwt", "at+jwt", "AT+JWT", "application/jwt", "application/at+jwt")
        ],
        *[
            pytest.param({"kid": kid}, id=f"kid-{name}")
            for name, kid in {
                "name": "k1", "empty": "", "path": "../../../../dev/null", "sql": "' UNION SELECT 'x' --",
                "command": "|touch /tmp/x", "url": "https://evil.example.com/", "surrogate": "\ud800", "nul": "a\0b",
            }.items()
        ],
        pytest.param({"x": [{"a": 1}, {"a": 2}]}, id="unknown-member"),
    ],
)
def test_right_token_passes(app: Flask, members: Members) -> None:
    """A shared secret has no key id, so that any kid is ignored."""
    response = ask(app, forge(members))

    assert (response.status_code, response.json) == (200, {"id": USER, "email": None})
