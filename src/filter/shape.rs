//! The kinds of values of an attribute, and the kind of a value of a filter. One that is of another kind than all that the attribute has is
//! compared otherwise than it was meant.

use super::candidates::AttributePath;
use super::moment::DATE;
use super::number;
use super::predicate::{Builder, Predicate};
use super::sql_json::{Root, write_member, write_plain, write_reached};
use super::syntax::Value;
use super::vocabulary::ENTITY;

/// The kind of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A number, or a text that reads as one.
    Number,
    /// A date, with or without a time.
    Date,
    /// A year and a month, `YYYY-MM`.
    Month,
    /// A version: digits with two points between them or more, or behind a `v`.
    Version,
    /// `true` or `false`.
    Boolean,
    /// Any other text.
    Text,
}

impl Shape {
    /// All of them, in the order of their bits.
    pub const ALL: [Shape; 6] =
        [Shape::Number, Shape::Date, Shape::Month, Shape::Version, Shape::Boolean, Shape::Text];

    pub(super) fn of(value: &Value) -> Shape {
        if value.number.is_some() {
            Shape::Number
        } else if value.moment.is_some() {
            Shape::Date
        } else if is_month(&value.text) {
            Shape::Month
        } else if is_version(&value.text) {
            Shape::Version
        } else if matches!(value.folded.as_str(), "true" | "false") {
            Shape::Boolean
        } else {
            Shape::Text
        }
    }

    /// The plural.
    pub fn plural(self) -> &'static str {
        match self {
            Shape::Number => "numbers",
            Shape::Date => "dates",
            Shape::Boolean => "`true` and `false`",
            Shape::Month | Shape::Version | Shape::Text => "texts",
        }
    }
}

/// Whether it is a year and a month.
pub(super) fn is_month(text: &str) -> bool {
    text.split_once('-').is_some_and(|(year, month)| {
        let all_digits = |part: &str, count: usize| {
            part.len() == count && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        all_digits(year, 4)
            && all_digits(month, 2)
            && month.parse().is_ok_and(|month: u8| (1..=12).contains(&month))
    })
}

/// Whether it is a version, with what may stand behind its numbers. [`VERSION`] says the same.
pub(super) fn is_version(text: &str) -> bool {
    let unmarked = text.strip_prefix(['v', 'V']);
    let rest = unmarked.unwrap_or(text);
    let mut parts = 0;
    let mut end = 0;
    loop {
        let digits = rest[end..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            break;
        }
        parts += 1;
        end += digits;
        match rest[end..].strip_prefix('.') {
            Some(more) if more.starts_with(|c: char| c.is_ascii_digit()) => end += 1,
            _ => break,
        }
    }
    let behind = rest[end..].strip_prefix(['-', '+', '.']).unwrap_or(&rest[end..]);
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-');
    parts >= if unmarked.is_some() { 1 } else { 3 }
        && (end == rest.len() || behind.starts_with(|c: char| c.is_ascii_alphanumeric()))
        && behind.chars().all(is_plain)
}

/// The texts that are a year and a month, as an expression of Postgres.
const MONTH: &str = "^[0-9]{4}-(?:0[1-9]|1[0-2])$";
/// The texts that are versions.
const VERSION: &str =
    "^(?:[vV][0-9]+(?:[.][0-9]+)*|[0-9]+(?:[.][0-9]+){2,})(?:[-+.]?[0-9A-Za-z][0-9A-Za-z.+-]*)?$";

/// How many entities have values of each kind at a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShapeCounts {
    /// For each of [`Shape::ALL`], how many have such a value.
    pub shapes: [i64; 6],
    /// How many have a value of any kind.
    pub valued: i64,
    /// How many have anything there, be it empty.
    pub present: i64,
}

/// From so many entities on, a kind that one in so many of them has or fewer does not count: a slip of the data.
const FEW_OF: i64 = 100;

/// So many values suffice to decide what most are like.
const MANY: i64 = 20;

impl ShapeCounts {
    /// How many numbers it consists of.
    pub const COUNTS: usize = Shape::ALL.len() + 2;

    /// Adds what some entities have; see [`AttributePath::shapes`].
    pub fn add(&mut self, counts: &[i64]) {
        let all = self.shapes.iter_mut().chain([&mut self.valued, &mut self.present]);
        all.zip(counts).for_each(|(sum, count)| *sum += count);
    }

    /// The bit of a kind.
    pub fn mask(shape: Shape) -> i32 {
        Shape::ALL
            .iter()
            .zip(MASKS)
            .find_map(|(one, mask)| (*one == shape).then_some(mask))
            .unwrap_or_default()
    }

    /// How many have a value of this kind.
    pub fn count(&self, shape: Shape) -> i64 {
        Shape::ALL
            .iter()
            .zip(self.shapes)
            .find_map(|(one, count)| (*one == shape).then_some(count))
            .unwrap_or_default()
    }

    /// Whether enough of them have a value of this kind.
    pub fn has(&self, shape: Shape) -> bool {
        let count = self.count(shape);
        count > 0 && (self.valued < FEW_OF || count * FEW_OF > self.valued)
    }

