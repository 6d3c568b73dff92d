"""docs/role.sql: what the service's role may do, which is what requests need and nothing else."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psycopg2
import pytest
from flask import Flask
from flask_migrate import downgrade, upgrade
from psycopg2.errors import InsufficientPrivilege

from taskapi import create_app
from taskapi.database.models import TASKS, USERS, db
from taskapi.tasks.schemas import UPDATE
from tests.conftest import dispose
from tests.people import SECRET, Person
from tests.servers import PROJECT

pytestmark = pytest.mark.own_database

ROLE_SQL = (PROJECT / "docs" / "role.sql").read_text()

# Each line of an access list that names the service's role: what it allows, on what, in which form REVOKE takes it.
PRIVILEGES = """
SELECT privilege_type || ' ON DATABASE ' || datname
FROM pg_database, aclexplode(datacl) WHERE grantee = 'taskapi_service'::regrole
UNION ALL SELECT privilege_type || ' ON SCHEMA ' || nspname
FROM pg_namespace, aclexplode(nspacl) WHERE grantee = 'taskapi_service'::regrole
UNION ALL SELECT privilege_type || ' ON ' || relname
FROM pg_class, aclexplode(relacl) WHERE grantee = 'taskapi_service'::regrole
UNION ALL SELECT privilege_type || ' (' || attname || ') ON ' || attrelid::regclass
FROM pg_attribute, aclexplode(attacl) WHERE grantee = 'taskapi_service'::regrole
"""

# Once the service's role has gone and its database with it, nothing of them is left in the cluster.
CLEAN_UP = """
DROP OWNED BY taskapi_service;
REASSIGN OWNED BY taskapi_owner TO postgres;
DROP OWNED BY taskapi_owner;
DROP ROLE taskapi_service;
DROP ROLE taskapi_owner;
"""


def execute(url: str, statement: str) -> list[str]:
    """Run SQL in autocommit, and return the first column of what it gives."""
    connection = psycopg2.connect(url)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return [row[0] for row in cursor.fetchall()] if cursor.description else []
    finally:
        connection.close()


@pytest.fixture
def url_as(postgresql_url: str) -> Iterator[Callable[[str], str]]:
    """A migrated database in which role.sql has been run; the function it gives returns its URL for a role."""
    execute(postgresql_url, ROLE_SQL)
    yield lambda role: postgresql_url.replace("//postgres:", f"//{role}:")
    execute(postgresql_url, CLEAN_UP)


@pytest.fixture
def make_role_app(url_as: Callable[[str], str]) -> Iterator[Callable[[str], Flask]]:
    """Make apps that connect as a role."""
    apps = []

    def make(role: str) -> Flask:
        apps.append(create_app({"DATABASE_URL": url_as(role), "JWT_SECRET": SECRET}))
        return apps[-1]

    yield make
    for app in apps:
        dispose(app)


@pytest.fixture
def app(make_role_app: Callable[[str], Flask]) -> Flask:
    """The service, connected as its role."""
    return make_role_app("taskapi_service")


def drive(app: Flask) -> dict[str, int]:
    """Send requests through every statement of the service, on fresh connections, and return what each got."""
    dispose(app)
    statuses: dict[str, int] = {}

    def call(name: str, person: Person, method: str, path: str = "/api/tasks", **options: Any) -> str:
        response = person.call(method, path, **options)
        statuses[name] = response.status_code
        return str(response.headers.get("ETag"))

    address = f"{uuid4()}@example.com"
    ana, ben, eve = Person(app, email=address), Person(app, email=address), Person(app)
    moved = Person(app, sub=ana.id, email=f"{uuid4()}@example.com")
    task = {"id": str(uuid4()), "title": "Water the plants"}
    path = f"/api/tasks/{task['id']}"

    call("ready", eve, "GET", "/readyz")
    call("first task", ana, "POST", json=task)
    call("same task", ana, "POST", json=task)
    call("another's address", ben, "POST", json=task)
    call("no address", eve, "POST", json={"title": "Water the plants", "description": "All", "is_completed": True})
    call("new address", moved, "POST", json={"title": "Water the plants too"})
    call("list", ana, "GET")
    for sort in ("created_at", "-updated_at", "title"):
        query = f"/api/tasks?is_completed=false&q=plants&limit=1&sort={sort}"
        link = ana.call("GET", query).headers.get("Link", "")
        call(f"second page by {sort}", ana, "GET", link.partition("<")[2].partition(">")[0])
    old = call("get", ana, "GET", path)
    call("get what it has", ana, "GET", path, headers={"If-None-Match": old})
    call("get nothing", ana, "GET", f"/api/tasks/{uuid4()}")
    everything = {name: field.metadata["example"] for name, field in UPDATE.load_fields.items()}
    new = call("change everything", ana, "PATCH", path, json=everything)
    call("update an old version", ana, "PUT", path, json={"title": "Old"}, headers={"If-Match": old})
    call("delete an old version", ana, "DELETE", path, headers={"If-Match": old})
    new = call("update this version", ana, "PUT", path, json=task, headers={"If-Match": new})
    call("delete this version", ana, "DELETE", path, headers={"If-Match": new})
    call("update nothing", ana, "PUT", path, json=task)
    call("delete", ben, "DELETE", path)
    call("delete nothing", ben, "DELETE", path)
    return statuses


WORKS = {
    "ready": 200,
    "first task": 201,
    "same task": 200,
    "another's address": 201,
    "no address": 201,
    "new address": 201,
    "list": 200,
    "second page by created_at": 200,
    "second page by -updated_at": 200,
    "second page by title": 200,
    "get": 200,
    "get what it has": 304,
    "get nothing": 404,
    "change everything": 200,
    "update an old version": 412,
    "delete an old version": 412,
    "update this version": 200,
    "delete this version": 200,
    "update nothing": 404,
    "delete": 200,
    "delete nothing": 404,
}


def test_every_request_works_with_the_services_role(app: Flask) -> None:
    """The same answers as with a role that may do everything."""
    assert WORKS == drive(app)


def test_each_privilege_is_needed(app: Flask, postgresql_url: str) -> None:
    """Each table of the models is there by one rule, and without any one privilege some request on tasks fails."""
    owned = [table for table in db.metadata.sorted_tables if table is not USERS]
    fixed = ("user_id", "id", "created_at")
    database = execute(postgresql_url, "SELECT current_database()")[0]
    granted = sorted(execute(postgresql_url, PRIVILEGES))

    assert granted == sorted(
        [
            f"CONNECT ON DATABASE {database}",
            "USAGE ON SCHEMA public",
            *(f"{privilege} ON {table}" for table in owned for privilege in ("SELECT", "INSERT", "DELETE")),
            *(f"UPDATE ({name}) ON {table}" for table in owned for name in table.c.keys() if name not in fixed),
            "SELECT ON users",
            "INSERT ON users",
            "UPDATE (email) ON users",
            "SELECT ON alembic_version",
        ]
    )
    failures = {}
    others = tuple(f" ON {table}" for table in owned if table is not TASKS)
    tried = [privilege for privilege in granted if not privilege.endswith(others)]
    for privilege in tried:
        execute(postgresql_url, f"REVOKE {privilege} FROM taskapi_service")
        failures[privilege] = {status for status in drive(app).values() if status >= 500}
        execute(postgresql_url, f"GRANT {privilege} TO taskapi_service")
    assert [] == [privilege for privilege in tried if not failures[privilege]]
    assert WORKS == drive(app)


REFUSED = [
    "DROP TABLE tasks",
    "TRUNCATE tasks",
    "ALTER TABLE tasks ADD COLUMN more text",
    "CREATE INDEX ON tasks (title)",
    "CREATE TABLE more ()",
    "CREATE TEMPORARY TABLE more ()",
    "CREATE SCHEMA more",
    "CREATE ROLE more",
    "SET ROLE taskapi_owner",
    "DELETE FROM users",
    "UPDATE users SET id = gen_random_uuid()",
    "UPDATE tasks SET user_id = gen_random_uuid()",
    "UPDATE tasks SET id = gen_random_uuid()",
    "UPDATE tasks SET created_at = now()",
    "UPDATE alembic_version SET version_num = 'other'",
    "INSERT INTO alembic_version VALUES ('other')",
    "DELETE FROM alembic_version",
    "SELECT * FROM pg_authid",
    "SELECT pg_read_file('/etc/passwd')",
    "COPY (SELECT 1) TO PROGRAM 'true'",
]


def test_the_services_role_may_do_nothing_more(url_as: Callable[[str], str]) -> None:
    """With its password one can't change the schema, delete users, or look beyond the database."""
    for statement in REFUSED:
        with pytest.raises(InsufficientPrivilege):
            execute(url_as("taskapi_service"), statement)
            pytest.fail(statement)


