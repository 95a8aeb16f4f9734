DROP TABLE bulk_delete_failure;
DROP TABLE bulk_delete_slice;
DROP TABLE bulk_delete;
DROP TABLE offboarding_request;
DROP TABLE tombstone;
DROP SEQUENCE lease_token;
