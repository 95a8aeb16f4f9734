-- What is soft-deleted is in no portfolio any more. Its link used to stay, and whoever read a portfolio had to step over it row by row.
UPDATE entity
SET portfolio_id = NULL, attached_at = NULL
WHERE deleted_at IS NOT NULL AND portfolio_id IS NOT NULL;

-- The link alone says who is a member, so that the members are read from the index entity_portfolio without a look at the rows.
ALTER TABLE entity ADD CONSTRAINT entity_deleted_detached CHECK (deleted_at IS NULL OR portfolio_id IS NULL);
