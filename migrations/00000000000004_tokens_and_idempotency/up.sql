-- Secrets of the service itself, the same for all replicas.

CREATE TABLE service_secret (
    purpose text COLLATE "C" PRIMARY KEY,
    secret bytea NOT NULL CHECK (octet_length(secret) = 32)
);
-- gen_random_uuid draws 122 bits each from the strong source of randomness.
INSERT INTO service_secret (purpose, secret)
VALUES ('tokens', sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8')));

-- The answer to a request that carried an idempotency key, written with its effect. One row for a key, so that the first statement of a
-- twin waits for the first call's transaction; a table cut by time could not promise that. `part` tells the batches of a stream apart.
DROP TABLE idempotency_key;
CREATE TABLE idempotency_key (
    realm_id int4 NOT NULL,
    api_key_id uuid NOT NULL,
    key text COLLATE "C" NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    part int8 NOT NULL DEFAULT 0 CHECK (part >= 0),
    method text COLLATE "C" NOT NULL,
    request_sha256 bytea NOT NULL CHECK (octet_length(request_sha256) = 32),
    -- NULL only within the transaction that does the work.
    answer bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (realm_id, api_key_id, key, part)
) WITH (fillfactor = 70);
CREATE INDEX idempotency_key_age ON idempotency_key (created_at);

-- Events alone are cut into ranges of time now.
DROP FUNCTION ensure_partitions(int4);
CREATE FUNCTION ensure_partitions(ahead int4) RETURNS int4 LANGUAGE plpgsql AS $$
DECLARE
    made int4 := 0;
    starts timestamptz;
    ends timestamptz;
    child text;
    taken bool;
BEGIN
    -- One at a time, whichever replica asks; the lock ends with the transaction.
    PERFORM pg_advisory_xact_lock(hashtext('offboard.ensure_partitions'));
    FOR step IN 0..ahead LOOP
        starts := (date_trunc('week', now() AT TIME ZONE 'UTC') + make_interval(weeks => step)) AT TIME ZONE 'UTC';
        ends := (starts AT TIME ZONE 'UTC' + make_interval(weeks => 1)) AT TIME ZONE 'UTC';
        child := 'event_' || to_char(starts AT TIME ZONE 'UTC', 'YYYYMMDD');
        CONTINUE WHEN to_regclass(quote_ident(child)) IS NOT NULL;
        SELECT EXISTS (SELECT FROM event_default WHERE occurred_at >= starts AND occurred_at < ends) INTO taken;
        CONTINUE WHEN taken;
        EXECUTE format('CREATE TABLE %I (LIKE event INCLUDING ALL)', child);
        EXECUTE format('ALTER TABLE event ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', child, starts, ends);
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
