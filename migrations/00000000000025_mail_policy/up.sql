-- To whom mails about tasks may go, how many, and why one was not sent.

ALTER TABLE removal_policy
    -- Beside the addresses that are registered with keys: every address of these domains, in lower case.
    ADD COLUMN mail_domains text[] NOT NULL DEFAULT '{}';

ALTER TABLE bulk_delete_mail
    -- When it was first let through to the mail server: what the limit of a realm counts.
    ADD COLUMN admitted_at timestamptz,
    -- Why it is not sent, or not yet, in a word for callers; `last_error` is for operators.
    ADD COLUMN reason text COLLATE "C",
    ADD CONSTRAINT bulk_delete_mail_reason CHECK (reason IN ('limit', 'not_allowed', 'refused', 'unreachable'));

CREATE INDEX bulk_delete_mail_admitted ON bulk_delete_mail (realm_id, admitted_at) WHERE admitted_at IS NOT NULL;
