//! The selection of a task, and the texts of the statements that depend on it.

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{Array, BigInt, Text, Timestamptz};

use crate::bulk_delete::bound::{Bound, Pass};
use crate::bulk_delete::chunk_queries::{
    AGAIN, DOOMED, DOOMED_OF_UNLOCKED, HARD, ONWARD, SOFT, UNLOCKED, UNLOCKED_PARTS, WHOLE,
};
use crate::db::{Realm, Work};
use crate::entity::index::lookup_queries::{self, Candidates};
use crate::entity::unknown_queries;
use crate::entity::walk_queries::Among;
use crate::filter::{Filter, Predicate};
use crate::task::model::{DeleteMode, full_type};
use crate::task::work::Locked;

/// This many candidates, as far as indexes can tell, are taken one by one; where there are more the keys are walked. So few are never cut
/// into slices.
const FEW: i64 = 50_000;

/// The reason why a row `r` cannot be deleted, if there is one; the `END` is left out.
macro_rules! obstacle {
    () => {
        "CASE WHEN r.excluded THEN NULL
                    WHEN r.version IS NULL THEN 'not_found'
                    WHEN r.state IN ('onboarding', 'offboarding') THEN r.state
                    WHEN r.held THEN 'on_hold'"
    };
}
/// The reason why a row `r` cannot be deleted, if there is one.
pub(super) const OBSTACLE: &str = concat!(obstacle!(), " END");
/// The same for a row that cannot be deleted in any case, for the reason that is a parameter.
const REFUSED: &str = concat!(obstacle!(), " ELSE {refused} END");

/// Which rows a task selects, and the texts of the statements that need to know.
#[derive(Clone)]
pub struct Selector {
    mode: DeleteMode,
    listed: bool,
    filter: Option<Filter>,
    predicate: Option<Predicate>,
    /// The rows that may match the filter, if indexes show that there are few.
    candidates: Option<Candidates>,
    /// As given and in full; an entity is of the type if it is of either.
    entity_types: Option<Vec<String>>,
    bound: Bound,
}

impl Selector {
    /// The selector of a task.
    pub fn new(
        mode: DeleteMode,
        listed: bool,
        filter: Option<&Filter>,
        entity_type: Option<&str>,
        bound: Bound,
    ) -> Self {
        let entity_types = entity_type.map(|given| vec![given.to_owned(), full_type(given)]);
        Selector {
            mode,
            listed,
            filter: filter.cloned(),
            predicate: filter.map(Filter::predicate),
            candidates: None,
            entity_types,
            bound,
        }
    }

    /// The same by indexes, if they show that there are few candidates. Call it in the transaction of the statement that uses it.
    pub fn narrowed(&self, connection: &mut PgConnection, realm: &Realm) -> Work<Option<Selector>> {
        let candidates = lookup_queries::choose(connection, realm, self.filter.as_ref(), FEW)?;
        Ok(candidates.map(|candidates| Selector { candidates: Some(candidates), ..self.clone() }))
    }

    /// The same by these candidates.
    #[cfg(test)]
    pub(super) fn among(self, candidates: Candidates) -> Selector {
        Selector { candidates: Some(candidates), ..self }
    }

    /// Returns whether the indexes that it uses are in use. If not, the selector that it was made of selects the same. See
    /// [`Selector::narrowed`].
    pub fn is_usable(&self, connection: &mut PgConnection, realm: &Realm) -> Work<bool> {
        self.candidates
            .as_ref()
            .map_or(Ok(true), |candidates| candidates.are_ready(connection, realm))
    }

    /// The rows that are read: all entities, or the candidates for which `bounds` are true.
    pub(super) fn source(&self, bounds: &str) -> String {
        match self.candidates {
            None => "entity e".to_owned(),
            Some(_) => format!(
                "(SELECT DISTINCT x.entity_id FROM ({{candidates}}) x{bounds} ORDER BY x.entity_id) c
        JOIN entity e ON e.realm_id = {{realm}} AND e.id = c.entity_id"
            ),
        }
    }

