-- Where the planning of a task stands that is done in steps, as `bulk_delete::planning` writes it; null before, after, and where it was done at once.

ALTER TABLE bulk_delete ADD COLUMN planning jsonb;
ALTER TABLE bulk_delete ADD CONSTRAINT bulk_delete_planning_check CHECK (jsonb_typeof(planning) = 'object') NOT VALID;
