//! The SQL of dry runs: the effect of a bulk delete, before it is started.

use std::marker::PhantomData;

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{Array, BigInt, Double, Integer, Jsonb, Nullable, Text};
use serde_json::Value as Json;

use crate::bulk_delete::bound::Bound;
use crate::bulk_delete::lists::Ids;
use crate::bulk_delete::model::{NewTask, Target};
use crate::bulk_delete::selector::{OBSTACLE, Selector};
use crate::bulk_delete::shown::Shown;
use crate::db::statement::{built, push_text};
use crate::db::{Realm, Work, clock, statement};
use crate::task::model::DeleteMode;

/// How many ids a preview shows.
pub const SAMPLE: i64 = 100;

/// The entities of a group, with what would become of each, in one number, which is another as soon as one of them is another.
const DIGEST: &str =
    "bit_xor(hashtextextended(concat(j.id, '/', j.incarnation, '/', j.obstacle), 0))";

type Previewed = (BigInt, BigInt, Jsonb, BigInt, Array<Text>);

/// The effect of a task, at one moment.
#[derive(Clone, Debug, diesel::Queryable)]
pub struct SelectionPreview {
    /// How many entities are selected.
    pub matched: i64,
    /// How many of them are excluded.
    pub excluded: i64,
    /// How many of the others could not be deleted, by reason: an object.
    pub failing: Json,
    /// Which they are and what would become of each, in one number.
    pub digest: i64,
    /// The first ids of those that would be deleted.
    pub sample: Vec<String>,
}

/// Makes a preview of a task. Call it in a transaction. One statement, so that all of it is of one moment; it reads the whole selection and
/// keeps none of it.
pub fn preview(
    connection: &mut PgConnection,
    realm: &Realm,
    task: &NewTask,
) -> Work<SelectionPreview> {
    // Of existing entities: a task that is asked for now means all of them.
    let selection = Selection::new(connection, realm, task, Bound::None)?;
    let text = selection.preview_text();
    Ok(Over::<Previewed>::new(&selection, text).get_result(connection)?)
}

/// Counts what a task of this number selects. Call it in a transaction.
pub fn count(
    connection: &mut PgConnection,
    realm: &Realm,
    task: &NewTask,
    ordinal: i64,
) -> Work<i64> {
    if let Target::Listed(ids) = &task.target {
        return Ok(i64::try_from(ids.len()).unwrap_or(i64::MAX));
    }
    let selection = Selection::new(connection, realm, task, Bound::Ordinal(ordinal))?;
    let text = selection.count_text();
    let (matched,): (i64,) = Over::<(BigInt,)>::new(&selection, text).get_result(connection)?;
    Ok(matched)
}

/// Which of the ids that are excluded are of an entity that the task sees and does not select. Call it in a transaction. By key, each of
/// them.
pub fn unselected(connection: &mut PgConnection, realm: &Realm, task: &NewTask) -> Work<Ids> {
    let listed = task.listed();
    let excluded: Vec<String> = task
        .excluded
        .iter()
        .filter(|id| listed.is_none_or(|ids| ids.binary_search(id).is_err()))
        .cloned()
        .collect();
    if excluded.is_empty() || task.matches_all() {
        return Ok(Ids::default());
    }
    let task = NewTask { excluded, ..task.clone() };
    // By key, whichever indexes name others.
    let selection = Selection::plain(realm, &task, Bound::None);
    let (count, first): (i64, Vec<String>) =
        Over::<(BigInt, Array<Text>)>::new(&selection, selection.unselected_text())
            .get_result(connection)?;
    Ok(Ids { count, first })
}

/// The selection of a task within this bound, in short. Call it in a transaction.
pub fn shown(
    connection: &mut PgConnection,
    realm: &Realm,
    task: &NewTask,
    bound: Bound,
) -> Work<Shown> {
    let selection = Selection::new(connection, realm, task, bound)?;
    let text = selection.shown_text();
    let (matched, digest): (i64, i64) =
        Over::<(BigInt, BigInt)>::new(&selection, text).get_result(connection)?;
    Ok(Shown { matched, digest, at: clock::now() })
}

/// The selection of a task that does not exist yet.
struct Selection<'a> {
    realm: &'a Realm,
    task: &'a NewTask,
    selector: Selector,
    /// Empty where it is not a list.
    ids: &'a [String],
}

impl<'a> Selection<'a> {
    /// By indexes, where they show that there are few.
    fn new(
        connection: &mut PgConnection,
        realm: &'a Realm,
        task: &'a NewTask,
        bound: Bound,
    ) -> Work<Self> {
        let plain = Selection::plain(realm, task, bound);
        let narrowed = plain.selector.narrowed(connection, realm)?;
        Ok(Selection { selector: narrowed.unwrap_or(plain.selector), ..plain })
    }

