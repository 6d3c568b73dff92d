"""The OpenAPI 3.1 description of the API: openapi.yaml, with fields and limits as the schemas have them."""

import re
from base64 import b64encode
from collections.abc import Collection
from functools import cache
from pathlib import Path
from hashlib import sha256
from typing import Any

import flask_swagger_ui
import yaml
from flask import Blueprint, Flask, Response, jsonify, request
from apispec.ext.marshmallow.openapi import OpenAPIConverter

from taskapi.errors import ApiError
from taskapi.wire import if_none_match
from taskapi.tasks.schemas import CREATE, LIST, UPDATE, TaskSchema


@cache
def describe() -> dict[str, Any]:
    """Return the document."""
    document: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("openapi.yaml").read_text())
    example = document.pop("x-shared")["example"]  # one object, wherever the document has it
    example |= {name: field.metadata["example"] for name, field in CREATE.fields.items()}
    # Without names and a registry for nested schemas, of which there are none.
    converter = OpenAPIConverter(document["openapi"], lambda schema: None, None)  # type: ignore[arg-type]
    document["paths"]["/api/tasks"]["get"]["parameters"] = converter.schema2parameters(LIST, location="query")
    of_create = [name for name, field in CREATE.load_fields.items() if field.required]
    # Each with the fields: makers of types take a branch with nothing but a required name for anything at all.
    fields = [{"$ref": "#/components/schemas/TaskFields"}]
    document["components"]["schemas"] = {
        "Task": _object(converter, CREATE, CREATE.fields) | {"required": [*CREATE.fields]},
        "NewTask": _object(converter, CREATE, CREATE.load_fields) | {"required": of_create},
        "TaskFields": _object(converter, UPDATE, UPDATE.load_fields),
        "TaskChanges": {"anyOf": [{"allOf": fields, "required": [name]} for name in UPDATE.load_fields]},
    }
    return document


def _object(converter: OpenAPIConverter, schema: TaskSchema, names: Collection[str]) -> dict[str, Any]:
    """The fields with these names; the others may stand there, whatever they hold."""
    properties = {}
    for name, field in schema.fields.items():
        described = converter.field2property(field) if name in names else {"description": "Ignored."}
        described.pop("default", None)  # makers of types would take the key for one that has to be sent
        properties[name] = described
    return {"type": "object", "properties": properties, "additionalProperties": False}


bp = Blueprint("openapi", __name__, url_prefix="/api")

# What the page loads, of all that the bundle has; in memory, as each worker sends it whole.
FILES = {
    name: Path(flask_swagger_ui.__file__).with_name("dist").joinpath(name).read_bytes()
    for name in ("swagger-ui.css", "swagger-ui-bundle.js")
}
ETAGS = {name: f'"{sha256(content).hexdigest()}"' for name, content in FILES.items()}
PAGE = Path(__file__).with_name("page.html").read_text()


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
        raise ApiError(404)
    mimetype = "text/css" if name.endswith("css") else "text/javascript"
    response = Response(FILES[name], mimetype=mimetype, headers={"ETag": ETAGS[name], "Cache-Control": "no-cache"})
    if if_none_match(request.headers.get("If-None-Match", ""), ETAGS[name]):
        response.status_code = 304
    return response


@bp.get("/docs")
def docs() -> Response:
    """The page."""
    return Response(PAGE, mimetype="text/html", headers={"Content-Security-Policy": POLICY})


def init_app(app: Flask) -> None:
    """Add the description."""
    app.register_blueprint(bp)
