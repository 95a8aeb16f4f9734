-- What happened, and what was answered. Both are cut into ranges of time, so that what is old is dropped and never deleted.

CREATE SEQUENCE event_seq CACHE 1;

-- The outbox. A row is written in the transaction that makes it true; readers go by which transactions their snapshot sees, so none sees a
-- gap that fills later. One row may tell of many subjects: a chunk of a bulk delete is one event for each of its entities.
CREATE TABLE event (
    seq int8 NOT NULL DEFAULT nextval('event_seq'),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    occurred_at timestamptz NOT NULL DEFAULT now(),
    realm_id int4 NOT NULL,
    type text COLLATE "C" NOT NULL CHECK (type ~ '^[a-z_]+\.[a-z_]+$'),
    subjects text[] COLLATE "C" NOT NULL CHECK (cardinality(subjects) > 0),
    data jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(data) = 'object'),
    principal_id uuid NOT NULL,
    PRIMARY KEY (realm_id, seq, occurred_at)
) PARTITION BY RANGE (occurred_at);
CREATE TABLE event_default PARTITION OF event DEFAULT;

-- The answer to a request that carried an idempotency key, written with its effect.
CREATE TABLE idempotency_key (
    realm_id int4 NOT NULL,
    api_key_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    method text COLLATE "C" NOT NULL,
    request_sha256 bytea NOT NULL CHECK (octet_length(request_sha256) = 32),
    answer bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (realm_id, api_key_id, key, created_at)
) PARTITION BY RANGE (created_at);
CREATE TABLE idempotency_key_default PARTITION OF idempotency_key DEFAULT;

-- Makes the partitions from this period to `ahead` periods on, where they are missing: weeks of events, days of idempotency keys.
-- Rows that came before their partition stay in the default one, and so does their period.
CREATE FUNCTION ensure_partitions(ahead int4) RETURNS int4 LANGUAGE plpgsql AS $$
DECLARE
    made int4 := 0;
    parent text;
    unit text;
    clock text;
    starts timestamptz;
    ends timestamptz;
    child text;
    taken bool;
BEGIN
    -- One at a time, whichever replica asks; the lock ends with the transaction.
    PERFORM pg_advisory_xact_lock(hashtext('offboard.ensure_partitions'));
    FOR parent, unit, clock IN VALUES ('event', 'week', 'occurred_at'), ('idempotency_key', 'day', 'created_at') LOOP
        FOR step IN 0..ahead LOOP
            starts := (date_trunc(unit, now() AT TIME ZONE 'UTC') + (step || ' ' || unit)::interval) AT TIME ZONE 'UTC';
            ends := (starts AT TIME ZONE 'UTC' + ('1 ' || unit)::interval) AT TIME ZONE 'UTC';
            child := parent || '_' || to_char(starts AT TIME ZONE 'UTC', 'YYYYMMDD');
            CONTINUE WHEN to_regclass(quote_ident(child)) IS NOT NULL;
            EXECUTE format('SELECT EXISTS (SELECT FROM %I WHERE %I >= $1 AND %I < $2)', parent || '_default', clock, clock)
                INTO taken USING starts, ends;
            CONTINUE WHEN taken;
            EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', child, parent);
            EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, child, starts, ends);
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;

SELECT ensure_partitions(2);
