DELETE FROM bulk_delete WHERE kind <> 'delete' OR match_all;
ALTER TABLE bulk_delete
    DROP CONSTRAINT bulk_delete_selection,
    DROP COLUMN kind,
    DROP COLUMN fix,
    DROP COLUMN match_all,
    DROP COLUMN max_objects_per_second,
    ALTER COLUMN mode SET NOT NULL,
    ADD CONSTRAINT bulk_delete_selection CHECK ((entity_ids IS NOT NULL) <> (filter IS NOT NULL OR entity_type IS NOT NULL));
