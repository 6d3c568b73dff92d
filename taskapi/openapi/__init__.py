"""The API's description, as an OpenAPI 3.1 document and as a page to read and try it."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import flask_swagger_ui
import yaml
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from flask import Blueprint, Response, current_app, jsonify, redirect, request
from marshmallow import Schema
from werkzeug.wrappers import Response as Redirect

from taskapi.errors import ApiError
from taskapi.schemas import CREATE, LIST, UPDATE

# What openapi.yaml refers to, or leaves out, because the schemas say it: answers and bodies by the name of their
# component, queries by path.
ANSWERS = {"Task": CREATE}
BODIES = {"NewTask": CREATE, "TaskChanges": UPDATE}
QUERIES = {"/api/tasks": LIST}

HERE = Path(__file__).resolve().parent
PAGE = (HERE / "page.html").read_text("utf-8")
EXAMPLE = HERE.parents[1] / "docs" / "example.html"

# The files of Swagger UI that the page loads, in memory: they are sent whole.
UI = {
    name: Path(flask_swagger_ui.__file__).with_name("dist").joinpath(name).read_bytes()
    for name in ("swagger-ui.css", "swagger-ui-bundle.js")
}

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
    for name, schema in (ANSWERS | BODIES).items():
        document["components"]["schemas"][name] = _object(converter, schema, is_body=name in BODIES)
    return document


def _object(converter: OpenAPIConverter, schema: Schema, is_body: bool) -> dict[str, Any]:
    """Describe an answer, or a body: there read-only fields are ignored, and a partial one changes at least one other."""
    ignored = [name for name, field in schema.fields.items() if is_body and name not in schema.load_fields]
    properties = {name: converter.field2property(field) for name, field in schema.fields.items()}
    for described in properties.values():
        described.pop("default", None)  # generators would require the key
    described = {"type": "object", "properties": properties | dict.fromkeys(ignored, {"description": "Ignored."})}
    described["additionalProperties"] = False
    if not is_body:
        return described | {"required": [*properties]}
    if schema.partial:
        return described | {"not": {"propertyNames": {"enum": ignored}}}
    return described | {"required": [name for name, field in schema.load_fields.items() if field.required]}


@bp.get("/openapi.json")
def openapi() -> Response:
    """The OpenAPI document, with the path that the service is mounted under."""
    return jsonify(describe() | {"servers": [{"url": request.script_root or "/"}]})


@bp.get("/docs")
def docs() -> Response:
    """The page; in debug mode it keeps the token when it is loaded again."""
    return _page(PAGE.replace("persistAuthorization: false", f"persistAuthorization: {str(current_app.debug).lower()}"))


@bp.get("/docs/ui/<name>")
def file(name: str) -> Response:
    """One of the page's files, or 304 if the browser has it."""
    if name not in UI:
        raise ApiError(404, "NOT_FOUND")
    response = Response(UI[name], mimetype="text/css" if name.endswith("css") else "text/javascript")
    response.set_etag(sha256(UI[name]).hexdigest())
    response.headers["Cache-Control"] = "no-cache"
    if request.if_none_match.contains_weak(response.get_etag()[0]):
        response.status_code = 304
    return response


@development.get("/")
def home() -> Redirect:
    """The page."""
    return redirect(f"{request.script_root}/api/docs")


@development.get("/example")
def example() -> Response:
    """The example front end."""
    return _page(EXAMPLE.read_text("utf-8"))


def _page(html: str) -> Response:
    """A page that runs its own inline script and style, loads files from here, calls this API, and does nothing else."""
    # W3C CSP Level 3, section 2.3.1.
    script, style = (
        b64encode(sha256(re.search(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[1].encode()).digest()).decode()
        for tag in ("script", "style")
    )
    policy = (
        f"default-src 'none'; script-src 'self' 'sha256-{script}'; style-src 'self' 'sha256-{style}'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Response(html, mimetype="text/html", headers={"Content-Security-Policy": policy})
