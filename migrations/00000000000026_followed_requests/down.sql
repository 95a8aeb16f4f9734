ALTER TABLE offboarding_request DROP COLUMN followed;
