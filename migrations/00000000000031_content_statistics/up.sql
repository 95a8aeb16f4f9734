-- Postgres keeps samples of what columns hold (`pg_statistic`) until the next ANALYZE of their table, also of rows that are deleted. Of content it keeps none from here
-- on: no plan depends on it.

ALTER TABLE entity
    ALTER COLUMN attributes SET STATISTICS 0,
    ALTER COLUMN crosswalks SET STATISTICS 0,
    ALTER COLUMN hold_reason SET STATISTICS 0;
ALTER TABLE dependent ALTER COLUMN data SET STATISTICS 0;
ALTER TABLE attribute_index ALTER COLUMN value SET STATISTICS 0;
ALTER TABLE portfolio
    ALTER COLUMN name SET STATISTICS 0,
    ALTER COLUMN shared_registered_agent_id SET STATISTICS 0,
    ALTER COLUMN metadata SET STATISTICS 0;
ALTER TABLE bulk_delete
    ALTER COLUMN name SET STATISTICS 0,
    ALTER COLUMN filter SET STATISTICS 0,
    ALTER COLUMN parameters SET STATISTICS 0;
ALTER TABLE bulk_delete_mail ALTER COLUMN recipient SET STATISTICS 0;
ALTER TABLE idempotency_key ALTER COLUMN answer SET STATISTICS 0;

-- What was sampled before stays where nothing takes it out. Postgres 18 lets the owner of a table do that, and those before it superusers alone:
-- `docs/erasure.md` says what is left to do elsewhere.
DO $$
DECLARE
    sampled record;
BEGIN
    FOR sampled IN
        SELECT c.oid, c.relname, a.attname, a.attnum
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND a.attstattarget = 0
    LOOP
        IF current_setting('server_version_num')::int >= 180000 THEN
            EXECUTE format('SELECT pg_clear_attribute_stats(%L, %L, %L, false)', current_schema(), sampled.relname, sampled.attname);
        ELSIF current_setting('is_superuser')::bool THEN
            DELETE FROM pg_statistic WHERE starelid = sampled.oid AND staattnum = sampled.attnum;
        END IF;
    END LOOP;
END
$$;
