//! The SQL of planning a task: how much it selects, where its keys are cut, and how far that is.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Array, BigInt, Bool, Double, Integer, Jsonb, Nullable, Text, Uuid as SqlUuid};
use serde_json::Value as Json;
use uuid::Uuid;

use crate::bulk_delete::kind::{Plan, Range, TaskWork};
use crate::bulk_delete::planning::Planning;
use crate::bulk_delete::queries::TOPIC;
use crate::bulk_delete::selector::{ID_END, Selector};
use crate::bulk_delete::slice_queries::{self, lease_lost};
use crate::bulk_delete::task_queries::Claimed;
use crate::db::statement::{Segment, segments};
use crate::db::{Fail, Fault, Work, fault, listen, statement};
use crate::error::Error;
use crate::limits::database::{WORKER_STATEMENT, WORKER_STATEMENT_SECONDS};

/// Above this many selected entities a task is cut into slices, so that several workers can share it.
const CUT_ABOVE: i64 = 50_000;
const SLICES: usize = 4;
/// About how many keys are looked at to find where to cut. Those of a page were made about the same time, so it takes many.
const SAMPLE: f64 = 40_000.0;

/// Finds out what a task selects and cuts its keys into slices where that pays. Reads the whole realm once, unless indexes tell that few may
/// be selected.
pub fn plan_of(connection: &mut PgConnection, claim: &Claimed, selector: &Selector) -> Work<Plan> {
    let narrowed = selector.narrowed(connection, &claim.realm)?;
    let selector = narrowed.as_ref().unwrap_or(selector);
    let (selected,): (i64,) = Selected::<(BigInt,)>::new(selector, claim, selector.count_text()).get_result(connection)?;
    let mut cuts = Vec::new();
    if selected > CUT_ABOVE {
        let percent = (100.0 * SAMPLE / selected as f64).min(100.0);
        let text = if claim.listed { Selector::listed_cuts_text(SLICES) } else { selector.sampled_cuts_text(SLICES, percent) };
        let keys: Vec<(String,)> = Selected::<(Text,)>::new(selector, claim, text).load(connection)?;
        cuts.extend(keys.into_iter().map(|(key,)| key));
        cuts.dedup();
    }
    Ok(plan_cut(selected, cuts))
}

/// A plan of so many entities, cut behind each of these keys.
fn plan_cut(selected: i64, cuts: Vec<String>) -> Plan {
    let starts = std::iter::once(String::new()).chain(cuts.iter().cloned());
    let ends = cuts.iter().cloned().chain(std::iter::once(ID_END.to_owned()));
    Plan { selected, slices: starts.zip(ends).map(|(after, until)| Range { part: None, after, until }).collect() }
}

/// Does the next step of planning what could not be planned at once: counts what is selected among the next entities. Where it has come to the last
/// one the plan is made.
pub fn plan_on(connection: &mut PgConnection, claim: &Claimed, selector: &Selector, planning: &mut Planning) -> Work<Option<Plan>> {
    let narrowed = selector.narrowed(connection, &claim.realm)?;
    let selector = narrowed.as_ref().unwrap_or(selector);
    let text = selector.count_on_text();
    let step = Selected {
        selector,
        claim,
        text,
        from: (&planning.cursor, planning.reach),
        columns: PhantomData::<(BigInt, BigInt, Nullable<Text>)>,
    };
    let (selected, read, last): (i64, i64, Option<String>) = step.get_result(connection)?;
    let is_over = read < planning.reach;
    if let Some(last) = last {
        planning.count(last, selected);
    }
    if !is_over {
        return Ok(None);
    }
    let cuts = if planning.selected > CUT_ABOVE { planning.cuts(SLICES) } else { Vec::new() };
    Ok(Some(plan_cut(planning.selected, cuts)))
}

/// A query over what a task selects, with columns of the SQL types `T`.
struct Selected<'a, T> {
    selector: &'a Selector,
    claim: &'a Claimed,
    text: String,
    /// The key that it begins behind, and how many it looks at, if it does not look at all.
    from: (&'a str, i64),
    columns: PhantomData<T>,
}

impl<'a, T> Selected<'a, T> {
    fn new(selector: &'a Selector, claim: &'a Claimed, text: String) -> Self {
        Selected { selector, claim, text, from: ("", i64::MAX), columns: PhantomData }
    }
}

impl<T> QueryFragment<Pg> for Selected<'_, T> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        for segment in segments(&self.text) {
            match segment {
                Segment::Sql(sql) => out.push_sql(sql),
                Segment::Parameter("realm") => out.push_bind_param::<Integer, _>(self.claim.realm.id_ref())?,
                Segment::Parameter("task") => out.push_bind_param::<SqlUuid, _>(&self.claim.task_id)?,
                Segment::Parameter("cursor") => out.push_bind_param::<Text, _>(&self.from.0)?,
                Segment::Parameter("limit") => out.push_bind_param::<BigInt, _>(&self.from.1)?,
                Segment::Parameter(name) => self.selector.push(name, &mut out)?,
            }
        }
        Ok(())
    }
}

impl<T> QueryId for Selected<'_, T> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<T> Query for Selected<'_, T> {
    type SqlType = T;
}

impl<T> RunQueryDsl<PgConnection> for Selected<'_, T> {}

/// How planning a task went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Its count and its slices are there.
    Whole,
    /// There is more to do.
    Partly,
    /// Nothing was done: the task is to pause or to stop, or is over.
    Halt,
}

