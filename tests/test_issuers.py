"""The issuers that people use: tokens and key sets of exactly their form pass, with three settings or fewer."""

from collections.abc import Iterator
from typing import Any

import pytest
import time_machine

from tests.keyserver import KeyServer
from tests.tokens import (
    EXPIRED, INVALID, ISSUER, NOW, USER, KeyPair, Members, ask, ed25519, forge, hs256, me_app, p256, rsa_key
)

SUPABASE = {"JWT_ISSUER": "https://abcdefghijklmnopqrst.supabase.co/auth/v1", "JWT_AUDIENCE": "authenticated"}


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    """Time stands still."""
    with time_machine.travel(NOW, tick=False):
        yield


def _answer_to(path: str, jwks: list[Members], token: str, **settings: str) -> tuple[int, Any]:
    """Return what an app with these settings answers to the token: its user. It fetches the issuer's keys once."""
    with KeyServer(*jwks) as server:
        app = me_app(JWT_JWKS_URL=server.origin + path, **settings)
        response = ask(app, token)
        assert server.asked == [path]
        assert len(settings) < 3
    return response.status_code, response.json


def _times(seconds: int) -> dict[str, int]:
    return {"iat": NOW - 5, "exp": NOW - 5 + seconds}


def test_better_auth() -> None:
    """jwt() signs with Ed25519, shows the whole user, and is its own audience; neither typ nor the key's alg is there.

    Source: https://www.better-auth.com/docs/plugins/jwt
    """
    pair = ed25519("c5c7995d-0037-4553-8aee-b5b620b89b23")
    user = {
        "id": "Vq3xT8mZ0aKc5RbN7yWdLhE2uJgPsF9o", "name": "Ana", "email": "ana@example.com", "emailVerified": True,
        "image": None, "createdAt": "2023-11-01T08:00:00.000Z", "updatedAt": "2023-11-01T08:00:00.000Z",
    }
    base = "http://localhost:3000"
    token = pair.token({"typ": ...}, {**user, **_times(900), "sub": user["id"], "iss": base, "aud": base})

    assert pair.jwk().keys() == {"kty", "crv", "x", "kid"}
    assert _answer_to("/api/auth/jwks", [pair.jwk()], token, JWT_ISSUER=base, JWT_AUDIENCE=base) == (
        200, {"id": "3aab6660-8f07-580f-8561-e1e8b3cb9547", "email": "ana@example.com"}
    )


@pytest.mark.parametrize("typ", ["JWT", "at+jwt"])
def test_auth0(typ: str) -> None:
    """An access token is for the API and /userinfo, and shows no address; at+jwt is the typ of the RFC 9068 profile.

    Source: https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles
    """
    pair = rsa_key("NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg")
    api, domain = "https://example.com/tasks-api", "https://my-domain.auth0.com/"
    claims = {
        "iss": domain, "sub": "auth0|6553da60a54af58e29493993", "aud": [api, f"{domain}userinfo"],
        "azp": "K1AUPhZq8mRi0Q0pjhkfu1D7y6KjDQja", "scope": "openid profile email", **_times(86400),
    }
    jwks: list[Members] = [
        pair.jwk(alg="RS256", use="sig", x5c=["MIIDBTCCAe2gAwIBAgIJ"], x5t=pair.kid),
        rsa_key("next").jwk(alg="RS256", use="sig", x5c=["MIIDBTCCAe2gAwIBAgIK"], x5t="next"),
    ]

    token = pair.token({"typ": typ}, claims)

    assert _answer_to("/.well-known/jwks.json", jwks, token, JWT_ISSUER=domain, JWT_AUDIENCE=api) == (
        200, {"id": "42ec3307-a90c-525a-b67c-318a02a4aa54", "email": None}
    )


