ALTER TABLE bulk_delete DROP COLUMN planning;
