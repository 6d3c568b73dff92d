"""Keyset paging: a cursor says behind which task the next page begins, and of which list."""

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
from marshmallow import ValidationError

from taskapi.fields import UUID_FORM
from taskapi.schemas import LIST, TIMES
from taskapi.store import TaskRow
from taskapi.wire import read_base64url, read_timestamp, write_base64url, write_timestamp

# Bytes: enough to tell a cursor that was cut, edited or taken from another list. It keeps nobody from forging one; what
# a forged one reaches is its maker's own tasks.
_DIGEST_SIZE = 8


def read_query(owner: str, query_string: bytes) -> dict[str, Any]:
    """Return the arguments of listing.list_tasks; raise ValidationError for a bad, unknown or repeated parameter."""
    query = dict(_load(query_string))
    if "cursor" in query:
        query["after"] = _read_cursor(query.pop("cursor"), owner, query)
    return query


@lru_cache(maxsize=256)  # a front end asks for few lists, again and again: a tenth of such a request's CPU
def _load(query_string: bytes) -> Mapping[str, Any]:
    text = query_string.decode(errors="surrogateescape")
    pairs = parse_qsl(text, keep_blank_values=True, errors="surrogateescape")
    times = Counter(name for name, _ in pairs)
    errors = {}
    for name, value in pairs:
        readable = name.encode(errors="replace").decode()
        if times[name] > 1:
            errors[readable] = ["Given more than once."]
        elif f"{name}{value}".encode(errors="replace").decode() != name + value:
            errors[readable] = ["Not valid UTF-8."]
    if errors:
        raise ValidationError(errors)
    query: Mapping[str, Any] = LIST.load(dict(pairs))
    return query


def write_next(owner: str, query: Mapping[str, Any], last: TaskRow) -> str:
    """Return the query string of the page behind the task last."""
    parameters = {name: value for name, value in query.items() if name != "after"}
    if "is_completed" in parameters:
        parameters["is_completed"] = str(parameters["is_completed"]).lower()
    key = last._mapping[query["sort"].removeprefix("-")]
    place = orjson.dumps([write_timestamp(key) if _is_time(query) else key, last.id])
    cursor = write_base64url(_digest(place, owner, query) + place)
    return urlencode(parameters | {"cursor": cursor})


def _read_cursor(cursor: str, owner: str, query: Mapping[str, Any]) -> tuple[Any, str]:
    try:
        data = read_base64url(cursor)
        digest, place = data[:_DIGEST_SIZE], data[_DIGEST_SIZE:]
        if digest != _digest(place, owner, query):
            raise ValueError
        key, task_id = orjson.loads(place)
        if not UUID_FORM.fullmatch(task_id) or not isinstance(key, str) or "\0" in key:
            raise ValueError
        return read_timestamp(key) if _is_time(query) else key, task_id
    except (ValueError, TypeError):
        raise ValidationError({"cursor": ["Not a cursor of this list."]}) from None


def _digest(place: bytes, owner: str, query: Mapping[str, Any]) -> bytes:
    scope = {name: value for name, value in query.items() if name not in ("limit", "after")}
    return blake2b(orjson.dumps([owner, scope]) + place, digest_size=_DIGEST_SIZE).digest()


def _is_time(query: Mapping[str, Any]) -> bool:
    return query["sort"].removeprefix("-") in TIMES