def test_clerk() -> None:
    """A session token of version 2 has no audience, and a header member of Clerk's own.

    Source: https://clerk.com/docs/guides/sessions/session-tokens
    """
    pair = rsa_key("ins_2GIoQhbUpy0hX7B2cVkuTMinXoD")
    claims = {
        "azp": "https://example.com", "fva": [7, -1], "iss": "https://clerk.example.com", "nbf": NOW - 15,
        "sid": "sess_2GaMqUCB3Sc1WNAkWuNzsnYVVEy", "sts": "active", "sub": "user_2GIpXOEpVyJw51rkZn9Kmnc6Sxr", "v": 2,
        "pla": "u:free", "fea": "u:tasks", **_times(60),
    }
    token = pair.token({"cat": "cl_B7d4PD111AAA"}, claims)

    assert _answer_to(
        "/.well-known/jwks.json", [pair.jwk(alg="RS256", use="sig")], token, JWT_ISSUER="https://clerk.example.com"
    ) == (200, {"id": "cf1487d1-77e7-5399-9b6a-0055a1f5c0d9", "email": None})


def _supabase(**changes: Any) -> dict[str, Any]:
    session = {"session_id": "0b5e2d7c-9d4e-4d0e-8f2b-1c2d3e4f5a6b", "amr": [{"method": "otp", "timestamp": NOW - 5}]}
    return {
        "iss": SUPABASE["JWT_ISSUER"], "sub": USER, "aud": "authenticated", "email": "ana@example.com", "phone": "",
        "app_metadata": {"provider": "email", "providers": ["email"]}, "user_metadata": {"email_verified": True},
        "role": "authenticated", "aal": "aal1", "is_anonymous": False, **session, **_times(3600), **changes,
    }


@pytest.mark.parametrize(
    ("changes", "email"), [({}, "ana@example.com"), ({"email": "", "phone": "491701234567"}, None)]
)
def test_supabase_with_a_key_set(changes: Members, email: str | None) -> None:
    """A project's signing key is P-256; a user who signed up by phone has an empty address.

    Source: https://supabase.com/docs/guides/auth/jwt-fields and https://supabase.com/docs/guides/auth/signing-keys
    """
    pair = p256("f1f9a6b2-4b1f-4d9e-9c41-8c5a3a1f2b3c")
    jwk = pair.jwk(alg="ES256", use="sig", key_ops=["verify"], ext=True)

    assert _answer_to("/auth/v1/.well-known/jwks.json", [jwk], pair.token(claims=_supabase(**changes)), **SUPABASE) == (
        200, {"id": USER, "email": email}
    )


@pytest.mark.parametrize(
    ("changes", "email"), [({}, "ana@example.com"), ({"email": "", "phone": "491701234567"}, None)]
)
def test_supabase_with_a_shared_secret(changes: Members, email: str | None) -> None:
    """An older project signs with its JWT secret, as it is and not decoded from base64, and names a key all the same.

    Source: https://supabase.com/docs/guides/auth/jwts
    """
    secret = "q8Yd+3b1C0Jx7m5Zr2VwT4nKf6HsL9aEuPiOgBvXeDkNtWcRzMjQyUhSlAoFpIG1xw=="
    app = me_app(JWT_SECRET=secret, **SUPABASE)
    anonymous = {"iss": "supabase", "ref": "abcdefghijklmnopqrst", "role": "anon", "sub": ..., "exp": NOW + 3600}

    token, api_key = (
        forge({"kid": "KW3b8mZ0aQ5RbN7y"}, claims, lambda signed: hs256(signed, secret.encode()))
        for claims in (_supabase(**changes), anonymous)
    )

    assert ask(app, token).json == {"id": USER, "email": email}
    assert ask(app, api_key).json == INVALID  # the project's public anon key is signed with the same secret


