ALTER TABLE removal_policy DROP COLUMN tombstones_kept_since;
DROP INDEX event_removal;
DROP TABLE bulk_delete_finding_count;
DROP TABLE bulk_delete_finding;
