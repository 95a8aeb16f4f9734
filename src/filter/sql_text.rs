//! The tests of texts in SQL.

use chrono::{DateTime, Utc};

use super::fold::{EVERY_TRANSLATION, translation};
use super::function::Test;
use super::moment::DATE;
use super::number;
use super::predicate::Builder;
use super::syntax::{Bounds, Call, Scale, Value};
use super::wildcard::Wildcards;
use super::words::{SEPARATORS, words};

/// Writes something in its place; it may be asked for more than once.
pub(super) type Write<'a> = &'a dyn Fn(&mut Builder);

/// Writes a test that looks more than once at something, which is itself written once: with each name of a path a bind, and a path of many
/// names, a filter would soon have more of them than a statement may.
pub(super) fn write_once(
    sql: &mut Builder,
    subject: Write<'_>,
    test: impl FnOnce(&mut Builder, Write<'_>),
) {
    sql.sql("(SELECT ");
    test(sql, &|sql| sql.sql("t.x"));
    sql.sql(" FROM (SELECT ");
    subject(sql);
    // Fenced, so that the subject is also computed once, and planned once.
    sql.sql(" OFFSET 0) AS t(x))");
}

/// Writes the test of a text. It is NULL if the text is.
pub(super) fn write_text_test(sql: &mut Builder, call: &Call, text: Write<'_>) {
    let values = call.values.as_slice();
    match call.function.test {
        Test::Exists | Test::Missing | Test::SameValue => {
            text(sql);
            sql.sql(" <> ''");
        }
        Test::EqualsCaseSensitive => {
            text(sql);
            sql.sql(" COLLATE \"C\"");
            write_one_of(sql, values.iter().map(|value| value.text.as_str()));
        }
        Test::Equals => {
            write_folded(sql, values, text);
            write_one_of(sql, values.iter().map(|value| value.folded.as_str()));
        }
        Test::StartsWith => {
            // The fold makes one character of each, so only the beginning need be folded, however long the text.
            let length = values.iter().map(|value| value.folded.chars().count()).sum();
            write_folded(sql, values, &|sql| write_beginning(sql, length, text));
            sql.sql(" = ");
            values.iter().for_each(|value| sql.text(&value.folded));
        }
        Test::ContainsWords => write_once(sql, text, |sql, text| {
            values.iter().for_each(|value| write_words(sql, value, text))
        }),
        Test::AnyWord => values.iter().for_each(|value| {
            write_word_array(sql, value, text);
            sql.sql(" && ");
            sql.texts(words(&value.folded));
        }),
        Test::Contains => {
            let wildcards: Vec<Wildcards> =
                values.iter().filter_map(|value| Wildcards::parse(&value.folded)).collect();
            let characters: String = wildcards.iter().map(Wildcards::characters).collect();
            write_translated(sql, translation([characters.as_str()]), text);
            sql.sql(" LIKE ");
            wildcards.iter().for_each(|wildcards| sql.text(&wildcards.like()));
        }
        Test::Matches => {
            text(sql);
            sql.sql(" COLLATE \"C\" ~ ");
            call.pattern.iter().for_each(|pattern| sql.text(&pattern.sql));
        }
        Test::Range | Test::Less | Test::LessOrEqual | Test::Greater | Test::GreaterOrEqual => {
            write_once(sql, text, |sql, text| write_order(sql, call, text))
        }
    }
}

fn write_one_of<'a>(sql: &mut Builder, mut texts: impl ExactSizeIterator<Item = &'a str>) {
    if texts.len() == 1 {
        sql.sql(" = ");
        texts.by_ref().for_each(|text| sql.text(text));
    } else {
        // A subquery is hashed, whatever the plan; `= ANY` would be compared one by one in a generic plan.
        sql.sql(" IN (SELECT unnest(");
        sql.texts(texts);
        sql.sql("))");
    }
}

fn write_beginning(sql: &mut Builder, length: usize, text: Write<'_>) {
    sql.sql("left(");
    text(sql);
    sql.sql(", ");
    sql.count(length);
    sql.sql(")");
}

/// Writes the text in folded case, as far as the searched values require.
fn write_folded(sql: &mut Builder, values: &[Value], text: Write<'_>) {
    write_translated(sql, translation(values.iter().map(|value| value.folded.as_str())), text);
}

/// Writes the text with ASCII letters in lower case and then these characters replaced.
fn write_translated(sql: &mut Builder, translation: Option<(String, String)>, text: Write<'_>) {
    if translation.is_some() {
        sql.sql("translate(");
    }
    if sql.lowered {
        text(sql);
    } else {
        sql.sql("lower(");
        text(sql);
        sql.sql(" COLLATE \"C\")");
    }
    if let Some((from, to)) = translation {
        sql.sql(", ");
        sql.text(&from);
        sql.sql(", ");
        sql.text(&to);
        sql.sql(")");
    }
}

/// Writes the text with a single space for each run of separators, and one at either end.
fn write_spaced(sql: &mut Builder, value: &Value, text: Write<'_>) {
    let (mut from, mut to) = translation([value.folded.as_str()]).unwrap_or_default();
    from.push_str(SEPARATORS);
    to.extend(SEPARATORS.chars().map(|_| ' '));
    sql.sql("(' ' || ");
    write_translated(sql, Some((from, to)), text);
    sql.sql(" || ' ')");
}

