//! Databases with entities as the filter sees them, and what their Postgres makes of a filter.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Array, Bool, Jsonb, Nullable, Text, Timestamptz};
use offboard::filter::{EntityRecord, Filter, Predicate};
use offboard::proto::object::Struct;

use crate::kit::{Database, Value, empty_database, json};

/// An entity as the filter sees it.
#[derive(Clone, Debug)]
pub struct Row {
    pub id: String,
    pub kind: String,
    pub state: String,
    pub portfolio: Option<String>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    pub crosswalks: usize,
    pub attributes: Struct,
}

impl Row {
    /// An entity with these attributes, of which nothing else matters.
    pub fn with(id: impl Into<String>, attributes: Value) -> Self {
        Row {
            id: id.into(),
            kind: "configuration/entityTypes/HCP".to_owned(),
            state: "active".to_owned(),
            portfolio: None,
            created_at: DateTime::UNIX_EPOCH,
            updated_at: DateTime::UNIX_EPOCH,
            crosswalks: 0,
            attributes: exact(&attributes),
        }
    }

    /// Returns whether the evaluator selects it.
    pub fn satisfies(&self, filter: &Filter) -> bool {
        filter.matches(&EntityRecord {
            id: &self.id,
            r#type: &self.kind,
            state: &self.state,
            portfolio_id: self.portfolio.as_deref(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            crosswalks: self.crosswalks as i64,
            attributes: self.attributes.view(),
        })
    }
}

/// Precedes a number that no double represents, where a [`Value`] has it as a text.
const NUMBER: char = '\u{1}';

/// A number of any size, as a value.
pub fn number(text: &str) -> Value {
    Value::from(format!("{NUMBER}{text}"))
}

/// An object in which [`number`]s are what they stand for.
pub fn exact(value: &Value) -> Struct {
    let text = value.to_string();
    let mut pieces = text.split("\"\\u0001");
    let mut exact = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        exact.extend(piece.splitn(2, '"'));
    }
    Struct::from_text(&exact)
}

/// A connection to a database of its own for each of the locales, with a table as the filter needs it.
pub struct Databases {
    pub connections: Vec<PgConnection>,
    /// Dropped once nothing is connected to them.
    _databases: Vec<Database>,
}

/// The predicate of every row. As `Bool` is not nullable, a NULL fails the query.
struct Verdicts {
    predicate: Predicate,
}

/// Not derived: a derived id would be static, and the statement of one filter would be taken for that of another.
impl QueryId for Verdicts {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl QueryFragment<Pg> for Verdicts {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("SELECT e.id, ");
        self.predicate.walk_ast(out.reborrow())?;
        out.push_sql(" FROM entity e WHERE ");
        out.push_bind_param::<Bool, _>(&true)
    }
}

impl Query for Verdicts {
    type SqlType = (Text, Bool);
}

impl RunQueryDsl<PgConnection> for Verdicts {}

impl Databases {
    pub fn create() -> Self {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let plain = empty_database("TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'").await;
            let mut databases = vec![plain];
            if databases[0].count("SELECT count(*) FROM pg_collation WHERE collname = 'und-x-icu'") > 0 {
                let turkish = "TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR'";
                databases.push(empty_database(turkish).await);
            }
            let connections = databases.iter().map(|database| {
                database.sql(
                    "CREATE TABLE entity (id text COLLATE \"C\" PRIMARY KEY, type text COLLATE \"C\" NOT NULL, state text COLLATE \"C\" NOT NULL,
                                          portfolio_id text COLLATE \"C\", created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
                                          crosswalks jsonb NOT NULL, attributes jsonb NOT NULL)",
                );
                database.connection()
            });
            Databases { connections: connections.collect(), _databases: databases }
        })
    }

    pub fn fill(&mut self, rows: &[Row]) {
        fn column<'a, T>(rows: &'a [Row], of: impl Fn(&'a Row) -> T) -> Vec<T> {
            rows.iter().map(of).collect()
        }
        for connection in &mut self.connections {
            diesel::sql_query("DELETE FROM entity").execute(connection).expect("rows are deleted");
            diesel::sql_query(
                "INSERT INTO entity SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind::<Array<Text>, _>(column(rows, |row| &row.id))
            .bind::<Array<Text>, _>(column(rows, |row| &row.kind))
            .bind::<Array<Text>, _>(column(rows, |row| &row.state))
            .bind::<Array<Nullable<Text>>, _>(column(rows, |row| row.portfolio.as_ref()))
            .bind::<Array<Timestamptz>, _>(column(rows, |row| row.created_at))
            .bind::<Array<Timestamptz>, _>(column(rows, |row| row.updated_at))
            .bind::<Array<Jsonb>, _>(column(rows, |row| {
                Value::from(vec![json!({}); row.crosswalks])
            }))
            .bind::<Array<Jsonb>, _>(column(rows, |row| &row.attributes))
            .execute(connection)
            .expect("rows are inserted");
        }
    }

    /// The ids of the rows on which the evaluator and a Postgres differ, for each Postgres.
    pub fn differences(&mut self, filter: &Filter, rows: &[Row]) -> Vec<BTreeSet<String>> {
        let expected: BTreeMap<&str, bool> =
            rows.iter().map(|row| (row.id.as_str(), row.satisfies(filter))).collect();
        let mut differences = Vec::new();
        for connection in &mut self.connections {
            let verdicts: Vec<(String, bool)> = Verdicts { predicate: filter.predicate() }
                .load(connection)
                .unwrap_or_else(|error| panic!("{filter}: {error}"));
            assert_eq!(verdicts.len(), rows.len());
            differences.push(
                verdicts
                    .into_iter()
                    .filter(|(id, verdict)| expected[id.as_str()] != *verdict)
                    .map(|(id, _)| id)
                    .collect(),
            );
        }
        differences
    }

    /// Fails unless every Postgres selects what the evaluator selects.
    pub fn agree(&mut self, filter: &str, rows: &[Row]) {
        let filter = Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        for difference in self.differences(&filter, rows) {
            assert_eq!(difference, BTreeSet::new(), "{filter}");
        }
    }
}
