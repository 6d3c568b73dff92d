"""A task, and the query of a list of tasks, each field stricter than marshmallow's own."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from marshmallow import Schema, ValidationError, fields, pre_load, validates_schema
from marshmallow.validate import Length, Regexp

from taskapi.paging import query_schema
from taskapi.wire import UUID_FORM

MAX_TITLE = 200  # code points
MAX_DESCRIPTION = 2000  # code points
MAX_Q = 200  # code points

# Clients get these patterns. A title as it comes, before the trim: no Cc and no bidirectional override but around it.
TITLE_PATTERN = re.compile(
    r"^\s*[^\s\x00-\x1f\x7f-\x9f\u202d\u202e][^\x00-\x1f\x7f-\x9f\u202d\u202e]*(?:[\t-\r\x1c-\x1f\x85]\s*)?$"
)
TEXT_PATTERN = re.compile(r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$")  # no Cc but tab, LF and CR

TITLE_MESSAGE = f"Give a title of 1 to {MAX_TITLE} characters."
DESCRIPTION_MESSAGE = f"Give a description of at most {MAX_DESCRIPTION} characters, or null."
Q_MESSAGE = f"Give one text of 1 to {MAX_Q} characters."
BOOLEAN_MESSAGE = "Give true or false."
UUID_MESSAGE = "Give a UUID."


def say(message: str) -> dict[str, Any]:
    """Return marshmallow's error_messages for a field that says this of a missing, null or mistyped value."""
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


class TaskSchema(Schema):
    """A task: whole on create; on update any part of it but the id.

    What the API gives, it takes back: read-only keys may stand in the input and are ignored. The fields and their order
    are those of a task in an answer, too.
    """

    error_messages = {"unknown": "There is no such field."}

    id = UuidText(
        load_default=lambda: str(uuid4()),
        error_messages=say(UUID_MESSAGE),
        metadata={"format": "uuid", "example": "0f8fad5b-d9cb-469f-a165-70867728950e"},
    )
    user_id = UuidText(
        dump_only=True,
        metadata={"description": "The owner.", "format": "uuid", "example": "8f8edca6-d061-5c44-a46a-071ac67b7677"},
    )
    title = Trimmed(
        required=True,
        validate=[
            Length(min=1, max=MAX_TITLE, error=TITLE_MESSAGE),
            Regexp(TITLE_PATTERN, error="Give a title of one line, without control characters."),
        ],
        error_messages=say(TITLE_MESSAGE),
        metadata={
            "description": "One line. Surrounding whitespace is trimmed before the characters are counted.",
            "example": "Water the plants",
        },
    )
    description = fields.String(
        load_default=None,
        allow_none=True,
        validate=[
            Length(max=MAX_DESCRIPTION, error=DESCRIPTION_MESSAGE),
            Regexp(TEXT_PATTERN, error="Give a description without control characters."),
        ],
        error_messages=say(DESCRIPTION_MESSAGE),
        metadata={"description": "Kept as it is.", "example": None},
    )
    is_completed = JsonBoolean(
        load_default=False, error_messages=say(BOOLEAN_MESSAGE), metadata={"example": False}
    )
    created_at = fields.AwareDateTime(
        dump_only=True, metadata={"description": "UTC, in microseconds.", "example": "2026-11-20T22:16:00.022621Z"}
    )
    updated_at = fields.AwareDateTime(
        dump_only=True, metadata={"description": "The task's version.", "example": "2026-11-20T22:16:00.022621Z"}
    )

    @pre_load
    def ignore_read_only(self, data: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Drop the keys that only the server sets."""
        return {name: value for name, value in data.items() if name in self.load_fields or name not in self.fields}

    @validates_schema
    def change_something(self, data: Mapping[str, Any], **kwargs: Any) -> None:
        """Refuse an update that changes nothing. A create has its required title."""
        if not data:
            raise ValidationError(f"Give at least one of {', '.join(self.load_fields)}.")


CREATE = TaskSchema()
UPDATE = TaskSchema(partial=True, dump_only=("id",))
LIST = query_schema(
    ["created_at", "updated_at", "title"],
    is_completed=fields.Boolean(
        truthy={"true"},
        falsy={"false"},
        error_messages=say(BOOLEAN_MESSAGE),
        metadata={"description": "Only tasks with this done mark."},
    ),
    q=fields.String(
        validate=[Length(min=1, max=MAX_Q, error=Q_MESSAGE), Regexp(TEXT_PATTERN, error=Q_MESSAGE)],
        error_messages=say(Q_MESSAGE),
        metadata={"description": "Only tasks whose title or description contains this, in upper or lower case."},
    ),
)
