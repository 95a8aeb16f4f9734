-- What is soft-deleted is in no portfolio any more. Its link used to stay, and whoever read a portfolio had to step over it row by row.
UPDATE entity
SET portfolio_id = NULL, attached_at = NULL
WHERE deleted_at IS NOT NULL AND portfolio_id IS NOT NULL;

-- The link alone says who is a member, so that the members are read from the index entity_portfolio without a look at the rows.
ALTER TABLE entity ADD CONSTRAINT entity_deleted_detached CHECK (deleted_at IS NULL OR portfolio_id IS NULL);

-- Whoever leaves a portfolio leaves a dead entry in that index, which readers of the first members step over until it is vacuumed; and what is
-- not vacuumed has to be looked at row by row. By default a fifth of the table would have to change first.
ALTER TABLE entity SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_insert_scale_factor = 0.05);
