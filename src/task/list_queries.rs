//! The SQL of the lists of tasks: those that are not over, and those that ended within the last 30 days; and the removal of older ones.

use chrono::{DateTime, Utc};
use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Integer, Nullable, Text, Timestamptz, Uuid as SqlUuid};
use uuid::Uuid;

use crate::db::statement::Statement;
use crate::db::{Realm, Work, statement};
use crate::filter::Filter;
use crate::task::list::{Listing, Which};
use crate::task::model::{FAILURES_SHOWN, Task};
use crate::task::queries::{AccountRow, account, sums};

/// The tasks of a page, each with its account.
pub fn list(
    connection: &mut PgConnection,
    realm: &Realm,
    which: Which,
    listing: &Listing,
) -> Work<Vec<Task>> {
    let (realm, shown) = (realm.id(), FAILURES_SHOWN);
    let Listing { limit, offset, order, ascending, created_by, since, before, ref filter } =
        *listing;
    let filter = filter.as_ref().map(Filter::predicate);
    let key = order.as_str();
    Ok(match which {
        Which::Active => {
            ListActive { realm, shown, limit, offset, key, ascending, created_by, since, before }
                .filtered(filter)
                .load(connection)?
        }
        Which::Ended => {
            ListEnded { realm, shown, limit, offset, key, ascending, created_by, since, before }
                .filtered(filter)
                .load(connection)?
        }
    })
}

/// How many tasks there are.
pub fn count(
    connection: &mut PgConnection,
    realm: &Realm,
    which: Which,
    listing: &Listing,
) -> Work<i64> {
    let realm = realm.id();
    let Listing { created_by, since, before, ref filter, .. } = *listing;
    let filter = filter.as_ref().map(Filter::predicate);
    let (total,): (i64,) = match which {
        Which::Active => CountActive { realm, created_by, since, before }
            .filtered(filter)
            .get_result(connection)?,
        Which::Ended => CountEnded { realm, created_by, since, before }
            .filtered(filter)
            .get_result(connection)?,
    };
    Ok(total)
}

/// Tasks that are not over: the condition of the index over them.
macro_rules! active {
    () => {
        "b.status NOT IN ('canceled', 'completed', 'completed_with_errors', 'failed')"
    };
}

/// Tasks that ended within the last 30 days.
macro_rules! ended {
    () => {
        "b.ended_at > now() - interval '30 days'"
    };
}

/// The properties by which callers may narrow a list.
macro_rules! narrowed {
    ($which:expr) => {
        concat!(
            "b.realm_id = {realm} AND ",
            $which,
            " AND ({created_by}::uuid IS NULL OR b.principal_id = {created_by})
               AND ({since}::timestamptz IS NULL OR b.created_at >= {since}) AND ({before}::timestamptz IS NULL OR b.created_at < {before}){filter}"
        )
    };
}

/// A page by offset, as the contract has it: the place of each task first, then the accounts of those that are on the page.
macro_rules! page {
    ($which:expr) => {
        concat!(
            "WITH page AS (
        SELECT b.id,
               row_number() OVER (ORDER BY CASE WHEN {ascending} THEN k.moment END, CASE WHEN NOT {ascending} THEN k.moment END DESC NULLS LAST,
                                           CASE WHEN {ascending} THEN k.word END, CASE WHEN NOT {ascending} THEN k.word END DESC NULLS LAST,
                                           CASE WHEN {ascending} THEN b.id END, b.id DESC) AS place
        FROM bulk_delete b,
             LATERAL (SELECT CASE {key} WHEN 'createdTime' THEN b.created_at WHEN 'startTime' THEN b.started_at WHEN 'endTime' THEN b.ended_at
                                        WHEN 'updatedTime' THEN greatest(b.created_at, b.started_at, b.paused_at, b.ended_at) END AS moment,
                             CASE {key} WHEN 'name' THEN b.name WHEN 'status' THEN b.status WHEN 'createdBy' THEN b.principal_id::text END
                                 COLLATE \"C\" AS word) k
        WHERE ",
            narrowed!($which),
            "
        ORDER BY place
        LIMIT {limit} OFFSET {offset}
     )
     SELECT ",
            account!(),
            "
     FROM page JOIN bulk_delete b ON b.realm_id = {realm} AND b.id = page.id, ",
            sums!(),
            "
     ORDER BY page.place"
        )
    };
}

macro_rules! lists {
    ($($(#[$meta:meta])* $name:ident: $which:expr;)+) => {$(statement! {
        $(#[$meta])*
        pub struct $name<'a> {
            realm: i32 as Integer,
            shown: i64 as BigInt,
            limit: i64 as BigInt,
            offset: i64 as BigInt,
            key: &'a str as Text,
            ascending: bool as Bool,
            created_by: Option<Uuid> as Nullable<SqlUuid>,
            since: Option<DateTime<Utc>> as Nullable<Timestamptz>,
            before: Option<DateTime<Utc>> as Nullable<Timestamptz>,
        } -> AccountRow,
        page!($which)
    })+};
}

