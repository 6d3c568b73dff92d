"""What a task and a list query may look like."""

import re
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from marshmallow import Schema, ValidationError, fields, pre_load, validates_schema
from marshmallow.validate import Length, OneOf, Range, Regexp

MAX_TITLE = 200  # code points
MAX_DESCRIPTION = 2000  # code points
MAX_Q = 200  # code points
MAX_LIMIT = 100
DEFAULT_LIMIT = 50
SORTS = ("created_at", "updated_at", "title")

UUID_FORM = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)

# What follows is written without classes such as \s, whose meaning differs between Python and ECMA-262: the API's
# description gives these patterns to clients. None of them can be made to backtrack.
_CONTROL = r"\x00-\x1f\x7f-\x9f"  # Unicode's category Cc, whole
_CONTROL_SPACE = r"\t-\r\x1c-\x1f\x85"  # those of them that Python's strip() takes for whitespace
_SPACE = r" \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # the rest of that
_OVERRIDE = r"\u202d\u202e"
# Category Cf of Unicode 16, but for the overrides. Beyond the BMP there is no escape that both know, and each character
# stands for itself: JavaScript's RegExp without the flag u, which makers of clients forget, throws at a range there.
_BEYOND_BMP = [0x110BD, 0x110CD, *range(0x13430, 0x13440), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), 0xE0001]
_FORMAT = (
    r"\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u202a-\u202c\u2060-\u2064\u2066-\u206f"
    r"\ufeff\ufff9-\ufffb"
) + "".join(map(chr, [*_BEYOND_BMP, *range(0xE0020, 0xE0080)]))
_ONE_LINE = Regexp(
    f"^[{_CONTROL_SPACE}{_SPACE}]*"  # trimmed away, as at the end
    f"(?:[{_FORMAT}][{_FORMAT}{_SPACE}]*)?[^{_CONTROL}{_OVERRIDE}{_FORMAT}{_SPACE}]"
    f"[^{_CONTROL}{_OVERRIDE}]*(?:[{_CONTROL_SPACE}][{_CONTROL_SPACE}{_SPACE}]*)?$",
    error="Must be one line with a character that can be seen, and without U+202D or U+202E.",
)
_TEXT = Regexp(
    r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$",  # all of Cc but tab, LF and CR
    error="Must not have control characters other than tab, LF and CR.",
)


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

    id = UuidText(load_default=lambda: str(uuid4()), metadata={"format": "uuid"})
    user_id = UuidText(dump_only=True, metadata={"format": "uuid", "description": "The owner."})
    title = Trimmed(
        required=True,
        validate=[Length(min=1, max=MAX_TITLE), _ONE_LINE],
        metadata={"description": "One line; whitespace around it is trimmed away before its characters are counted."},
    )
    description = fields.String(
        load_default=None,
        allow_none=True,
        validate=[Length(max=MAX_DESCRIPTION), _TEXT],
        metadata={"description": "Kept as it is; null when not given."},
    )
    is_completed = JsonBoolean(load_default=False, metadata={"description": "False when not given."})
    created_at = fields.AwareDateTime(dump_only=True, metadata={"description": "UTC, in microseconds."})
    updated_at = fields.AwareDateTime(dump_only=True, metadata={"description": "UTC, in microseconds; the version."})

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
        validate=[Length(min=1, max=MAX_Q), _TEXT],
        metadata={"description": "Only tasks whose title or description contains it, whatever the case."},
    )
    sort = fields.String(
        load_default="-created_at",
        validate=OneOf([*SORTS, *(f"-{sort}" for sort in SORTS)]),
        metadata={"description": "The order; - means descending. Ties go by id, in the same direction."},
    )
    limit = Digits(
        load_default=DEFAULT_LIMIT,
        validate=Range(min=1, max=MAX_LIMIT),
        metadata={"description": "How many tasks at most."},
    )
    cursor = fields.String(metadata={"description": "Where to go on: from the Link header of a page of this list."})


CREATE = TaskSchema()
UPDATE = TaskSchema(partial=True, dump_only=("id",))
LIST = ListSchema()