    /// Whether fewer than half of those with a value have one of this kind, where they are not so few that it says nothing.
    pub fn is_rare(&self, shape: Shape) -> bool {
        self.valued >= MANY && self.count(shape) * 2 < self.valued
    }

    /// The kind that most have, if any has a value.
    pub fn most(&self) -> Option<Shape> {
        Shape::ALL
            .into_iter()
            .filter(|shape| self.count(*shape) > 0)
            .max_by_key(|shape| self.count(*shape))
    }
}

/// The bits of [`AttributePath::shapes`] for each of the numbers of [`ShapeCounts`].
pub const MASKS: [i32; ShapeCounts::COUNTS] = [1, 2, 4, 8, 16, 32, 63, 127];

impl AttributePath {
    /// The kinds of the values that an entity has there, a bit for each of [`Shape::ALL`] and 64 for what is there and no value, as a whole number over
    /// `e`; 0 where there is nothing.
    pub fn shapes(&self) -> Predicate {
        let mut sql = Builder::default();
        let root = Root {
            sql: ENTITY.named("attributes").map_or("'{}'::jsonb", |property| property.sql),
            names: 0,
        };
        sql.sql("(SELECT CASE jsonb_typeof(x.j) WHEN 'string' THEN ");
        write_text_shape(&mut sql, "x.j");
        sql.sql(" WHEN 'number' THEN 1 WHEN 'boolean' THEN 16 ELSE COALESCE((SELECT bit_or(CASE jsonb_typeof(v.value) WHEN 'string' THEN ");
        write_text_shape(&mut sql, "v.value");
        sql.sql(" WHEN 'number' THEN 1 WHEN 'boolean' THEN 16 ELSE 64 END) FROM ");
        write_reached(&mut sql, root, &self.names);
        sql.sql(" AS v(value)), CASE WHEN ");
        write_member(&mut sql, root, &self.names);
        sql.sql(" THEN 64 ELSE 0 END) END FROM (SELECT ");
        write_plain(&mut sql, root, &self.names);
        sql.sql(" OFFSET 0) AS x(j))");
        sql.finish()
    }
}

fn write_text_shape(sql: &mut Builder, value: &'static str) {
    sql.sql("(SELECT CASE WHEN y.t = '' THEN 64 WHEN y.t COLLATE \"C\" !~ '^[-0-9vVtTfF]' THEN 32 WHEN length(y.t) <= ");
    sql.count(number::MAX_TEXT);
    for (before, expression) in [
        (" AND y.t COLLATE \"C\" ~ '", number::TEXT),
        ("' THEN 1 WHEN y.t COLLATE \"C\" ~ '", DATE),
        ("' THEN 2 WHEN y.t COLLATE \"C\" ~ '", MONTH),
        ("' THEN 4 WHEN y.t COLLATE \"C\" ~ '", VERSION),
    ] {
        sql.sql(before);
        sql.sql(expression);
    }
    sql.sql("' THEN 8 WHEN lower(y.t COLLATE \"C\") IN ('true', 'false') THEN 16 ELSE 32 END FROM (SELECT ");
    sql.sql(value);
    sql.sql(" #>> '{}' OFFSET 0) AS y(t))");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_of_one_kind() {
        for (text, shape) in [
            ("2015", Shape::Number),
            ("-1e3", Shape::Number),
            ("2015-01-01", Shape::Date),
            ("2015-01", Shape::Month),
            ("2015-13", Shape::Text),
            ("2.0.0", Shape::Version),
            ("10.0.0.1", Shape::Version),
            ("1.2.3-rc.1", Shape::Version),
            ("2.0.0b1", Shape::Version),
            ("v2", Shape::Version),
            ("V2.1", Shape::Version),
            ("2.0", Shape::Number),
            ("2.0a", Shape::Text),
            ("v", Shape::Text),
            ("vault", Shape::Text),
            ("1.2.3-", Shape::Text),
            ("1.2.3--x", Shape::Text),
            ("1.2.3 of it", Shape::Text),
            ("TRUE", Shape::Boolean),
            ("$MIN", Shape::Text),
            ("-", Shape::Text),
        ] {
            assert_eq!(Shape::of(&Value::new(text)), shape, "{text}");
        }
    }

    #[test]
    fn one_stray_value_does_not_make_a_kind() {
        let mut counts = ShapeCounts::default();
        counts.add(&[1_999, 0, 0, 0, 0, 1, 2_000, 2_100]);
        assert!(
            counts.has(Shape::Number)
                && !counts.has(Shape::Text)
                && counts.is_rare(Shape::Text)
                && !counts.is_rare(Shape::Number)
        );
        assert_eq!(
            (counts.most(), counts.count(Shape::Text), counts.present),
            (Some(Shape::Number), 1, 2_100)
        );
        let few = ShapeCounts { shapes: [9, 0, 0, 0, 0, 1], valued: 10, present: 10 };
        assert!(few.has(Shape::Text) && ShapeCounts::default().most().is_none());
    }
}