macro_rules! counts {
    ($($(#[$meta:meta])* $name:ident: $which:expr;)+) => {$(statement! {
        $(#[$meta])*
        struct $name {
            realm: i32 as Integer,
            created_by: Option<Uuid> as Nullable<SqlUuid>,
            since: Option<DateTime<Utc>> as Nullable<Timestamptz>,
            before: Option<DateTime<Utc>> as Nullable<Timestamptz>,
        } -> (BigInt,),
        concat!("SELECT count(*) FROM bulk_delete b WHERE ", narrowed!($which))
    })+};
}

lists! {
    /// A page of the tasks that are not over.
    ListActive: active!();
    /// A page of the tasks that ended lately.
    ListEnded: ended!();
}

counts! {
    /// How many tasks are not over.
    CountActive: active!();
    /// How many tasks ended lately.
    CountEnded: ended!();
}

/// How many old tasks are read at once.
const OLD_TASKS: i64 = 100;

/// Removes some of the rows of tasks of any realm that ended more than 30 days ago, and returns how many: failures first, and each task
/// with the rest when it has none any more.
pub fn sweep(connection: &mut PgConnection, at_most: i64) -> Work<usize> {
    connection.transaction(|connection| {
        let old: Vec<(i32, Uuid)> =
            OldTasks { at_most: OLD_TASKS.min(at_most) }.load(connection)?;
        let (realms, tasks): (Vec<i32>, Vec<Uuid>) = old.iter().copied().unzip();
        let failures =
            DeleteFailures { realms: &realms, tasks: &tasks, at_most }.execute(connection)?;
        if failures as i64 == at_most {
            return Ok(failures);
        }
        DeleteTasks { realms: &realms, tasks: &tasks }.execute(connection)?;
        // As many as could be read: there may be more.
        Ok(if old.len() as i64 == OLD_TASKS { at_most as usize } else { failures + old.len() })
    })
}

statement! {
    /// The tasks that ended first, locked so that no other replica removes them.
    pub struct OldTasks { at_most: i64 as BigInt } -> (Integer, SqlUuid),
    "SELECT b.realm_id, b.id
     FROM bulk_delete b
     WHERE b.ended_at < now() - interval '30 days'
     ORDER BY b.ended_at
     LIMIT {at_most}
     FOR UPDATE SKIP LOCKED"
}

statement! {
    /// Some of the failures of tasks.
    struct DeleteFailures<'a> {
        realms: &'a [i32] as diesel::sql_types::Array<Integer>,
        tasks: &'a [Uuid] as diesel::sql_types::Array<SqlUuid>,
        at_most: i64 as BigInt,
    } -> (),
    "DELETE FROM bulk_delete_failure f
     USING (SELECT f.realm_id, f.bulk_delete_id, f.entity_id
            FROM unnest({realms}, {tasks}) AS t(realm_id, id)
            JOIN bulk_delete_failure f ON f.realm_id = t.realm_id AND f.bulk_delete_id = t.id
            LIMIT {at_most}) old
     WHERE f.realm_id = old.realm_id AND f.bulk_delete_id = old.bulk_delete_id AND f.entity_id = old.entity_id"
}

statement! {
    /// Tasks with their remaining rows.
    struct DeleteTasks<'a> {
        realms: &'a [i32] as diesel::sql_types::Array<Integer>,
        tasks: &'a [Uuid] as diesel::sql_types::Array<SqlUuid>,
    } -> (),
    "WITH old AS (SELECT t.realm_id, t.id FROM unnest({realms}, {tasks}) AS t(realm_id, id)),
     slices AS (DELETE FROM bulk_delete_slice s USING old o WHERE s.realm_id = o.realm_id AND s.bulk_delete_id = o.id),
     samples AS (DELETE FROM bulk_delete_sample k USING old o WHERE k.realm_id = o.realm_id AND k.bulk_delete_id = o.id),
     findings AS (DELETE FROM bulk_delete_finding f USING old o WHERE f.realm_id = o.realm_id AND f.bulk_delete_id = o.id),
     counts AS (DELETE FROM bulk_delete_finding_count c USING old o WHERE c.realm_id = o.realm_id AND c.bulk_delete_id = o.id),
     mails AS (DELETE FROM bulk_delete_mail m USING old o WHERE m.realm_id = o.realm_id AND m.bulk_delete_id = o.id)
     DELETE FROM bulk_delete b USING old o WHERE b.realm_id = o.realm_id AND b.id = o.id"
}

#[cfg(test)]
mod conditions {
    use crate::db::checked::filtered;
    use crate::filter::conditions::conditions;
    use crate::task::list::TASK;

    filtered!(ListActive, conditions(&TASK));
    filtered!(ListEnded, conditions(&TASK));
    filtered!(CountActive, conditions(&TASK));
    filtered!(CountEnded, conditions(&TASK));
}
