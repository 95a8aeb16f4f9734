-- Checks of consistency: what they found, and what lets them look without reading all.

-- What a check found, in the order in which its slices came upon it. Not all of it is kept: see bulk_delete_finding_count.
CREATE TABLE bulk_delete_finding (
    realm_id int4 NOT NULL,
    bulk_delete_id uuid NOT NULL,
    slice int4 NOT NULL,
    n int8 NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('orphan_dependent', 'portfolio_count', 'stuck_offboarding', 'orphan_request',
        'event_mismatch', 'attribute_index')),
    -- The id of the entity, portfolio or request that it is about.
    subject text COLLATE "C" NOT NULL,
    detail text NOT NULL,
    mended bool NOT NULL,
    occurred_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (realm_id, bulk_delete_id, slice, n)
);

-- How much each slice of a check found, exactly; a row for each kind, so that workers do not wait for each other.
CREATE TABLE bulk_delete_finding_count (
    realm_id int4 NOT NULL,
    bulk_delete_id uuid NOT NULL,
    slice int4 NOT NULL,
    kind text COLLATE "C" NOT NULL,
    found int8 NOT NULL,
    mended int8 NOT NULL,
    -- How many of them are kept in bulk_delete_finding.
    kept int8 NOT NULL,
    PRIMARY KEY (realm_id, bulk_delete_id, slice, kind),
    CONSTRAINT bulk_delete_finding_count_bounds CHECK (mended BETWEEN 0 AND found AND kept BETWEEN 0 AND found)
) WITH (fillfactor = 50);

-- A removal and its event have the same moment, that of their transaction: so the event of a tombstone is found, and the removals of a realm
-- are read in their order without all the other events. A bulk delete pays one entry for each chunk.
CREATE INDEX event_removal ON event (realm_id, occurred_at, seq) WHERE type IN ('entity.offboarded', 'entity.deleted');

-- Since when every tombstone must be there. A policy that was changed to keep them longer does not bring back those that are swept.
ALTER TABLE removal_policy ADD COLUMN tombstones_kept_since timestamptz;
UPDATE removal_policy SET tombstones_kept_since = updated_at;
