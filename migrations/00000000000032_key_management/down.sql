-- The version before takes scopes that it does not know for none: they stay, for when the migration is applied again.
DROP INDEX api_key_ended;

ALTER TABLE api_key
    DROP COLUMN version,
    DROP COLUMN updated_at,
    DROP COLUMN last_used_at,
    DROP COLUMN previous_sha256,
    DROP COLUMN previous_prefix,
    DROP COLUMN previous_expires_at;
