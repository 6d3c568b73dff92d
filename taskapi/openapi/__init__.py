"""The API's description, as an OpenAPI 3.1 document and as a page to read and try it."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from flask import Blueprint, Response, current_app, jsonify, request, send_from_directory
from flask_swagger_ui import __file__ as swagger_ui
from marshmallow import Schema

from taskapi.paging import MAX_LIMIT
from taskapi.tasks import schemas as tasks


class Resource(NamedTuple):
    """What the code adds to openapi.yaml: a resource's path, fields and list parameters."""

    path: str
    create: Schema
    query: Schema
    update: Schema | None = None


# Keys are schema names in the document.
RESOURCES = {
    "Task": Resource("/api/tasks", tasks.CREATE, tasks.LIST, tasks.UPDATE),
}

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
    # No resolver: no schema is nested.
    converter = OpenAPIConverter(document["openapi"], lambda schema: None, None)  # type: ignore[arg-type]
    for name, resource in RESOURCES.items():
        item = document["paths"][resource.path]
        item["get"]["parameters"] = converter.schema2parameters(resource.query, location="query")
        _describe_bodies(item, name, resource.create)
    converter.attribute_functions.remove(converter.field2default)  # with a default, generators require the key
    rows: dict[str, Any] = {}
    for name, resource in RESOURCES.items():
        rows[name] = _describe_row(converter, resource.create, is_body=False)
        rows[f"New{name}"] = _describe_row(converter, resource.create, is_body=True)
        update = resource.update
        rows |= {f"{name}Changes": _describe_row(converter, update, is_body=True)} if update else {}
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = {name: row | schemas.pop(name, {}) for name, row in rows.items()} | schemas
    return document


def _describe_bodies(item: dict[str, Any], name: str, create: Schema) -> None:
    """Add the bodies of a list and a create. Existing parts may be shared: copy them."""
    row, new = ({"$ref": f"#/components/schemas/{component}"} for component in (name, f"New{name}"))
    example = {key: field.metadata["example"] for key, field in create.load_fields.items() if field.required}
    body = {"required": True, "content": {"application/json": {"schema": new, "example": example}}}
    item["post"]["requestBody"] = body
    page = {"type": "array", "items": row, "maxItems": MAX_LIMIT}
    for method, status, schema in (("get", "200", page), ("post", "200", row), ("post", "201", row)):
        answers = item[method]["responses"]
        answer = answers[status] | {"content": {"application/json": {"schema": schema}}}
        item[method]["responses"] = answers | {status: answer}


def _describe_row(converter: OpenAPIConverter, schema: Schema, is_body: bool) -> dict[str, Any]:
    """Return a row's schema: for a response, or for a request body, where read-only keys are ignored."""
    fields = schema.load_fields if is_body else schema.fields
    properties = {name: converter.field2property(field) for name, field in fields.items()}
    properties |= {name: {"description": "Ignored."} for name in schema.fields if name not in fields}
    row = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [name for name, field in fields.items() if not is_body or (field.required and not schema.partial)]
    return row | ({"required": required} if required else {})


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
    """Return a page. Its CSP allows only its own script and style, files from here and calls to this API."""
    html = path.read_text("utf-8").replace("persistAuthorization: false", setting)
    # W3C CSP Level 3, section 2.3.1.
    own = " ".join(f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in INLINE.findall(html))
    sources = f"default-src 'none'; script-src 'self' {own}; style-src 'self' {own}; connect-src 'self'; img-src data:"
    policy = f"{sources}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return Response(html, mimetype="text/html", headers={"Content-Security-Policy": policy})
