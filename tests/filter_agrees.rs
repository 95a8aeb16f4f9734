//! The filter's SQL selects, on a real Postgres, exactly what its evaluator selects: on random attributes, under plain and under Turkish
//! rules for letters.

mod kit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use diesel::pg::{Pg, PgConnection};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::{Bool, Jsonb, Text};
use offboard::filter::{Filter, Predicate, Record, fold};
use proptest::prelude::*;

use kit::{Database, Value, empty_database, json};

/// A connection to a database of its own for each of the locales, with a table as the filter needs it.
struct Databases {
    connections: Vec<PgConnection>,
    /// Dropped once nothing is connected to them.
    _databases: Vec<Database>,
}

impl Databases {
    fn create() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let plain = empty_database("TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C'").await;
            let mut databases = vec![plain];
            if databases[0].count("SELECT count(*) FROM pg_collation WHERE collname = 'und-x-icu'") > 0 {
                let turkish = "TEMPLATE template0 ENCODING 'UTF8' LOCALE 'C' LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR'";
                databases.push(empty_database(turkish).await);
            }
            let connections = databases.iter().map(|database| {
                database.sql(
                    "CREATE TABLE entity (id text COLLATE \"C\" PRIMARY KEY, type text COLLATE \"C\" NOT NULL, attributes jsonb NOT NULL)",
                );
                database.connection()
            });
            Databases { connections: connections.collect(), _databases: databases }
        })
    }
}

/// An entity as the filter sees it.
#[derive(Clone, Debug)]
struct Row {
    id: String,
    kind: String,
    attributes: Value,
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
    fn fill(&mut self, rows: &[Row]) {
        for connection in &mut self.connections {
            diesel::sql_query("DELETE FROM entity").execute(connection).expect("rows are deleted");
            for row in rows {
                diesel::sql_query("INSERT INTO entity VALUES ($1, $2, $3)")
                    .bind::<Text, _>(&row.id)
                    .bind::<Text, _>(&row.kind)
                    .bind::<Jsonb, _>(&row.attributes)
                    .execute(connection)
                    .expect("a row is inserted");
            }
        }
    }

