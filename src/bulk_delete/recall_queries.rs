//! The SQL of what follows when the clock of the database has stepped back. See [`crate::jobs::watch_clock`].

use std::time::Duration;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::Double;

use crate::db::{Work, statement};

/// The longest wait for another try of a mail, and a lease.
const LONGEST_WAIT: Duration = Duration::from_secs(1_000);

/// Has slices be due now that are due later than so long from now. See [`crate::jobs::watch_clock`].
pub fn slices(connection: &mut PgConnection, bound: Duration) -> Work<usize> {
    Ok(Slices { bound: bound.as_secs_f64() }.execute(connection)?)
}

statement! {
    /// One that is locked is in the middle of a chunk, which renews the lease.
    struct Slices {
        bound: f64 as Double,
    } -> (),
    "WITH late AS (
        SELECT s.realm_id, s.bulk_delete_id, s.slice
        FROM bulk_delete b
        JOIN bulk_delete_slice s ON s.realm_id = b.realm_id AND s.bulk_delete_id = b.id
        WHERE b.status NOT IN ('canceled', 'completed', 'completed_with_errors', 'failed')
          AND NOT s.done AND s.due_at > now() + make_interval(secs => {bound})
        ORDER BY s.realm_id, s.bulk_delete_id, s.slice
        FOR UPDATE OF s SKIP LOCKED
     )
     UPDATE bulk_delete_slice s
     SET due_at = '-infinity'
     FROM late
     WHERE s.realm_id = late.realm_id AND s.bulk_delete_id = late.bulk_delete_id AND s.slice = late.slice"
}

/// Has mails be due now that are due later than so long from now. See [`crate::jobs::watch_clock`].
pub fn mails(connection: &mut PgConnection, bound: Duration) -> Work<usize> {
    Ok(Mails { bound: bound.max(LONGEST_WAIT).as_secs_f64() }.execute(connection)?)
}

statement! {
    /// What was put off before the clock stepped back.
    struct Mails {
        bound: f64 as Double,
    } -> (),
    "UPDATE bulk_delete_mail SET due_at = '-infinity' WHERE status = 'pending' AND due_at > now() + make_interval(secs => {bound})"
}
