//! The chunk: select, check, delete, count, record and move on, in one statement and one transaction.

use std::sync::{Arc, OnceLock};

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{Array, BigInt, Bool, Double, Integer, Text, Uuid as SqlUuid};

use crate::access::erasure_queries::{self, Walked};
use crate::bulk_delete::bound::{Bound, Pass};
use crate::bulk_delete::model::parse_filter;
use crate::bulk_delete::plan_queries;
use crate::bulk_delete::selector::Selector;
use crate::db::statement::{built, push_text};
use crate::db::{Work, statement};
use crate::entity::unknown_queries;
use crate::error::{Code, Error, Result};
use crate::task::model::{Reason, TaskKind};
use crate::task::planning::Planning;
use crate::task::work::{
    ClaimedSlice, Locked, Moved, Plan, Span, Step, TaskWork, Undone, WorkKind,
};
use crate::telemetry;

/// How often entities that others keep changing are read again before they are counted as failed.
const ROUNDS: usize = 5;

/// Bulk deletes, as a kind of work.
pub const BULK_DELETES: WorkKind =
    WorkKind { kind: TaskKind::Delete, parts: &[], of: |claim| Ok(Arc::new(Chunks::of(claim)?)) };

/// The statements of one slice's chunks.
pub struct Chunks {
    walking: Statements,
    /// The same by indexes, where they narrow the search; unset until the first chunk has asked.
    narrowed: OnceLock<Option<Statements>>,
}

struct Statements {
    selector: Selector,
    awaiting: Texts,
    not_awaiting: Texts,
    next: String,
}

struct Texts {
    first: String,
    retry: String,
    refused: String,
}

impl Statements {
    fn new(selector: Selector) -> Self {
        let texts = |locked| {
            let [first, retry, refused] = [Pass::First, Pass::Retry, Pass::RefusedRow]
                .map(|pass| selector.chunk_text(pass, locked));
            Texts { first, retry, refused }
        };
        Statements {
            awaiting: texts(Locked::Await),
            not_awaiting: texts(Locked::CountAsFailed),
            next: selector.next_text(),
            selector,
        }
    }
}

impl Chunks {
    /// Prepares the chunks of what `selector` selects.
    pub fn new(selector: Selector) -> Self {
        Chunks { walking: Statements::new(selector), narrowed: OnceLock::new() }
    }

    /// The chunks of a claimed slice.
    fn of(claim: &ClaimedSlice) -> Result<Self> {
        let mode = claim.mode.ok_or_else(|| Error::internal("a bulk delete has no mode"))?;
        let filter = claim
            .filter
            .clone()
            .map(|filter| parse_filter(filter, "filter"))
            .transpose()?
            .map(|(_, filter)| filter);
        let bound = claim.ordinal.map_or(Bound::Moment(claim.asked_at), Bound::Ordinal);
        Ok(Chunks::new(Selector::new(
            mode,
            claim.listed,
            filter.as_ref(),
            claim.entity_type.as_deref(),
            bound,
        )))
    }

    /// The statement of a chunk, with named parameters.
    pub fn text(&self) -> &str {
        &self.walking.awaiting.first
    }

    /// The statements to be used in this transaction: by indexes, as long as they are in use. Both follow the same keys, so one may
    /// continue where the other was.
    fn statements(&self, connection: &mut PgConnection, claim: &ClaimedSlice) -> Work<&Statements> {
        let narrowed = match self.narrowed.get() {
            Some(known) => known,
            None => {
                let narrowed =
                    self.walking.selector.narrowed(connection, &claim.realm)?.map(Statements::new);
                self.narrowed.get_or_init(|| narrowed)
            }
        };
        match narrowed {
            Some(narrowed) if narrowed.selector.is_usable(connection, &claim.realm)? => {
                Ok(narrowed)
            }
            _ => Ok(&self.walking),
        }
    }
}

impl TaskWork for Chunks {
    fn plan(&self, connection: &mut PgConnection, claim: &ClaimedSlice) -> Work<Plan> {
        let selector = &self.walking.selector;
        if claim.check_attributes
            && !selector.unknown_attributes(connection, &claim.realm)?.is_empty()
        {
            return Err(unknown_attribute().into());
        }
        plan_queries::plan_of(connection, claim, selector)
    }

    fn planning(&self, claim: &ClaimedSlice) -> Planning {
        Planning::new(claim.check_attributes)
    }