@pytest.mark.parametrize(("is_verified", "email"), [(True, "ana@example.com"), (False, None)])
def test_keycloak(is_verified: bool, email: str | None) -> None:
    """A realm publishes a key for encryption too; typ among the claims says Bearer, and says nothing here.

    Source: https://phasetwo.io/tutorials/getting-started/your-first-token/ (Keycloak's own pages show no whole token)
    """
    pair, other = rsa_key("FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"), rsa_key("encryption")
    realm = "https://id.example.com/realms/demo"
    claims = {
        "jti": "onrtac:d58f5dc8-fd8f-462b-8a19-716f8f83985b", "iss": realm, "aud": "account", "sub": USER,
        "typ": "Bearer", "azp": "demo-app", "sid": "2a88c258-f73a-4103-b862-e1fbd8f4e04e", "acr": "1",
        "allowed-origins": ["https://app.example.com"], "realm_access": {"roles": ["offline_access"]},
        "resource_access": {"account": {"roles": ["manage-account"]}}, "scope": "email profile",
        "email_verified": is_verified, "preferred_username": "ana", "email": "ana@example.com", **_times(300),
    }
    certificate = {"x5c": ["MIIClzCCAX8CBgGL"], "x5t": "AAAA", "x5t#S256": "AAAA"}
    jwks: list[Members] = [
        other.jwk(alg="RSA-OAEP", use="enc", **certificate), pair.jwk(alg="RS256", use="sig", **certificate)
    ]

    assert _answer_to(
        "/realms/demo/protocol/openid-connect/certs", jwks, pair.token(claims=claims), JWT_ISSUER=realm,
        JWT_AUDIENCE="account",
    ) == (200, {"id": USER, "email": email})


@pytest.mark.parametrize(
    ("issuer", "subject", "expected"),
    [
        (ISSUER, "ana", "9e65aa99-7f2c-59e4-b35b-75bbd02ad3c7"),
        (ISSUER, "Ana", "2d4a992a-6d05-5680-9272-ec8f9e86fff7"),
        ("https://other.example.com", "ana", "81bdd758-45c3-5223-9526-a29b031a4df8"),
        ("https://my-domain.auth0.com", "auth0|6553da60a54af58e29493993", "ab22ec44-0587-57d5-8087-393478f7615d"),
        (..., "user_2GIpXOEpVyJw51rkZn9Kmnc6Sxr", "14275dc4-08e7-5695-9285-8c1e211f6236"),
        (ISSUER, "用户", "b8e332d9-97b9-5dc1-9f16-70ecfe364d86"),
        (ISSUER, "0F8FAD5BD9CB469FA16570867728950E", "581397f8-095b-5991-8079-488902cbff44"),
        (ISSUER, "{0f8fad5b-d9cb-469f-a165-70867728950e}", "e0990355-6522-5aad-89d6-d5d7e20cc27e"),
        (ISSUER, "0f8fad5b-d9cb-469f-a165-70867728950e", "0f8fad5b-d9cb-469f-a165-70867728950e"),
        ("https://other.example.com", "0F8FAD5B-D9CB-469F-A165-70867728950E", "0f8fad5b-d9cb-469f-a165-70867728950e"),
    ],
)
def test_same_person_is_the_same_user_for_ever(issuer: str, subject: str, expected: str) -> None:
    """These ids are stored in databases, so they never change."""
    assert ask(me_app(), forge(claims={"iss": issuer, "sub": subject})).json == {"id": expected, "email": None}


def test_settings_of_one_issuer_do_not_let_another_in() -> None:
    """An issuer that gives its keys to several tenants is told apart by iss, one that serves several APIs by aud."""
    pair = KeyPair("ES256", p256().private, "shared")
    ours = {"JWT_ISSUER": "https://id.example.com/realms/demo", "JWT_AUDIENCE": "account"}
    right = {"iss": ours["JWT_ISSUER"], "aud": "account"}
    cases: list[tuple[Members, Any]] = [
        ({**right, "exp": NOW - 31}, EXPIRED),
        ({**right, "iss": "https://id.example.com/realms/other"}, INVALID),
        ({**right, "aud": "other-api"}, INVALID),
    ]

    for claims, expected in cases:
        assert _answer_to("/keys", [pair.jwk()], pair.token(claims=claims), **ours) == (401, expected)
