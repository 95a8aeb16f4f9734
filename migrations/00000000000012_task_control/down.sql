DROP TABLE bulk_delete_turn;
DROP TABLE bulk_delete_sample;
ALTER TABLE bulk_delete_slice DROP COLUMN part;
DELETE FROM bulk_delete_slice s USING bulk_delete b WHERE b.realm_id = s.realm_id AND b.id = s.bulk_delete_id AND b.kind <> 'delete';
DELETE FROM bulk_delete WHERE kind <> 'delete' OR match_all;
ALTER TABLE bulk_delete
    DROP CONSTRAINT bulk_delete_kind,
    DROP CONSTRAINT bulk_delete_mode,
    DROP CONSTRAINT bulk_delete_fix,
    DROP CONSTRAINT bulk_delete_selection,
    DROP CONSTRAINT bulk_delete_pace,
    DROP CONSTRAINT bulk_delete_worked,
    ALTER COLUMN mode SET NOT NULL,
    DROP COLUMN kind,
    DROP COLUMN fix,
    DROP COLUMN match_all,
    DROP COLUMN max_objects_per_second,
    DROP COLUMN paced_until,
    DROP COLUMN served_at,
    DROP COLUMN working_since,
    DROP COLUMN worked,
    ADD CONSTRAINT bulk_delete_selection CHECK ((entity_ids IS NOT NULL) <> (filter IS NOT NULL OR entity_type IS NOT NULL));
