"""Bearer token -> g.user."""

import json
import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID, uuid5

from flask import current_app, g, request

from taskapi.errors import ApiError, Code
from taskapi.schemas import UUID_FORM
from taskapi.wire import read_base64url

CHALLENGE = 'Bearer realm="taskapi"'

# Makes the ids of all users whose sub is no UUID: fixed for ever.
NAMESPACE = UUID("7c0a2c5e-5d0f-4b6e-9f0b-3a51d6b1c8e4")

# Seconds; the year 9999 ends there, and with it the dates that a NumericDate (RFC 7519 section 2) can stand for.
END_OF_TIME = 253402300799
MAX_SUB = 255  # characters
MAX_EMAIL = 254  # characters; RFC 5321 section 4.5.3.1.3 less its brackets

_SENT = re.compile(r"(?:^|,)[ \t]*bearer[ \t]+[^ \t]", re.IGNORECASE)
_BEARER = re.compile(r"bearer +([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.IGNORECASE | re.ASCII)
_REFUSED_PARAMETERS = {"b64", "crit", "zip"}
_TYPES = {"jwt", "at+jwt"}


class Identity(NamedTuple):
    """Who is asking: a user's id, and the address that the token shows, if any."""

    id: str
    email: str | None


def authenticate() -> None:
    """Set g.user from the Authorization header; raise the 401."""
    header = request.headers.get("Authorization", "")
    if not _SENT.search(header):
        raise _refusal("UNAUTHORIZED", "Send a bearer token.", CHALLENGE)
    g.user = verify(header, time.time())


def verify(header: str, now: float) -> Identity:
    """Return whom an Authorization header names at the Unix time now; raise the 401.

    RFC 6750 section 2.1, RFC 7515, RFC 7519 and RFC 8725; what they leave to the recipient is refused.
    """
    config = current_app.config
    try:
        match = _BEARER.fullmatch(header)
        if match is None:
            raise ValueError
        protected, payload, signature = match.groups()
        parameters = _json_object(protected)
        signed = f"{protected}.{payload}".encode()
        keys = current_app.extensions["taskapi.keys"]
        if not (_header_is_right(parameters) and keys.verify(parameters, signed, read_base64url(signature))):
            raise ValueError
        claims = _verified_json_object(payload)
        if not _claims_are_right(claims, config, now + config["JWT_LEEWAY"]):
            raise ValueError
        identity = Identity(user_id(claims.get("iss", ""), claims["sub"]), _email(claims))
    except (ValueError, RecursionError):
        raise _refusal("INVALID_TOKEN", "The token is not valid.") from None
    if claims["exp"] <= now - config["JWT_LEEWAY"]:
        raise _refusal("TOKEN_EXPIRED", "The token has expired.")
    return identity


def user_id(issuer: str, subject: str) -> str:
    """Return the id of the user that an issuer calls subject; the same for ever."""
    if UUID_FORM.fullmatch(subject):
        return subject.lower()
    return str(uuid5(NAMESPACE, f"{issuer}\n{subject}"))


def _refusal(code: Code, message: str, challenge: str = f'{CHALLENGE}, error="invalid_token"') -> ApiError:
    return ApiError(401, code, message, headers={"WWW-Authenticate": challenge})


def _json_object(part: str) -> Mapping[str, Any]:
    value = json.loads(read_base64url(part).decode(), object_pairs_hook=_members, parse_constant=_refuse_constant)
    if not isinstance(value, dict):
        raise ValueError
    return value


# A token comes again and again. Only payloads with a good signature get here, so nobody else can fill this; what they
# are worth is asked each time.
_verified_json_object = lru_cache(maxsize=256)(_json_object)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """No member twice: readers that take the first and readers that take the last would disagree."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _header_is_right(header: Mapping[str, Any]) -> bool:
    kind = header.get("typ", "JWT")
    return (
        not _REFUSED_PARAMETERS & header.keys()
        and isinstance(kind, str)
        and kind.lower().removeprefix("application/") in _TYPES
        and isinstance(header.get("kid", ""), str)
    )


def _claims_are_right(claims: Mapping[str, Any], config: Mapping[str, Any], latest: float) -> bool:
    """Everything but whether exp has passed."""
    audience = claims.get("aud", [])
    audience = [audience] if isinstance(audience, str) else audience
    subject = claims.get("sub")
    return (
        "exp" in claims
        and all(_is_date(claims[name]) for name in ("exp", "nbf", "iat") if name in claims)
        and all(claims[name] <= latest for name in ("nbf", "iat") if name in claims)
        and all(isinstance(claims[name], str) for name in ("iss", "jti") if name in claims)
        and isinstance(audience, list)
        and all(isinstance(name, str) for name in audience)
        and config["JWT_ISSUER"] in (None, claims.get("iss"))
        and config["JWT_AUDIENCE"] in (None, *audience)
        and _is_printable(subject, MAX_SUB)
        and subject != ""
        and (claims.get("email") is None or _is_printable(claims["email"], MAX_EMAIL))
    )


def _is_date(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= END_OF_TIME


def _is_printable(value: object, longest: int) -> bool:
    return isinstance(value, str) and len(value) <= longest and value.isprintable()


def _email(claims: Mapping[str, Any]) -> str | None:
    verified = claims.get("email_verified", True) in (True, "true")
    return claims.get("email") or None if verified else None