def test_owner_owns_every_table(url_as: Callable[[str], str]) -> None:
    """Another role may have migrated before: an ALTER TABLE takes the owner."""
    tables = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relowner = 'taskapi_owner'::regrole ORDER BY 1"

    assert sorted(["alembic_version", *db.metadata.tables]) == execute(url_as("taskapi_owner"), tables)


def test_owner_migrates(app: Flask, make_role_app: Callable[[str], Flask], postgresql_url: str) -> None:
    """The owner migrates down and up; then role.sql grants the new tables to the service."""
    with make_role_app("taskapi_owner").app_context():
        downgrade(revision="base")
        upgrade()

    assert drive(app)["list"] == 500

    execute(postgresql_url, ROLE_SQL)
    execute(postgresql_url, ROLE_SQL)

    assert WORKS == drive(app)


def test_what_it_does_not_grant_is_taken_back(url_as: Callable[[str], str], postgresql_url: str) -> None:
    """What was granted by hand, or by an older version of the file, ends with its next run."""
    before = sorted(execute(postgresql_url, PRIVILEGES))
    execute(postgresql_url, "GRANT UPDATE ON tasks TO taskapi_service; GRANT UPDATE (id) ON users TO taskapi_service")
    execute(postgresql_url, "GRANT CREATE ON SCHEMA public TO taskapi_service")

    execute(postgresql_url, ROLE_SQL)

    assert before == sorted(execute(postgresql_url, PRIVILEGES))


