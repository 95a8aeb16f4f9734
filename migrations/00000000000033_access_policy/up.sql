-- Where the callers of a realm may come from. It is read with every key that is looked up.

CREATE TABLE access_policy (
    realm_id int4 PRIMARY KEY REFERENCES realm (id),
    -- The networks that every key of the realm may be used from; from anywhere if there are none.
    allowed cidr[] NOT NULL DEFAULT '{}',
    version int8 NOT NULL CHECK (version > 1),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- The principal of the caller, or none where it was changed in the database.
    updated_by uuid,
    CONSTRAINT access_policy_allowed CHECK (cardinality(allowed) <= 64 AND array_position(allowed, NULL) IS NULL)
);
