//! The SQL of planning a bulk delete: how much it selects, and where its keys are cut.

use std::marker::PhantomData;

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Uuid as SqlUuid};

use crate::bulk_delete::selector::Selector;
use crate::db::Work;
use crate::db::statement::{built, push_text};
use crate::task::planning::Planning;
use crate::task::work::{ClaimedSlice, Plan, Range};

/// Above this many selected entities a task is cut into slices, so that several workers can share it.
const CUT_ABOVE: i64 = 50_000;
const SLICES: usize = 4;
/// About how many keys are read to find where to cut. Those of a page were made about the same time, so it takes many.
const SAMPLE: f64 = 40_000.0;

/// Finds out what a task selects and cuts its keys into slices where that pays. Reads the whole realm once, unless indexes show that few
/// may be selected.
pub fn plan_of(
    connection: &mut PgConnection,
    claim: &ClaimedSlice,
    selector: &Selector,
) -> Work<Plan> {
    let narrowed = selector.narrowed(connection, &claim.realm)?;
    let selector = narrowed.as_ref().unwrap_or(selector);
    let (selected,): (i64,) = Selected::<(BigInt,)>::new(selector, claim, selector.count_text())
        .get_result(connection)?;
    let mut cuts = Vec::new();
    if selected > CUT_ABOVE {
        let percent = (100.0 * SAMPLE / selected as f64).min(100.0);
        let text = if claim.listed {
            Selector::listed_cuts_text(SLICES)
        } else {
            selector.sampled_cuts_text(SLICES, percent)
        };
        let keys: Vec<(String,)> =
            Selected::<(Text,)>::new(selector, claim, text).load(connection)?;
        cuts.extend(keys.into_iter().map(|(key,)| key));
        cuts.dedup();
    }
    Ok(Plan { selected, slices: Range::cut(None, &cuts) })
}

/// Does the next step of planning in several steps: counts the selected ones among the next entities. After the last one the plan is made.
pub fn plan_on(
    connection: &mut PgConnection,
    claim: &ClaimedSlice,
    selector: &Selector,
    planning: &mut Planning,
) -> Work<Option<Plan>> {
    let narrowed = selector.narrowed(connection, &claim.realm)?;
    let selector = narrowed.as_ref().unwrap_or(selector);
    let text = selector.count_on_text();
    let step = Selected {
        selector,
        claim,
        text,
        from: (&planning.cursor, planning.read_limit),
        columns: PhantomData::<(BigInt, BigInt, Nullable<Text>)>,
    };
    let (selected, read, last): (i64, i64, Option<String>) = step.get_result(connection)?;
    let is_over = read < planning.read_limit;
    if let Some(last) = last {
        planning.count(last, selected);
    }
    if !is_over {
        return Ok(None);
    }
    let cuts = if planning.selected > CUT_ABOVE { planning.cuts(SLICES) } else { Vec::new() };
    Ok(Some(Plan { selected: planning.selected, slices: Range::cut(None, &cuts) }))
}

/// A query over what a task selects, with columns of the SQL types `T`.
struct Selected<'a, T> {
    selector: &'a Selector,
    claim: &'a ClaimedSlice,
    text: String,
    /// The key that it begins after, and how many it reads, if it does not read all.
    from: (&'a str, i64),
    columns: PhantomData<T>,
}

impl<'a, T> Selected<'a, T> {
    fn new(selector: &'a Selector, claim: &'a ClaimedSlice, text: String) -> Self {
        Selected { selector, claim, text, from: ("", i64::MAX), columns: PhantomData }
    }
}

impl<T> QueryFragment<Pg> for Selected<'_, T> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        push_text(&self.text, &mut out, |name, out| match name {
            "realm" => out.push_bind_param::<Integer, _>(self.claim.realm.id_ref()),
            "task" => out.push_bind_param::<SqlUuid, _>(&self.claim.task_id),
            "cursor" => out.push_bind_param::<Text, _>(&self.from.0),
            "limit" => out.push_bind_param::<BigInt, _>(&self.from.1),
            name => self.selector.push(name, out),
        })
    }
}

built!(Selected<'_, T> => T; T);

#[cfg(test)]
mod forms {
    use super::*;
    use crate::bulk_delete::forms::{claim, selectors};
    use crate::db::checked::{Form, forms};

    forms!(Selected, || {
        let claim = claim();
        let mut all = Vec::new();
        for (said, selector) in &selectors() {
            all.push(Form::of(
                format!("{said} count"),
                &Selected::<BigInt>::new(selector, &claim, selector.count_text()),
            ));
            for cuts in
                [Selector::listed_cuts_text(SLICES), selector.sampled_cuts_text(SLICES, 50.0)]
            {
                // A list is not searched for in a sample of the table, nor are candidates.
                if cuts.contains("TABLESAMPLE") == selector.walks() {
                    all.push(Form::of(
                        format!("{said} cuts"),
                        &Selected::<Text>::new(selector, &claim, cuts),
                    ));
                }
            }
        }
        all
    });
}
