DROP FUNCTION drop_event_partitions(interval);
DROP INDEX event_seq_order;
DROP INDEX event_xid;
DROP INDEX event_realm_xid;
ALTER TABLE event DROP COLUMN subject_count;
ALTER TABLE event DROP COLUMN id;
