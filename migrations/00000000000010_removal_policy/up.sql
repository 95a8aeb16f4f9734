-- What a realm has decided on removals, and what is known of attempts that came to nothing.

CREATE TABLE removal_policy (
    realm_id int4 PRIMARY KEY REFERENCES realm (id),
    default_grace interval NOT NULL DEFAULT '0',
    max_grace interval NOT NULL DEFAULT '90 days',
    tombstone_retention interval,
    request_retention interval,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by uuid NOT NULL,
    CONSTRAINT removal_policy_grace CHECK (default_grace >= '0' AND default_grace <= max_grace AND max_grace <= '90 days'),
    CONSTRAINT removal_policy_retention CHECK (tombstone_retention >= '1 day' AND request_retention >= '1 day')
);

ALTER TABLE offboarding_request
    ADD COLUMN last_error_code text COLLATE "C",
    ADD COLUMN last_error_message text,
    -- When it is tried again after an attempt that came to nothing.
    ADD COLUMN next_attempt_at timestamptz,
    ADD CONSTRAINT offboarding_request_last_error CHECK ((last_error_code IS NULL) = (last_error_message IS NULL)),
    ADD CONSTRAINT offboarding_request_next_attempt CHECK (next_attempt_at IS NULL OR status = 'running');

-- Rows come in the order of time, so a word for each range of blocks finds the old ones; a removal pays nothing for it.
CREATE INDEX tombstone_age ON tombstone USING brin (removed_at) WITH (autosummarize = on);
CREATE INDEX offboarding_request_age ON offboarding_request USING brin (finished_at) WITH (autosummarize = on);
