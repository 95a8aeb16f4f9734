//! The filter's SQL selects, on a real Postgres, exactly what its evaluator selects: on random entities, under plain and under Turkish
//! rules for letters.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod databases;
mod entities;
mod filters;
#[path = "../kit/mod.rs"]
mod kit;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use diesel::connection::SimpleConnection;
use offboard::filter::{FUNCTIONS, Filter, fold};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use databases::{Databases, Row};
use entities::{TEXTS, numbers, rows};
use filters::{CLASSES, Call, call, call_of, crowd, filter, quoted};
use kit::{Value, json};

/// How often something was true and was not.
type Tally = BTreeMap<&'static str, (usize, usize)>;

fn count(tally: &mut Tally, name: &'static str, holds: usize, of: usize) {
    let counts = tally.entry(name).or_default();
    *counts = (counts.0 + holds, counts.1 + of - holds);
}

#[test]
fn sql_selects_exactly_what_the_evaluator_selects() {
    let databases = Mutex::new(Databases::create());
    let tally = Mutex::new(Tally::new());
    let config = ProptestConfig {
        cases: 64,
        failure_persistence: None,
        max_shrink_iters: 2_000,
        ..ProptestConfig::default()
    };
    let property = |(rows, calls, filters): (Vec<Row>, Vec<Call>, Vec<Filter>)| {
        let mut databases = databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.fill(&rows);
        for filter in calls.iter().map(|call| &call.filter).chain(&filters) {
            for difference in databases.differences(filter, &rows) {
                let first = rows.iter().find(|row| difference.contains(&row.id));
                prop_assert!(first.is_none(), "{filter}\n{}\n{first:?}", filter.predicate());
            }
        }
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let holds = |filter: &Filter| rows.iter().filter(|row| row.satisfies(filter)).count();
        for call in &calls {
            let holds = holds(&call.filter);
            [call.function, call.class, "all"]
                .iter()
                .for_each(|name| count(&mut tally, name, holds, rows.len()));
        }
        filters.iter().for_each(|filter| count(&mut tally, "all", holds(filter), rows.len()));
        Ok(())
    };
    // Few rows have what this one searches for, so it is tried more often.
    let nested = prop::collection::vec(call_of("inSameAttributeValue", "attributes.A.B"), 6);
    let calls = (prop::collection::vec(call(), 34), nested)
        .prop_map(|(calls, nested)| [calls, nested].concat());
    let given = (rows(), calls, prop::collection::vec(filter(), 12));
    TestRunner::new(config).run(&given, property).unwrap_or_else(|error| panic!("{error}"));
    let tally = tally.into_inner().unwrap();
    // Agreement says little where all is selected, or nothing is.
    let (holding, not_holding) = tally["all"];
    assert!(holding + not_holding >= 20_000 && holding > 2_000 && not_holding > 2_000, "{tally:?}");
    for name in FUNCTIONS.iter().map(|function| function.name).chain(CLASSES.iter().copied()) {
        let (holding, not_holding) = tally.get(name).copied().unwrap_or_default();
        assert!(
            holding > 0 && not_holding > 0,
            "{name} was true {holding} times and was not {not_holding} times"
        );
    }
}

#[test]
fn what_many_conditions_compare_is_the_same_where_it_is_taken_out_once() {
    let databases = Mutex::new(Databases::create());
    let shared = Mutex::new((0, 0));
    let config = ProptestConfig {
        cases: 24,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    };
    let property = |(rows, filters): (Vec<Row>, Vec<Filter>)| {
        let mut databases = databases.lock().unwrap_or_else(PoisonError::into_inner);
        databases.fill(&rows);
        for filter in &filters {
            let sql = filter.predicate().sql();
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            *shared = (
                shared.0 + usize::from(sql.contains("AS s1(")),
                shared.1 + usize::from(sql.contains("AS s3(")),
            );
            for difference in databases.differences(filter, &rows) {
                let first = rows.iter().find(|row| difference.contains(&row.id));
                prop_assert!(first.is_none(), "{filter}\n{sql}\n{first:?}");
            }
        }
        Ok(())
    };
    let given = (rows(), prop::collection::vec(crowd(), 6));
    TestRunner::new(config).run(&given, property).unwrap_or_else(|error| panic!("{error}"));
    let (one, several) = shared.into_inner().unwrap();
    assert!(one > 100 && several > 50, "{one} and {several}");
}

