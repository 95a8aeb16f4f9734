//! The meaning of a filter in SQL. `evaluate.rs` says the same in Rust, and `tests/filter_agrees.rs` checks that the two agree.

use super::function::Test;
use super::predicate::{Builder, Predicate};
use super::sql_json::{Root, write_json_call, write_number_test, write_same_value};
use super::sql_shared::write_sharing;
use super::sql_text::{write_moments, write_text_test};
use super::syntax::{Bounds, Call, Node, Value};
use super::vocabulary::PropertyKind;

pub(super) fn predicate(node: &Node) -> Predicate {
    let mut sql = Builder::default();
    write_node(&mut sql, node, None);
    sql.finish()
}

/// Writes a condition. `within` is the object that `inSameAttributeValue` looks into.
pub(super) fn write_node(sql: &mut Builder, node: &Node, within: Option<Root>) {
    match node {
        Node::And(members) => write_chain(sql, members, " AND ", within),
        Node::Or(members) => write_chain(sql, members, " OR ", within),
        Node::Not(inner) => write_not(sql, |sql| write_node(sql, inner, within)),
        Node::Call(call) if call.function.test == Test::Missing => {
            write_not(sql, |sql| write_call(sql, call, within))
        }
        Node::Call(call) => write_call(sql, call, within),
        Node::SameValue { property, names, inner } => write_same_value(sql, property, names, inner),
    }
}

fn write_chain(sql: &mut Builder, members: &[Node], operator: &'static str, within: Option<Root>) {
    write_sharing(sql, members, operator, within, &|sql, member| write_node(sql, member, within));
}

fn write_not(sql: &mut Builder, inner: impl FnOnce(&mut Builder)) {
    sql.sql("(NOT ");
    inner(sql);
    sql.sql(")");
}

/// Writes the call; of `missing`, its negation.
fn write_call(sql: &mut Builder, call: &Call, within: Option<Root>) {
    let property = call.path.property;
    sql.sql(if property.nullable { "COALESCE((" } else { "(" });
    match property.kind {
        PropertyKind::Json => {
            write_json_call(sql, call, within.unwrap_or(Root { sql: property.sql, names: 0 }))
        }
        PropertyKind::Uri => write_uri_test(sql, call),
        PropertyKind::Text => write_text_test(sql, call, &|sql| sql.sql(property.sql)),
        PropertyKind::Number => write_number(sql, call),
        PropertyKind::Time => write_time_test(sql, call),
    }
    sql.sql(if property.nullable { "), FALSE)" } else { ")" });
}

fn write_uri_test(sql: &mut Builder, call: &Call) {
    let id = call.path.property.sql;
    if call.looks_at_whole_uris() {
        write_text_test(sql, call, &|sql| {
            sql.sql("('entities/' || ");
            sql.sql(id);
            sql.sql(")");
        });
    } else if call.function.test == Test::StartsWith
        && call.values.iter().any(Value::begins_every_uri)
    {
        sql.sql("TRUE");
    } else {
        write_text_test(sql, &call.of_ids(), &|sql| sql.sql(id));
    }
}

fn write_number(sql: &mut Builder, call: &Call) {
    let column = call.path.property.sql;
    if call.function.test.is_presence() {
        sql.sql(column);
        sql.sql(" IS NOT NULL");
    } else {
        write_number_test(sql, call, &|sql| {
            sql.sql("to_jsonb(");
            sql.sql(column);
            sql.sql(")");
        });
    }
}

/// A time that a caller wrote is a range of moments, so each comparison is with the ends of a range.
fn write_time_test(sql: &mut Builder, call: &Call) {
    let column = |sql: &mut Builder| sql.sql(call.path.property.sql);
    if call.function.test.is_presence() {
        column(sql);
        sql.sql(" IS NOT NULL");
    } else if call.function.test.is_order() {
        write_moments(
            sql,
            Bounds::of(call.function.test, &call.values).moments(Value::time),
            &column,
        );
    } else {
        let moments = call.values.iter().filter_map(Value::time);
        let (starts, ends) = moments.map(|moment| (moment.start, moment.end)).unzip();
        sql.sql("EXISTS (SELECT 1 FROM unnest(");
        sql.times(starts);
        sql.sql(", ");
        sql.times(ends);
        sql.sql(") AS w(first, behind) WHERE ");
        column(sql);
        sql.sql(" >= w.first AND ");
        column(sql);
        sql.sql(" < w.behind)");
    }
}