    fn plan_on(
        &self,
        connection: &mut PgConnection,
        claim: &ClaimedSlice,
        planning: &mut Planning,
    ) -> Work<Option<Plan>> {
        let selector = &self.walking.selector;
        let (Some(search), Some(named)) = (&mut planning.search, selector.named()) else {
            planning.search = None;
            return plan_queries::plan_on(connection, claim, selector, planning);
        };
        let from = (search.after.as_str(), planning.read_limit);
        let (known, met, last) =
            unknown_queries::find_attributes(connection, &claim.realm, named, &search.known, from)?;
        search.known.extend(known);
        search.met |= met;
        let is_known = named
            .0
            .attributes()
            .iter()
            .all(|attribute| search.known.contains(&attribute.canonical));
        match last {
            Some(last) if !is_known => search.after = last,
            // If there is no such entity, nothing is unknown.
            _ if is_known || !search.met => planning.search = None,
            _ => return Err(unknown_attribute().into()),
        }
        Ok(None)
    }

    fn next(
        &self,
        connection: &mut PgConnection,
        claim: &ClaimedSlice,
        span: &Span<'_>,
    ) -> Work<Option<String>> {
        let statements = self.statements(connection, claim)?;
        let selector = &statements.selector;
        let chunk_end = chunk_end(connection, selector, claim, span)?;
        let until = chunk_end.as_deref().unwrap_or(span.until);
        let span = &Span { until, limit: 1, ..*span };
        let next = Next(Chunk {
            selector,
            claim,
            text: &statements.next,
            span,
            is_end: false,
            lease: 0.0,
            missed: &[],
        });
        Ok(next.get_result::<(String,)>(connection).optional()?.map(|(key,)| key))
    }

    fn chunk(
        &self,
        connection: &mut PgConnection,
        claim: &ClaimedSlice,
        span: &Span<'_>,
    ) -> Step<Moved> {
        let statements = self.statements(connection, claim)?;
        let texts = if span.locked == Locked::Await {
            &statements.awaiting
        } else {
            &statements.not_awaiting
        };
        let selector = &statements.selector;
        let chunk_end = match span.only {
            Some(key) => Some(key.to_owned()),
            None => chunk_end(connection, selector, claim, span)?,
        };
        let is_end = chunk_end.is_none();
        let until = chunk_end.as_deref().unwrap_or(span.until);
        let span = &Span { until, ..*span };
        let text = if span.refused.is_some() { &texts.refused } else { &texts.first };
        let chunk = Chunk {
            selector,
            claim,
            text,
            span,
            is_end,
            lease: span.lease.as_secs_f64(),
            missed: &[],
        };
        let (moved, exhausted, mut deleted, mut missed, met): (bool, bool, i64, Vec<String>, i64) =
            chunk.get_result(connection)?;
        for _ in 0..ROUNDS {
            if !moved || missed.is_empty() {
                break;
            }
            let retry = Chunk { text: &texts.retry, missed: &missed, ..chunk };
            let (_, _, removed, still, _): (bool, bool, i64, Vec<String>, i64) =
                retry.get_result(connection)?;
            deleted += removed;
            missed = still;
        }
        if !moved {
            return Err(Undone::LeaseLost);
        }
        if !missed.is_empty() {
            GiveUp {
                realm: claim.realm.id(),
                task: claim.task_id,
                slice: claim.slice,
                missed: &missed,
            }
            .execute(connection)?;
        }
        let walked = Walked { task: claim.task_id, slice: claim.slice, cursor: span.cursor };
        erasure_queries::erase_walked(connection, &claim.realm, walked)?;
        Ok(Moved {
            met,
            processed: deleted,
            done: exhausted && is_end,
            reached_limit: exhausted && !is_end,
        })
    }

    fn committed(&self, moved: Moved) {
        telemetry::entities_deleted(
            self.walking.selector.mode().as_str(),
            moved.processed.unsigned_abs(),
        );
    }
}

/// Without their names: they are of the filter, which may be blanked before its task is removed.
fn unknown_attribute() -> Error {
    let message = "The filter names an attribute that no entity has, so that it may select what was not meant. Nothing was deleted.";
    Error::new(Code::UnknownAttribute, message)
}

/// The key at which a chunk ends before its span does, because it would have to read too much.
fn chunk_end(
    connection: &mut PgConnection,
    selector: &Selector,
    claim: &ClaimedSlice,
    span: &Span<'_>,
) -> Work<Option<String>> {
    let Some(read_limit) = span.read_limit.filter(|_| selector.walks()) else { return Ok(None) };
    let chunk_end =
        ChunkEnd { realm: claim.realm.id(), cursor: span.cursor, until: span.until, read_limit };
    Ok(chunk_end.get_result::<(String,)>(connection).optional()?.map(|(key,)| key))
}

#[derive(Clone, Copy)]
struct Chunk<'a> {
    selector: &'a Selector,
    claim: &'a ClaimedSlice,
    text: &'a str,
    span: &'a Span<'a>,
    /// True if the slice ends where the span does.
    is_end: bool,
    lease: f64,
    missed: &'a [String],
}

