-- Turns tasks into a table of 16 hash partitions by user_id. psql -v ON_ERROR_STOP=1 -f docs/partition.sql
-- All or nothing. Reading goes on until the swap at the end; who writes meanwhile waits, and gets 503 after 4.5 s.
-- It needs the room of a second copy. Names, keys, columns, defaults and grants stay, so that `flask db check` finds nothing to do.

BEGIN;
SET LOCAL lock_timeout = '5s';  -- rather than have everybody queue behind us, give up and be run again
LOCK TABLE users, tasks IN SHARE ROW EXCLUSIVE MODE;  -- in the order in which deleting a user takes them

CREATE TABLE new_tasks (LIKE tasks INCLUDING DEFAULTS) PARTITION BY HASH (user_id);

-- In a schema of their own, where Alembic does not take them for tables that the models lack. A number that grows only
-- by copying: rather too large than too small, and a power of two.
CREATE SCHEMA partitions;
DO $$
BEGIN
    FOR n IN 0..15 LOOP
        EXECUTE format(
            'CREATE TABLE partitions.tasks_%s PARTITION OF new_tasks FOR VALUES WITH (MODULUS 16, REMAINDER %s)', n, n
        );
    END LOOP;
END
$$;

INSERT INTO new_tasks SELECT * FROM tasks;

-- Whoever may do what, with the table and with its columns (docs/role.sql), may do it still; partitions need no grants.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT privilege_type AS privilege, grantee FROM pg_class, aclexplode(relacl)
        WHERE pg_class.oid = 'tasks'::regclass AND grantee <> relowner
        UNION ALL
        SELECT format('%s (%I)', privilege_type, attname), grantee FROM pg_attribute, aclexplode(attacl)
        WHERE attrelid = 'tasks'::regclass
    LOOP
        EXECUTE format('GRANT %s ON new_tasks TO ', granted.privilege)
            || CASE granted.grantee WHEN 0 THEN 'PUBLIC' ELSE granted.grantee::regrole::text END;
    END LOOP;
    EXECUTE 'ALTER TABLE new_tasks OWNER TO '
        || (SELECT relowner::regrole::text FROM pg_class WHERE oid = 'tasks'::regclass);
END
$$;

DROP TABLE tasks;
ALTER TABLE new_tasks RENAME TO tasks;
ALTER TABLE tasks ADD CONSTRAINT pk_tasks PRIMARY KEY (user_id, id);
ALTER TABLE tasks ADD CONSTRAINT fk_tasks_user_id FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE;
CREATE INDEX ix_tasks_user_id_created_at_id ON tasks (user_id, created_at, id);
COMMIT;

ANALYZE tasks;
