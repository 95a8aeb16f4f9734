-- Positions of events. A row of `event` is written in the transaction that makes it true, as before; after its commit whichever replica holds the
-- advisory lock gives it the next position. Readers go by position alone, so what they hold on to outlives transaction ids.

-- The transaction has its id before it draws a number: what was drawn before a snapshot was taken is of a transaction that the snapshot knows. The
-- sequencer relies on it to tell a number that is still to come from one that never will.
ALTER TABLE event ALTER COLUMN seq SET DEFAULT CASE WHEN pg_current_xact_id() IS NOT NULL THEN nextval('event_seq') END;

-- Which row has which position. Positions have no gaps; those of events that are not kept any more are deleted from the low end.
CREATE TABLE event_position (
    position int8 NOT NULL,
    seq int8 NOT NULL,
    occurred_at timestamptz NOT NULL,
    realm_id int4 NOT NULL,
    subject_count int4 NOT NULL,
    PRIMARY KEY (position)
);
CREATE INDEX event_position_realm ON event_position (realm_id, position);

-- How far positions were given. One row.
CREATE TABLE event_sequencer (
    singleton bool PRIMARY KEY DEFAULT true CHECK (singleton),
    -- Every `seq` up to here was considered.
    considered int8 NOT NULL DEFAULT 0,
    -- Those that were considered and not visible: their transactions may commit later, or never. The older ones are dropped when every transaction
    -- before `older_than` has ended; then the younger ones take their place.
    older int8multirange NOT NULL DEFAULT '{}',
    younger int8multirange NOT NULL DEFAULT '{}',
    older_than xid8 NOT NULL DEFAULT pg_current_xact_id(),
    -- The last position that was given.
    position int8 NOT NULL DEFAULT 0,
    -- The highest position of an event that is not kept any more.
    dropped int8 NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
INSERT INTO event_sequencer DEFAULT VALUES;

-- The lines of this database. A restore, a promotion and a copy each begin a new one, at the next position: up to there it is the same as the one
-- before, and behind there are different events at the same positions.
CREATE TABLE event_history (
    number int4 PRIMARY KEY CHECK (number > 0),
    id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    -- The first position that belongs to it.
    begins int8 NOT NULL CHECK (begins > 0),
    began_at timestamptz NOT NULL DEFAULT now(),
    -- Why it began: 'first', 'line' (one of the next three has changed), 'lost' (what was told is not there), 'forced'.
    reason text COLLATE "C" NOT NULL CHECK (reason IN ('first', 'line', 'lost', 'forced')),
    -- What tells lines apart, as far as the role may see it.
    system_identifier text COLLATE "C",
    timeline text COLLATE "C",
    database_oid oid NOT NULL
);

-- Where a publisher is, by position. `cursor` is what the version before went by; it is read once, where there is no place yet.
ALTER TABLE publisher ADD COLUMN place jsonb CHECK (jsonb_typeof(place) = 'object');
