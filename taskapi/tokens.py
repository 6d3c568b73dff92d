"""A JSON Web Token, believed whole or not at all.

RFC 7515, RFC 7519 and RFC 8725; what they leave to the recipient is refused.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from taskapi.keys import KeySet, SharedSecret
from taskapi.wire import read_base64url

# Seconds; the year 9999 ends there, and with it the dates that a NumericDate (RFC 7519 section 2) can stand for.
END_OF_TIME = 253402300799
MAX_SUB = 255  # characters

_REFUSED_PARAMETERS = {"b64", "crit", "zip"}
_TYPES = {"jwt", "at+jwt"}


def read_claims(token: str, keys: SharedSecret | KeySet, config: Mapping[str, Any], now: float) -> Mapping[str, Any]:
    """Return the claims of a token that is right in all but, perhaps, its age at the Unix time now.

    Raises ValueError or RecursionError for any other, and the 503 where there are no keys.
    """
    protected, payload, signature = token.split(".")
    header = _json_object(protected)
    signed = f"{protected}.{payload}".encode()
    if not (_header_is_right(header) and keys.verify(header, signed, read_base64url(signature))):
        raise ValueError
    claims = _verified_json_object(payload)
    if not (_forms_are_right(claims) and _values_are_right(claims, config, now)):
        raise ValueError
    return claims


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """No member twice: readers that take the first and readers that take the last would disagree."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError
    return members


def _refuse_constant(name: str) -> None:
    raise ValueError


_DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_refuse_constant)


def _json_object(part: str) -> Mapping[str, Any]:
    value = _DECODER.decode(read_base64url(part).decode())
    if not isinstance(value, dict):
        raise ValueError
    return value


# A token comes again and again. Only payloads with a good signature get here, so nobody else can fill this; what they
# are worth is asked each time.
_verified_json_object = lru_cache(maxsize=256)(_json_object)


def _header_is_right(header: Mapping[str, Any]) -> bool:
    kind = header.get("typ", "JWT")
    return (
        not _REFUSED_PARAMETERS & header.keys()
        and _is_text(kind)
        and kind.lower().removeprefix("application/") in _TYPES
        and _is_text(header.get("kid", ""))
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_date(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= END_OF_TIME


def _is_audience(value: object) -> bool:
    return _is_text(value) or (isinstance(value, list) and all(map(_is_text, value)))


def is_printable(value: object, longest: int) -> bool:
    """Say whether a value is text of 1 to longest characters, each of which can be printed."""
    return isinstance(value, str) and 1 <= len(value) <= longest and value.isprintable()


_REQUIRED = {"exp", "sub"}
_FORMS: Mapping[str, Callable[[object], bool]] = {
    "exp": _is_date,
    "nbf": _is_date,
    "iat": _is_date,
    "iss": _is_text,
    "jti": _is_text,
    "aud": _is_audience,
    "sub": lambda value: is_printable(value, MAX_SUB),
    "email": lambda value: value is None or _is_text(value),
}


def _forms_are_right(claims: Mapping[str, Any]) -> bool:
    is_right = all(has_form(claims[name]) for name, has_form in _FORMS.items() if name in claims)
    return is_right and claims.keys() >= _REQUIRED


def _values_are_right(claims: Mapping[str, Any], config: Mapping[str, Any], now: float) -> bool:
    """Everything but whether exp has passed."""
    audience = claims.get("aud", [])
    return (
        all(claims.get(name, now) <= now + config["JWT_LEEWAY"] for name in ("nbf", "iat"))
        and config["JWT_ISSUER"] in (None, claims.get("iss"))
        and config["JWT_AUDIENCE"] in (None, *([audience] if isinstance(audience, str) else audience))
    )