fn write_word_array(sql: &mut Builder, value: &Value, text: Write<'_>) {
    sql.sql("string_to_array(");
    write_spaced(sql, value, text);
    sql.sql(", ' ')");
}

fn write_words(sql: &mut Builder, value: &Value, text: Write<'_>) {
    let wanted: Vec<&str> = words(&value.folded).collect();
    let Some((last, before)) = wanted.split_last() else { return sql.sql("FALSE") };
    if !before.is_empty() {
        write_word_array(sql, value, text);
        sql.sql(" @> ");
        sql.texts(before.iter().copied());
        sql.sql(" AND ");
    }
    sql.sql("strpos(");
    write_spaced(sql, value, text);
    sql.sql(", ");
    sql.text(&format!(" {last}"));
    sql.sql(") > 0");
}

fn write_order(sql: &mut Builder, call: &Call, text: Write<'_>) {
    let bounds = Bounds::of(call.function.test, &call.values);
    match bounds.scale() {
        Scale::Number => {
            sql.sql("CASE WHEN length(");
            text(sql);
            sql.sql(") <= ");
            sql.count(number::MAX_TEXT);
            sql.sql(" AND ");
            text(sql);
            sql.sql(" COLLATE \"C\" ~ '");
            sql.sql(number::TEXT);
            sql.sql("' THEN ");
            write_numbers(sql, bounds, &|sql| {
                sql.sql("to_jsonb(CAST(");
                text(sql);
                sql.sql(" AS numeric))");
            });
            sql.sql(" ELSE FALSE END");
        }
        Scale::Moment => {
            sql.sql("CASE WHEN ");
            text(sql);
            sql.sql(" COLLATE \"C\" ~ '");
            sql.sql(DATE);
            sql.sql("' THEN ");
            write_moments(sql, bounds.moments(|value| value.moment), &|sql| {
                write_instant(sql, text)
            });
            sql.sql(" ELSE FALSE END");
        }
        Scale::Text => write_texts_between(sql, bounds, text),
    }
}

/// Writes the moment of a text that is a date. Postgres would round parts of a microsecond.
fn write_instant(sql: &mut Builder, text: Write<'_>) {
    sql.sql("CAST(regexp_replace(CASE length(");
    text(sql);
    sql.sql(") WHEN 10 THEN ");
    text(sql);
    sql.sql(" || 'T00:00:00Z' ELSE ");
    text(sql);
    sql.sql(" END, '([.][0-9]{6})[0-9]+', '\\1') AS timestamptz)");
}

/// Writes whether a moment is in a range, its first end included.
pub(super) fn write_moments(
    sql: &mut Builder,
    (low, high): (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
    moment: Write<'_>,
) {
    let ends = [low.map(|low| (" >= ", low)), high.map(|high| (" < ", high))];
    for (index, (operator, end)) in ends.into_iter().flatten().enumerate() {
        sql.sql(if index == 0 { "" } else { " AND " });
        moment(sql);
        sql.sql(operator);
        sql.time(end);
    }
}

/// Writes whether a JSON number is in a range.
pub(super) fn write_numbers(sql: &mut Builder, bounds: Bounds<'_>, number: Write<'_>) {
    for (index, (operator, value)) in ends(bounds).enumerate() {
        sql.sql(if index == 0 { "" } else { " AND " });
        number(sql);
        sql.sql(operator);
        sql.number(value.number.as_deref().unwrap_or("0"));
    }
}

/// The ends of a range, each with the operator that values in the range satisfy.
fn ends(bounds: Bounds<'_>) -> impl Iterator<Item = (&'static str, &Value)> {
    let low = bounds.low.map(|(value, included)| (if included { " >= " } else { " > " }, value));
    let high = bounds.high.map(|(value, included)| (if included { " <= " } else { " < " }, value));
    low.into_iter().chain(high)
}

/// Writes the comparison of texts in the order of their characters. One character more than the value decides it, however long the text;
/// and as any letter counts for the order, all must be folded, except in a text of ASCII.
fn write_texts_between(sql: &mut Builder, bounds: Bounds<'_>, text: Write<'_>) {
    let length = ends(bounds).map(|(_, value)| value.folded.chars().count() + 1).max().unwrap_or(0);
    let beginning: Write<'_> = &|sql| write_beginning(sql, length, text);
    let write_ends = |sql: &mut Builder, folded: Write<'_>| {
        for (index, (operator, value)) in ends(bounds).enumerate() {
            sql.sql(if index == 0 { "" } else { " AND " });
            folded(sql);
            sql.sql(operator);
            sql.text(&value.folded);
        }
    };
    sql.sql("CASE WHEN octet_length(");
    beginning(sql);
    sql.sql(") = length(");
    beginning(sql);
    sql.sql(") THEN ");
    write_ends(sql, &|sql| write_translated(sql, None, beginning));
    sql.sql(" ELSE ");
    write_ends(sql, &|sql| write_translated(sql, Some(EVERY_TRANSLATION.clone()), beginning));
    sql.sql(" END");
}
