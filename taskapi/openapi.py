"""The OpenAPI 3.1 description of the API: fields and limits as the schemas have them, the rest as the views do."""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin

from taskapi.config import MAX_BODY
from taskapi.errors import RETRY_AFTER, Code
from taskapi.schemas import CREATE, LIST, MAX_LIMIT, UPDATE, TaskSchema

Json = dict[str, Any]

ABOUT = f"""\
The tasks of whoever the bearer token names. Nobody sees another's, or learns whether there are any.

- What the API gives it takes back: `user_id`, `created_at`, `updated_at` and, on an update, `id` may stand in a body,
  and are ignored. Any other unknown key is refused.
- A body is `application/json` in UTF-8, of at most {MAX_BODY} bytes.
- `HEAD` works wherever `GET` does. A method that is not here gets 405 with `Allow`, an unknown path 404.
"""

EXAMPLE = {
    "id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "user_id": "8f8edca6-d061-5c44-a46a-071ac67b7677",
    "title": "Water the plants",
    "description": None,
    "is_completed": False,
    "created_at": "2026-11-20T22:16:00.022621Z",
    "updated_at": "2026-11-20T22:16:00.022621Z",
}
ETAG = f'"{EXAMPLE["updated_at"]}"'

RESPONSE_HEADERS = {
    "ETag": ("The version of the task.", ETAG),
    "Link": ("The next page; missing on the last one.", '</api/tasks?limit=50&cursor=b3BhcXVl>; rel="next"'),
    "Location": ("Where the task is.", f"/api/tasks/{EXAMPLE['id']}"),
    "Retry-After": ("Seconds after which to try again.", RETRY_AFTER),
    "WWW-Authenticate": ("The challenge of RFC 6750.", 'Bearer realm="taskapi", error="invalid_token"'),
    "X-Request-ID": ("Names the request in the service's log.", "c0ffee-1"),
}
# Without examples, which the page to try things would send.
REQUEST_HEADERS = {
    "If-Match": "An ETag: change the task only if it is at this version, else answer 412. `*` is any version.",
    "If-None-Match": "An ETag: answer 304 if the task is at this version.",
    "X-Request-ID": "A name of your own for the request in the service's log: up to 128 of `A-Za-z0-9._-`.",
}

# Name: status, what it says, the codes that come with it, its headers.
ERRORS: dict[str, tuple[int, str, list[Code], list[str]]] = {
    "BadParameter": (400, "A parameter breaks a rule.", ["VALIDATION_ERROR"], []),
    "BadBody": (400, "A field breaks a rule, or the body is no object.", ["VALIDATION_ERROR", "INVALID_REQUEST"], []),
    "Unauthorized": (
        401,
        "The token is missing, not valid, or too old.",
        ["UNAUTHORIZED", "INVALID_TOKEN", "TOKEN_EXPIRED"],
        ["WWW-Authenticate"],
    ),
    "NotFound": (404, "There is no such task of this user.", ["NOT_FOUND"], []),
    "VersionMismatch": (412, "The task is at another version.", ["INVALID_REQUEST"], []),
    "BodyTooLarge": (413, "The body is too large.", ["INVALID_REQUEST"], []),
    "NotJson": (415, "The body is not application/json.", ["INVALID_REQUEST"], []),
    "ServerError": (500, "A fault of the service.", ["INTERNAL_ERROR", "DATABASE_ERROR"], []),
    "Unavailable": (503, "Away for a moment: try again.", ["DATABASE_ERROR", "INTERNAL_ERROR"], ["Retry-After"]),
}
_OF_BODIES = ("BadBody", "BodyTooLarge", "NotJson")


@cache
def describe() -> Json:
    """Return the document."""
    marshmallow: Any = MarshmallowPlugin()  # whose converter comes with its APISpec
    about = {"description": ABOUT, "license": {"name": "MIT", "identifier": "MIT"}}
    spec = APISpec("taskapi", "1.0.0", "3.1.0", [marshmallow], info=about, servers=[{"url": "/"}])
    components = spec.components
    components.security_scheme("bearer", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"})
    for name, schema in _task_schemas(marshmallow.converter).items():
        components.schema(name, schema)
    for name, (description, example) in RESPONSE_HEADERS.items():
        header = {"description": description, "schema": {"type": "string"}, "example": example}
        components.header(name, header | {"required": name != "Link"})
    for name, description in REQUEST_HEADERS.items():
        components.parameter(name, "header", {"description": description, "schema": {"type": "string"}})
    components.parameter("id", "path", {"schema": {"type": "string", "format": "uuid"}, "example": EXAMPLE["id"]})
    for name, (_, description, codes, headers) in ERRORS.items():
        components.response(name, _error(description, codes, headers))
    query = marshmallow.converter.schema2parameters(LIST, location="query")
    for path, operations in (_tasks(query) | _service()).items():
        of_path: Any = ["id", "X-Request-ID"] if path.endswith("{id}") else ["X-Request-ID"]
        spec.path(path, operations=operations, parameters=of_path)
    return spec.to_dict()


def _task_schemas(converter: Any) -> Json:
    new_task = _object(converter, CREATE, CREATE.load_fields)
    changes = _object(converter, UPDATE, UPDATE.load_fields)
    # Each with the fields: makers of types take a branch with nothing but a required name for anything at all.
    at_least_one = [{"allOf": ["TaskFields"], "required": [name]} for name in UPDATE.load_fields]
    return {
        "Task": _object(converter, CREATE, CREATE.fields) | {"required": [*CREATE.fields]},
        "NewTask": new_task | {"required": [name for name, field in CREATE.load_fields.items() if field.required]},
        "TaskFields": changes,
        "TaskChanges": {"anyOf": at_least_one},
    }


def _object(converter: Any, schema: TaskSchema, names: Collection[str]) -> Json:
    """The fields with these names; the others may stand there, whatever they hold."""
    properties = {}
    for name, field in schema.fields.items():
        described = converter.field2property(field) if name in names else {"description": "Ignored."}
        described.pop("default", None)  # makers of types would take the key for one that has to be sent
        properties[name] = described
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _error(description: str, codes: Sequence[Code], headers: Sequence[str]) -> Json:
    """A response that its code narrows: details come with VALIDATION_ERROR, and with no other."""
    examples: Json = {code: {"value": {"error": description, "code": code}} for code in codes}
    others = [code for code in codes if code != "VALIDATION_ERROR"]
    schemas = [_error_schema(others)] if others else []
    if others != codes:
        details = {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}}}
        schemas.append(_error_schema(["VALIDATION_ERROR"], details=details))
        examples["VALIDATION_ERROR"]["value"]["details"] = {"title": ["Missing data for required field."]}
    schema = {"oneOf": schemas} if len(schemas) > 1 else schemas[0]
    return _response(description, {"schema": schema, "examples": examples}, *headers)


