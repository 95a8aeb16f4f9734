//! The meaning of a filter in SQL. `evaluate.rs` says the same in Rust, and `tests/filter_agrees.rs` holds the two together.
//!
//! Most attributes are plain texts, so each condition first looks at the value that the path leads to through objects alone, which costs
//! little; only where an array may be met does it go through `jsonb_path_query`, which costs some four times as much.

use super::evaluate::MAX_NESTED_ARRAYS;
use super::fold::translation;
use super::function::Test;
use super::predicate::{Builder, Predicate};
use super::syntax::{Call, Node, Property, UriStart, Value};

pub(super) fn predicate(node: &Node) -> Predicate {
    let mut sql = Builder::default();
    write_node(&mut sql, node);
    sql.finish()
}

fn write_node(sql: &mut Builder, node: &Node) {
    match node {
        Node::And(members) => write_chain(sql, members, " AND "),
        Node::Or(members) => write_chain(sql, members, " OR "),
        Node::Not(inner) => write_not(sql, |sql| write_node(sql, inner)),
        Node::Call(call) if call.function.test == Test::Missing => write_not(sql, |sql| write_call(sql, call)),
        Node::Call(call) => write_call(sql, call),
    }
}

fn write_chain(sql: &mut Builder, members: &[Node], operator: &'static str) {
    for (index, member) in members.iter().enumerate() {
        sql.sql(if index == 0 { "(" } else { operator });
        write_node(sql, member);
    }
    sql.sql(")");
}

fn write_not(sql: &mut Builder, inner: impl FnOnce(&mut Builder)) {
    sql.sql("(NOT ");
    inner(sql);
    sql.sql(")");
}

/// Writes the call; of `missing`, what it denies.
fn write_call(sql: &mut Builder, call: &Call) {
    sql.sql("(");
    match &call.property {
        Property::Type => write_text_test(sql, call.function.test, &call.values, &|sql| sql.sql("e.type")),
        Property::Uri => write_uri_test(sql, call),
        Property::Attribute(names) => write_attribute_test(sql, call, names),
    }
    sql.sql(")");
}

fn write_uri_test(sql: &mut Builder, call: &Call) {
    let id = |sql: &mut Builder| sql.sql("e.id");
    let test = call.function.test;
    match (test, call.values.first().map(Value::uri_start)) {
        (Test::StartsWith, Some(UriStart::EveryUri)) => sql.sql("TRUE"),
        (Test::StartsWith, Some(UriStart::Id(start))) => write_text_test(sql, test, &[start], &id),
        _ => {
            let ids: Vec<Value> = call.values.iter().map(|value| value.uri_id(test != Test::EqualsCaseSensitive)).collect();
            write_text_test(sql, test, &ids, &id);
        }
    }
}

/// Writes the test of a text that is not NULL.
fn write_text_test(sql: &mut Builder, test: Test, values: &[Value], text: &dyn Fn(&mut Builder)) {
    match (test, values) {
        (Test::Exists | Test::Missing, _) => {
            text(sql);
            sql.sql(" <> ''");
        }
        (Test::EqualsCaseSensitive, values) => {
            text(sql);
            sql.sql(" COLLATE \"C\" = ");
            values.iter().for_each(|value| sql.text(&value.text));
        }
        (Test::Equals, values) => {
            write_folded(sql, values, text);
            sql.sql(" = ");
            values.iter().for_each(|value| sql.text(&value.folded));
        }
        (Test::In, values) => {
            write_folded(sql, values, text);
            // A subquery is hashed, whatever the plan; `= ANY` would be compared one by one in a generic plan.
            sql.sql(" IN (SELECT unnest(");
            sql.texts(values.iter().map(|value| value.folded.as_str()));
            sql.sql("))");
        }
        (Test::StartsWith, values) => {
            // The fold makes one character of each, so only the beginning need be folded, however long the text.
            let length = values.iter().map(|value| value.folded.chars().count()).sum();
            write_folded(sql, values, &|sql| {
                sql.sql("left(");
                text(sql);
                sql.sql(", ");
                sql.count(length);
                sql.sql(")");
            });
            sql.sql(" = ");
            values.iter().for_each(|value| sql.text(&value.folded));
        }
    }
}

/// Writes the text with its case taken away, as far as the values can tell.
fn write_folded(sql: &mut Builder, values: &[Value], text: &dyn Fn(&mut Builder)) {
    let translation = translation(values.iter().map(|value| value.folded.as_str()));
    if translation.is_some() {
        sql.sql("translate(");
    }
    sql.sql("lower(");
    text(sql);
    sql.sql(" COLLATE \"C\")");
    if let Some((from, to)) = translation {
        sql.sql(", ");
        sql.text(&from);
        sql.sql(", ");
        sql.text(&to);
        sql.sql(")");
    }
}

/// Where a JSON value is taken from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// The value that the names lead to through objects alone.
    Plain(&'a [String]),
    /// The row `v` of what the path reaches through arrays.
    Reached,
}

impl Source<'_> {
    fn write_json(self, sql: &mut Builder) {
        match self {
            Source::Reached => sql.sql("v.value"),
            Source::Plain(names) => write_steps(sql, names, " -> "),
        }
    }

    fn write_text(self, sql: &mut Builder) {
        match self {
            Source::Reached => sql.sql("(v.value #>> '{}')"),
            Source::Plain(names) => write_steps(sql, names, " ->> "),
        }
    }
}