#[test]
fn every_letter_that_has_a_case_meets_its_other_cases_and_nothing_else() {
    let letters: Vec<char> = ('\u{1}'..=char::MAX)
        .filter(|c| fold(&c.to_string()) != c.to_string() || c.is_lowercase())
        .collect();
    let row = |c: &char| Row::with(format!("{:X}", u32::from(*c)), json!({"a": c.to_string()}));
    let rows: Vec<Row> = letters.iter().map(row).collect();
    let mut databases = Databases::create();
    databases.fill(&rows);
    for letters in letters.chunks(97) {
        let list: Vec<String> = letters.iter().map(|c| quoted(&c.to_string())).collect();
        databases.agree(&format!("in(attributes.a, {})", list.join(", ")), &rows);
        for function in
            ["startsWith", "contains", "fullText", "containsWordStartingWith", "lt", "gte"]
        {
            databases.agree(&format!("{function}(attributes.a, {})", list[0]), &rows);
        }
    }
}

#[test]
fn words_are_cut_alike_at_every_character() {
    let characters = ('\u{1}'..'\u{3100}').filter(|c| !c.is_alphanumeric());
    let row = |c: char| Row::with(format!("{:X}", u32::from(c)), json!({"a": format!("x{c}y")}));
    let rows: Vec<Row> = characters.map(row).collect();
    let mut databases = Databases::create();
    databases.fill(&rows);
    for filter in [
        "fullText(attributes.a, 'X z')",
        "containsWordStartingWith(attributes.a, 'x Y')",
        "regexp(attributes.a, '.\\\\s.')",
        "contains(attributes.a, 'x?y')",
    ] {
        databases.agree(filter, &rows);
    }
}

#[test]
fn every_kind_of_value_compares_with_every_text_in_the_same_way() {
    let others = numbers().into_iter().chain([
        json!(true),
        json!(false),
        json!(null),
        json!({}),
        json!([]),
        json!([[]]),
        json!({"d": null}),
    ]);
    let values = TEXTS.iter().map(|text| json!(text)).chain(others);
    let row = |(number, value): (usize, Value)| {
        Row::with(
            format!("e{number}"),
            json!({"a": value, "b": [null, value], "c": [[{"d": value}]]}),
        )
    };
    let rows: Vec<Row> = values.enumerate().map(row).collect();
    let mut databases = Databases::create();
    databases.fill(&rows);
    let functions = [
        "equals",
        "equalsCaseSensitive",
        "startsWith",
        "lt",
        "gte",
        "contains",
        "containsWordStartingWith",
    ];
    for path in ["attributes.a", "attributes.b", "attributes.c.d"] {
        let one =
            |text: &&str| functions.map(|function| format!("{function}({path}, {})", quoted(text)));
        let comparisons = TEXTS
            .iter()
            .filter(|text| !text.is_empty())
            .flat_map(one)
            .filter(|text| Filter::parse(text).is_ok());
        for text in comparisons.chain([
            format!("exists({path})"),
            format!("missing({path})"),
            format!("equals({path}, '')"),
        ]) {
            databases.agree(&text, &rows);
        }
    }
}

#[test]
fn an_expression_that_is_admitted_does_not_keep_postgres_busy() {
    let long = |text: &str| text.repeat(1_000_000 / text.len());
    let texts = [
        long("a"),
        long("ab"),
        long("aab") + "!",
        (0..250_000_u32)
            .map(|n| if n.wrapping_mul(2_654_435_761) >> 31 == 0 { 'a' } else { 'b' })
            .collect(),
    ];
    let rows: Vec<Row> = texts
        .iter()
        .enumerate()
        .map(|(n, text)| Row::with(format!("e{n}"), json!({"a": text})))
        .collect();
    let mut databases = Databases::create();
    databases.fill(&rows);
    for connection in &mut databases.connections {
        connection.batch_execute("SET statement_timeout = '60s'").unwrap();
    }
    for expression in [
        "(a+)+",
        "(a|a)*b",
        "(a*)*b",
        "(a|aa)+b",
        "(.*a){9}b",
        "(a?){30}a{100}",
        ".{255}x",
        "((a{2}){2}){2}",
        ".*a.{200}b",
        ".*a.{0,50}b.{0,50}a.{0,50}x",
        "((.*a.{9}){20})x",
        "(([ab]*[^b]){30})*x",
        "((((a{0,3}){0,3}){0,3}){0,2})x",
        "([^a]|[^b]|.)*x",
        "(.|a.|b..|...a)*x",
    ] {
        databases.agree(&format!("regexp(attributes.a, {})", quoted(expression)), &rows);
    }
}

