-- How far each publisher of events is, which replica publishes, and what could not be delivered so far.

-- A row for each publisher, made when the first replica that has it starts: what happened before is not published.
-- due_at is when another replica may take over: the end of the lease.
CREATE TABLE publisher (
    name text COLLATE "C" PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,63}$'),
    -- Everything before it was acknowledged. It may stand within a row of many subjects.
    cursor jsonb NOT NULL CHECK (jsonb_typeof(cursor) = 'object'),
    lease_token int8 NOT NULL DEFAULT 0,
    lease_owner text,
    due_at timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);

-- Rows of the outbox that tell of a bulk delete and could not be delivered when it was tried. Empty when all is well.
CREATE TABLE publisher_failure (
    realm_id int4 NOT NULL,
    bulk_delete_id uuid NOT NULL,
    publisher text COLLATE "C" NOT NULL REFERENCES publisher (name) ON DELETE CASCADE,
    event_id uuid NOT NULL,
    -- How many events of the row are not delivered.
    events int4 NOT NULL CHECK (events > 0),
    attempts int4 NOT NULL DEFAULT 1 CHECK (attempts > 0),
    error_code text COLLATE "C" NOT NULL,
    since timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (realm_id, bulk_delete_id, publisher, event_id)
);
CREATE INDEX publisher_failure_event ON publisher_failure (publisher, event_id);
