"""What a task and a list query may look like."""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from marshmallow import Schema, ValidationError, fields, pre_load, validates_schema
from marshmallow.validate import Length, OneOf, Range

MAX_TITLE = 200  # code points
MAX_DESCRIPTION = 2000  # code points
MAX_Q = 200  # code points
MAX_LIMIT = 100
DEFAULT_LIMIT = 50
SORTS = ("created_at", "updated_at", "title")

UUID_FORM = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # Unicode's category Cc, whole
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # the same but for tab, LF, CR
_BIDI_OVERRIDE = re.compile("[\u202d\u202e]")


def _one_line(title: str) -> None:
    if _CONTROL.search(title):
        raise ValidationError("Must be one line, without control characters.")
    if _BIDI_OVERRIDE.search(title):
        raise ValidationError("Must not override the direction of text (U+202D, U+202E).")


def _visible(title: str) -> None:
    if all(char.isspace() or unicodedata.category(char) == "Cf" for char in title):
        raise ValidationError("Must have a character that can be seen.")


def _text(text: str) -> None:
    if _CONTROL_IN_TEXT.search(text):
        raise ValidationError("Must not have control characters other than tab, LF and CR.")


class UuidText(fields.String):
    """A UUID with dashes, in either case; lower case inside."""

    def _deserialize(self, *args: Any, **kwargs: Any) -> str:
        text = super()._deserialize(*args, **kwargs)
        if not UUID_FORM.fullmatch(text):
            raise ValidationError("Not a valid UUID.")
        return text.lower()


class Trimmed(fields.String):
    """Text without the whitespace around it."""

    def _deserialize(self, *args: Any, **kwargs: Any) -> str:
        return super()._deserialize(*args, **kwargs).strip()


class JsonBoolean(fields.Boolean):
    """JSON's true or false; marshmallow's own takes 1 and "yes" too."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class Digits(fields.Integer):
    """A number in plain digits; marshmallow's own takes "+5" and "1_0" too."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if not re.fullmatch("[1-9][0-9]{0,8}", value):
            raise self.make_error("invalid", input=value)
        return super()._deserialize(value, *args, **kwargs)


class TaskSchema(Schema):
    """A task: whole on create, any non-empty part of it on update (partial, id read-only).

    What the API gives it takes back: read-only keys may stand in the input and are ignored. The fields and their order
    are those of a task in an answer, too; what they hold there needs no schema, as it comes from the database.
    """

    id = UuidText(load_default=lambda: str(uuid4()))
    user_id = UuidText(dump_only=True)
    title = Trimmed(required=True, validate=[Length(min=1, max=MAX_TITLE), _one_line, _visible])
    description = fields.String(load_default=None, allow_none=True, validate=[Length(max=MAX_DESCRIPTION), _text])
    is_completed = JsonBoolean(load_default=False)
    created_at = fields.AwareDateTime(dump_only=True)
    updated_at = fields.AwareDateTime(dump_only=True)

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

    is_completed = fields.Boolean(truthy={"true"}, falsy={"false"})
    q = fields.String(validate=[Length(min=1, max=MAX_Q), _text])
    sort = fields.String(
        load_default="-created_at", validate=OneOf([*SORTS, *(f"-{sort}" for sort in SORTS)])
    )
    limit = Digits(load_default=DEFAULT_LIMIT, validate=Range(min=1, max=MAX_LIMIT))
    cursor = fields.String()


CREATE = TaskSchema()
UPDATE = TaskSchema(partial=True, dump_only=("id",))
LIST = ListSchema()
