ALTER TABLE removal_policy DROP COLUMN filter_retention;
ALTER TABLE entity DROP COLUMN hold_by_admin;
DROP TABLE idempotency_subject;
DROP TRIGGER uncount_idempotency_records ON idempotency_key;
DROP FUNCTION uncount_idempotency_records();
DROP TABLE idempotency_usage;
ALTER TABLE idempotency_key DROP COLUMN shard, DROP COLUMN bytes;