    /// The ids of the rows on which the evaluator and a Postgres differ, for each Postgres.
    fn differences(&mut self, filter: &Filter, rows: &[Row]) -> Vec<BTreeSet<String>> {
        let expected: BTreeMap<&str, bool> = rows
            .iter()
            .map(|row| (row.id.as_str(), filter.matches(&Record { id: &row.id, r#type: &row.kind, attributes: &row.attributes })))
            .collect();
        let mut differences = Vec::new();
        for connection in &mut self.connections {
            let verdicts: Vec<(String, bool)> =
                Verdicts { predicate: filter.predicate() }.load(connection).unwrap_or_else(|error| panic!("{filter}: {error}"));
            assert_eq!(verdicts.len(), rows.len());
            differences.push(verdicts.into_iter().filter(|(id, verdict)| expected[id.as_str()] != *verdict).map(|(id, _)| id).collect());
        }
        differences
    }
}

/// Texts that are likely to meet each other in spite of case, and those that must not.
const TEXTS: &[&str] = &[
    "",
    "a",
    "A",
    "Ab",
    "aB c",
    "b",
    "x,y",
    "é",
    "É",
    "e\u{301}",
    "ß",
    "ẞ",
    "SS",
    "ss",
    "i",
    "I",
    "İ",
    "ı",
    "Σ",
    "σ",
    "ς",
    "ΣΑΣ",
    "σας",
    "k",
    "\u{212A}",
    "s",
    "ſ",
    "Å",
    "å",
    "\u{212B}",
    "µ",
    "μ",
    "Μ",
    "Ǆ",
    "ǅ",
    "ǆ",
    "Ж",
    "ж",
    "日本",
    "😀",
    "ﬁ",
    "fi",
    "ᾳ",
    "ᾼ",
    "Ꭰ",
    "ꭰ",
    "true",
    "TRUE",
    "False",
    "null",
    "{}",
    "[]",
    "[\"a\"]",
    "{\"a\"",
    "\"a\"",
    "'",
    "\\",
    "%",
    "_",
    "1",
    "1.0",
    "10",
    "-",
    "-0",
    "007",
    "1e2",
    "100",
    "1e22",
    "0.1",
    "1E-7",
    "1e999",
    "12345678901234567890123",
    "9007199254740993",
    "entities/e1",
    "e1",
    "E1",
    "ent",
    "entities/",
    "Entities/E",
];
const NAMES: &[&str] = &["a", "B", "0", "k x", "q\"", "b\\", "é", ""];

fn numbers() -> Vec<Value> {
    let floats = [1.0, 0.1, -0.0, -1.5, 1e22, 1e-7, 100.0, 5e-324, f64::MAX].map(Value::from);
    let integers = [json!(0), json!(1), json!(10), json!(-10), json!(100), json!(i64::MIN), json!(u64::MAX), json!(9007199254740993_u64)];
    floats.into_iter().chain(integers).collect()
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => Just("a".to_owned()), 2 => Just("B".to_owned()), 1 => prop::sample::select(NAMES).prop_map(str::to_owned)]
}

fn text() -> impl Strategy<Value = String> {
    let random = any::<String>().prop_map(|text| text.chars().filter(|c| *c != '\0').take(6).collect());
    prop_oneof![12 => prop::sample::select(TEXTS).prop_map(str::to_owned), 1 => random]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => text().prop_map(Value::from),
        2 => prop::sample::select(numbers()),
        1 => any::<f64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let nested = |value: Value, depth: usize| (0..depth).fold(value, |value, _| json!([value]));
    scalar().prop_recursive(4, 12, 3, move |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            3 => prop::collection::vec((name(), inner.clone()), 0..3).prop_map(object),
            1 => (inner, 6..11_usize).prop_map(move |(value, depth)| nested(value, depth)),
        ]
    })
}

fn object(members: Vec<(String, Value)>) -> Value {
    Value::Object(members.into_iter().collect())
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let kind = prop::sample::select(vec!["configuration/entityTypes/HCP", "configuration/entityTypes/hco", "É", "a"]);
    let row = (kind, prop::collection::vec((name(), value()), 0..4));
    prop::collection::vec(row, 1..40).prop_map(|rows| {
        let ids = ["e", "E", "ent", "entities.", "a~"].iter().cycle().zip(0..);
        let row = |((id, number), (kind, members)): ((&&str, usize), (&str, _))| Row {
            id: format!("{id}{number}"),
            kind: kind.to_owned(),
            attributes: object(members),
        };
        ids.zip(rows).map(row).collect()
    })
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn call() -> impl Strategy<Value = String> {
    let path = prop_oneof![
        1 => Just("type".to_owned()),
        1 => Just("uri".to_owned()),
        8 => prop::collection::vec(name(), 1..4).prop_map(|names| names.iter().fold("attributes".to_owned(), |path, name| format!("{path}.{}", quoted(name)))),
    ];
    let one = prop::sample::select(vec!["equals", "equalsCaseSensitive", "startsWith"]);
    let value = prop_oneof![
        10 => text(),
        1 => Just("configuration/entityTypes/HCO".to_owned()),
        1 => prop::sample::select(vec!["e0", "entities/E1", "Entities/ent", "entities/entities.3"]).prop_map(str::to_owned),
    ];
    (path, prop::collection::vec(value, 2..5), prop_oneof![4 => one, 2 => Just("in"), 1 => Just("exists"), 1 => Just("missing")]).prop_map(
        |(path, values, function)| match function {
            "exists" | "missing" => format!("{function}({path})"),
            "in" => format!("in({path}, {})", values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ")),
            "startsWith" if values[0].is_empty() => format!("startsWith({path}, 1)"),
            _ => format!("{function}({path}, {})", quoted(&values[0])),
        },
    )
}

fn filter() -> impl Strategy<Value = Filter> {
    let text = call().prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| format!("not ({inner})")),
            prop::collection::vec(inner.clone(), 2..4).prop_map(|members| format!("({})", members.join(" and "))),
            prop::collection::vec(inner, 2..4).prop_map(|members| format!("({})", members.join(" or "))),
        ]
    });
    text.prop_map(|text| Filter::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}")))
}