# A table as a migration adds one, a table with nothing to change, and a column with a name that needs quotes.
MORE_TABLES = """
CREATE TABLE shelves (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE, id uuid, title text, "due by" date, gone int,
    created_at timestamptz, PRIMARY KEY (user_id, id)
);
ALTER TABLE shelves DROP COLUMN gone;
CREATE TABLE "Marks" (user_id uuid, id uuid);
"""


@pytest.mark.parametrize("by", ["postgres", "taskapi_owner"])
def test_another_table_is_granted_by_rule(url_as: Callable[[str], str], postgresql_url: str, by: str) -> None:
    """The next run of role.sql gives the service every table, without a line that names it."""
    owner, service = url_as("taskapi_owner"), url_as("taskapi_service")
    execute(url_as(by), MORE_TABLES)
    with pytest.raises(InsufficientPrivilege):
        execute(service, "SELECT FROM shelves")

    execute(postgresql_url, ROLE_SQL)

    execute(
        service,
        """
        INSERT INTO users (id) VALUES ('0a000000-0000-4000-8000-000000000000');
        INSERT INTO shelves (user_id, id, title) SELECT id, id, 'Left' FROM users;
        UPDATE shelves SET title = 'Right', "due by" = now();
        INSERT INTO "Marks" SELECT user_id, id FROM shelves;
        """,
    )
    assert execute(service, "DELETE FROM shelves RETURNING title") == ["Right"]
    assert execute(service, 'DELETE FROM "Marks" RETURNING 1::text') == ["1"]
    for fixed in ("user_id", "id", "created_at"):
        with pytest.raises(InsufficientPrivilege):
            execute(service, f"UPDATE shelves SET {fixed} = DEFAULT")
    for command in ("TRUNCATE shelves", "ALTER TABLE shelves ADD more text", "DROP TABLE shelves"):
        with pytest.raises(InsufficientPrivilege):
            execute(service, command)
    execute(owner, 'ALTER TABLE shelves ADD more text; ALTER TABLE "Marks" ADD more text')
