//! The tests of JSON in SQL.
//!
//! Most attributes are plain texts, so each condition first reads the value that the path leads to through objects alone, which costs
//! little; only where arrays are possible does it use `jsonb_path_query`, which costs some four times as much.

use super::evaluate::{MAX_NESTED_ARRAYS, text_passes};
use super::function::Test;
use super::predicate::{Builder, Shared};
use super::sql::write_node;
use super::sql_text::{Write, write_numbers, write_once, write_text_test};
use super::syntax::{Bounds, Call, Node, Scale};
use super::vocabulary::Property;

/// The JSON object that names lead from.
#[derive(Clone, Copy)]
pub(super) struct Root {
    /// The expression of the object.
    pub sql: &'static str,
    /// How many names of a path have led to it.
    pub names: usize,
}

/// Where a JSON value is taken from.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// The value that the names lead to from the root through objects alone.
    Plain(Root, &'a [String]),
    /// The same, available under this number. Texts that are in lower case already are distinguished.
    Shared(&'a Shared),
    /// The row `v` of what the path reaches through arrays.
    Reached,
}

impl Source<'_> {
    fn write_json(self, sql: &mut Builder) {
        match self {
            Source::Reached => sql.sql("v.value"),
            Source::Plain(root, names) => write_steps(sql, root, names, " -> "),
            Source::Shared(shared) => write_column(sql, shared, ".j"),
        }
    }

    fn write_text(self, sql: &mut Builder) {
        match self {
            Source::Reached => sql.sql("(v.value #>> '{}')"),
            Source::Plain(root, names) => write_steps(sql, root, names, " ->> "),
            Source::Shared(shared) => {
                write_column(sql, shared, if sql.lowered { ".l" } else { ".x" })
            }
        }
    }

    /// Writes the plain decimal of a number.
    fn write_decimal(self, sql: &mut Builder) {
        sql.sql("(trim_scale(CAST(");
        self.write_json(sql);
        sql.sql(" AS numeric))::text)");
    }
}

/// `->` with a text looks into objects only, never into arrays, unlike `#>`. The last step is `->>` where a text is wanted.
fn write_steps(sql: &mut Builder, root: Root, names: &[String], last: &'static str) {
    sql.sql("(");
    sql.sql(root.sql);
    for (index, name) in names.iter().enumerate() {
        sql.sql(if index + 1 == names.len() { last } else { " -> " });
        sql.text(name);
    }
    sql.sql(")");
}

fn write_column(sql: &mut Builder, shared: &Shared, column: &'static str) {
    sql.alias(shared.number);
    sql.sql(column);
}

/// Writes the value that names lead to through objects alone.
pub(super) fn write_plain(sql: &mut Builder, root: Root, names: &[String]) {
    Source::Plain(root, names).write_json(sql);
}

/// Writes whether an object that these names lead to satisfies the condition.
pub(super) fn write_same_value(
    sql: &mut Builder,
    property: &Property,
    names: &[String],
    inner: &Node,
) {
    sql.sql("EXISTS (SELECT 1 FROM ");
    write_reached(sql, Root { sql: property.sql, names: 0 }, names);
    sql.sql(" AS o(value) WHERE jsonb_typeof(o.value) = 'object' AND ");
    // Values of the outer object are of no use inside, where all paths start at the inner object.
    let outside = std::mem::take(&mut sql.shared);
    write_node(sql, inner, Some(Root { sql: "o.value", names: names.len() }));
    sql.shared = outside;
    sql.sql(")");
}

/// Writes the set of the values that names lead to, through arrays too; without names, of all values.
pub(super) fn write_reached(sql: &mut Builder, root: Root, names: &[String]) {
    if let Some(shared) = shared(sql, root, names) {
        sql.sql("unnest(");
        write_column(sql, &shared, ".r");
        return sql.sql(")");
    }
    sql.sql("jsonb_path_query(");
    if names.is_empty() {
        sql.sql(root.sql);
        sql.sql(", ");
        sql.jsonpath(EVERYTHING.to_owned());
        return sql.sql(")");
    }
    Source::Plain(root, &names[..1]).write_json(sql);
    sql.sql(", ");
    sql.jsonpath(jsonpath(&names[1..]));
    sql.sql(")");
}

