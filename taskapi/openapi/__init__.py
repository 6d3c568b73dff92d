"""The API's description, as an OpenAPI 3.1 document and as a page to read and try it."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from flask import Blueprint, Response, current_app, jsonify, request, send_from_directory
from flask_swagger_ui import __file__ as swagger_ui

from taskapi.tasks.schemas import CREATE, LIST, UPDATE

# What openapi.yaml leaves to the schemas: the fields of components, and the parameters of lists by path.
FIELDS = {"Task": CREATE.fields, "NewTask": CREATE.load_fields, "TaskChanges": UPDATE.load_fields}
QUERIES = {"/api/tasks": LIST}

HERE = Path(__file__).resolve().parent
EXAMPLE = HERE.parents[1] / "docs" / "example.html"
INLINE = re.compile("<(?:script|style)>(.*?)</(?:script|style)>", re.DOTALL)

bp = Blueprint("openapi", __name__, url_prefix="/api")
development = Blueprint("development", __name__)  # create_app registers it in debug mode only


@cache
def describe() -> dict[str, Any]:
    """Return the document."""
    document: dict[str, Any] = yaml.safe_load((HERE / "openapi.yaml").read_text("utf-8"))
    del document["x-shared"]
    # Without a resolver for nested schemas: there are none.
    converter = OpenAPIConverter(document["openapi"], lambda schema: None, None)  # type: ignore[arg-type]
    for path, query in QUERIES.items():
        document["paths"][path]["get"]["parameters"] = converter.schema2parameters(query, location="query")
    converter.attribute_functions.remove(converter.field2default)  # makes generators require the key
    for name, fields in FIELDS.items():
        properties = {key: converter.field2property(field) for key, field in fields.items()}
        component = document["components"]["schemas"][name]
        component["properties"] = properties | component.get("properties", {})
    return document


@bp.get("/openapi.json")
def openapi() -> Response:
    """The OpenAPI document. Its server is the path that the service is mounted under."""
    return jsonify(describe() | {"servers": [{"url": request.script_root or "/"}]})


@bp.get("/docs")
def docs() -> Response:
    """The page. In debug mode it keeps the token when it is reloaded."""
    return _page(HERE / "page.html", f"persistAuthorization: {str(current_app.debug).lower()}")


@bp.get("/docs/ui/<any('swagger-ui.css', 'swagger-ui-bundle.js'):name>")
def file(name: str) -> Response:
    """One of the page's files. A browser keeps it for an hour."""
    return send_from_directory(Path(swagger_ui).with_name("dist"), name, conditional=False, max_age=3600)


@development.get("/")
def home() -> Response:
    """A redirect to the page."""
    return Response(status=302, headers={"Location": f"{request.script_root}/api/docs"})


@development.get("/example")
def example() -> Response:
    """The example front end."""
    return _page(EXAMPLE)


def _page(path: Path, setting: str = "") -> Response:
    """Answer with a page that may run its own script and style, load files from here and call this API; no more."""
    html = path.read_text("utf-8").replace("persistAuthorization: false", setting)
    # W3C CSP Level 3, section 2.3.1.
    own = " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in INLINE.findall(html))
    sources = f"default-src 'none'; script-src 'self' {own}; style-src 'self' {own}; connect-src 'self'; img-src data:"
    policy = f"{sources}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return Response(html, mimetype="text/html", headers={"Content-Security-Policy": policy})