    /// The filter, and the entities that may have its attributes. Soft-deleted ones count as well: their names are names, though a soft run
    /// does not suggest them.
    pub fn named(&self) -> Option<(&Filter, Among<'_>)> {
        let among = Among { types: self.entity_types.as_deref(), undeleted: false };
        self.filter.as_ref().map(|filter| (filter, among))
    }

    /// Those of the attributes that the filter names that no entity of the type has.
    pub fn unknown_attributes(
        &self,
        connection: &mut PgConnection,
        realm: &Realm,
    ) -> Work<Vec<String>> {
        self.named().map_or_else(
            || Ok(Vec::new()),
            |named| unknown_queries::unknown_attributes(connection, realm, named),
        )
    }

    /// Returns whether it reads along the keys of all entities, of which few may be selected.
    pub fn walks(&self) -> bool {
        !self.listed && self.candidates.is_none()
    }

    /// How thoroughly it is deleted.
    pub fn mode(&self) -> DeleteMode {
        self.mode
    }

    /// The condition on `entity e`, after an `AND`. Entities created after the task was asked for are not meant. A soft run does not see
    /// entities that were soft-deleted before.
    pub(super) fn condition(&self) -> String {
        let mut condition = self.bound.condition().to_owned();
        if self.mode == DeleteMode::Soft {
            condition.push_str(" AND e.deleted_at IS NULL");
        }
        if self.entity_types.is_some() {
            condition.push_str(" AND e.type = ANY({types})");
        }
        if self.predicate.is_some() {
            condition.push_str(" AND {predicate}");
        }
        condition
    }

    /// Counts the selection.
    pub fn count_text(&self) -> String {
        if self.listed {
            return "SELECT cardinality(b.entity_ids)::int8 FROM bulk_delete b WHERE b.realm_id = {realm} AND b.id = {task}".to_owned();
        }
        format!(
            "SELECT count(*) FROM {} WHERE e.realm_id = {{realm}}{}",
            self.source(""),
            self.condition()
        )
    }

    /// Counts the selected ones among the next entities by key, and returns how many were read, and the last of them.
    pub fn count_on_text(&self) -> String {
        format!(
            "SELECT count(*) FILTER (WHERE true{}), count(*), max(e.id)
             FROM (SELECT e.* FROM {} WHERE e.realm_id = {{realm}} AND e.id > {{cursor}} ORDER BY e.id LIMIT {{limit}}) e",
            self.condition(),
            self.source(" WHERE x.entity_id > {cursor}")
        )
    }

    /// The ids of a list that come last in each of `slices` parts of it but the last.
    pub fn listed_cuts_text(slices: usize) -> String {
        format!(
            "SELECT b.entity_ids[cardinality(b.entity_ids) * c.n / {slices}]
             FROM bulk_delete b, generate_series(1, {slices} - 1) AS c(n)
             WHERE b.realm_id = {{realm}} AND b.id = {{task}}
             ORDER BY c.n"
        )
    }

    /// The last ids of `slices` about equal parts of the selection, without the last part, estimated from whole pages of so many percent of
    /// the table.
    pub fn sampled_cuts_text(&self, slices: usize, percent: f64) -> String {
        let condition = self.condition();
        let shares: Vec<String> = (1..slices).map(|n| format!("{n}::float8 / {slices}")).collect();
        format!(
            "SELECT unnest(percentile_disc(ARRAY[{}]) WITHIN GROUP (ORDER BY e.id))
             FROM entity e TABLESAMPLE SYSTEM ({percent})
             WHERE e.realm_id = {{realm}}{condition}",
            shares.join(", ")
        )
    }