    fn plain(realm: &'a Realm, task: &'a NewTask, bound: Bound) -> Self {
        let (ids, filter, entity_type) = match &task.target {
            Target::Matching { filter, entity_type } => {
                (None, filter.as_ref().map(|(_, filter)| filter), entity_type.as_deref())
            }
            Target::Listed(ids) => (Some(ids.as_slice()), None, None),
        };
        let selector = Selector::new(task.mode, ids.is_some(), filter, entity_type, bound);
        Selection { realm, task, selector, ids: ids.unwrap_or_default() }
    }

    fn is_listed(&self) -> bool {
        !self.ids.is_empty()
    }

    /// The rows: those of a list also if there is no such entity. The snapshot of now is that of the task.
    fn from(&self) -> String {
        if self.is_listed() {
            let undeleted =
                if self.task.mode == DeleteMode::Soft { " AND e.deleted_at IS NULL" } else { "" };
            return format!(
                "FROM unnest({{ids}}) AS u(id) LEFT JOIN entity e ON e.realm_id = {{realm}} AND e.id = u.id COLLATE \"C\"{undeleted}"
            );
        }
        format!(
            "FROM {} WHERE e.realm_id = {{realm}}{}",
            self.selector.source(""),
            self.selector.condition()
        )
    }

    fn id(&self) -> &'static str {
        if self.is_listed() { "u.id COLLATE \"C\"" } else { "e.id" }
    }

    fn count_text(&self) -> String {
        format!("SELECT count(*) {}", self.from())
    }

    fn shown_text(&self) -> String {
        format!(
            "SELECT coalesce(sum(g.entities), 0)::int8, coalesce(bit_xor(g.digest), 0)::int8 FROM ({}) g",
            self.judged_text(&format!(
                "SELECT count(*) AS entities, {DIGEST} AS digest FROM judged j"
            ))
        )
    }

    /// A query of what becomes of each of the rows.
    fn judged_text(&self, query: &str) -> String {
        let (id, from) = (self.id(), self.from());
        format!(
            "WITH exclusions AS (SELECT s.id COLLATE \"C\" AS id FROM unnest({{excluded}}) AS s(id)),
     -- Read again rather than kept, where it is named twice: what is selected may be as large as the realm.
     judged AS NOT MATERIALIZED (
        SELECT r.id, r.incarnation, r.excluded, {OBSTACLE} AS obstacle
        FROM (
            SELECT {id} AS id, e.incarnation, e.version, e.state, e.hold_reason IS NOT NULL AS held,
                   {id} IN (SELECT s.id FROM exclusions s) AS excluded
            {from}
        ) r
     )
     {query}"
        )
    }

    fn unselected_text(&self) -> String {
        let undeleted =
            if self.task.mode == DeleteMode::Soft { " AND e.deleted_at IS NULL" } else { "" };
        let others = if self.is_listed() {
            String::new()
        } else {
            format!(" AND NOT (TRUE{})", self.selector.condition())
        };
        format!(
            "WITH unselected AS (
        SELECT e.id
        FROM unnest({{excluded}}) AS s(id)
        JOIN entity e ON e.realm_id = {{realm}} AND e.id = s.id COLLATE \"C\"{undeleted}
        WHERE TRUE{others}
     )
     SELECT (SELECT count(*) FROM unselected), ARRAY(SELECT u.id FROM unselected u ORDER BY u.id LIMIT {{sample}})"
        )
    }

    fn preview_text(&self) -> String {
        self.judged_text(&format!(
            "SELECT t.matched, t.excluded, t.failing, t.digest,
            ARRAY(SELECT j.id FROM judged j WHERE NOT j.excluded AND j.obstacle IS NULL ORDER BY j.id LIMIT {{sample}})
     FROM (SELECT coalesce(sum(g.entities), 0)::int8 AS matched, coalesce(sum(g.entities) FILTER (WHERE g.excluded), 0)::int8 AS excluded,
                  coalesce(jsonb_object_agg(g.obstacle, g.entities) FILTER (WHERE g.obstacle IS NOT NULL), '{{}}') AS failing,
                  coalesce(bit_xor(g.digest), 0)::int8 AS digest
           FROM (SELECT j.excluded, j.obstacle, count(*) AS entities, {DIGEST} AS digest FROM judged j GROUP BY 1, 2) g) t"
        ))
    }
}

/// A query over a selection, whose row has the SQL type `R`.
struct Over<'a, R> {
    selection: &'a Selection<'a>,
    text: String,
    row: PhantomData<R>,
}

impl<'a, R> Over<'a, R> {
    fn new(selection: &'a Selection<'a>, text: String) -> Self {
        Over { selection, text, row: PhantomData }
    }
}

