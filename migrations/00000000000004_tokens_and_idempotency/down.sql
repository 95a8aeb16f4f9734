DROP FUNCTION ensure_partitions(int4);
DROP TABLE idempotency_key;
DROP TABLE service_secret;

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
