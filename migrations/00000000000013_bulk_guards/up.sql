-- The lists of tasks, and the mail that tells of a task's end.

-- Lists of what is over, the rates that it ran at, and its removal when it is old.
CREATE INDEX bulk_delete_ended ON bulk_delete (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX bulk_delete_history ON bulk_delete (realm_id, ended_at) WHERE ended_at IS NOT NULL;

-- The mail that a task's starter asked for. pending -> sent | failed.
-- It is due as soon as its task has ended, in the very transaction that ends it: nothing has to be written for that. `due_at` is when it may be
-- tried next: the end of a wait, or of the lease of whoever tries it.
CREATE TABLE bulk_delete_mail (
    realm_id int4 NOT NULL,
    bulk_delete_id uuid NOT NULL,
    recipient text NOT NULL CHECK (char_length(recipient) BETWEEN 3 AND 254),
    status text COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'sent', 'failed')),
    attempts int4 NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    due_at timestamptz NOT NULL DEFAULT now(),
    lease_token int8 NOT NULL DEFAULT 0,
    lease_owner text,
    -- Why it was not taken when it was last tried.
    last_error text,
    created_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    PRIMARY KEY (realm_id, bulk_delete_id),
    CONSTRAINT bulk_delete_mail_finished CHECK ((status = 'pending') = (finished_at IS NULL)),
    CONSTRAINT bulk_delete_mail_failed CHECK (status <> 'failed' OR last_error IS NOT NULL)
) WITH (fillfactor = 70);
CREATE INDEX bulk_delete_mail_due ON bulk_delete_mail (due_at) WHERE status = 'pending';
