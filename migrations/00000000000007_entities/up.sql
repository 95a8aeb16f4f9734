-- Lists of entities by time, and the bounds of a hold.

-- In the order of creation. It knows no column that a soft delete writes, so soft deletes stay on their page.
CREATE INDEX entity_created ON entity (realm_id, created_at, id);

ALTER TABLE entity ADD CONSTRAINT entity_hold_reason CHECK (char_length(hold_reason) BETWEEN 1 AND 1024);
