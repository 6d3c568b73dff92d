"""Find and insert the caller's rows, and save the caller's row in users."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from psycopg2.errors import ForeignKeyViolation
from sqlalchemy import Column, Row, and_, bindparam, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert  # SQLite's ON CONFLICT is the same
from sqlalchemy.exc import IntegrityError

from taskapi.database.engine import Answer, run
from taskapi.database.models import USERS, owned
from taskapi.errors import ApiError

EMAIL = bindparam("shown_email", type_=USERS.c.email.type)
OWNER_IS_CURRENT = and_(USERS.c.id == bindparam("owner"), or_(EMAIL.is_(None), USERS.c.email == EMAIL))

# An email belongs to the user whose token presented it last.
RELEASE_EMAIL = update(USERS).where(USERS.c.email == EMAIL, USERS.c.id != bindparam("owner")).values(email=None)
INSERT_USER = insert(USERS).values(id=bindparam("owner"), email=EMAIL)
SAVE_USER = INSERT_USER.on_conflict_do_update(
    index_elements=USERS.primary_key, set_={"email": func.coalesce(INSERT_USER.excluded.email, USERS.c.email)}
)


class OwnedRows:
    """The caller's rows of a table with the primary key (user_id, id)."""

    def __init__(self, columns: Sequence[Column[Any]]) -> None:
        """Show these columns of the table."""
        self.columns, self.table = columns, columns[0].table
        self._times = {"created_at", "updated_at"} & {column.name for column in columns}
        self.named = and_(owned(self.table), self.table.c.id == bindparam("row_id"))
        self._select = select(*columns).where(self.named)
        # The INSERT adds nothing if the row exists, or if the owner's row is missing or lacks the token's email. The id
        # comes from the owner's row, so that Citus runs it on one shard.
        values = {column.name: bindparam(f"new_{column.name}", type_=column.type) for column in columns}
        source = select(*(values | {"user_id": USERS.c.id}).values()).where(OWNER_IS_CURRENT)
        self._insert = (
            insert(self.table)
            .from_select([*values], source)
            .on_conflict_do_nothing(index_elements=self.table.primary_key)
            .returning(*columns)
        )

    def find(self, row_id: str) -> Row[Any] | None:
        """Return the caller's row with this id, or None."""
        rows = run(self._select, row_id=row_id).rows
        return rows[0] if rows else None

    def require(self, row_id: str) -> Row[Any]:
        """Return the caller's row with this id; raise the 404."""
        row = self.find(row_id)
        if row is None:
            raise ApiError(404)
        return row

    def insert(self, values: Mapping[str, Any], email: str | None) -> tuple[Row[Any], bool]:
        """Return the caller's row with the id in values, and whether this call made it.

        The first insert creates the caller's row in users, with the token's email.
        """
        now, shown = datetime.now(UTC), email
        parameters = {f"new_{name}": value for name, value in {**dict.fromkeys(self._times, now), **values}.items()}
        while True:
            rows, repeated = self._try_insert(parameters, shown)
            if rows:
                return rows[0], True
            row = self.find(values["id"])
            if row is not None:
                return row, repeated and row.created_at == now
            _save_caller(email)
            shown = None  # another user may have taken the email; do not require it

    def _try_insert(self, parameters: Mapping[str, Any], email: str | None) -> Answer:
        try:
            return run(self._insert, shown_email=email, **parameters)
        except IntegrityError as error:
            if not isinstance(error.orig, ForeignKeyViolation):
                raise
            return Answer((), False)  # the owner's row was deleted while the statement waited for it


def _save_caller(email: str | None) -> None:
    # Not one transaction: two users who swap emails would wait for each other. A fault between the statements leaves
    # the email without a user; its old user no longer has it.
    for statement in (SAVE_USER, RELEASE_EMAIL, SAVE_USER):
        with suppress(IntegrityError):  # another user holds the email
            run(statement, shown_email=email)
            if statement is SAVE_USER:
                return
    run(SAVE_USER, shown_email=None)