def _error_schema(codes: Sequence[Code], **more: Json) -> Json:
    properties = {"error": {"type": "string"}, "code": {"type": "string", "enum": codes}, **more}
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


def _response(description: str, body: Json | None, *headers: str, media_type: str = "application/json") -> Json:
    of_response = {"description": description, "headers": {name: name for name in (*headers, "X-Request-ID")}}
    return of_response | ({"content": {media_type: body}} if body else {})


def _operation(tag: str, name: str, summary: str, answers: Json, *errors: str, **more: Any) -> Json:
    of_errors = {str(ERRORS[error][0]): error for error in errors}
    return {"operationId": name, "summary": summary, "tags": [tag], "responses": answers | of_errors, **more}


def _of_tasks(name: str, summary: str, answers: Json, *errors: str, **more: Any) -> Json:
    always = ("Unauthorized", "ServerError", "Unavailable")
    return _operation("tasks", name, summary, answers, *errors, *always, security=[{"bearer": []}], **more)


def _task(description: str, *headers: str) -> Json:
    return _response(description, {"schema": "Task", "example": EXAMPLE}, "ETag", *headers)


def _body(schema: str, **example: Any) -> Json:
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}


def _update(name: str, summary: str) -> Json:
    errors = (*_OF_BODIES, "NotFound", "VersionMismatch")
    body = _body("TaskChanges", is_completed=True)
    answer = _task("The task as it now is.")
    return _of_tasks(name, summary, {"200": answer}, *errors, parameters=["If-Match"], requestBody=body)


def _tasks(query: list[Json]) -> Json:
    page = {"schema": {"type": "array", "items": "Task", "maxItems": MAX_LIMIT}, "example": [EXAMPLE]}
    pages = {"200": _response("A page of tasks.", page, "Link")}
    repeated = _task("The task that an earlier request made with this id.")
    created = {"200": repeated, "201": _task("The task.", "Location")}
    found = {"200": _task("The task."), "304": _response("The task is at that version.", None, "ETag")}
    deleted = {"200": _task("The task as it last was: sent to createTask, it is back.")}
    body = _body("NewTask", title=EXAMPLE["title"], description="The fern most of all.")
    if_match, if_none_match = {"parameters": ["If-Match"]}, {"parameters": ["If-None-Match"]}
    return {
        "/api/tasks": {
            "get": _of_tasks("listTasks", "List tasks", pages, "BadParameter", parameters=query),
            "post": _of_tasks("createTask", "Create a task", created, *_OF_BODIES, requestBody=body),
        },
        "/api/tasks/{id}": {
            "get": _of_tasks("getTask", "Get a task", found, "NotFound", **if_none_match),
            "put": _update("putTask", "Change a task, as PATCH does"),
            "patch": _update("updateTask", "Change a task; what is left out keeps its value"),
            "delete": _of_tasks("deleteTask", "Delete a task", deleted, "NotFound", "VersionMismatch", **if_match),
        },
    }


def _service() -> Json:
    ok = {"schema": {"type": "object", "properties": {"status": {"const": "ok"}}, "required": ["status"]}}
    document = _response("This document.", {"schema": {"type": "object", "additionalProperties": True}})
    page = _response("A page for people.", {"schema": {"type": "string"}}, media_type="text/html")
    operations = {
        "/healthz": _operation("service", "isAlive", "Does the process answer", {"200": _response("It does.", ok)}),
        "/readyz": _operation("service", "isReady", "Can it work", {"200": _response("It can.", ok)}, "Unavailable"),
        "/api/openapi.json": _operation("service", "describe", "This document", {"200": document}),
        "/api/docs": _operation("service", "readDocs", "This document, to read and try", {"200": page}),
    }
    return {path: {"get": operation} for path, operation in operations.items()}