    /// Pushes a parameter of the condition.
    pub fn push<'b>(&'b self, name: &str, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        match (name, &self.predicate, &self.entity_types) {
            ("ordinal", ..) if let Bound::Ordinal(ordinal) = &self.bound => {
                out.push_bind_param::<BigInt, _>(ordinal)
            }
            ("as_of", ..) if let Bound::Moment(moment) = &self.bound => {
                out.push_bind_param::<Timestamptz, _>(moment)
            }
            ("predicate", Some(predicate), _) => predicate.walk_ast(out.reborrow()),
            ("candidates", ..) if let Some(candidates) = &self.candidates => {
                // Filters are unlimited in number, and each is worth a plan of its own.
                out.unsafe_to_cache_prepared();
                candidates.walk_ast(out.reborrow())
            }
            ("types", _, Some(types)) => out.push_bind_param::<Array<Text>, _>(types),
            _ => {
                Err(diesel::result::Error::QueryBuilderError(format!("no parameter {name}").into()))
            }
        }
    }

    fn picked(&self, retry: bool) -> String {
        let (condition, bound) = (self.condition(), self.bound.condition());
        let undeleted =
            if self.mode == DeleteMode::Soft { " AND e.deleted_at IS NULL" } else { "" };
        match (self.listed, retry) {
            (false, false) => {
                let (cursor, until, limit) = match self.candidates {
                    Some(_) => ("{cursor}", "{until}", "{limit}"),
                    // In subqueries, which the planner does not look into: knowing them, and believing that few match, it would read and sort
                    // all up to the end instead of going along the key.
                    None => ("(SELECT {cursor})", "(SELECT {until})", "(SELECT {limit})"),
                };
                format!(
                    "FROM {}
        WHERE e.realm_id = {{realm}} AND e.id > {cursor} AND e.id <= {until}{condition}
        ORDER BY e.id
        LIMIT {limit}",
                    self.source(" WHERE x.entity_id > {cursor} AND x.entity_id <= {until}")
                )
            }
            // Without the list's own rows: those removed since are skipped.
            (_, true) => format!(
                "FROM entity e
        WHERE e.realm_id = {{realm}} AND e.id = ANY({{missed}}){condition}"
            ),
            (true, false) => format!(
                "FROM (SELECT u.id
              FROM bulk_delete b, unnest(b.entity_ids) AS u(id)
              WHERE b.realm_id = {{realm}} AND b.id = {{task}} AND u.id COLLATE \"C\" > {{cursor}} AND u.id COLLATE \"C\" <= {{until}}
              ORDER BY u.id COLLATE \"C\"
              LIMIT {{limit}}) u
        LEFT JOIN entity e ON e.realm_id = {{realm}} AND e.id = u.id COLLATE \"C\"{bound}{undeleted}"
            ),
        }
    }

    /// The id of the next object that a chunk would take up, whether or not it can be deleted.
    pub fn next_text(&self) -> String {
        let id = if self.listed { "u.id COLLATE \"C\"" } else { "e.id" };
        format!("SELECT {id} {}", self.picked(false))
    }

    /// The statement of a chunk, or of a retry of rows that others had changed.
    pub fn chunk_text(&self, pass: Pass, locked: Locked) -> String {
        let retry = pass == Pass::Retry;
        let picked = self.picked(retry);
        let obstacle = if pass == Pass::RefusedRow { REFUSED } else { OBSTACLE };
        let id = if self.listed && !retry { "u.id COLLATE \"C\"" } else { "e.id" };
        let gone = match (self.mode, locked) {
            (DeleteMode::Hard, Locked::Await) => format!("{HARD})"),
            (DeleteMode::Hard, Locked::CountAsFailed) => {
                format!("{HARD}\n        ON CONFLICT DO NOTHING)")
            }
            (DeleteMode::Soft, _) => SOFT.to_owned(),
        };
        let doomed = match (self.mode, locked) {
            (_, Locked::Await) => DOOMED.to_owned(),
            (DeleteMode::Hard, Locked::CountAsFailed) => {
                format!("{UNLOCKED},\n     {UNLOCKED_PARTS},\n     {DOOMED_OF_UNLOCKED}{WHOLE})")
            }
            (DeleteMode::Soft, Locked::CountAsFailed) => {
                format!("{UNLOCKED},\n     {DOOMED_OF_UNLOCKED})")
            }
        };
        let moved = if retry { AGAIN } else { ONWARD };
        format!(
            "WITH exclusions AS (
        SELECT s.id COLLATE \"C\" AS id
        FROM bulk_delete b, unnest(b.excluded_ids) AS s(id)
        WHERE b.realm_id = {{realm}} AND b.id = {{task}}
     ),
     picked AS MATERIALIZED (
        -- The next entities by key, judged on the row itself.
        SELECT r.id, r.place, r.version, r.portfolio_id, r.excluded, {obstacle} AS obstacle
        FROM (
            SELECT {id} AS id, e.ctid AS place, e.version, e.portfolio_id, e.state, e.hold_reason IS NOT NULL AS held,
                   -- As a subplan the list is hashed, however the planner misjudges its length.
                   {id} IN (SELECT s.id FROM exclusions s) AS excluded
            {picked}
        ) r
     ),
     {doomed},
     {gone},
     ids AS (SELECT count(*) AS gone, array_agg(g.id) AS gone_ids FROM gone g),
     counted AS (
        SELECT count(*) AS picked, count(*) FILTER (WHERE p.excluded) AS excluded, count(*) FILTER (WHERE p.obstacle IS NOT NULL) AS failed,
               max(p.id) AS last, (SELECT i.gone FROM ids i) AS gone
        FROM picked p
     ),
     missed AS (
        -- What others changed or took after this statement began. It is read again, not deleted blindly. As a rule there is none, which
        -- the numbers show it at once.
        -- EXCEPT hashes or sorts; an anti-join of two CTEs, whose rows the planner cannot count, would compare all with all.
        SELECT p.id
        FROM picked p
        WHERE (SELECT c.gone < c.picked - c.excluded - c.failed FROM counted c) AND NOT p.excluded AND p.obstacle IS NULL
        EXCEPT
        SELECT g.id FROM gone g WHERE (SELECT c.gone < c.picked - c.excluded - c.failed FROM counted c)
     ),
     failures AS (
        INSERT INTO bulk_delete_failure (realm_id, bulk_delete_id, entity_id, reason)
        SELECT {{realm}}, {{task}}, p.id, p.obstacle
        FROM picked p
        WHERE p.obstacle IS NOT NULL
     ),
     held AS (
        -- The portfolios that lose members, locked in the order of their ids, as all do who change several.
        SELECT p.id, m.members, m.entity_ids
        FROM portfolio p
        JOIN (SELECT g.portfolio_id, count(*) AS members, jsonb_agg(g.id) AS entity_ids
              FROM gone g
              WHERE g.portfolio_id IS NOT NULL
              GROUP BY g.portfolio_id) m
          ON m.portfolio_id = p.id
        WHERE p.realm_id = {{realm}}
        ORDER BY p.id
        FOR NO KEY UPDATE OF p
     ),
     folio AS (
        -- One step for each.
        UPDATE portfolio p
        SET entity_count = p.entity_count - h.members, version = p.version + 1, updated_at = now()
        FROM held h
        WHERE p.realm_id = {{realm}} AND p.id = h.id
        RETURNING p.id, p.version, h.entity_ids
     ),
     recorded AS (
        -- One event for the chunk: readers unfold it.
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT {{realm}}, t.type, t.subjects, b.principal_id, t.data || jsonb_build_object('bulk_delete_id', b.id, 'mode', b.mode)
        FROM (SELECT 'entity.deleted' AS type, i.gone_ids AS subjects, '{{}}'::jsonb AS data FROM ids i WHERE i.gone > 0
              UNION ALL
              SELECT 'portfolio.entity_detached', ARRAY[f.id], jsonb_build_object('entity_ids', f.entity_ids, 'version', f.version)
              FROM folio f) t,
             bulk_delete b
        WHERE b.realm_id = {{realm}} AND b.id = {{task}}
     ),
     tally AS (SELECT c.*, (SELECT count(*) FROM missed) AS missed FROM counted c),
     {moved}
     SELECT EXISTS (SELECT FROM moved), t.picked < {{limit}}, t.gone, ARRAY(SELECT m.id FROM missed m), t.picked
     FROM tally t"
        )
    }
}
