"""Who owns tasks, and their row: it comes with the first task, and holds the address that a token showed last."""

from contextlib import suppress
from typing import NamedTuple

from sqlalchemy import bindparam, func, update
from sqlalchemy.dialects.postgresql import insert  # SQLite's ON CONFLICT is the same
from sqlalchemy.exc import IntegrityError

from taskapi.database import run
from taskapi.models import USERS


class Identity(NamedTuple):
    """Who is asking: a user's id, and the address that the token shows, if any."""

    id: str
    email: str | None


# An address identifies nobody: who shows it last has it.
RELEASE_EMAIL = (
    update(USERS)
    .where(USERS.c.email == bindparam("address"), USERS.c.id != bindparam("owner"))
    .values(email=None)
)
INSERT_USER = insert(USERS).values(id=bindparam("owner"), email=bindparam("address"))
SAVE_USER = INSERT_USER.on_conflict_do_update(
    index_elements=USERS.primary_key, set_={"email": func.coalesce(INSERT_USER.excluded.email, USERS.c.email)}
)


def save_owner(user: Identity) -> None:
    """Make the user's row, or give it the token's address."""
    # Not one transaction: two users who swap addresses would wait for each other. A fault between the two leaves an
    # address that nobody has, which is true: a token has shown that its old holder has lost it.
    if user.email is not None:
        run(RELEASE_EMAIL, owner=user.id, address=user.email)
        with suppress(IntegrityError):  # somebody else has shown it since, so has it now
            run(SAVE_USER, owner=user.id, address=user.email)
            return
    run(SAVE_USER, owner=user.id, address=None)
