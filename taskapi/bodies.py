"""The body of a request: read whole, or refused."""

from typing import Any

from flask import current_app, request
from marshmallow import Schema
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from taskapi.config import MAX_BODY
from taskapi.errors import ApiError


def read_body(schema: Schema) -> dict[str, Any]:
    """Return what a schema makes of the body.

    Raises marshmallow.ValidationError, the 400 for what is no JSON object, the 413 and the 415.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    try:
        body = current_app.json.loads(_read())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(400, "INVALID_REQUEST", "The request's body must be a JSON object in UTF-8.")
    fields: dict[str, Any] = schema.load(body)
    return fields


def _read() -> bytes:
    """Return the whole body; raise ValueError for one that ends early or is badly chunked."""
    length = request.content_length
    if length is not None and length > MAX_BODY:
        raise RequestEntityTooLarge
    try:
        data = request.get_data()
    except Exception as error:  # whatever the server raises for what it can't read
        raise ValueError from error
    if len(data) > MAX_BODY:
        raise RequestEntityTooLarge  # werkzeug cuts a chunked body off at its limit, and says nothing
    if length not in (None, len(data)):
        raise ValueError
    return data
