"""The forms of values on the wire: JSON, request bodies, rows, timestamps, UUIDs and entity tags."""

import re
from codecs import BOM_UTF8
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import orjson
from flask import Response, request
from flask.json.provider import JSONProvider
from marshmallow import Schema
from sqlalchemy import Row

from taskapi.errors import ApiError

MAX_BODY = 64 * 1024  # bytes; the largest task, every character escaped, is under 27 KiB

UUID_FORM = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_ETAG = re.compile(r'[ \t]*(?:W/)?"([^"]*)"[ \t]*')
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


class StrictJSON(JSONProvider):
    """RFC 8259 in UTF-8: NaN, a lone surrogate or too deep a nesting is a ValueError."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Return JSON text."""
        return orjson.dumps(obj, option=orjson.OPT_UTC_Z).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Return the value of JSON text or bytes."""
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Return an answer with the JSON of the one argument."""
        return Response(orjson.dumps(args[0], option=orjson.OPT_UTC_Z), mimetype="application/json")


def read_body(schema: Schema) -> dict[str, Any]:
    """Return the request's body as the schema loads it.

    Raises marshmallow.ValidationError, the 413, the 415, and the 400 for a body that is not a JSON object.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ApiError(415, message="Send the body without Content-Encoding.")
    if request.mimetype != "application/json":
        raise ApiError(415)
    try:
        body = orjson.loads(_read().removeprefix(BOM_UTF8))  # RFC 8259 section 8.1 lets a reader ignore a BOM
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise ApiError(400, message="Send a JSON object in UTF-8.")
    fields: dict[str, Any] = schema.load(body)
    return fields


def _read() -> bytes:
    """Return the whole body; raise ValueError for one that ends early or is badly chunked."""
    length = request.content_length
    if length is not None and length > MAX_BODY:
        raise ApiError(413)
    try:
        data = request.get_data()
    except Exception as error:  # each server raises its own for an unreadable body
        raise ValueError from error
    if len(data) > MAX_BODY:
        raise ApiError(413)  # werkzeug cuts a chunked body off at MAX_CONTENT_LENGTH without an error
    if length not in (None, len(data)):
        raise ValueError
    return data


def show(row: Row[Any]) -> dict[str, Any]:
    """Return a row for JSON."""
    # orjson writes datetimes in our format, and faster, but omits a fraction of 0.
    return {
        name: write_timestamp(value) if type(value) is datetime and not value.microsecond else value
        for name, value in zip(row._fields, row)
    }


def read_id(text: str) -> str:
    """Return a path's UUID in lower case; raise the 404 for a malformed one, as for an unknown one."""
    if not UUID_FORM.fullmatch(text):
        raise ApiError(404)
    return text.lower()


def write_timestamp(value: datetime) -> str:
    """Return an aware UTC datetime in RFC 3339's form, with microseconds and Z."""
    return value.isoformat(timespec="microseconds")[:-6] + "Z"  # replaces +00:00


def read_timestamp(text: str) -> datetime:
    """Return the datetime that write_timestamp wrote; raise ValueError for any other text."""
    if not _TIMESTAMP.fullmatch(text):
        raise ValueError
    return datetime.fromisoformat(text)


def write_etag(version: datetime) -> str:
    """Return the strong entity tag (RFC 9110 section 8.8.3) of a row that was last changed at version."""
    return f'"{write_timestamp(version)}"'


def read_if_match(header: str | None) -> Sequence[datetime] | None:
    """Return the versions that an If-Match header (RFC 9110 section 13.1.1) names; None for any version.

    A weak tag counts, as a proxy that compresses makes tags weak. A malformed one names no version.
    """
    if header is None or header.strip(" \t") == "*":
        return None
    versions = []
    for match in map(_ETAG.fullmatch, header.split(",")):
        if match:
            with suppress(ValueError):
                versions.append(read_timestamp(match[1]))
    return versions


def if_none_match(header: str, etag: str) -> bool:
    """Return whether an If-None-Match header (RFC 9110 section 13.1.2) matches, by weak comparison."""
    tags = [tag.strip(" \t").removeprefix("W/") for tag in header.split(",")]
    return header.strip(" \t") == "*" or etag in tags
