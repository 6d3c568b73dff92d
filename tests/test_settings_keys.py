"""Settings that say how tokens are verified: what is missing, contradictory or weak stops the start."""

import pytest
from jwt.algorithms import requires_cryptography

from taskapi import create_app
from taskapi.config import DEVELOPMENT_SECRET, PUBLIC_KEY_ALGORITHMS, SettingsError
from tests.people import SECRET
from tests.tokens import ISSUER, NOWHERE, Members

URL = "https://issuer.example.com/keys"
KEYS = {"JWT_JWKS_URL": URL, "JWT_ISSUER": ISSUER}


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "neither": ({}, "JWT_SECRET is missing, and so is JWT_JWKS_URL"),
    "both-empty": ({"JWT_SECRET": "", "JWT_JWKS_URL": ""}, "JWT_SECRET is missing, and so is JWT_JWKS_URL"),
    "both": ({**KEYS, "JWT_SECRET": SECRET}, "JWT_SECRET and JWT_JWKS_URL exclude each other"),
    "31-bytes": ({"JWT_SECRET": "x" * 31}, "JWT_SECRET must be 32 bytes or more"),
    "31-bytes-in-16-letters": ({"JWT_SECRET": "é" * 15 + "x"}, "JWT_SECRET must be 32 bytes or more"),
    "no-utf-8": ({"JWT_SECRET": "\udcff" * 32}, "JWT_SECRET is not UTF-8 text"),
    "development-secret": (
        {"JWT_SECRET": DEVELOPMENT_SECRET},
        "JWT_SECRET is the development secret, which only debug mode may use",
    ),
    "key-set-without-issuer": ({"JWT_JWKS_URL": URL}, "JWT_ISSUER is missing; JWT_JWKS_URL needs it"),
    "key-set-with-empty-issuer": ({**KEYS, "JWT_ISSUER": ""}, "JWT_ISSUER is missing; JWT_JWKS_URL needs it"),
    "algorithms-with-a-secret": (
        {"JWT_SECRET": SECRET, "JWT_ALGORITHMS": "HS256"},
        "JWT_ALGORITHMS goes with JWT_JWKS_URL; a JWT_SECRET means HS256",
    ),
}
PUBLIC_FORMS = [
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
    "-----BEGIN CERTIFICATE-----\nMIIDBTCCAe2gAwIBAgIJ",
    " \n-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA",
    "-----BEGIN PUBLIC KEY-----\\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE",
    '{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}',
    "Bag Attributes\n-----BEGIN PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END PRIVATE KEY-----",
    "---- BEGIN SSH2 PUBLIC KEY ----\nAAAAC3NzaC1lZDI1NTE5AAAAIGB9\n---- END SSH2 PUBLIC KEY ----",
    '[ {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]',
    '\t{"keys": [{"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ"}]}',
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGB9",
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY",
]
URLS = [
    "http://issuer.example.com/keys", "http://localhost.example.com/", "http://127.0.0.1.example.com/",
    "http://127.0.0.2/keys", "http://[::2]/", "http://localhost@example.com/", "http://example.com@localhost/",
    "https://ana:secret@example.com/", "https://", "https:///keys", "https:issuer.example.com", "issuer.example.com",
    "//issuer.example.com/keys", "ftp://localhost/", "file:///etc/passwd", "data:application/json,{}", "/keys", "x",
    "https://issuer.example.com/a b", "https://issuer.example.com/a\nb", "https://issuer.example.com:0/",
    "https://issuer.example.com:x/", "https://issuer.example.com:123456/", "https://issuer.example.com:65536/",
    "https://issuer.example.com/é", "https://issuer.example.com /",
]
GOOD_URLS = [
    "https://issuer.example.com", "https://issuer.example.com/", "https://issuer.example.com:8443/a/b?c=d",
    "http://localhost/keys", "http://localhost:3000/api/auth/jwks", "http://127.0.0.1:1/", "http://[::1]:1/keys",
]
ALGORITHMS = [
    "HS256", "HS384", "HS512", "none", "None", "rs256", "RS256,HS256", "RS256,none", "RS256,,ES256", ",", "RS256 ES256",
    "EdDSA;RS256", "RS1", "*",
]


def _problem(settings: Members) -> str:
    """Return what is said when the start is refused."""
    with pytest.raises(SettingsError) as refused:
        create_app({"DATABASE_URL": NOWHERE, **settings})
    return str(refused.value.code)


