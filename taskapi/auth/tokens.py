"""Verify JWTs and validate their claims."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from time import time
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import jwt
from jwt.types import Options
from marshmallow import EXCLUDE, Schema, ValidationError, fields, validate

from taskapi.auth.keys import KeySet, Keys, SharedSecret
from taskapi.wire import UUID_FORM

MAX_SUB = 255  # characters
MAX_EMAIL = 254  # characters; RFC 5321 section 4.5.3.1.3 without the angle brackets
END_OF_TIME = 253402300799  # Unix time of the last second of the year 9999

# Makes the id of every user whose sub is not a UUID. It must never change.
NAMESPACE = UUID("7c0a2c5e-5d0f-4b6e-9f0b-3a51d6b1c8e4")

# Header parameters that PyJWT accepts or ignores, and that we refuse: extensions and compression.
REFUSED_PARAMETERS = {"crit", "b64", "zip"}

REASONS: dict[type[Exception], str] = {
    jwt.InvalidSignatureError: "signature", jwt.InvalidAlgorithmError: "algorithm", jwt.InvalidKeyError: "key",
    jwt.InvalidIssuerError: "issuer", jwt.InvalidAudienceError: "audience",
    jwt.InvalidTokenError: "form", jwt.DecodeError: "form",
}
# Some of these are PyJWT's defaults, set explicitly.
OPTIONS: Options = {
    "require": ["exp", "sub"],
    "verify_signature": True,
    "verify_exp": False,  # identify() checks it last: an expired token has no other fault
    "verify_nbf": True,
    "verify_iat": True,
    "verify_sub": True,
    "verify_jti": True,
    "strict_aud": False,
    "enforce_minimum_key_length": True,
}


class Refused(Exception):
    """The token is refused. The reason is for the log only; docs/operating.md lists them."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Identity(NamedTuple):
    """The caller: the user's id, and the token's email, if any."""

    id: str
    email: str | None


def _numeric_date(value: object) -> None:
    """Seconds since 1970 (RFC 7519 section 2); marshmallow's own numbers take text and booleans too."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= END_OF_TIME:
        raise ValidationError("Not a NumericDate.")


def _audience(value: object) -> None:
    """Text or a list of texts (RFC 7519 section 4.1.3)."""
    if not all(isinstance(name, str) for name in (value if isinstance(value, list) else [value])):
        raise ValidationError("Not an audience.")


class ClaimsSchema(Schema):
    """The registered claims (RFC 7519 section 4.1) and the email, each with its type."""

    iss = fields.String(load_default="")
    sub = fields.String(required=True, validate=[validate.Length(1, MAX_SUB), validate.Predicate("isprintable")])
    aud = fields.Raw(validate=_audience)
    exp = fields.Raw(required=True, validate=_numeric_date)
    nbf = fields.Raw(validate=_numeric_date)
    iat = fields.Raw(validate=_numeric_date)
    jti = fields.String()
    email = fields.String(load_default=None, allow_none=True)
    email_verified = fields.Raw(load_default=True, allow_none=True)


CLAIMS = ClaimsSchema(unknown=EXCLUDE)


def identify(token: str, source: SharedSecret | KeySet, config: Mapping[str, Any]) -> Identity:
    """Return the token's user; raise Refused, or the 503 if there are no keys."""
    rules = (source.algorithms, config["JWT_ISSUER"], config["JWT_AUDIENCE"], config["JWT_LEEWAY"])
    keys = source.keys()
    try:
        identity, expires = _verify(token, keys, *rules)
    except Refused as refused:  # the issuer may have a new key
        if refused.reason not in ("signature", "key") or (fresh := source.fresh_keys()) is keys:
            raise
        identity, expires = _verify(token, fresh, *rules)
    if expires <= time() - config["JWT_LEEWAY"]:
        raise Refused("expired")
    return identity


# Cache verified tokens, for the same keys and rules. Only expiry can change afterwards, and identify() checks it each
# time. An entry takes about a kilobyte.
@lru_cache(maxsize=1024)
def _verify(
    token: str, keys: Keys, algorithms: Sequence[str], issuer: str | None, audience: str | None, leeway: int
) -> tuple[Identity, int]:
    """Return the user, and the Unix time in whole seconds when the token expires; raise Refused."""
    try:
        fitting = _fitting(_read_header(token, algorithms), keys)
        claims = CLAIMS.load(_decode(token, fitting, issuer=issuer, audience=audience, leeway=leeway))
        return Identity(user_id(claims["iss"], claims["sub"]), _email(claims)), int(claims["exp"])
    except (jwt.PyJWTError, ValidationError, ValueError) as error:  # ValueError: the issuer's name is not Unicode
        missing = {"iss": "issuer", "aud": "audience"}.get(getattr(error, "claim", ""))
        raise Refused(missing or REASONS.get(type(error), "claims")) from None


def _read_header(token: str, algorithms: Sequence[str]) -> Mapping[str, Any]:
    header = jwt.get_unverified_header(token)
    kind = str(header.get("typ", "JWT")).lower().removeprefix("application/")
    if "=" in token or REFUSED_PARAMETERS & header.keys() or kind not in ("jwt", "at+jwt"):
        raise Refused("form")
    if header.get("alg") not in algorithms:
        raise Refused("algorithm")
    return header


def _fitting(header: Mapping[str, Any], keys: Keys) -> Keys:
    """Return the keys of the token's algorithm and key id; a key without an id fits every token."""
    fitting = tuple(key for key in keys if key.algorithm_name == header["alg"])
    if "kid" not in header:
        return fitting if len(fitting) == 1 else ()
    return tuple(key for key in fitting if key.key_id in (None, header["kid"]))


def _decode(token: str, keys: Keys, **rules: Any) -> dict[str, Any]:
    """Verify all of a token but exp, and return its claims."""
    checks: Options = {"verify_iss": rules["issuer"] is not None, "verify_aud": rules["audience"] is not None}
    refused: Exception = Refused("key")
    for key in keys:  # several if a set has one key id twice
        try:
            return jwt.decode(token, key, algorithms=[key.algorithm_name], options={**OPTIONS, **checks}, **rules)
        except jwt.InvalidSignatureError as error:
            refused = error
    raise refused


def user_id(issuer: str, subject: str) -> str:
    """Return the user's id for an issuer and a subject; it never changes."""
    if UUID_FORM.fullmatch(subject):
        return subject.lower()
    return str(uuid5(NAMESPACE, f"{issuer}\n{subject}"))


def _email(claims: Mapping[str, Any]) -> str | None:
    """Return the email; None if it is unverified, too long or not printable."""
    email: str = claims["email"] or ""
    is_good = claims["email_verified"] in (True, "true") and len(email) <= MAX_EMAIL and email.isprintable()
    return email or None if is_good else None
