"""Check each answer against the API's own description."""

import json
import re
from functools import cache
from typing import Any, get_args

from flask.testing import FlaskClient
from jsonschema import Draft202012Validator

from taskapi.errors import Code
from taskapi.openapi import describe

REQUEST_ID = "[A-Za-z0-9._-]{1,128}"

# What any path may answer, even one that is not described.
ERROR = {
    "type": "object",
    "properties": {
        "error": {"type": "string"},
        "code": {"enum": get_args(Code)},
        "details": {"type": "object"},
    },
    "required": ["error", "code"],
    "additionalProperties": False,
}


class DescribedClient(FlaskClient):
    """A test client that checks each answer against the description."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        """Send a request as Flask's own client does; raise AssertionError for an answer that is not described."""
        response = super().open(*args, **kwargs)
        request = response.request
        check(request.method, request.path, response.status_code, response.headers, response.get_data())
        return response


def check(method: str, path: str, status: int, headers: Any, body: bytes) -> None:
    """Raise AssertionError where the answer is not described, and jsonschema.ValidationError where its body is not."""
    assert re.fullmatch(REQUEST_ID, headers["X-Request-ID"]), f"{method} {path} {status} has no request id"
    operation = find_operation(path, "GET" if method == "HEAD" else method)
    if operation is None:
        if status >= 400 and body:
            _validator(json.dumps(ERROR)).validate(json.loads(body))
        return
    responses = operation["responses"]
    described = responses.get(str(status), responses.get(f"{status // 100}XX"))
    assert described is not None, f"{method} {path} answers {status}"
    response = _resolve(described)
    allowed = response.get("headers", {})
    shown = {name for name in describe()["components"]["headers"] if name in headers}
    required = {name for name, header in allowed.items() if _resolve(header)["required"]}
    assert required <= shown <= set(allowed), f"{method} {path} {status} has {sorted(shown)}"
    for media_type, content in response.get("content", {}).items() if method != "HEAD" else ():
        if media_type == "application/json":
            _validator(json.dumps(content["schema"])).validate(json.loads(body))


def find_operation(path: str, method: str) -> Any:
    """Return the described operation that takes the request, or None."""
    for template, item in describe()["paths"].items():
        if re.fullmatch(template.replace("{id}", "[^/]+"), path.removesuffix("/")):
            return item.get(method.lower())
    return None


def _resolve(described: dict[str, Any]) -> Any:
    if "$ref" not in described:
        return described
    _, components, kind, name = described["$ref"].split("/")
    return describe()[components][kind][name]


@cache
def _validator(schema: str) -> Draft202012Validator:
    whole = json.loads(schema) | {"components": describe()["components"]}
    return Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)
