-- Least privilege on PostgreSQL: taskapi_owner owns the schema and migrates it, taskapi_service serves requests.
--
-- Run it as a superuser in the service's database, which is the service's alone: others lose access to it. Run it once
-- after the first `flask db upgrade`, and again after every later one: until then the service can't use a table or
-- change a column that a migration has added. It may be run any number of times.
--
--     sudo -u postgres psql -X -v ON_ERROR_STOP=1 -d taskapi -f docs/role.sql
--
-- The roles come without a password. \password taskapi_owner and \password taskapi_service in psql give them one, and
-- send no plain text.

BEGIN;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['taskapi_owner', 'taskapi_service'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        END IF;
    END LOOP;
    -- PUBLIC may otherwise connect, and make temporary tables.
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC, taskapi_service', current_database());
    EXECUTE format('ALTER DATABASE %I OWNER TO taskapi_owner', current_database());
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO taskapi_service', current_database());
END
$$;

-- Up to PostgreSQL 14, PUBLIC may make tables here.
REVOKE ALL ON SCHEMA public FROM PUBLIC, taskapi_service;
GRANT USAGE, CREATE ON SCHEMA public TO taskapi_owner;
GRANT USAGE ON SCHEMA public TO taskapi_service;

-- Also takes back what an older version of this file granted.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM taskapi_service;

-- Every table belongs to the one role. Requests read, make, change and delete rows; what a row is and whose it is never
-- changes, so neither may its id, user_id or created_at. users and alembic_version have grants of their own, below.
DO $$
DECLARE
    name regclass;
    columns text;
BEGIN
    FOR name IN SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO taskapi_owner', name);
        CONTINUE WHEN name IN ('users'::regclass, 'alembic_version'::regclass);
        EXECUTE format('GRANT SELECT, INSERT, DELETE ON %s TO taskapi_service', name);
        SELECT string_agg(quote_ident(attname), ', ') INTO columns FROM pg_attribute
        WHERE attrelid = name AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('user_id', 'id', 'created_at');
        IF columns IS NOT NULL THEN
            EXECUTE format('GRANT UPDATE (%s) ON %s TO taskapi_service', columns, name);
        END IF;
    END LOOP;
END
$$;

-- No request deletes a user, which would delete the user's tasks.
GRANT SELECT, INSERT ON users TO taskapi_service;
GRANT UPDATE (email) ON users TO taskapi_service;

-- For /readyz.
GRANT SELECT ON alembic_version TO taskapi_service;

COMMIT;