/// `->` with a text looks into objects only, never into arrays, unlike `#>`. The last step is `->>` where a text is wanted.
fn write_steps(sql: &mut Builder, names: &[String], last: &'static str) {
    sql.sql("(e.attributes");
    for (index, name) in names.iter().enumerate() {
        sql.sql(if index + 1 == names.len() { last } else { " -> " });
        sql.text(name);
    }
    sql.sql(")");
}

fn write_attribute_test(sql: &mut Builder, call: &Call, names: &[String]) {
    let plain = Source::Plain(names);
    sql.sql("CASE jsonb_typeof(");
    plain.write_json(sql);
    sql.sql(")");
    write_branches(sql, call, plain);
    if names.len() == 1 {
        sql.sql(" WHEN 'array' THEN ");
        write_reached_test(sql, call, names);
        sql.sql(" ELSE FALSE END");
    } else {
        // Nothing there may mean that an array lies on the way.
        sql.sql(" WHEN 'null' THEN FALSE ELSE ");
        write_reached_test(sql, call, names);
        sql.sql(" END");
    }
}

fn write_reached_test(sql: &mut Builder, call: &Call, names: &[String]) {
    sql.sql("EXISTS (SELECT 1 FROM jsonb_path_query(");
    Source::Plain(&names[..1]).write_json(sql);
    sql.sql(", ");
    sql.jsonpath(jsonpath(&names[1..]));
    sql.sql(") AS v(value) WHERE CASE jsonb_typeof(v.value)");
    write_branches(sql, call, Source::Reached);
    if matches!(call.function.test, Test::Exists | Test::Missing) {
        sql.sql(" WHEN 'array' THEN v.value <> '[]'");
    }
    sql.sql(" ELSE FALSE END)");
}

/// The path from the first name's value on. In lax mode `[*]` takes the elements of an array, and anything else as it is; and `.name` itself
/// looks through one array, hence one `[*]` less before it.
fn jsonpath(names: &[String]) -> String {
    let mut path = String::from("lax $");
    for name in names {
        path.push_str(&"[*]".repeat(MAX_NESTED_ARRAYS - 1));
        path.push('.');
        // A string of JSON is a string of jsonpath.
        path.push_str(&serde_json::Value::from(name.as_str()).to_string());
    }
    path.push_str(&"[*]".repeat(MAX_NESTED_ARRAYS));
    path
}

/// Writes a `WHEN` for each type of JSON, arrays and null apart, whose values can pass the test.
fn write_branches(sql: &mut Builder, call: &Call, source: Source<'_>) {
    let (test, values) = (call.function.test, call.values.as_slice());
    if matches!(test, Test::Exists | Test::Missing) {
        sql.sql(" WHEN 'string' THEN ");
        source.write_json(sql);
        sql.sql(" <> '\"\"' WHEN 'number' THEN TRUE WHEN 'boolean' THEN TRUE WHEN 'object' THEN ");
        source.write_json(sql);
        sql.sql(" <> '{}'");
        return;
    }
    sql.sql(" WHEN 'string' THEN ");
    write_text_test(sql, test, values, &|sql| source.write_text(sql));
    write_number_branch(sql, test, values, source);
    write_boolean_branch(sql, test, values, source);
    if matches!(source, Source::Plain([_, _, ..])) {
        sql.sql(" WHEN 'object' THEN FALSE");
    }
}

fn write_number_branch(sql: &mut Builder, test: Test, values: &[Value], source: Source<'_>) {
    let numbers: Vec<&str> = values.iter().filter_map(|value| value.number.as_deref()).collect();
    if test == Test::StartsWith {
        let begins = values.iter().any(|value| value.text.starts_with(|c: char| c == '-' || c.is_ascii_digit()));
        if begins {
            sql.sql(" WHEN 'number' THEN starts_with(trim_scale(CAST(");
            source.write_json(sql);
            sql.sql(" AS numeric))::text, ");
            values.iter().for_each(|value| sql.text(&value.text));
            sql.sql(")");
        }
    } else if let ([number], true) = (numbers.as_slice(), test != Test::In) {
        sql.sql(" WHEN 'number' THEN ");
        source.write_json(sql);
        sql.sql(" = ");
        sql.number(number);
    } else if !numbers.is_empty() {
        sql.sql(" WHEN 'number' THEN ");
        source.write_json(sql);
        sql.sql(" IN (SELECT unnest(");
        sql.numbers(numbers.into_iter());
        sql.sql("))");
    }
}

/// There are two booleans, so what passes of them is known here.
fn write_boolean_branch(sql: &mut Builder, test: Test, values: &[Value], source: Source<'_>) {
    let passes = |text: &str| {
        values.iter().any(|value| match test {
            Test::EqualsCaseSensitive => value.text == text,
            Test::StartsWith => text.starts_with(&value.folded),
            _ => value.folded == text,
        })
    };
    match (passes("true"), passes("false")) {
        (false, false) => {}
        (true, true) => sql.sql(" WHEN 'boolean' THEN TRUE"),
        (truth, _) => {
            sql.sql(" WHEN 'boolean' THEN ");
            source.write_json(sql);
            sql.sql(if truth { " = 'true'" } else { " = 'false'" });
        }
    }
}
