-- What takes things out, and what remains of them.

-- Tokens that fence a lease: a later lease always has a higher one.
CREATE SEQUENCE lease_token;

-- What a hard removal leaves of an entity.
CREATE TABLE tombstone (
    realm_id int4 NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    incarnation uuid NOT NULL,
    type text COLLATE "C" NOT NULL,
    version int8 NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    removed_at timestamptz NOT NULL DEFAULT now(),
    removed_by uuid NOT NULL,
    job_kind text COLLATE "C" NOT NULL CHECK (job_kind IN ('offboarding', 'bulk_delete')),
    job_id uuid NOT NULL,
    PRIMARY KEY (realm_id, entity_id, incarnation)
);

-- pending -> running -> succeeded | failed, or pending -> canceled.
-- due_at is when a worker may claim it: the end of the grace period while pending, the end of the lease while running.
CREATE TABLE offboarding_request (
    realm_id int4 NOT NULL,
    id uuid NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    incarnation uuid NOT NULL,
    principal_id uuid NOT NULL,
    api_key_id uuid NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('pending', 'running', 'succeeded', 'failed', 'canceled')),
    components uuid[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    execute_after timestamptz NOT NULL,
    started_at timestamptz,
    finished_at timestamptz,
    due_at timestamptz,
    attempts int4 NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    lease_token int8,
    lease_owner text,
    removed jsonb CHECK (jsonb_typeof(removed) = 'object'),
    error_code text COLLATE "C",
    error_message text,
    PRIMARY KEY (realm_id, id),
    CONSTRAINT offboarding_request_live CHECK ((status IN ('pending', 'running')) = (due_at IS NOT NULL)),
    CONSTRAINT offboarding_request_finished CHECK ((status IN ('succeeded', 'failed', 'canceled')) = (finished_at IS NOT NULL)),
    CONSTRAINT offboarding_request_started CHECK (status IN ('pending', 'canceled') OR started_at IS NOT NULL),
    CONSTRAINT offboarding_request_leased CHECK (status <> 'running' OR (lease_token IS NOT NULL AND lease_owner IS NOT NULL)),
    CONSTRAINT offboarding_request_removed CHECK ((status = 'succeeded') = (removed IS NOT NULL)),
    CONSTRAINT offboarding_request_error CHECK ((status = 'failed') = (error_code IS NOT NULL))
) WITH (fillfactor = 70);
-- At most one live removal for an entity, whoever asked.
CREATE UNIQUE INDEX offboarding_request_one_live ON offboarding_request (realm_id, entity_id) WHERE status IN ('pending', 'running');
CREATE INDEX offboarding_request_due ON offboarding_request (due_at) WHERE status IN ('pending', 'running');
CREATE INDEX offboarding_request_entity ON offboarding_request (realm_id, entity_id, created_at);

-- A task and what it selects: by filter and type, or by a list.
CREATE TABLE bulk_delete (
    realm_id int4 NOT NULL,
    id uuid NOT NULL,
    name text NOT NULL,
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('soft', 'hard')),
    status text COLLATE "C" NOT NULL CHECK (status IN ('scheduled', 'processing', 'pausing', 'paused', 'canceling', 'canceled',
        'completed', 'completed_with_errors', 'failed', 'waiting_for_resource', 'scheduled_poll')),
    filter text,
    entity_type text COLLATE "C",
    entity_ids text[] COLLATE "C",
    excluded_ids text[] COLLATE "C" NOT NULL DEFAULT '{}',
    parameters jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(parameters) = 'object'),
    principal_id uuid NOT NULL,
    api_key_id uuid NOT NULL,
    updated_by uuid NOT NULL,
    selected int8 CHECK (selected >= 0),
    instances text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    started_at timestamptz,
    paused_at timestamptz,
    ended_at timestamptz,
    error_code text COLLATE "C",
    error_message text,
    PRIMARY KEY (realm_id, id),
    CONSTRAINT bulk_delete_selection CHECK ((entity_ids IS NOT NULL) <> (filter IS NOT NULL OR entity_type IS NOT NULL)),
    CONSTRAINT bulk_delete_ended CHECK (
        (status IN ('canceled', 'completed', 'completed_with_errors', 'failed')) = (ended_at IS NOT NULL)),
    CONSTRAINT bulk_delete_error CHECK ((status = 'failed') = (error_code IS NOT NULL))
) WITH (fillfactor = 70);
CREATE INDEX bulk_delete_active ON bulk_delete (realm_id, created_at)
    WHERE status NOT IN ('canceled', 'completed', 'completed_with_errors', 'failed');

-- A range of keys, walked by one worker at a time: (cursor_id, until_id], where null is the end of the key space.
CREATE TABLE bulk_delete_slice (
    realm_id int4 NOT NULL,
    bulk_delete_id uuid NOT NULL,
    slice int4 NOT NULL,
    cursor_id text COLLATE "C" NOT NULL DEFAULT '',
    until_id text COLLATE "C",
    done bool NOT NULL DEFAULT false,
    due_at timestamptz NOT NULL DEFAULT now(),
    lease_token int8 NOT NULL DEFAULT 0,
    lease_owner text,
    attempts int4 NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    matched int8 NOT NULL DEFAULT 0,
    processed int8 NOT NULL DEFAULT 0,
    failed int8 NOT NULL DEFAULT 0,
    excluded int8 NOT NULL DEFAULT 0,
    skipped int8 NOT NULL DEFAULT 0,
    PRIMARY KEY (realm_id, bulk_delete_id, slice),
    CONSTRAINT bulk_delete_slice_accounts CHECK (processed + failed + excluded + skipped = matched)
) WITH (fillfactor = 50);
CREATE INDEX bulk_delete_slice_open ON bulk_delete_slice (realm_id, bulk_delete_id) WHERE NOT done;

CREATE TABLE bulk_delete_failure (
    realm_id int4 NOT NULL,
    bulk_delete_id uuid NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    reason text COLLATE "C" NOT NULL CHECK (reason IN ('onboarding', 'on_hold', 'offboarding', 'locked', 'not_found')),
    occurred_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (realm_id, bulk_delete_id, entity_id)
);
