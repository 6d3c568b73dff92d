-- Turns tasks into a table of 16 hash partitions by user_id. psql -v ON_ERROR_STOP=1 -f docs/partition.sql
-- One transaction. Reads go on until the swap at the end. Writes wait, and get 503 after 4.5 s.
-- It needs room for a second copy. Names, keys, columns, defaults and grants stay, so that `flask db check` finds nothing to do.

BEGIN;
SET LOCAL lock_timeout = '5s';  -- give up rather than have requests queue behind this; run it again
LOCK TABLE users, tasks IN SHARE ROW EXCLUSIVE MODE;  -- in the order in which deleting a user takes them

CREATE TABLE new_tasks (LIKE tasks INCLUDING DEFAULTS) PARTITION BY HASH (user_id);

-- In a schema of their own, where Alembic does not take them for tables that the models lack. Only another copy changes
-- their number: choose it large, and a power of two.
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

-- Keep the grants on the table and on its columns (docs/role.sql). Partitions need none.
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
