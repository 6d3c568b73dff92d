"""The kinds of fields that tasks and list queries are made of, each stricter than marshmallow's own."""

import re
from typing import Any

from marshmallow import ValidationError, fields
from marshmallow.validate import Regexp

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
ONE_LINE = Regexp(
    f"^[{_CONTROL_SPACE}{_SPACE}]*"  # trimmed away, as at the end
    f"(?:[{_FORMAT}][{_FORMAT}{_SPACE}]*)?[^{_CONTROL}{_OVERRIDE}{_FORMAT}{_SPACE}]"
    f"[^{_CONTROL}{_OVERRIDE}]*(?:[{_CONTROL_SPACE}][{_CONTROL_SPACE}{_SPACE}]*)?$",
    error="Give a title of one line, without control characters.",
)
TEXT = Regexp(
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
            raise self.make_error("invalid")
        return value


class Digits(fields.Integer):
    """A number in plain digits; marshmallow's own takes "+5" and "1_0" too."""

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> int:
        if not re.fullmatch("[1-9][0-9]{0,8}", value):
            raise self.make_error("invalid")
        return int(value)
