-- How many objects a task may take up in all, whatever comes to be selected while it runs.
ALTER TABLE bulk_delete ADD COLUMN max_objects int8 CHECK (max_objects >= 0);