impl<R> QueryFragment<Pg> for Over<'_, R> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        push_text(&self.text, &mut out, |name, out| match name {
            "realm" => out.push_bind_param::<Integer, _>(self.selection.realm.id_ref()),
            "ids" => out.push_bind_param::<Array<Text>, _>(&self.selection.ids),
            "excluded" => out.push_bind_param::<Array<Text>, _>(&self.selection.task.excluded),
            "sample" => out.push_bind_param::<BigInt, _>(&SAMPLE),
            name => self.selection.selector.push(name, out),
        })
    }
}

built!(Over<'_, R> => R; R);

/// How many entities a second recent tasks of this mode have deleted: those of the realm, or else those of any. None if there were none of
/// a size that says something.
pub fn measured_rate(
    connection: &mut PgConnection,
    realm: &Realm,
    mode: DeleteMode,
) -> Work<Option<f64>> {
    let (own, any): (Option<f64>, Option<f64>) =
        Rates { realm: realm.id(), mode: mode.as_str() }.get_result(connection)?;
    Ok(own.or(any))
}

/// The rate at work of the latest tasks that one condition picks, but for those of limited pace. Small tasks say more of what comes
/// before the first chunk than of chunks.
macro_rules! rate {
    ($of:literal) => {
        concat!(
            "(SELECT sum(t.processed)::float8 / nullif(sum(t.seconds), 0)::float8
              FROM (SELECT s.processed, extract(epoch FROM b.worked) AS seconds
                    FROM (SELECT b.realm_id, b.id, b.worked, b.ended_at
                          FROM bulk_delete b
                          WHERE ",
            $of,
            " AND b.ended_at IS NOT NULL AND b.started_at IS NOT NULL AND b.mode = {mode}
                            AND b.max_objects_per_second IS NULL AND NOT b.parameters ? 'maxObjectsPerSecond'
                          ORDER BY b.ended_at DESC
                          LIMIT 100) b,
                         LATERAL (SELECT sum(s.processed) AS processed
                                  FROM bulk_delete_slice s
                                  WHERE s.realm_id = b.realm_id AND s.bulk_delete_id = b.id) s
                    WHERE s.processed >= 1000
                    ORDER BY b.ended_at DESC
                    LIMIT 10) t)"
        )
    };
}

statement! {
    /// How many entities tasks have deleted in a second.
    pub struct Rates<'a> {
        realm: i32 as Integer,
        mode: &'a str as Text,
    } -> (Nullable<Double>, Nullable<Double>),
    concat!("SELECT ", rate!("b.realm_id = {realm}"), ", ", rate!("true"))
}

#[cfg(test)]
mod forms {
    use super::*;
    use crate::bulk_delete::forms::{MODES, bounds, filter};
    use crate::bulk_delete::guards::Guards;
    use crate::db::checked::{Form, forms, realm};
    use crate::entity::index::lookup_queries::Candidates;

    fn each(selection: &Selection<'_>, said: &str) -> [Form; 4] {
        [
            Form::of(
                format!("{said} preview"),
                &Over::<Previewed>::new(selection, selection.preview_text()),
            ),
            Form::of(
                format!("{said} count"),
                &Over::<(BigInt,)>::new(selection, selection.count_text()),
            ),
            Form::of(
                format!("{said} shown"),
                &Over::<(BigInt, BigInt)>::new(selection, selection.shown_text()),
            ),
            Form::of(
                format!("{said} unselected"),
                &Over::<(BigInt, Array<Text>)>::new(selection, selection.unselected_text()),
            ),
        ]
    }

    forms!(Over, || {
        let realm = realm();
        let filter = Some((String::new(), filter()));
        let matching = |filter, entity_type: Option<&str>| Target::Matching {
            filter,
            entity_type: entity_type.map(str::to_owned),
        };
        let targets = [
            Target::Listed(vec!["a".to_owned()]),
            matching(None, None),
            matching(None, Some("T")),
            matching(filter.clone(), None),
            matching(filter, Some("T")),
        ];
        let mut all = Vec::new();
        for mode in MODES {
            for (n, target) in targets.iter().enumerate() {
                let task = NewTask {
                    mode,
                    target: target.clone(),
                    excluded: Vec::new(),
                    guards: Guards::default(),
                };
                for bound in bounds() {
                    let said = format!("{mode:?} {bound:?} target {n}");
                    let mut selection = Selection::plain(&realm, &task, bound);
                    all.extend(each(&selection, &said));
                    if !selection.is_listed() {
                        selection.selector = selection.selector.among(Candidates::of_every_kind());
                        all.extend(each(&selection, &format!("{said} among candidates")));
                    }
                }
            }
        }
        all
    });
}
