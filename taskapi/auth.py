"""Bearer token -> g.user."""

import re
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid5

from flask import current_app, g, request

from taskapi.errors import ApiError, Code
from taskapi.fields import UUID_FORM
from taskapi.owners import Identity
from taskapi.tokens import is_printable, read_claims

CHALLENGE = 'Bearer realm="taskapi"'

MAX_EMAIL = 254  # characters; RFC 5321 section 4.5.3.1.3 less its brackets

# Makes the ids of all users whose sub is no UUID: fixed for ever.
NAMESPACE = UUID("7c0a2c5e-5d0f-4b6e-9f0b-3a51d6b1c8e4")

_SENT = re.compile(r"(?:^|,)[ \t]*bearer[ \t]+[^ \t]", re.IGNORECASE | re.ASCII)
_BEARER = re.compile(r"bearer +(.*)", re.IGNORECASE | re.ASCII)  # RFC 6750 section 2.1


def authenticate() -> None:
    """Set g.user from the Authorization header; raise the 401."""
    header = request.headers.get("Authorization", "")
    if not _SENT.search(header):
        raise _refusal("UNAUTHORIZED", "Send a bearer token.", CHALLENGE)
    now, config = time.time(), current_app.config
    try:
        match = _BEARER.fullmatch(header)
        claims = read_claims(match[1] if match else "", current_app.extensions["taskapi.keys"], config, now)
        user = Identity(user_id(claims.get("iss", ""), claims["sub"]), _email(claims))
    except (ValueError, RecursionError):
        raise _refusal("INVALID_TOKEN", "The token is not valid.") from None
    if claims["exp"] <= now - config["JWT_LEEWAY"]:
        raise _refusal("TOKEN_EXPIRED", "The token has expired.")
    g.user = user


def user_id(issuer: str, subject: str) -> str:
    """Return the id of the user that an issuer calls subject; the same for ever."""
    if UUID_FORM.fullmatch(subject):
        return subject.lower()
    return str(uuid5(NAMESPACE, f"{issuer}\n{subject}"))


def _refusal(code: Code, message: str, challenge: str = f'{CHALLENGE}, error="invalid_token"') -> ApiError:
    return ApiError(401, code, message, headers={"WWW-Authenticate": challenge})


def _email(claims: Mapping[str, Any]) -> str | None:
    """Return the address, unless the token calls it unverified or it could not be shown."""
    email: str | None = claims.get("email")
    is_verified = claims.get("email_verified", True) in (True, "true")
    return email if is_verified and is_printable(email, MAX_EMAIL) else None
