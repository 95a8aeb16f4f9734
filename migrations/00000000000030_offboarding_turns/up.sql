-- Whose turn it is: which realms have requests due, by the period in which they are. The claim of requests steps from realm to realm along it.
CREATE INDEX CONCURRENTLY offboarding_request_turn ON offboarding_request (date_bin('10 minutes', due_at, 'epoch'::timestamptz), realm_id, due_at)
    WHERE status IN ('pending', 'running');
