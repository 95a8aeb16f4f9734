-- Tasks of more than one kind, and what it takes to control them.

ALTER TABLE bulk_delete
    ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'delete',
    -- Whether a check of consistency mends what it finds.
    ADD COLUMN fix bool,
    -- Whether everything is selected, but for what is excluded. Nothing is selected by leaving a selection out.
    ADD COLUMN IF NOT EXISTS match_all bool NOT NULL DEFAULT false,
    -- How many objects all workers together may take up a second, and until when they have taken up what they may.
    ADD COLUMN max_objects_per_second int4,
    ADD COLUMN paced_until timestamptz,
    -- When a worker last took up a slice of it.
    ADD COLUMN served_at timestamptz,
    -- Since when it has been at work, and for how long it was before that.
    ADD COLUMN working_since timestamptz,
    ADD COLUMN worked interval NOT NULL DEFAULT '0',
    ALTER COLUMN mode DROP NOT NULL,
    DROP CONSTRAINT IF EXISTS bulk_delete_selection;

ALTER TABLE bulk_delete
    ADD CONSTRAINT bulk_delete_kind CHECK (kind IN ('delete', 'check_consistency')),
    ADD CONSTRAINT bulk_delete_mode CHECK ((kind = 'delete') = (mode IS NOT NULL)),
    ADD CONSTRAINT bulk_delete_fix CHECK ((kind = 'check_consistency') = (fix IS NOT NULL)),
    ADD CONSTRAINT bulk_delete_selection CHECK ((kind = 'delete')::int = (entity_ids IS NOT NULL)::int + (filter IS NOT NULL OR entity_type IS NOT NULL)::int + match_all::int),
    ADD CONSTRAINT bulk_delete_pace CHECK (max_objects_per_second > 0),
    ADD CONSTRAINT bulk_delete_worked CHECK (worked >= '0');

UPDATE bulk_delete SET working_since = started_at WHERE status IN ('processing', 'pausing', 'canceling');
UPDATE bulk_delete SET worked = greatest(ended_at - started_at, '0') WHERE started_at IS NOT NULL AND ended_at IS NOT NULL;

-- What of a task the slice walks, where its keys are not those of entities.
ALTER TABLE bulk_delete_slice ADD COLUMN part text COLLATE "C";

-- How many objects a slice met, and how many of those were processed, within the ten seconds from `at`. Kept for about an hour.
CREATE TABLE bulk_delete_sample (
    realm_id int4 NOT NULL,
    bulk_delete_id uuid NOT NULL,
    slice int4 NOT NULL,
    at timestamptz NOT NULL,
    matched int8 NOT NULL,
    processed int8 NOT NULL,
    PRIMARY KEY (realm_id, bulk_delete_id, slice, at)
) WITH (fillfactor = 50);

-- When a worker last took up a slice of a realm's: the realm that has waited longest is served next.
CREATE TABLE bulk_delete_turn (
    realm_id int4 PRIMARY KEY,
    served_at timestamptz NOT NULL
) WITH (fillfactor = 50);
