"""Who asks, and what is in the database."""

import time

import jwt
import psycopg2
from tqdm import tqdm

SECRET = "a-secret-of-the-benchmarks-and-nobody-else"
OWNER = "ffffffff-ffff-4fff-bfff-ffffffffffff"
CREATOR = "eeeeeeee-eeee-4eee-beee-eeeeeeeeeeee"
BATCH = 100_000  # rows per statement

# One in so many tasks is OWNER's, with an id made of its number. The others are those of 1,000 users per batch: as in
# real life, a user's tasks lie scattered among those of the people who were there at the same time.
FILL = """
    INSERT INTO tasks (user_id, id, title, description, is_completed, created_at, updated_at)
    SELECT
        CASE WHEN n %% %(stride)s = 0 THEN %(owner)s::uuid
             ELSE lpad(to_hex(n / 100000 * 1000 + floor(random() * 1000)::int), 32, '0')::uuid END,
        CASE WHEN n %% %(stride)s = 0
             THEN ('00000000-0000-4000-8000-' || lpad(to_hex(n / %(stride)s), 12, '0'))::uuid
             ELSE gen_random_uuid() END,
        'Review the release notes, part ' || n,
        CASE WHEN n %% 2 = 0 THEN 'See the notes of last week, and ask Ana whether anything is left to do.' END,
        n %% 3 = 0,
        made, made
    FROM generate_series(%(start)s, %(stop)s) n,
         LATERAL (SELECT timestamptz '2020-01-01 00:00:00.123456Z' + n * interval '10 s') AS time (made)
"""
USERS = """
    INSERT INTO users (id, email)
    SELECT lpad(to_hex(n), 32, '0')::uuid, NULL FROM generate_series(0, %(users)s - 1) n
    UNION ALL VALUES (%(owner)s::uuid, 'ana@example.com'), (%(creator)s::uuid, 'ben@example.com')
"""


def token(user: str = OWNER) -> str:
    """Return a token of one day."""
    email = {OWNER: "ana@example.com", CREATOR: "ben@example.com"}[user]
    return jwt.encode({"sub": user, "email": email, "exp": int(time.time()) + 86400}, SECRET, algorithm="HS256")


def execute(url: str, statement: str, **parameters: object) -> None:
    """Run one statement in autocommit."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters or None)
    connection.close()


def fill(url: str, tasks: int, owned: int) -> None:
    """Replace everything by so many tasks, every so manyth of them OWNER's."""
    execute(url, "TRUNCATE users, tasks")
    execute(url, USERS, users=-(-tasks // BATCH) * 1000, owner=OWNER, creator=CREATOR)
    with tqdm(total=tasks, desc="Tasks", unit="", unit_scale=True, disable=tasks <= BATCH * 5, leave=False) as bar:
        for start in range(0, tasks, BATCH):
            stop = min(start + BATCH, tasks)
            execute(url, FILL, stride=tasks // owned, owner=OWNER, start=start, stop=stop - 1)
            bar.update(stop - start)
    execute(url, "VACUUM ANALYZE")  # or the first to measure would pay for it
    execute(url, "CHECKPOINT")