fn shared(sql: &Builder, root: Root, names: &[String]) -> Option<Shared> {
    sql.shared.iter().find(|shared| shared.is(root.sql, names)).cloned()
}

/// The path from the first name's value on. In lax mode `[*]` takes the elements of an array, and anything else as it is; and `.name` itself
/// looks through one array, hence one `[*]` less before it.
fn jsonpath(names: &[String]) -> String {
    let mut path = member_path(names);
    path.push_str(&"[*]".repeat(MAX_NESTED_ARRAYS));
    path
}

/// The same without the elements of arrays that are the last name's value.
fn member_path(names: &[String]) -> String {
    let mut path = String::from("lax $");
    for name in names {
        path.push_str(&"[*]".repeat(MAX_NESTED_ARRAYS - 1));
        path.push('.');
        // A string of JSON is a string of jsonpath.
        path.push_str(&serde_json::Value::from(name.as_str()).to_string());
    }
    path
}

/// Writes whether there is anything where these names lead to, be it empty.
pub(super) fn write_member(sql: &mut Builder, root: Root, names: &[String]) {
    let plain = Source::Plain(root, names);
    sql.sql("(");
    plain.write_json(sql);
    sql.sql(" IS NOT NULL");
    if names.len() > 1 {
        sql.sql(" OR COALESCE(jsonb_path_exists(");
        Source::Plain(root, &names[..1]).write_json(sql);
        sql.sql(", ");
        sql.jsonpath(member_path(&names[1..]));
        sql.sql("), FALSE)");
    }
    sql.sql(")");
}

/// Everything below the root. In strict mode each value is reached once, and arrays are reached as such besides their elements.
const EVERYTHING: &str = "strict $.**{1 to last}";

pub(super) fn write_json_call(sql: &mut Builder, call: &Call, root: Root) {
    let names = &call.path.names[root.names..];
    if call.path.counted {
        write_number_test(sql, call, &|sql| write_count(sql, root, names));
    } else if names.is_empty() {
        sql.sql("EXISTS (SELECT 1 FROM ");
        write_reached(sql, root, names);
        sql.sql(" AS v(value) WHERE CASE jsonb_typeof(v.value)");
        write_branches(sql, call, Source::Reached);
        sql.sql(" ELSE FALSE END)");
    } else {
        write_attribute_test(sql, call, root, names);
    }
}

/// Writes, as a JSON number, how many values are there that are not empty.
fn write_count(sql: &mut Builder, root: Root, names: &[String]) {
    sql.sql("to_jsonb((SELECT count(*) FROM ");
    write_reached(sql, root, names);
    sql.sql(" AS v(value) WHERE CASE jsonb_typeof(v.value)");
    write_presence_branches(sql, Source::Reached);
    sql.sql(" WHEN 'array' THEN v.value <> '[]' ELSE FALSE END))");
}

fn write_attribute_test(sql: &mut Builder, call: &Call, root: Root, names: &[String]) {
    let shared = shared(sql, root, names);
    let plain = shared.as_ref().map_or(Source::Plain(root, names), Source::Shared);
    sql.sql("CASE jsonb_typeof(");
    plain.write_json(sql);
    sql.sql(")");
    write_branches(sql, call, plain);
    if names.len() == 1 {
        sql.sql(" WHEN 'array' THEN ");
        write_reached_test(sql, call, root, names);
        sql.sql(" ELSE FALSE END");
    } else {
        // A NULL there may mean that an array is on the way.
        sql.sql(" WHEN 'null' THEN FALSE ELSE ");
        write_reached_test(sql, call, root, names);
        sql.sql(" END");
    }
}

