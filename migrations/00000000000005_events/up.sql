-- What readers of events need: a name for each row, how many it tells of, and ways to find what is new.

-- `id` names the row to the outside; `subject_count` lets a reader bound what it takes without unpacking the subjects.
ALTER TABLE event ADD COLUMN id uuid NOT NULL DEFAULT gen_random_uuid();
ALTER TABLE event ADD COLUMN subject_count int4 NOT NULL GENERATED ALWAYS AS (cardinality(subjects)) STORED;

-- What is new to a reader is found by the transactions that it has not seen, in a realm or in all; `seq` stands in the index for the
-- lowest one among them. What is far behind is walked in the order of `seq`: by the primary key in a realm, by `event_seq_order` in all.
CREATE INDEX event_realm_xid ON event (realm_id, xid, seq);
CREATE INDEX event_xid ON event (xid, seq);
CREATE INDEX event_seq_order ON event (seq);

-- Drops the weeks of events that are wholly older than `keep`, and tells how many. Rows of the default partition stay: they are deleted.
CREATE FUNCTION drop_event_partitions(keep interval) RETURNS int4 LANGUAGE plpgsql AS $$
DECLARE
    dropped int4 := 0;
    child text;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('offboard.ensure_partitions'));
    -- Every writer of events waits behind the one who waits for this lock, so not for long.
    SET LOCAL lock_timeout = '200ms';
    FOR child IN
        SELECT c.relname
        FROM pg_inherits i
        JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'event'::regclass AND c.relname ~ '^event_[0-9]{8}$'
          AND (to_date(right(c.relname, 8), 'YYYYMMDD') + 7)::timestamp AT TIME ZONE 'UTC' <= now() - keep
        ORDER BY c.relname
    LOOP
        EXECUTE format('DROP TABLE %I', child);
        dropped := dropped + 1;
    END LOOP;
    RETURN dropped;
END
$$;
