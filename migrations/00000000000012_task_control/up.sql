-- Tasks of more than one kind, and what it takes to control them.

ALTER TABLE bulk_delete
    ADD COLUMN kind text COLLATE "C" NOT NULL DEFAULT 'delete',
    -- Whether a check of consistency mends what it finds.
    ADD COLUMN fix bool,
    -- Whether everything is selected, but for what is excluded. Nothing is selected by leaving a selection out.
    ADD COLUMN match_all bool NOT NULL DEFAULT false,
    ADD COLUMN max_objects_per_second int4,
    ALTER COLUMN mode DROP NOT NULL,
    DROP CONSTRAINT bulk_delete_selection;

ALTER TABLE bulk_delete
    ADD CONSTRAINT bulk_delete_kind CHECK (kind IN ('delete', 'check_consistency')),
    ADD CONSTRAINT bulk_delete_mode CHECK ((kind = 'delete') = (mode IS NOT NULL)),
    ADD CONSTRAINT bulk_delete_fix CHECK ((kind = 'check_consistency') = (fix IS NOT NULL)),
    ADD CONSTRAINT bulk_delete_selection CHECK ((kind = 'delete')::int = (entity_ids IS NOT NULL)::int + (filter IS NOT NULL OR entity_type IS NOT NULL)::int + match_all::int),
    ADD CONSTRAINT bulk_delete_pace CHECK (max_objects_per_second > 0);