@pytest.mark.parametrize(("settings", "problem"), REFUSED.values(), ids=REFUSED)
def test_wrong_combination_stops_the_start(settings: Members, problem: str) -> None:
    """One line names the setting."""
    assert _problem(settings) == f"taskapi cannot start: {problem}"


@pytest.mark.parametrize("secret", PUBLIC_FORMS)
def test_public_key_as_secret_stops_the_start(secret: str) -> None:
    """A public key is no secret; it was meant for another setting."""
    assert _problem({"JWT_SECRET": secret}) == (
        "taskapi cannot start: JWT_SECRET looks like a PEM or JWK; for public keys use JWT_JWKS_URL"
    )


@pytest.mark.parametrize("url", URLS)
def test_wrong_key_set_url_stops_the_start(url: str) -> None:
    """Keys come over TLS, or from this machine."""
    assert _problem({**KEYS, "JWT_JWKS_URL": url}) == (
        "taskapi cannot start: JWT_JWKS_URL must begin with https://, or http:// on localhost"
    )


@pytest.mark.parametrize("names", ALGORITHMS)
def test_wrong_algorithms_stop_the_start(names: str) -> None:
    """Only algorithms with public keys, by their exact names (RFC 7518 section 3.1, RFC 8037 section 3.1)."""
    problem, _, known = _problem({**KEYS, "JWT_ALGORITHMS": names}).partition(" some of ")

    assert problem == "taskapi cannot start: JWT_ALGORITHMS must be"
    assert {"RS256", "ES256", "EdDSA"} <= set(known.split(", "))
    assert {"HS256", "HS384", "HS512", "none"} & set(known.split(", ")) == set()


@pytest.mark.parametrize(
    "settings", [{"JWT_SECRET": "a secret that is too short"}, {**KEYS, "JWT_JWKS_URL": "http://u:secret@x/"}]
)
def test_value_is_not_shown(settings: Members) -> None:
    """Logs are no place for secrets, wrong ones included; and a log line is one line."""
    problem = _problem(settings)

    assert "secret that" not in problem
    assert "u:secret" not in problem
    assert "\n" not in problem


@pytest.mark.parametrize("secret", ["x" * 32, "é" * 16, "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcD", SECRET])
def test_long_secret_is_taken(secret: str) -> None:
    """HS256 needs 256 bits (RFC 7518 section 3.2)."""
    config = create_app({"DATABASE_URL": NOWHERE, "JWT_SECRET": secret}).config

    assert (config["JWT_SECRET"], config["JWT_JWKS_URL"]) == (secret, None)


@pytest.mark.parametrize("url", GOOD_URLS)
def test_good_key_set_url_is_taken(url: str) -> None:
    """Nothing is fetched yet: the start does not depend on the issuer."""
    config = create_app({"DATABASE_URL": NOWHERE, **KEYS, "JWT_JWKS_URL": url}).config

    assert (config["JWT_SECRET"], config["JWT_JWKS_URL"]) == (None, url)
    assert config["JWT_ALGORITHMS"] == ["RS256", "ES256", "EdDSA"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("", ["RS256", "ES256", "EdDSA"]),
        ("ES256", ["ES256"]),
        (" EdDSA , RS256,EdDSA", ["EdDSA", "RS256"]),
        ("RS512,ES384,PS256,ES256K", ["RS512", "ES384", "PS256", "ES256K"]),
    ],
)
def test_algorithms_are_taken(names: str, expected: list[str]) -> None:
    """Some in any order, with or without spaces; three when the setting is not given."""
    assert create_app({"DATABASE_URL": NOWHERE, **KEYS, "JWT_ALGORITHMS": names}).config["JWT_ALGORITHMS"] == expected


@pytest.mark.parametrize("debug", ["0", "1"])
def test_development_secret_gives_way_to_a_key_set(debug: str) -> None:
    """Under flask, .flaskenv's secret stands beside the URL in .env: the URL is what the developer chose."""
    settings = {**KEYS, "JWT_SECRET": DEVELOPMENT_SECRET, "FLASK_DEBUG": debug}

    config = create_app({"DATABASE_URL": NOWHERE, **settings}).config

    assert (config["JWT_SECRET"], config["JWT_JWKS_URL"]) == (None, URL)


def test_algorithms_are_those_of_pyjwt() -> None:
    """Each public-key algorithm of the installed PyJWT may be named, and no other."""
    assert PUBLIC_KEY_ALGORITHMS == requires_cryptography