impl QueryFragment<Pg> for Chunk<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        push_text(self.text, &mut out, |name, out| match name {
            "realm" => out.push_bind_param::<Integer, _>(self.claim.realm.id_ref()),
            "task" => out.push_bind_param::<SqlUuid, _>(&self.claim.task_id),
            "slice" => out.push_bind_param::<Integer, _>(&self.claim.slice),
            "token" => out.push_bind_param::<BigInt, _>(&self.claim.token),
            "cursor" => out.push_bind_param::<Text, _>(&self.span.cursor),
            "until" => out.push_bind_param::<Text, _>(&self.span.until),
            "limit" => out.push_bind_param::<BigInt, _>(&self.span.limit),
            "is_end" => out.push_bind_param::<Bool, _>(&self.is_end),
            "lease" => out.push_bind_param::<Double, _>(&self.lease),
            "refused" => out
                .push_bind_param::<Text, _>(self.span.refused.as_ref().unwrap_or(&Reason::Refused)),
            "missed" => out.push_bind_param::<Array<Text>, _>(&self.missed),
            name => self.selector.push(name, out),
        })
    }
}

// Cached by its text: the same for every chunk of a task, and for tasks of the same form.
built!(Chunk<'_> => (Bool, Bool, BigInt, Array<Text>, BigInt));

/// The next object of a chunk.
struct Next<'a>(Chunk<'a>);

impl QueryFragment<Pg> for Next<'_> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.walk_ast(out)
    }
}

built!(Next<'_> => (Text,));

statement! {
    /// The key behind which a chunk does not read; none if there are not so many left.
    pub struct ChunkEnd<'a> {
        realm: i32 as Integer,
        cursor: &'a str as Text,
        until: &'a str as Text,
        read_limit: i64 as BigInt,
    } -> (Text,),
    "SELECT e.id
     FROM entity e
     WHERE e.realm_id = {realm} AND e.id > {cursor} AND e.id <= {until}
     ORDER BY e.id
     OFFSET {read_limit}
     LIMIT 1"
}

statement! {
    /// Counts what others did not unlock.
    struct GiveUp<'a> {
        realm: i32 as Integer,
        task: uuid::Uuid as SqlUuid,
        slice: i32 as Integer,
        missed: &'a [String] as Array<Text>,
    } -> (),
    "WITH failures AS (
        INSERT INTO bulk_delete_failure (realm_id, bulk_delete_id, entity_id, reason)
        SELECT {realm}, {task}, m.id, 'locked' FROM unnest({missed}) AS m(id)
     )
     UPDATE bulk_delete_slice
     SET matched = matched + cardinality({missed}::text[]), failed = failed + cardinality({missed}::text[])
     WHERE realm_id = {realm} AND bulk_delete_id = {task} AND slice = {slice}"
}

#[cfg(test)]
mod forms {
    use std::time::Duration;

    use super::*;
    use crate::bulk_delete::forms::{claim, selectors};
    use crate::db::checked::{Form, forms};

    /// Applies `form` to a chunk of each of the texts that `texts` has for a selector.
    fn each(
        texts: fn(&Selector) -> Vec<(String, String)>,
        form: fn(String, Chunk<'_>) -> Form,
    ) -> Vec<Form> {
        let claim = claim();
        let span = Span {
            cursor: "",
            until: "~",
            limit: 1,
            read_limit: None,
            lease: Duration::from_secs(1),
            locked: Locked::Await,
            only: None,
            refused: Some(Reason::Refused),
        };
        let mut all = Vec::new();
        for (said, selector) in selectors() {
            for (what, text) in texts(&selector) {
                let chunk = Chunk {
                    selector: &selector,
                    claim: &claim,
                    text: &text,
                    span: &span,
                    is_end: true,
                    lease: 1.0,
                    missed: &[],
                };
                all.push(form(format!("{said} {what}"), chunk));
            }
        }
        all
    }

    fn chunks(selector: &Selector) -> Vec<(String, String)> {
        let passes = [Pass::First, Pass::Retry, Pass::RefusedRow].into_iter();
        let both = passes
            .flat_map(|pass| [Locked::Await, Locked::CountAsFailed].map(|locked| (pass, locked)));
        both.map(|(pass, locked)| {
            (format!("{pass:?} {locked:?}"), selector.chunk_text(pass, locked))
        })
        .collect()
    }

    fn next(selector: &Selector) -> Vec<(String, String)> {
        vec![(String::new(), selector.next_text())]
    }

    forms!(Chunk, || each(chunks, |what, chunk| Form::of(what, &chunk)));
    forms!(Next, || each(next, |what, chunk| Form::of(what, &Next(chunk))));
}
