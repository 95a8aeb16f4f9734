DROP FUNCTION ensure_partitions(int4);
DROP TABLE idempotency_key;
DROP TABLE event;
DROP SEQUENCE event_seq;
