"""Users and their tasks."""

from datetime import UTC, datetime
from typing import Annotated
from uuid import uuid4

from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ColumnElement, DateTime, Dialect, ForeignKey, Index, MetaData, Table, Text, Uuid, bindparam
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class Base(DeclarativeBase):
    """Names each constraint, so that a migration can drop it on either database."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )


db = SQLAlchemy(model_class=Base)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite, which has no time zones, stores it naive."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Take an aware datetime of any zone; raise ValueError for a naive one."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a naive datetime")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return UTC for any session time zone."""
        return value and (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC))


def _now() -> datetime:
    return datetime.now(UTC)


# The columns of each table that belongs to a user. The owner is part of the key: a row can't be named without its
# owner, two users may use the same id, and the table can be partitioned or distributed by user_id. The defaults are for
# flask shell; a request gives all values.
OwnerId = Annotated[
    str, mapped_column(Uuid(as_uuid=False), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
]
RowId = Annotated[str, mapped_column(Uuid(as_uuid=False), primary_key=True, default=lambda: str(uuid4()))]
CreatedAt = Annotated[datetime, mapped_column(UtcDateTime, default=_now)]


class User(db.Model):  # type: ignore[misc,name-defined]  # Flask-SQLAlchemy makes the base at run time
    """A user. The email is the newest that a token showed; it is informational and never used for lookup."""

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    email: Mapped[str | None] = mapped_column(Text, unique=True)


class Task(db.Model):  # type: ignore[misc,name-defined]
    """A task of one user; updated_at is its version."""

    __tablename__ = "tasks"

    user_id: Mapped[OwnerId]
    id: Mapped[RowId]
    title: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    is_completed: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime, default=_now, onupdate=_now)

    __table_args__ = (Index(None, "user_id", "created_at", "id"),)


USERS: Table = User.__table__
TASKS: Table = Task.__table__


def owned(table: Table) -> ColumnElement[bool]:
    """Return the condition that a row belongs to the user who asks; database.engine.run gives owner its value."""
    return table.c.user_id == bindparam("owner")
