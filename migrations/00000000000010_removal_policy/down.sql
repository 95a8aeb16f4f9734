DROP INDEX offboarding_request_age;
DROP INDEX tombstone_age;
ALTER TABLE offboarding_request DROP COLUMN last_error_code, DROP COLUMN last_error_message, DROP COLUMN next_attempt_at;
DROP TABLE removal_policy;
