//! The parts of the statement of a chunk, of which [`Selector::chunk_text`](super::selector::Selector::chunk_text) takes those that it needs.

/// The rows to delete. The statement waits for rows that others have locked.
pub const DOOMED: &str = "doomed AS (
        SELECT p.id, p.place, p.version, p.portfolio_id FROM picked p WHERE NOT p.excluded AND p.obstacle IS NULL
     )";

/// Of these what others have not locked, and the portfolios that they have not locked. Locking before deleting costs a quarter, so this is only
/// where a lock was waited for in vain.
pub const UNLOCKED: &str = "free AS (
        SELECT p.id, p.place, p.version, p.portfolio_id
        FROM picked p
        JOIN entity e ON e.realm_id = {realm} AND e.id = p.id
        WHERE NOT p.excluded AND p.obstacle IS NULL
        FOR UPDATE OF e SKIP LOCKED
     ),
     loose AS (
        SELECT p.id
        FROM portfolio p
        WHERE p.realm_id = {realm} AND p.id IN (SELECT f.portfolio_id FROM free f)
        ORDER BY p.id
        FOR NO KEY UPDATE OF p SKIP LOCKED
     )";

/// A row for each dependent of these that others have not locked.
pub const UNLOCKED_PARTS: &str = "free_part AS (
        SELECT d.entity_id
        FROM dependent d
        WHERE d.realm_id = {realm} AND d.entity_id IN (SELECT f.id FROM free f)
        FOR UPDATE SKIP LOCKED
     )";

/// The rows to delete without those that others have locked, be it the entity or its portfolio. The last parenthesis is open.
pub const DOOMED_OF_UNLOCKED: &str = "doomed AS (
        SELECT f.id, f.place, f.version, f.portfolio_id
        FROM free f
        WHERE (f.portfolio_id IS NULL OR f.portfolio_id IN (SELECT l.id FROM loose l))";

/// Nor one that has more dependents than were found free.
pub const WHOLE: &str = "
          AND f.id NOT IN (
            SELECT d.entity_id FROM dependent d WHERE d.realm_id = {realm} AND d.entity_id IN (SELECT f.id FROM free f)
            EXCEPT ALL
            SELECT p.entity_id FROM free_part p)";

/// Erases the rows and all that hangs on them; a tombstone stays. The last parenthesis is open. An incarnation that has a tombstone was removed
/// before and is here again, as when a table was restored and another was not. Rows are found again by their place, which the statement's snapshot keeps: by
/// key every one would be searched for twice. One that others have changed is elsewhere now, with another version, and stays.
pub const HARD: &str = "gone AS (
        DELETE FROM entity e
        USING doomed p
        WHERE e.ctid = p.place AND e.realm_id = {realm} AND e.id = p.id AND e.version = p.version
        RETURNING e.id, e.incarnation, e.type, e.version, e.created_at, e.updated_at, p.portfolio_id
     ),
     parts AS (
        DELETE FROM dependent d
        USING gone g
        WHERE d.realm_id = {realm} AND d.entity_id = g.id
     ),
     unindexed AS (
        -- Nothing is searched for where nothing is declared. The builder of an index that is declared meanwhile waits for this chunk and takes
        -- away what it leaves.
        DELETE FROM attribute_index a
        USING gone g
        WHERE a.realm_id = {realm} AND a.entity_id = g.id
          AND EXISTS (SELECT FROM attribute_declaration d WHERE d.realm_id = {realm})
     ),
     tombstones AS (
        INSERT INTO tombstone
            (realm_id, entity_id, incarnation, type, version, created_at, updated_at, removed_by, job_kind, job_id)
        -- As a subquery the task is read once, not once for each row.
        SELECT {realm}, g.id, g.incarnation, g.type, g.version, g.created_at, g.updated_at,
               (SELECT b.principal_id FROM bulk_delete b WHERE b.realm_id = {realm} AND b.id = {task}), 'bulk_delete', {task}
        FROM gone g";

/// Marks the rows and clears their links to portfolios. The row of an entity that is in none stays on its page: the columns that change are in
/// no index.
pub const SOFT: &str = "gone AS (
        UPDATE entity e
        SET deleted_at = now(), deleted_by = {task}, portfolio_id = NULL, attached_at = NULL, version = e.version + 1, updated_at = now()
        FROM doomed p
        WHERE e.ctid = p.place AND e.realm_id = {realm} AND e.id = p.id AND e.version = p.version AND e.deleted_at IS NULL
        RETURNING e.id, p.portfolio_id
     )";

/// Moves the cursor past the chunk. Missed entities are counted when they are read again.
pub const ONWARD: &str = "moved AS (
        UPDATE bulk_delete_slice s
        SET cursor_id = CASE WHEN t.picked < {limit} AND NOT {is_end} THEN {until} ELSE COALESCE(t.last, s.cursor_id) END,
            done = t.picked < {limit} AND {is_end}, attempts = 0,
            due_at = now() + make_interval(secs => {lease}),
            matched = s.matched + t.picked - t.missed, processed = s.processed + t.gone, failed = s.failed + t.failed,
            excluded = s.excluded + t.excluded
        FROM tally t
        WHERE s.realm_id = {realm} AND s.bulk_delete_id = {task} AND s.slice = {slice} AND s.lease_token = {token}
        RETURNING s.slice
     ),
     sampled AS (
        -- What these seconds came to.
        INSERT INTO bulk_delete_sample AS k (realm_id, bulk_delete_id, slice, at, matched, processed)
        SELECT {realm}, {task}, {slice}, to_timestamp(floor(extract(epoch FROM now()) / 10) * 10), t.picked - t.missed, t.gone
        FROM tally t
        WHERE t.picked > 0
        ON CONFLICT (realm_id, bulk_delete_id, slice, at) DO UPDATE
        SET matched = k.matched + excluded.matched, processed = k.processed + excluded.processed
     )";

/// Counts the rows that were missed before: deleted now, failed now, or skipped because they were removed or are not selected any more.
pub const AGAIN: &str = "moved AS (
        UPDATE bulk_delete_slice s
        SET matched = s.matched + cardinality({missed}::text[]) - t.missed, processed = s.processed + t.gone, failed = s.failed + t.failed,
            skipped = s.skipped + cardinality({missed}::text[]) - t.picked
        FROM tally t
        WHERE s.realm_id = {realm} AND s.bulk_delete_id = {task} AND s.slice = {slice} AND s.lease_token = {token}
        RETURNING s.slice
     ),
     sampled AS (
        -- The chunk made the row.
        UPDATE bulk_delete_sample k
        SET matched = k.matched + cardinality({missed}::text[]) - t.missed, processed = k.processed + t.gone
        FROM tally t
        WHERE k.realm_id = {realm} AND k.bulk_delete_id = {task} AND k.slice = {slice}
          AND k.at = to_timestamp(floor(extract(epoch FROM now()) / 10) * 10)
     )";