/// Plans a task, its count and its slices, or does the next step of that: at first all at once, and in steps where there is not the time for that. A step
/// shall take `target`. Call it in a transaction.
pub fn plan(connection: &mut PgConnection, claim: &Claimed, work: &dyn TaskWork, lease: Duration, target: Duration) -> Work<Planned> {
    // Held, so that nobody else plans it however long this takes.
    let time = Duration::from_secs(WORKER_STATEMENT_SECONDS);
    let held = slice_queries::hold(connection, claim, lease, lease, time)?.ok_or_else(lease_lost)?;
    if !held.state.is_at_work() {
        return Ok(Planned::Halt);
    }
    let (realm, task) = (claim.realm.id(), claim.task_id);
    let (known,): (Option<Json>,) = ReadPlanning { realm, task }.get_result(connection)?;
    let mut planning: Option<Planning> = known.map(serde_json::from_value).transpose().map_err(Error::internal)?;
    let started = Instant::now();
    let step = connection.transaction(|connection| match &mut planning {
        None => work.plan(connection, claim).map(Some),
        Some(planning) => {
            slice_queries::give_time(connection, Duration::from_secs(planning.seconds))?;
            work.plan_on(connection, claim, planning)
        }
    });
    match step {
        Ok(Some(plan)) => return set_plan(connection, claim, plan, lease).map(|()| Planned::Whole),
        Ok(None) => planning.iter_mut().for_each(|planning| planning.took(started.elapsed(), target)),
        Err(Fail::Database(error)) if fault(&error) == Fault::Timeout => {
            WORKER_STATEMENT.reached();
            match &mut planning {
                Some(planning) => planning.took_too_long(),
                None => planning = Some(work.planning(claim)),
            }
        }
        Err(fail) => return Err(fail),
    }
    let planning = serde_json::to_value(planning).map_err(Error::internal)?;
    SetPlanning { realm, task, planning }.execute(connection)?;
    slice_queries::renew(connection, claim, lease)?;
    Ok(Planned::Partly)
}

statement! {
    /// Where planning stands.
    struct ReadPlanning {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
    } -> (Nullable<Jsonb>,),
    "SELECT b.planning FROM bulk_delete b WHERE b.realm_id = {realm} AND b.id = {task}"
}

statement! {
    /// Where it stands now.
    struct SetPlanning {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        planning: Json as Jsonb,
    } -> (),
    "UPDATE bulk_delete SET planning = {planning} WHERE realm_id = {realm} AND id = {task}"
}

fn set_plan(connection: &mut PgConnection, claim: &Claimed, plan: Plan, lease: Duration) -> Work<()> {
    let Plan { selected, slices } = plan;
    let statement = SetPlan {
        realm: claim.realm.id(),
        task: claim.task_id,
        token: claim.token,
        lease: lease.as_secs_f64(),
        selected,
        parts: slices.iter().map(|slice| slice.part.clone()).collect(),
        starts: slices.iter().map(|slice| slice.after.clone()).collect(),
        ends: slices.into_iter().map(|slice| slice.until).collect(),
        channel: listen::CHANNEL,
        topic: TOPIC,
    };
    let planned: Option<(bool,)> = statement.get_result(connection).optional()?;
    planned.map(drop).ok_or_else(|| lease_lost().into())
}

statement! {
    /// The count, what the first slice walks, the slices behind it, and a word to the workers that may take those up.
    struct SetPlan<'a> {
        realm: i32 as Integer,
        task: Uuid as SqlUuid,
        token: i64 as BigInt,
        lease: f64 as Double,
        selected: i64 as BigInt,
        parts: Vec<Option<String>> as Array<Nullable<Text>>,
        starts: Vec<String> as Array<Text>,
        ends: Vec<String> as Array<Text>,
        channel: &'a str as Text,
        topic: &'a str as Text,
    } -> (Bool,),
    "WITH first AS (
        UPDATE bulk_delete_slice s
        SET part = ({parts}::text[])[1], cursor_id = ({starts}::text[])[1], until_id = ({ends}::text[])[1],
            due_at = clock_timestamp() + make_interval(secs => {lease})
        WHERE s.realm_id = {realm} AND s.bulk_delete_id = {task} AND s.slice = 0 AND s.lease_token = {token}
        RETURNING s.slice
     ),
     others AS (
        INSERT INTO bulk_delete_slice (realm_id, bulk_delete_id, slice, part, cursor_id, until_id)
        SELECT {realm}, {task}, c.n - 1, ({parts}::text[])[c.n], c.start, ({ends}::text[])[c.n]
        FROM unnest({starts}) WITH ORDINALITY AS c(start, n), first
        WHERE c.n > 1
        RETURNING slice
     ),
     woken AS (SELECT pg_notify({channel}, {topic}) FROM others LIMIT 1)
     UPDATE bulk_delete b
     SET selected = {selected}, planning = NULL
     FROM first
     WHERE b.realm_id = {realm} AND b.id = {task} AND (SELECT count(*) FROM woken) >= 0
     RETURNING true"
}

#[cfg(test)]
mod forms {
    use super::*;
    use crate::bulk_delete::forms::{claim, selectors};
    use crate::db::checked::{Form, forms};

    forms!(Selected, || {
        let claim = claim();
        let mut all = Vec::new();
        for (said, selector) in &selectors() {
            all.push(Form::of(format!("{said} count"), &Selected::<BigInt>::new(selector, &claim, selector.count_text())));
            for cuts in [Selector::listed_cuts_text(SLICES), selector.sampled_cuts_text(SLICES, 50.0)] {
                // A list is not looked for in a sample of the table, nor are candidates.
                if cuts.contains("TABLESAMPLE") == selector.walks() {
                    all.push(Form::of(format!("{said} cuts"), &Selected::<Text>::new(selector, &claim, cuts)));
                }
            }
        }
        all
    });
}
