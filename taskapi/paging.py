"""A page of the caller's rows: the list's query, its statement, and the cursor of the next page."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping, Sequence
from functools import cache, lru_cache
from hashlib import blake2b
from typing import Any
from urllib.parse import parse_qsl, urlencode

import orjson
from flask import Response, jsonify, request
from marshmallow import Schema, ValidationError, fields
from marshmallow.validate import OneOf, Range
from sqlalchemy import Column, ColumnElement, Executable, Row, Table, bindparam, select, tuple_

from taskapi.database.engine import run
from taskapi.database.models import UtcDateTime, owned
from taskapi.fields import Digits
from taskapi.wire import UUID_FORM, read_timestamp, show, write_timestamp

MAX_LIMIT = 100
DEFAULT_LIMIT = 50
# Bytes that tell a cursor that was cut, edited or taken from another list. Not a signature: a forged cursor can only
# reach the caller's own rows.
DIGEST_SIZE = 8

LIMIT_MESSAGE = f"Give one whole number from 1 to {MAX_LIMIT}."
FROM_LINK = "The next page's cursor, from the Link header of this list."
CURSOR_MESSAGE = "Give one cursor from a Link header of this list."

Rows = Sequence[Row[Any]]
Filters = Mapping[str, ColumnElement[bool]]


class QuerySchema(Schema):
    """The query parameters of a list, as text. A repeated one becomes a list, which every field refuses."""

    error_messages = {"unknown": "There is no such parameter."}


def query_schema(sorts: Sequence[str], **filters: fields.Field[Any]) -> Schema:
    """Return the schema of a list's parameters. Columns to sort by are never null."""
    orders = [order for sort in sorts for order in (sort, f"-{sort}")]
    message = f"Give one of {', '.join(orders)}."
    parameters: dict[str, fields.Field[Any]] = {
        "sort": fields.String(
            load_default="-created_at",
            validate=OneOf(orders, error=message),
            error_messages={"invalid": message},
            metadata={"description": "The order; - means descending. Ties go by id, in the same direction."},
        ),
        "limit": Digits(
            load_default=DEFAULT_LIMIT,
            validate=Range(min=1, max=MAX_LIMIT, error=LIMIT_MESSAGE),
            error_messages={"invalid": LIMIT_MESSAGE},
            metadata={"description": "The largest number of rows on a page."},
        ),
        "cursor": fields.String(error_messages={"invalid": CURSOR_MESSAGE}, metadata={"description": FROM_LINK}),
    }
    return QuerySchema.from_dict({**filters, **parameters})()


class Listing:
    """Lists of one table's rows. Each page costs as much as the first."""

    def __init__(self, columns: Sequence[Column[Any]], schema: Schema, filters: Filters) -> None:
        """Show these columns. A filter is a parameter of the schema and a condition with a bindparam of that name."""
        self.columns, self.schema, self.filters = columns, schema, filters
        self.table: Table = columns[0].table

    def page(self, owner: str, query_string: bytes) -> tuple[Rows, str | None]:
        """Return the owner's rows on a page, and the query string of the next if there is one.

        Raises marshmallow.ValidationError for a bad, unknown or repeated parameter.
        """
        query = dict(_load(self.schema, query_string))
        limit, cursor = query.pop("limit"), query.pop("cursor", None)
        values = {name: value for name, value in query.items() if name in self.filters}
        key = self.table.c[query["sort"].removeprefix("-")]
        after = {} if cursor is None else _read_cursor(cursor, key, self._scope(owner, query))
        statement = self._select(query["sort"], frozenset(values), bool(after))
        rows = run(statement, limit=limit + 1, **values, **after).rows
        if len(rows) <= limit:
            return rows, None
        following = {"cursor": _write_cursor(rows[limit - 1], key, self._scope(owner, query))}
        return rows[:limit], urlencode({"limit": limit} | dict(parse_qsl(query_string.decode())) | following)

    @cache
    def _select(self, sort: str, filters: Collection[str], goes_on: bool) -> Executable:
        key, id_ = self.table.c[sort.removeprefix("-")], self.table.c.id
        statement = select(*self.columns).where(owned(self.table), *[self.filters[name] for name in sorted(filters)])
        descending = sort.startswith("-")
        if goes_on:
            here = tuple_(key, id_)
            last = tuple_(bindparam("after_key", type_=key.type), bindparam("after_id", type_=id_.type))
            statement = statement.where(here < last if descending else here > last)
        order = (key.desc(), id_.desc()) if descending else (key, id_)
        return statement.order_by(*order).limit(bindparam("limit"))

    def _scope(self, owner: str, query: Mapping[str, Any]) -> bytes:
        """Return the table, owner and query of a cursor."""
        return orjson.dumps([self.table.name, owner, query])


def _write_cursor(last: Row[Any], key: Column[Any], scope: bytes) -> str:
    value = last._mapping[key.name]
    place = orjson.dumps([write_timestamp(value) if isinstance(key.type, UtcDateTime) else value, last.id])
    return urlsafe_b64encode(blake2b(scope + place, digest_size=DIGEST_SIZE).digest() + place).rstrip(b"=").decode()


def _read_cursor(cursor: str, key: Column[Any], scope: bytes) -> dict[str, Any]:
    try:
        data = urlsafe_b64decode(f"{cursor}==")
        digest, place = data[:DIGEST_SIZE], data[DIGEST_SIZE:]
        is_canonical = urlsafe_b64encode(data).rstrip(b"=").decode() == cursor
        value, id_ = orjson.loads(place)
        if digest != blake2b(scope + place, digest_size=DIGEST_SIZE).digest() or not is_canonical:
            raise ValueError
        if isinstance(key.type, UtcDateTime):
            value = read_timestamp(value)
        elif type(value) is not key.type.python_type or "\0" in str(value):
            raise ValueError
        return {"after_key": value, "after_id": UUID_FORM.fullmatch(id_)[0]}  # type: ignore[index]  # None: TypeError
    except (ValueError, TypeError):
        raise ValidationError({"cursor": [CURSOR_MESSAGE]}) from None


@lru_cache(maxsize=256)  # a front end asks for few lists, again and again
def _load(schema: Schema, query_string: bytes) -> Mapping[str, Any]:
    text = query_string.decode(errors="surrogateescape")
    given: dict[str, Any] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, errors="surrogateescape"):
        # A value that is not UTF-8 becomes a list too. The error shows a readable name.
        name, is_text = name.encode(errors="replace").decode(), value == value.encode(errors="replace").decode()
        given[name] = value if is_text and name not in given else [value]
    return dict(schema.load(given))


def answer_page(rows: Rows, following: str | None) -> Response:
    """Return the rows as a bare array, with a Link to the next page if there is one."""
    response = jsonify([show(row) for row in rows])
    if following:
        response.headers["Link"] = f'<{request.script_root}{request.path.rstrip("/")}?{following}>; rel="next"'
    return response
