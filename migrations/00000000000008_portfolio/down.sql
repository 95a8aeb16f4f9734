-- The links of what was soft-deleted are gone; what stood on them before did not count them as members either.
ALTER TABLE entity DROP CONSTRAINT entity_deleted_detached;
ALTER TABLE entity RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_insert_scale_factor);
