UPDATE bulk_delete_failure SET reason = 'locked' WHERE reason = 'refused_by_database';
ALTER TABLE bulk_delete_failure
    DROP CONSTRAINT bulk_delete_failure_reason,
    ADD CONSTRAINT bulk_delete_failure_reason_check CHECK (reason IN ('onboarding', 'on_hold', 'offboarding', 'locked', 'not_found'));
ALTER TABLE attribute_declaration ALTER COLUMN due_at SET DEFAULT now();
ALTER TABLE bulk_delete_mail ALTER COLUMN due_at SET DEFAULT now();
ALTER TABLE bulk_delete_slice ALTER COLUMN due_at SET DEFAULT now();
ALTER TABLE bulk_delete_turn DROP COLUMN served;
ALTER TABLE bulk_delete DROP COLUMN served, DROP COLUMN ordinal;
ALTER TABLE entity DROP COLUMN ordinal;
DROP SEQUENCE ordinal;
