"""The API's description: for programs, and as a page to read and try it."""

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import flask_swagger_ui
from flask import Blueprint, Response, jsonify, request

from taskapi.errors import ApiError
from taskapi.openapi import describe
from taskapi.wire import if_none_match

bp = Blueprint("docs", __name__, url_prefix="/api")

# What the page loads, of all that the bundle has; in memory, as each worker sends it whole.
FILES = {
    name: Path(flask_swagger_ui.__file__).with_name("dist").joinpath(name).read_bytes()
    for name in ("swagger-ui.css", "swagger-ui-bundle.js")
}
ETAGS = {name: f'"{sha256(content).hexdigest()}"' for name, content in FILES.items()}
PAGE = Path(__file__).with_name("docs.html").read_text()


def _hash(tag: str) -> str:
    """Return what Content-Security-Policy calls the page's own element of a kind (W3C CSP3, section 2.3.1)."""
    [content] = re.findall(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    return f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"


# The page loads its bundle, asks this API, and does nothing else.
POLICY = (
    f"default-src 'none'; script-src 'self' {_hash('script')}; style-src 'self' {_hash('style')}; "
    "img-src data:; "  # the bundle's icons
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@bp.get("/openapi.json")
def openapi() -> Response:
    """The OpenAPI document."""
    return jsonify(describe())


@bp.get("/docs/ui/<name>")
def static(name: str) -> Response:
    """One of the page's files, or 304 if the browser has it."""
    if name not in FILES:
        raise ApiError(404, "NOT_FOUND")
    mimetype = "text/css" if name.endswith("css") else "text/javascript"
    response = Response(FILES[name], mimetype=mimetype, headers={"ETag": ETAGS[name], "Cache-Control": "no-cache"})
    if if_none_match(request.headers.get("If-None-Match", ""), ETAGS[name]):
        response.status_code = 304
    return response


EXAMPLE = (Path(__file__).resolve().parent.parent / "docs" / "example.html").read_text()


def _example_policy() -> str:
    hashes = {}
    for tag in ("script", "style"):
        [content] = re.findall(f"<{tag}>(.*?)</{tag}>", EXAMPLE, re.DOTALL)
        hashes[tag] = f"'sha256-{b64encode(sha256(content.encode()).digest()).decode()}'"
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def example() -> Response:
    """The example front end."""
    return Response(EXAMPLE, mimetype="text/html", headers={"Content-Security-Policy": _example_policy()})


@bp.get("/docs")
def docs() -> Response:
    """The page."""
    return Response(PAGE, mimetype="text/html", headers={"Content-Security-Policy": POLICY})
