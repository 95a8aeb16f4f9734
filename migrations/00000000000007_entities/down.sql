ALTER TABLE entity DROP CONSTRAINT entity_hold_reason;
DROP INDEX entity_created;
