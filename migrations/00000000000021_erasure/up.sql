-- What idempotency records may hold, and how what they show of others is found when that is removed.

-- Where a record is counted, and how many bytes it counts for. NULL for a record that an earlier version wrote: it is not counted.
ALTER TABLE idempotency_key ADD COLUMN shard int2, ADD COLUMN bytes int8;

-- How many records a realm has and how large their answers are, in a few rows, so that calls seldom wait for each other. The row is changed by the
-- statement that writes the answer, so the sum is exact at any time.
CREATE TABLE idempotency_usage (
    realm_id int4 NOT NULL,
    shard int2 NOT NULL,
    records int8 NOT NULL,
    bytes int8 NOT NULL,
    PRIMARY KEY (realm_id, shard)
) WITH (fillfactor = 50);

-- Whoever deletes records takes them off the count, also a version that knows nothing of it.
CREATE FUNCTION uncount_idempotency_records() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    WITH fewer AS (
        SELECT g.realm_id, g.shard, count(*) AS records, sum(g.bytes) AS bytes
        FROM gone g
        WHERE g.shard IS NOT NULL
        GROUP BY g.realm_id, g.shard
    ),
    held AS (
        SELECT u.realm_id, u.shard, f.records, f.bytes
        FROM idempotency_usage u
        JOIN fewer f ON f.realm_id = u.realm_id AND f.shard = u.shard
        ORDER BY u.realm_id, u.shard
        FOR UPDATE OF u
    )
    UPDATE idempotency_usage u
    SET records = greatest(u.records - h.records, 0), bytes = greatest(u.bytes - h.bytes, 0)
    FROM held h
    WHERE u.realm_id = h.realm_id AND u.shard = h.shard;
    RETURN NULL;
END
$$;
CREATE TRIGGER uncount_idempotency_records
    AFTER DELETE ON idempotency_key REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION uncount_idempotency_records();

-- What the answer of a record shows: whoever removes one of these finds the records by it and takes the answers out. `dependent` is empty, or
-- the kind and the id of a dependent of the entity. `created_at` is that of the record: one that took its place has another.
CREATE TABLE idempotency_subject (
    realm_id int4 NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('entity', 'portfolio')),
    subject text COLLATE "C" NOT NULL,
    dependent text COLLATE "C" NOT NULL DEFAULT '',
    api_key_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL,
    part int8 NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (realm_id, kind, subject, dependent, api_key_id, key, part)
);
CREATE INDEX idempotency_subject_age ON idempotency_subject (created_at);

-- Whether the hold was placed with the scope `admin`; then only that scope releases it.
ALTER TABLE entity ADD COLUMN hold_by_admin bool NOT NULL DEFAULT false;

-- For how long after their end tasks keep the text of their filter; as long as the task if not set.
ALTER TABLE removal_policy
    ADD COLUMN filter_retention interval,
    ADD CONSTRAINT removal_policy_filter_retention CHECK (filter_retention >= '1 day');
