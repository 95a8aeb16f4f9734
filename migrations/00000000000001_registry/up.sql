-- Realms and keys, entities and what hangs on them, portfolios.
-- Every key of rows that belong to a realm begins with realm_id: isolation by key, and the column to shard on.

-- One for each organisation and mode. The two modes of an organisation never meet.
CREATE TABLE realm (
    id int4 GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    org text COLLATE "C" NOT NULL CHECK (org ~ '^[A-Za-z0-9._~-]{1,128}$'),
    mode text COLLATE "C" NOT NULL CHECK (mode IN ('test', 'live')),
    settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (org, mode)
);

-- A key is found by the hash of its secret, before its realm is known. The secret itself is nowhere.
CREATE TABLE api_key (
    id uuid PRIMARY KEY,
    realm_id int4 NOT NULL REFERENCES realm (id),
    principal_id uuid NOT NULL,
    name text NOT NULL DEFAULT '',
    email text,
    secret_sha256 bytea NOT NULL UNIQUE CHECK (octet_length(secret_sha256) = 32),
    secret_prefix text COLLATE "C" NOT NULL,
    scopes text[] NOT NULL,
    allowed cidr[] NOT NULL DEFAULT '{}',
    api_version date,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);
CREATE INDEX api_key_realm ON api_key (realm_id, created_at);

-- Half of each page is kept free, so that a soft delete finds room beside the row and stays HOT.
-- No index may cover or mention a column that a soft delete writes: version, updated_at, deleted_at, deleted_by.
-- Whatever adds to what hangs on an entity (a dependent, a link, an index row) steps the entity's version in the same transaction:
-- a removal compares the version and so never misses what was added while it waited.
CREATE TABLE entity (
    realm_id int4 NOT NULL,
    id text COLLATE "C" NOT NULL CHECK (id ~ '^[A-Za-z0-9._~-]{1,128}$'),
    incarnation uuid NOT NULL,
    type text COLLATE "C" NOT NULL CHECK (char_length(type) BETWEEN 1 AND 256),
    state text COLLATE "C" NOT NULL CHECK (state IN ('onboarding', 'active', 'offboarding')),
    attributes jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(attributes) = 'object'),
    crosswalks jsonb NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(crosswalks) = 'array'),
    components uuid[] NOT NULL DEFAULT '{}',
    portfolio_id text COLLATE "C",
    attached_at timestamptz,
    hold_reason text,
    hold_placed_by uuid,
    hold_placed_at timestamptz,
    version int8 NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    deleted_at timestamptz,
    deleted_by uuid,
    PRIMARY KEY (realm_id, id),
    CONSTRAINT entity_attached CHECK ((portfolio_id IS NULL) = (attached_at IS NULL)),
    CONSTRAINT entity_hold CHECK (num_nulls(hold_reason, hold_placed_by, hold_placed_at) IN (0, 3)),
    CONSTRAINT entity_deleted CHECK ((deleted_at IS NULL) = (deleted_by IS NULL))
) WITH (fillfactor = 50);
CREATE INDEX entity_portfolio ON entity (realm_id, portfolio_id, attached_at, id) WHERE portfolio_id IS NOT NULL;

-- Anything that hangs on an entity. No foreign key: a cascade would halve a bulk delete.
CREATE TABLE dependent (
    realm_id int4 NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind ~ '^[a-z][a-z0-9_]{0,63}$'),
    id text COLLATE "C" NOT NULL CHECK (id ~ '^[A-Za-z0-9._~-]{1,128}$'),
    data jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(data) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (realm_id, entity_id, kind, id)
);

-- Values of the attributes that a realm has declared as indexed; a row for each value.
CREATE TABLE attribute_index (
    realm_id int4 NOT NULL,
    attribute text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL,
    entity_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (realm_id, attribute, value, entity_id)
);
CREATE INDEX attribute_index_entity ON attribute_index (realm_id, entity_id);

CREATE TABLE portfolio (
    realm_id int4 NOT NULL,
    id text COLLATE "C" NOT NULL CHECK (id ~ '^[A-Za-z0-9._~-]{1,128}$'),
    name text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 256),
    shared_registered_agent_id text,
    shared_compliance_calendar bool NOT NULL DEFAULT false,
    metadata jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata) = 'object'),
    entity_count int8 NOT NULL DEFAULT 0 CHECK (entity_count >= 0),
    version int8 NOT NULL DEFAULT 1 CHECK (version > 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (realm_id, id)
) WITH (fillfactor = 70);
