DROP TABLE publisher_failure;
DROP TABLE publisher;
