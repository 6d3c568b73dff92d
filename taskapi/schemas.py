"""What a task and a list query look like: what comes in is checked, and a row is shown."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from marshmallow import Schema, ValidationError, fields, pre_load, validates_schema
from marshmallow.validate import Length, OneOf, Range
from sqlalchemy import Row

from taskapi.fields import ONE_LINE, TEXT, Digits, JsonBoolean, Trimmed, UuidText
from taskapi.wire import write_timestamp

MAX_TITLE = 200  # code points
MAX_DESCRIPTION = 2000  # code points
MAX_Q = 200  # code points
MAX_LIMIT = 100
DEFAULT_LIMIT = 50
LIMIT_MESSAGE = f"Must be a whole number from 1 to {MAX_LIMIT}."
TIMES = ("created_at", "updated_at")
SORTS = (*TIMES, "title")


def validate_title(title: str) -> None:
    """One message."""
    Length(min=1, max=MAX_TITLE, error=f"Give a title of 1 to {MAX_TITLE} characters.")(title)
    ONE_LINE(title)


class TaskSchema(Schema):
    """A task: whole on create, any non-empty part of it on update (partial, id read-only).

    What the API gives it takes back: read-only keys may stand in the input and are ignored. The fields and their order
    are those of a task in an answer, too; what they hold there needs no schema, as it comes from the database.
    """

    id = UuidText(
        load_default=lambda: str(uuid4()),
        metadata={"format": "uuid", "example": "0f8fad5b-d9cb-469f-a165-70867728950e"},
    )
    user_id = UuidText(
        dump_only=True,
        metadata={"description": "The owner.", "format": "uuid", "example": "8f8edca6-d061-5c44-a46a-071ac67b7677"},
    )
    title = Trimmed(
        required=True,
        error_messages=dict.fromkeys(("required", "null", "invalid"), f"Give a title of 1 to {MAX_TITLE} characters."),
        validate=validate_title,
        metadata={
            "description": "One line; whitespace around it is trimmed away before its characters are counted.",
            "example": "Water the plants",
        },
    )
    description = fields.String(
        load_default=None,
        allow_none=True,
        validate=[Length(max=MAX_DESCRIPTION), TEXT],
        metadata={"description": "Kept as it is.", "example": None},
    )
    is_completed = JsonBoolean(load_default=False, metadata={"example": False})
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
        """Refuse an update that changes nothing; create has its required title."""
        if not data:
            raise ValidationError(f"Give at least one of {', '.join(self.load_fields)}.")


class ListSchema(Schema):
    """The parameters of a list, all of them text."""

    is_completed = fields.Boolean(truthy={"true"}, falsy={"false"}, metadata={"description": "Only such tasks."})
    q = fields.String(
        validate=[Length(min=1, max=MAX_Q), TEXT],
        metadata={"description": "Only tasks whose title or description contains it, whatever the case."},
    )
    sort = fields.String(
        load_default="-created_at",
        validate=OneOf([*SORTS, *(f"-{sort}" for sort in SORTS)]),
        metadata={"description": "The order; - means descending. Ties go by id, in the same direction."},
    )
    limit = Digits(
        load_default=DEFAULT_LIMIT,
        validate=Range(min=1, max=MAX_LIMIT, error=LIMIT_MESSAGE),
        error_messages={"invalid": LIMIT_MESSAGE},
        metadata={"description": "How many tasks at most."},
    )
    cursor = fields.String(metadata={"description": "Where to go on: from the Link header of a page of this list."})


CREATE = TaskSchema()
UPDATE = TaskSchema(partial=True, dump_only=("id",))
LIST = ListSchema()


def show_task(task: Row[Any]) -> dict[str, Any]:
    """Return a task as it is shown, for the app's JSON."""
    shown = dict(zip(CREATE.fields, task))
    for name in TIMES:
        if shown[name].microsecond == 0:  # orjson leaves such a fraction out; all else it writes as we do, but faster
            shown[name] = write_timestamp(shown[name])
    return shown
