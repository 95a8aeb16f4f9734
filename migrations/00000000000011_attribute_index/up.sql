-- Attributes that a realm has declared as indexed. Whoever writes an entity writes the rows of `attribute_index` for what is declared here in
-- the same transaction; a worker writes those of the entities that were there before.

CREATE TABLE attribute_declaration (
    realm_id int4 NOT NULL,
    -- The path as a filter writes it behind `attributes.`, and its names.
    attribute text COLLATE "C" NOT NULL CHECK (char_length(attribute) BETWEEN 1 AND 256),
    path text[] COLLATE "C" NOT NULL CHECK (cardinality(path) > 0),
    -- building -> ready | failed, and from each of them -> dropping. What was dropped has no row.
    state text COLLATE "C" NOT NULL CHECK (state IN ('building', 'ready', 'failed', 'dropping')),
    -- What the worker does next, and where it is.
    phase text COLLATE "C" CHECK (phase IN ('waiting', 'walking', 'settling', 'checking', 'retiring', 'clearing')),
    -- The virtual transactions that must be over before the phase is; null until they were looked up.
    waits_for text[] COLLATE "C",
    cursor_value text COLLATE "C" NOT NULL DEFAULT '',
    cursor_id text COLLATE "C" NOT NULL DEFAULT '',
    entities_done int8 NOT NULL DEFAULT 0 CHECK (entities_done >= 0),
    entities_total int8 CHECK (entities_total >= 0),
    rows_written int8 NOT NULL DEFAULT 0 CHECK (rows_written >= 0),
    principal_id uuid NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    ready_at timestamptz,
    error_code text COLLATE "C",
    error_message text,
    due_at timestamptz NOT NULL DEFAULT now(),
    lease_token int8 NOT NULL DEFAULT 0,
    lease_owner text,
    attempts int4 NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    PRIMARY KEY (realm_id, attribute),
    CONSTRAINT attribute_declaration_phase CHECK (
        CASE state WHEN 'building' THEN phase IN ('waiting', 'walking', 'settling', 'checking')
                   WHEN 'dropping' THEN phase IN ('retiring', 'clearing')
                   ELSE phase IS NULL END),
    CONSTRAINT attribute_declaration_ready CHECK (state <> 'ready' OR ready_at IS NOT NULL),
    CONSTRAINT attribute_declaration_error CHECK ((state = 'failed') = (error_code IS NOT NULL))
) WITH (fillfactor = 50);
