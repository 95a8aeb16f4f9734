//! A value that many conditions read is extracted from a row once.
//!
//! A condition on an attribute unpacks the whole object and copies the value out of it, and the copy stays until the row is done. A filter
//! with a hundred conditions on a text of a megabyte took half a gigabyte of the database's memory so, and most of its time.

use std::collections::BTreeMap;

use super::predicate::{Builder, Shared};
use super::sql_json::{Root, write_plain, write_reached};
use super::syntax::{Call, Node};
use super::vocabulary::PropertyKind;

/// From so many conditions on. For fewer, a subquery for each row costs more than it saves.
const MANY: usize = 4;

/// The form of a value that conditions read.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    conditions: usize,
    text: bool,
    lowered: bool,
}

type Uses<'a> = BTreeMap<(&'static str, &'a [String]), Use>;

/// Writes conditions with an operator between them: first those without shared values, since most rows may be decided by them, then those
/// that share values.
pub(super) fn write_sharing(
    sql: &mut Builder,
    members: &[Node],
    operator: &'static str,
    within: Option<Root>,
    write: &dyn Fn(&mut Builder, &Node),
) {
    let uses: Vec<Uses<'_>> = members.iter().map(|member| uses_of(member, within)).collect();
    let often = used_often(sql, &uses);
    let (sharing, others): (Vec<_>, Vec<_>) = members
        .iter()
        .zip(&uses)
        .partition(|(_, uses)| uses.keys().any(|key| often.contains_key(key)));
    sql.sql("(");
    for (index, (member, _)) in others.iter().enumerate() {
        sql.sql(if index == 0 { "" } else { operator });
        write(sql, member);
    }
    if sharing.is_empty() {
        return sql.sql(")");
    }
    sql.sql(if others.is_empty() { "" } else { operator });
    sql.sql("(SELECT (");
    let before = sql.shared.len();
    for (root, names) in often.keys() {
        sql.aliases += 1;
        let shared = Shared { root, names: names.to_vec(), number: sql.aliases };
        sql.shared.push(shared);
    }
    for (index, (member, _)) in sharing.iter().enumerate() {
        sql.sql(if index == 0 { "" } else { operator });
        write(sql, member);
    }
    sql.sql(") FROM ");
    let given = sql.shared.split_off(before);
    for (index, (shared, wanted)) in given.iter().zip(often.values()).enumerate() {
        sql.sql(if index == 0 { "" } else { ", " });
        write_value(sql, shared, *wanted, within);
    }
    sql.sql("))");
}

/// Values that several members read, with many conditions in all. Values of one member alone are shared within it.
fn used_often<'a>(sql: &Builder, uses: &[Uses<'a>]) -> Uses<'a> {
    let mut all = Uses::new();
    let mut members: BTreeMap<_, usize> = BTreeMap::new();
    for (key, wanted) in uses.iter().flatten() {
        let sum = all.entry(*key).or_default();
        sum.conditions += wanted.conditions;
        sum.text |= wanted.text;
        sum.lowered |= wanted.lowered;
        *members.entry(*key).or_default() += 1;
    }
    let is_there = |(root, names): &(&'static str, &[String])| {
        sql.shared.iter().any(|shared| shared.is(root, names))
    };
    all.retain(|key, wanted| wanted.conditions >= MANY && members[key] > 1 && !is_there(key));
    all
}

fn uses_of(node: &Node, within: Option<Root>) -> Uses<'_> {
    let mut uses = Uses::new();
    count(node, within, &mut uses);
    uses
}

fn count<'a>(node: &'a Node, within: Option<Root>, uses: &mut Uses<'a>) {
    match node {
        Node::And(members) | Node::Or(members) => {
            members.iter().for_each(|member| count(member, within, uses))
        }
        Node::Not(inner) => count(inner, within, uses),
        Node::Call(call) if call.path.property.kind == PropertyKind::Json && !call.path.counted => {
            count_call(call, within, uses)
        }
        Node::Call(_) => {}
        Node::SameValue { property, names, .. } => {
            uses.entry((property.sql, names)).or_default().conditions += 1
        }
    }
}

fn count_call<'a>(call: &'a Call, within: Option<Root>, uses: &mut Uses<'a>) {
    let root = within.unwrap_or(Root { sql: call.path.property.sql, names: 0 });
    let wanted = uses.entry((root.sql, &call.path.names[root.names..])).or_default();
    wanted.conditions += 1;
    if call.function.test.is_of_lowered() {
        wanted.lowered = true;
    } else if !call.function.test.is_presence() {
        wanted.text = true;
    }
}

/// Writes the row of a shared value.
fn write_value(sql: &mut Builder, shared: &Shared, wanted: Use, within: Option<Root>) {
    // Names are counted from where the root's end.
    let root = Root { sql: shared.root, names: within.map_or(0, |root| root.names) };
    sql.sql("(SELECT b.j, ");
    write_text(sql, wanted.text, "b.j #>> '{}'");
    write_text(sql, wanted.lowered, "lower((b.j #>> '{}') COLLATE \"C\")");
    sql.sql("CASE WHEN jsonb_typeof(b.j) IN ('string', 'number', 'boolean', 'null') THEN NULL ELSE ARRAY(SELECT a FROM ");
    write_reached(sql, root, &shared.names);
    sql.sql(" AS a) END FROM (SELECT ");
    if shared.names.is_empty() {
        sql.sql("NULL::jsonb");
    } else {
        write_plain(sql, root, &shared.names);
    }
    sql.sql(" OFFSET 0) AS b(j) OFFSET 0) AS ");
    sql.alias(shared.number);
    sql.sql("(j, x, l, r)");
}

fn write_text(sql: &mut Builder, wanted: bool, text: &'static str) {
    if wanted {
        sql.sql("CASE jsonb_typeof(b.j) WHEN 'string' THEN ");
        sql.sql(text);
        sql.sql(" END, ");
    } else {
        sql.sql("NULL::text, ");
    }
}
