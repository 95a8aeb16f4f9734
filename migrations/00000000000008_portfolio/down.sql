-- The links of what was soft-deleted are gone; what stood on them before did not count them as members either.
ALTER TABLE entity DROP CONSTRAINT entity_deleted_detached;
