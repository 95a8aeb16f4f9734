-- A job belongs to one incarnation of an entity. Whoever asks for the removal of an id that is gone is answered with the job that removed it, if no
-- other entity has had the id since: a mark that is set when such an entity is created, since the clock and the order of ids do not tell.
ALTER TABLE offboarding_request ADD COLUMN followed boolean NOT NULL DEFAULT false;

-- Those that were followed before, as far as what is there tells: an entity that has the id now, or had it later.
UPDATE offboarding_request r
SET followed = true
WHERE r.status = 'succeeded'
  AND (EXISTS (SELECT FROM entity e WHERE e.realm_id = r.realm_id AND e.id = r.entity_id AND e.incarnation <> r.incarnation)
       OR EXISTS (SELECT FROM tombstone t
                  WHERE t.realm_id = r.realm_id AND t.entity_id = r.entity_id AND t.incarnation <> r.incarnation
                    AND t.removed_at > r.finished_at));