#[test]
fn expressions_at_the_bound_do_not_keep_postgres_busy() {
    let texts = [
        "abcdefgh".repeat(12_500),
        (0..100_000_u32)
            .map(|n| if n.wrapping_mul(2_654_435_761) >> 31 == 0 { 'a' } else { 'b' })
            .collect(),
    ];
    let rows: Vec<Row> = texts
        .iter()
        .enumerate()
        .map(|(n, text)| Row::with(format!("e{n}"), json!({"a": text})))
        .collect();
    let mut databases = Databases::create();
    databases.fill(&rows);
    for connection in &mut databases.connections {
        connection.batch_execute("SET statement_timeout = '20s'").unwrap();
    }
    let regexp = |expression: &str| format!("regexp(attributes.a, {})", quoted(expression));
    let admitted = |expression: &String| Filter::parse(&regexp(expression)).is_ok();
    let repeated = |body: &str| {
        (1..=255).rev().map(|n| body.replace('N', &n.to_string())).find(admitted).unwrap()
    };
    for body in [
        ".*(.?){N}a.{30}z",
        ".*a(.{N}){4}z",
        ".*a(.{0,N}b){3}z",
        "([a-z]?[b-z]?[c-z]?[d-z]?[e-z]?){N}z",
        "((a?){20}){N}b",
        "(a?b?c?d?e?f?g?h?){N}z",
        "(a*b*c*d*e*f*g*h*){0,N}z",
        "(((((a?)?)?)?|b?)?c?){N}z",
        "(|a|bc|[^b]){N}z",
        "((){5}){N}z",
        "([a-h]*[b-h]*[c-h]*){N}z",
    ] {
        databases.agree(&regexp(&repeated(body)), &rows);
    }
    // Postgres keeps 32 ready for a connection.
    let many: Vec<String> = (0..24).map(|n| regexp(&format!("(.?){{7}}[^{n}]"))).collect();
    databases.agree(&many.join(" or "), &rows);
}

/// The entity of an example: what it does not say is as the page says.
fn example(entity: &Value) -> Row {
    let text = |name: &str, default: &str| {
        entity.get(name).and_then(Value::as_str).unwrap_or(default).to_owned()
    };
    let known =
        ["type", "state", "portfolio", "createdTime", "updatedTime", "crosswalks", "attributes"];
    let unknown: Vec<_> =
        entity.as_object().unwrap().keys().filter(|name| !known.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "an example has {unknown:?}");
    Row {
        kind: text("type", "configuration/entityTypes/HCP"),
        state: text("state", "active"),
        portfolio: entity.get("portfolio").and_then(Value::as_str).map(str::to_owned),
        created_at: text("createdTime", "2024-05-01T09:00:00Z").parse().unwrap(),
        updated_at: text("updatedTime", "2024-05-02T14:30:00.123456Z").parse().unwrap(),
        crosswalks: entity.get("crosswalks").and_then(Value::as_array).map_or(0, Vec::len),
        ..Row::with("i1", entity.get("attributes").cloned().unwrap_or(json!({})))
    }
}

#[test]
fn the_examples_of_the_guide_are_true() {
    let guide = include_str!("../../docs/filter.md");
    let mut databases = Databases::create();
    let mut reported = BTreeSet::new();
    let mut examples = 0;
    for line in guide.lines().skip_while(|line| *line != "## Examples") {
        let cells: Vec<&str> =
            line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let [filter, entity, answer] = cells.as_slice() else { continue };
        let Some(entity) = entity.strip_prefix('`').and_then(|entity| entity.strip_suffix('`'))
        else {
            continue;
        };
        let filter = Filter::parse(filter.trim_matches('`'))
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        let row = example(
            &serde_json::from_str(entity).unwrap_or_else(|error| panic!("{line}: {error}")),
        );
        assert_eq!(if row.satisfies(&filter) { "yes" } else { "no" }, *answer, "{line}");
        databases.fill(std::slice::from_ref(&row));
        assert!(databases.differences(&filter, &[row]).iter().all(BTreeSet::is_empty), "{line}");
        reported.extend(
            FUNCTIONS
                .iter()
                .filter(|function| filter.to_string().contains(&format!("{}(", function.name)))
                .map(|function| function.name),
        );
        examples += 1;
    }
    assert!(examples >= 60, "only {examples} examples were found");
    assert_eq!(
        reported.len(),
        FUNCTIONS.len(),
        "the guide has no example of some function: {reported:?}"
    );
}

#[test]
fn the_largest_filter_runs() {
    let path = format!("attributes{}", ".a".repeat(32));
    let filter = vec![format!("in({path}, true, 1, 'É')"); 255].join(" or ");
    let attributes = (0..32).fold(json!([["é"]]), |value, _| json!([{"a": value}]))[0].clone();
    let rows = [Row::with("deep", attributes)];
    let mut databases = Databases::create();
    databases.fill(&rows);
    assert!(rows[0].satisfies(&Filter::parse(&filter).unwrap()));
    databases.agree(&filter, &rows);
    for call in [
        "range({path}, 'a', 'ü')",
        "range({path}, 1, 2)",
        "range({path}, '2024-01-01', '2024-01-02')",
        "containsWordStartingWith({path}, 'b a')",
    ] {
        databases.agree(&vec![call.replace("{path}", &path); 255].join(" or "), &rows);
    }
}
