-- What a task may take, and whose turn it is, is decided by numbers that the database gives out, never by its clock, which may step back.

-- One number for each entity and each task, in the order in which they were asked for. A session must not draw numbers ahead: CACHE stays 1.
CREATE SEQUENCE ordinal CACHE 1;

-- None on entities that were there before: they are older than every number. Without a default at first, so that the table is not rewritten;
-- with one afterwards, so that whoever inserts an entity need not know of it.
ALTER TABLE entity ADD COLUMN ordinal int8;
ALTER TABLE entity ALTER COLUMN ordinal SET DEFAULT nextval('ordinal');

-- A task means the entities whose number is lower. One without a number was asked for before there were any: it means those without a number
-- that were created before it, by the clock.
ALTER TABLE bulk_delete ADD COLUMN ordinal int8;
ALTER TABLE bulk_delete ALTER COLUMN ordinal SET DEFAULT nextval('ordinal');

-- The token of the last lease: who was served least lately is next.
ALTER TABLE bulk_delete ADD COLUMN served int8;
ALTER TABLE bulk_delete_turn ADD COLUMN served int8;

-- What is due at once is due whatever the clock says.
ALTER TABLE bulk_delete_slice ALTER COLUMN due_at SET DEFAULT '-infinity';
ALTER TABLE bulk_delete_mail ALTER COLUMN due_at SET DEFAULT '-infinity';
ALTER TABLE attribute_declaration ALTER COLUMN due_at SET DEFAULT '-infinity';

-- Entities that the database itself refuses to delete: a trigger, a constraint, damaged data. What was allowed before still is, so no row is
-- looked at.
ALTER TABLE bulk_delete_failure
    DROP CONSTRAINT bulk_delete_failure_reason_check,
    ADD CONSTRAINT bulk_delete_failure_reason
        CHECK (reason IN ('onboarding', 'on_hold', 'offboarding', 'locked', 'not_found', 'refused_by_database')) NOT VALID;
