"""The forms that values take on the wire: JSON, timestamps, base64url and entity tags."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import orjson
from flask.json.provider import JSONProvider

_ETAG = re.compile(r'[ \t]*(?:W/)?"([^"]*)"[ \t]*')
_TIMESTAMP = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")


class StrictJSON(JSONProvider):
    """RFC 8259 in UTF-8 and nothing else: NaN, a lone surrogate or a nesting without end is a ValueError."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        """Return JSON text."""
        return orjson.dumps(obj, option=orjson.OPT_UTC_Z).decode()

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Return what JSON text or bytes stand for."""
        return orjson.loads(s)


def write_timestamp(value: datetime) -> str:
    """Return an aware UTC datetime in RFC 3339's form, with microseconds and Z."""
    return value.isoformat(timespec="microseconds")[:-6] + "Z"  # for +00:00


def read_timestamp(text: str) -> datetime:
    """Return the datetime that write_timestamp made text from; raise ValueError for any other text."""
    if not _TIMESTAMP.fullmatch(text):
        raise ValueError
    return datetime.fromisoformat(text)


def write_base64url(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def read_base64url(text: str) -> bytes:
    """Return the data that write_base64url made text from; raise ValueError for any other text."""
    data = urlsafe_b64decode(f"{text}==")  # padding that is too much is ignored
    if write_base64url(data) != text:
        raise ValueError
    return data


def write_etag(version: datetime) -> str:
    """Return the strong entity tag (RFC 9110 section 8.8.3) of a task that was last changed at version."""
    return f'"{write_timestamp(version)}"'


def read_if_match(header: str | None) -> Sequence[datetime] | None:
    """Return the versions that an If-Match header (RFC 9110 section 13.1.1) names; None for any version.

    A weak or malformed tag names none.
    """
    if header is None or header.strip(" \t") == "*":
        return None
    versions = []
    for match in map(_ETAG.fullmatch, header.split(",")):
        if match:
            with suppress(ValueError):  # of our form, but no date: 2026-02-30
                versions.append(read_timestamp(match[1]))
    return versions


def if_none_match(header: str, etag: str) -> bool:
    """Say whether an If-None-Match header (RFC 9110 section 13.1.2) matches: weakly, so W/ makes no difference."""
    tags = [tag.strip(" \t") for tag in header.split(",")]
    return tags == ["*"] or etag in tags or f"W/{etag}" in tags