fn write_reached_test(sql: &mut Builder, call: &Call, root: Root, names: &[String]) {
    sql.sql("EXISTS (SELECT 1 FROM ");
    write_reached(sql, root, names);
    sql.sql(" AS v(value) WHERE CASE jsonb_typeof(v.value)");
    write_branches(sql, call, Source::Reached);
    if call.function.test.is_presence() {
        sql.sql(" WHEN 'array' THEN v.value <> '[]'");
    }
    sql.sql(" ELSE FALSE END)");
}

fn write_presence_branches(sql: &mut Builder, source: Source<'_>) {
    sql.sql(" WHEN 'string' THEN ");
    source.write_json(sql);
    sql.sql(" <> '\"\"' WHEN 'number' THEN TRUE WHEN 'boolean' THEN TRUE WHEN 'object' THEN ");
    source.write_json(sql);
    sql.sql(" <> '{}'");
}

/// Writes a `WHEN` for each type of JSON, arrays and null apart, whose values can pass the test.
fn write_branches(sql: &mut Builder, call: &Call, source: Source<'_>) {
    if call.function.test.is_presence() {
        return write_presence_branches(sql, source);
    }
    sql.sql(" WHEN 'string' THEN ");
    sql.lowered = matches!(source, Source::Shared(_)) && call.function.test.is_of_lowered();
    write_text_test(sql, call, &|sql| source.write_text(sql));
    sql.lowered = false;
    write_number_branch(sql, call, source);
    write_boolean_branch(sql, call, source);
    let is_below_another = match source {
        Source::Plain(_, names) => names.len() > 1,
        Source::Shared(shared) => shared.is_below_another(),
        Source::Reached => false,
    };
    if is_below_another {
        sql.sql(" WHEN 'object' THEN FALSE");
    }
}

fn write_number_branch(sql: &mut Builder, call: &Call, source: Source<'_>) {
    let test = call.function.test;
    let by_number = test.is_equality()
        || (test.is_order() && Bounds::of(test, &call.values).scale() == Scale::Number);
    let possible = match test {
        _ if test.is_equality() => call.values.iter().any(|value| value.number.is_some()),
        _ if test.is_order() => Bounds::of(test, &call.values).scale() != Scale::Moment,
        Test::StartsWith => call
            .values
            .iter()
            .any(|value| value.text.starts_with(|c: char| c == '-' || c.is_ascii_digit())),
        _ => true,
    };
    if !possible {
        return;
    }
    sql.sql(" WHEN 'number' THEN ");
    if by_number {
        write_number_test(sql, call, &|sql| source.write_json(sql));
    } else {
        write_text_test(sql, call, &|sql| source.write_decimal(sql));
    }
}

/// Writes the comparison of a JSON number with the numbers among the values.
pub(super) fn write_number_test(sql: &mut Builder, call: &Call, number: Write<'_>) {
    if call.function.test.is_order() {
        return write_once(sql, number, |sql, number| {
            write_numbers(sql, Bounds::of(call.function.test, &call.values), number)
        });
    }
    let numbers: Vec<&str> =
        call.values.iter().filter_map(|value| value.number.as_deref()).collect();
    number(sql);
    if let [one] = numbers.as_slice() {
        sql.sql(" = ");
        sql.number(one);
    } else {
        sql.sql(" IN (SELECT unnest(");
        sql.numbers(numbers.into_iter());
        sql.sql("))");
    }
}

/// There are two booleans, so what passes of them is known here.
fn write_boolean_branch(sql: &mut Builder, call: &Call, source: Source<'_>) {
    match (text_passes(call, "true"), text_passes(call, "false")) {
        (false, false) => {}
        (true, true) => sql.sql(" WHEN 'boolean' THEN TRUE"),
        (truth, _) => {
            sql.sql(" WHEN 'boolean' THEN ");
            source.write_json(sql);
            sql.sql(if truth { " = 'true'" } else { " = 'false'" });
        }
    }
}