#[test]
fn sql_selects_exactly_what_the_evaluator_selects() {
    let databases = Mutex::new(Databases::create());
    let selected = Mutex::new((0_usize, 0_usize));
    let config = ProptestConfig { cases: 48, failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() };
    let property = |(rows, filters): (Vec<Row>, Vec<Filter>)| {
        let mut databases = databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.fill(&rows);
        for filter in &filters {
            for difference in databases.differences(filter, &rows) {
                let first = rows.iter().find(|row| difference.contains(&row.id));
                prop_assert!(first.is_none(), "{filter}\n{}\n{first:?}", filter.predicate());
            }
            let matching =
                rows.iter().filter(|row| filter.matches(&Record { id: &row.id, r#type: &row.kind, attributes: &row.attributes }));
            let mut counts = selected.lock().unwrap_or_else(PoisonError::into_inner);
            *counts = (counts.0 + matching.count(), counts.1 + rows.len());
        }
        Ok(())
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let outcome = runner.run(&(rows(), prop::collection::vec(filter(), 24)), property);
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let (matching, compared) = *selected.lock().unwrap_or_else(PoisonError::into_inner);
    // Agreement says little where all is selected, or nothing is.
    assert!(compared > 5_000 && matching * 10 > compared && matching * 10 < compared * 9, "{matching} of {compared}");
}

#[test]
fn every_letter_that_has_a_case_meets_its_other_cases_and_nothing_else() {
    let letters: Vec<char> = ('\u{1}'..=char::MAX).filter(|c| fold(&c.to_string()) != c.to_string() || c.is_lowercase()).collect();
    let row = |c: &char| Row { id: format!("{:X}", u32::from(*c)), kind: "letter".to_owned(), attributes: json!({"a": c.to_string()}) };
    let rows: Vec<Row> = letters.iter().map(row).collect();
    let mut databases = Databases::create();
    databases.fill(&rows);
    for letters in letters.chunks(97) {
        let list: Vec<String> = letters.iter().map(|c| quoted(&c.to_string())).collect();
        for text in [format!("in(attributes.a, {})", list.join(", ")), format!("startsWith(attributes.a, {})", list[0])] {
            let filter = Filter::parse(&text).expect("it is well formed");
            for difference in databases.differences(&filter, &rows) {
                assert_eq!(difference, BTreeSet::new(), "{filter}");
            }
        }
    }
}

#[test]
fn every_kind_of_value_compares_with_every_text_in_the_same_way() {
    let others =
        numbers().into_iter().chain([json!(true), json!(false), json!(null), json!({}), json!([]), json!([[]]), json!({"d": null})]);
    let values = TEXTS.iter().map(|text| json!(text)).chain(others);
    let row = |(number, value): (usize, Value)| {
        let attributes = json!({"a": value, "b": [null, value], "c": [[{"d": value}]]});
        Row { id: format!("e{number}"), kind: "value".to_owned(), attributes }
    };
    let rows: Vec<Row> = values.enumerate().map(row).collect();
    let mut databases = Databases::create();
    databases.fill(&rows);
    let functions = ["equals", "equalsCaseSensitive", "startsWith"];
    for path in ["attributes.a", "attributes.b", "attributes.c.d"] {
        let one = |text: &&str| functions.map(|function| format!("{function}({path}, {})", quoted(text)));
        let comparisons = TEXTS.iter().filter(|text| !text.is_empty()).flat_map(one);
        for text in comparisons.chain([format!("exists({path})"), format!("missing({path})"), format!("equals({path}, '')")]) {
            let filter = Filter::parse(&text).expect("it is well formed");
            for difference in databases.differences(&filter, &rows) {
                assert_eq!(difference, BTreeSet::new(), "{filter}");
            }
        }
    }
}

#[test]
fn the_examples_of_the_guide_are_true() {
    let guide = include_str!("../docs/filter.md");
    let mut databases = Databases::create();
    let mut examples = 0;
    for line in guide.lines().skip_while(|line| *line != "## Examples") {
        let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let [filter, attributes, answer] = cells.as_slice() else { continue };
        let Some(attributes) = attributes.strip_prefix('`').and_then(|attributes| attributes.strip_suffix('`')) else { continue };
        let filter = Filter::parse(filter.trim_matches('`')).unwrap_or_else(|error| panic!("{line}: {error}"));
        let attributes = serde_json::from_str(attributes).unwrap_or_else(|error| panic!("{line}: {error}"));
        let row = Row { id: "i1".to_owned(), kind: "configuration/entityTypes/HCP".to_owned(), attributes };
        let matches = filter.matches(&Record { id: &row.id, r#type: &row.kind, attributes: &row.attributes });
        assert_eq!(if matches { "yes" } else { "no" }, *answer, "{line}");
        databases.fill(std::slice::from_ref(&row));
        assert!(databases.differences(&filter, &[row]).iter().all(BTreeSet::is_empty), "{line}");
        examples += 1;
    }
    assert!(examples >= 30, "only {examples} examples were found");
}

#[test]
fn the_largest_filter_runs() {
    let path = format!("attributes{}", ".a".repeat(32));
    let filter = vec![format!("in({path}, true, 1, 'É')"); 255].join(" or ");
    let filter = Filter::parse(&filter).expect("it is within every bound");
    let attributes = (0..32).fold(json!([["é"]]), |value, _| json!([{"a": value}]))[0].clone();
    let rows = [Row { id: "deep".to_owned(), kind: "deep".to_owned(), attributes }];
    let mut databases = Databases::create();
    databases.fill(&rows);
    assert!(filter.matches(&Record { id: "deep", r#type: "deep", attributes: &rows[0].attributes }));
    assert!(databases.differences(&filter, &rows).iter().all(BTreeSet::is_empty));
}
