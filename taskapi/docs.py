"""The API's description: for programs, and as a page to read and try it."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import flask_swagger_ui
from flask import Blueprint, Response, jsonify

from taskapi.openapi import describe

bp = Blueprint(
    "docs",
    __name__,
    url_prefix="/api",
    static_folder=str(Path(flask_swagger_ui.__file__).with_name("dist")),
    static_url_path="/docs/ui",
)

PAGE = Path(__file__).with_name("docs.html").read_text()


def _hashes(tag: str) -> str:
    """Return what Content-Security-Policy calls the page's own elements of a kind (W3C CSP3, section 2.3.1)."""
    contents = re.findall(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    return " ".join(f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'" for content in contents)


# The page loads its bundle, asks this API, and does nothing else; data: holds the bundle's icons.
POLICY = "; ".join(
    [
        "default-src 'none'",
        f"script-src 'self' {_hashes('script')}",
        f"style-src 'self' {_hashes('style')}",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)


@bp.get("/openapi.json")
def openapi() -> Response:
    """The OpenAPI document."""
    return jsonify(describe())


@bp.get("/docs")
def docs() -> Response:
    """The page."""
    return Response(PAGE, mimetype="text/html", headers={"Content-Security-Policy": POLICY})
