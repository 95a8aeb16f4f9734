-- Keys are managed by calls: they have versions, a second secret for a while after a rotation, and the time of their last use.

ALTER TABLE api_key
    ADD COLUMN version int8 NOT NULL DEFAULT 1 CHECK (version > 0),
    ADD COLUMN updated_at timestamptz NOT NULL DEFAULT now(),
    -- To the minute. It is written a while after the use, and steps no version.
    ADD COLUMN last_used_at timestamptz,
    -- The secret before the last rotation, which opens as much until its end.
    ADD COLUMN previous_sha256 bytea UNIQUE CHECK (octet_length(previous_sha256) = 32),
    ADD COLUMN previous_prefix text COLLATE "C",
    ADD COLUMN previous_expires_at timestamptz,
    ADD CONSTRAINT api_key_previous CHECK (num_nulls(previous_sha256, previous_prefix, previous_expires_at) IN (0, 3));

-- Keys that ended long ago are removed, and those that have not are passed over.
CREATE INDEX api_key_ended ON api_key (least(revoked_at, expires_at)) WHERE least(revoked_at, expires_at) IS NOT NULL;

-- Scopes that were parts of others are scopes of their own from here on: a key may do what it could do before.
UPDATE api_key k
SET updated_at = coalesce(k.revoked_at, k.created_at),
    scopes = k.scopes || ARRAY(
        SELECT s.part
        FROM (VALUES ('entities:write', 'holds:place'),
                     ('entities:write', 'holds:release'),
                     ('entities:delete', 'consistency:check'),
                     ('entities:read', 'consistency:read'),
                     ('entities:read', 'policies:read')) AS s(whole, part)
        WHERE s.whole = ANY (k.scopes) AND NOT s.part = ANY (k.scopes)
        ORDER BY s.part
    );
