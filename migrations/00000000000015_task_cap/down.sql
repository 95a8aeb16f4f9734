ALTER TABLE bulk_delete DROP COLUMN max_objects;
