"""Bearer token -> g.user, for everything under /api/ that is not named public."""

import re

from flask import Flask, Response, current_app, g, request

from taskapi.auth.keys import KeySet, SharedSecret
from taskapi.auth.tokens import Refused, identify
from taskapi.errors import ApiError, Code

PREFIX = "/api/"
PUBLIC = ("/api/openapi.json/", "/api/docs/")  # these paths and what is below them

CHALLENGE = 'Bearer realm="taskapi"'  # RFC 6750 section 3
HAS_BEARER = re.compile(r"(?:^|,)[ \t]*bearer[ \t]+[^ \t]", re.IGNORECASE | re.ASCII)
BEARER = re.compile(r"bearer +(.*)", re.IGNORECASE | re.ASCII)  # RFC 6750 section 2.1


def init_app(app: Flask) -> None:
    """Guard the app. No key is fetched yet."""
    secret, url = app.config["JWT_SECRET"], app.config["JWT_JWKS_URL"]
    app.extensions["taskapi.keys"] = SharedSecret(secret) if secret else KeySet(url, app.config["JWT_ALGORITHMS"])
    app.before_request(require_token)
    app.after_request(keep_private)


def needs_token(path: str) -> bool:
    """Return whether a path needs a token, with or without a route."""
    return path.startswith(PREFIX) and not f"{path}/".startswith(PUBLIC)


def require_token() -> None:
    """Require a token under /api/, even for 404 and 405. Preflight requests are exempt."""
    if not needs_token(request.path) or request.method == "OPTIONS":
        return
    header = request.headers.get("Authorization", "")
    if not HAS_BEARER.search(header):
        raise _refusal("UNAUTHORIZED", "Send a bearer token.", CHALLENGE)
    match = BEARER.fullmatch(header)
    try:
        g.user = identify(match[1] if match else "", current_app.extensions["taskapi.keys"], current_app.config)
    except Refused as refused:
        g.refused = refused.reason  # for the log
        if refused.reason == "expired":
            raise _refusal("TOKEN_EXPIRED", "The token has expired.") from None
        raise _refusal("INVALID_TOKEN", "The token is not valid.") from None


def _refusal(code: Code, message: str, challenge: str = f'{CHALLENGE}, error="invalid_token"') -> ApiError:
    return ApiError(401, code, message, headers={"WWW-Authenticate": challenge})


def keep_private(response: Response) -> Response:
    """Keep answers out of shared caches and from being read as another media type."""
    headers = response.headers
    headers.add("Vary", "Origin")
    headers.add("X-Content-Type-Options", "nosniff")
    if needs_token(request.path):
        headers["Cache-Control"] = "private, no-cache"
    return response
