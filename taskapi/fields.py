"""Fields stricter than marshmallow's own, and the schema of a row that belongs to a user."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from marshmallow import Schema, ValidationError, fields, pre_load, validates_schema
from marshmallow.validate import Length, Regexp

from taskapi.wire import UUID_FORM

# The API's description has these patterns. A line before trimming: no Cc or bidirectional override inside.
LINE_PATTERN = re.compile(
    r"^\s*[^\s\x00-\x1f\x7f-\x9f\u202d\u202e][^\x00-\x1f\x7f-\x9f\u202d\u202e]*(?:[\t-\r\x1c-\x1f\x85]\s*)?$"
)
TEXT_PATTERN = re.compile(r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$")  # no Cc but tab, LF and CR


def say(message: str) -> dict[str, Any]:
    """Return marshmallow's error_messages: this message for a missing, null or mistyped value."""
    return dict.fromkeys(("required", "null", "invalid"), message)


class UuidText(fields.String):
    """A UUID with dashes, in either case; lower case inside."""

    def _deserialize(self, *args: Any, **kwargs: Any) -> str:
        text = super()._deserialize(*args, **kwargs)
        if not UUID_FORM.fullmatch(text):
            raise self.make_error("invalid")
        return text.lower()


class Trimmed(fields.String):
    """Text without the whitespace around it."""

    def _deserialize(self, *args: Any, **kwargs: Any) -> str:
        return super()._deserialize(*args, **kwargs).strip()


class JsonBoolean(fields.Boolean):
    """JSON's true or false; marshmallow's own takes 1 and "yes" too."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid")
        return value


class Digits(fields.Integer):
    """A number in plain digits; marshmallow's own takes "+5" and "1_0" too."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if not isinstance(value, str) or not re.fullmatch("[1-9][0-9]{0,8}", value):
            raise self.make_error("invalid")
        return int(value)


def line(noun: str, maximum: int, example: str) -> Trimmed:
    """Return a required field of one line: 1 to maximum code points, none of them a control character."""
    message = f"Give a {noun} of 1 to {maximum} characters."
    return Trimmed(
        required=True,
        validate=[
            Length(min=1, max=maximum, error=message),
            Regexp(LINE_PATTERN, error=f"Give a {noun} of one line, without control characters."),
        ],
        error_messages=say(message),
        metadata={
            "description": "One line. Surrounding whitespace is trimmed before the characters are counted.",
            "example": example,
        },
    )


def timestamp(description: str = "UTC, in microseconds.") -> fields.AwareDateTime:
    """Return a field that the server sets."""
    metadata = {"description": description, "example": "2026-11-20T22:16:00.022621Z"}
    return fields.AwareDateTime(dump_only=True, metadata=metadata)


class RowSchema(Schema):
    """A row of the caller: its fields, in order, for input and output.

    Read-only keys in the input are ignored, so a client can send a row back whole.
    """

    error_messages = {"unknown": "There is no such field."}

    id = UuidText(
        load_default=lambda: str(uuid4()),
        error_messages=say("Give a UUID."),
        metadata={"format": "uuid", "example": "0f8fad5b-d9cb-469f-a165-70867728950e"},
    )
    user_id = UuidText(
        dump_only=True,
        metadata={"description": "The owner.", "format": "uuid", "example": "8f8edca6-d061-5c44-a46a-071ac67b7677"},
    )

    @pre_load
    def ignore_read_only(self, data: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Drop the keys that only the server sets."""
        return {name: value for name, value in data.items() if name in self.load_fields or name not in self.fields}

    @validates_schema
    def change_something(self, data: Mapping[str, Any], **kwargs: Any) -> None:
        """Refuse an update that changes nothing. A create has its required fields."""
        if not data:
            raise ValidationError(f"Give at least one of {', '.join(self.load_fields)}.")
