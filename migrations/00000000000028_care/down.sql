ALTER TABLE bulk_delete DROP COLUMN lists, DROP COLUMN check_attributes;
ALTER TABLE removal_policy DROP COLUMN soft_delete, DROP COLUMN hard_delete, DROP COLUMN min_grace;
