ALTER TABLE publisher DROP COLUMN place;
DROP TABLE event_history;
DROP TABLE event_sequencer;
DROP TABLE event_position;
ALTER TABLE event ALTER COLUMN seq SET DEFAULT nextval('event_seq');
