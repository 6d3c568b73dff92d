"""A task, and the query of a list of tasks."""

from marshmallow import fields
from marshmallow.validate import Length, Regexp

from taskapi.fields import TEXT_PATTERN, JsonBoolean, RowSchema, line, say, timestamp
from taskapi.paging import query_schema

MAX_TITLE = 200  # code points
MAX_DESCRIPTION = 2000  # code points
MAX_Q = 200  # code points

DESCRIPTION_MESSAGE = f"Give a description of at most {MAX_DESCRIPTION} characters, or null."
Q_MESSAGE = f"Give one text of 1 to {MAX_Q} characters."
BOOLEAN_MESSAGE = "Give true or false."


class TaskSchema(RowSchema):
    """A task; an update takes any field but the id."""

    title = line("title", MAX_TITLE, example="Water the plants")
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
    is_completed = JsonBoolean(load_default=False, error_messages=say(BOOLEAN_MESSAGE), metadata={"example": False})
    created_at = timestamp()
    updated_at = timestamp("The task's version.")


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
