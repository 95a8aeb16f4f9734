//! Entities with values that are nasty to compare.

use chrono::{DateTime, Utc};
use proptest::prelude::*;

use crate::databases::{Row, exact, number};
use crate::kit::{Value, json};

/// Texts that are likely to meet each other in spite of case, and those that must not.
pub const TEXTS: &[&str] = &[
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
    "Dr. John-Paul O'Neill, Berlin",
    "berlin\u{a0}(old)",
    "ΣΊΣΥΦΟΣ;ab",
    "a*b",
    "a?",
    "ab\ncd",
    "+1",
    "-1.5",
    "0.10",
    "99999999999999999999999999999999999999999999999999999999999999999",
    "2024-02-29",
    "2023-02-29",
    "2024-02-29T10:00:00Z",
    "2024-02-29 12:30:00.5+02:30",
    "2024-02-29t10:00:00.123456789z",
    "2024-03-01T00:00:00-15:59",
    "0001-01-01",
    "9999-12-31T23:59:59.999999Z",
    "2024-02-29T10:00:00",
    "20240229",
    "9007199254740992",
    "9007199254740993.0",
    "9007199254740994",
    "-9007199254740993",
    "0.1000000000000000055511151231257827",
    "1234567890.123456789",
    "1234567890.1234567891",
    "123456789012345678901234567890",
    "123456789012345678901234567891",
    "1e400",
    "-1e400",
    "1e-400",
];
pub const NAMES: &[&str] = &["a", "B", "0", "k x", "q\"", "b\\", "é", "", "count"];
pub const KINDS: &[&str] = &[
    "configuration/entityTypes/HCP",
    "configuration/entityTypes/hco",
    "É",
    "a",
    "2024-02-29",
    "10",
];
pub const STATES: &[&str] = &["onboarding", "active", "offboarding"];
pub const PORTFOLIOS: &[&str] = &["p1", "P1", "1", "p-É", "two words"];
/// Moments that lie near each other, in several precisions.
pub const MOMENTS: &[&str] = &[
    "2024-02-29T00:00:00Z",
    "2024-02-29T10:00:00Z",
    "2024-02-29T10:00:00.000001Z",
    "2024-02-29T10:00:00.999999Z",
    "2024-02-29T10:00:01.5Z",
    "2024-03-01T00:00:00Z",
    "1969-12-31T23:59:59.999Z",
    "0001-01-01T00:00:00Z",
];

pub fn numbers() -> Vec<Value> {
    let floats = [1.0, 0.1, -0.0, -1.5, 1e22, 1e-7, 100.0, 5e-324, f64::MAX].map(Value::from);
    let integers = [
        json!(0),
        json!(1),
        json!(10),
        json!(-10),
        json!(100),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(9007199254740993_u64),
    ];
    floats.into_iter().chain(integers).chain(EXACT.iter().map(|text| number(text))).collect()
}

/// Numbers that differ by less than doubles can report, or that no double is near to.
pub const EXACT: &[&str] = &[
    "9007199254740992",
    "9007199254740993",
    "9007199254740993.0",
    "9007199254740993.5",
    "-9007199254740993",
    "0.1000000000000000055511151231257827",
    "0.10",
    "1234567890.123456789",
    "1234567890.1234567891",
    "123456789012345678901234567890",
    "123456789012345678901234567891",
    "1e400",
    "1.0e400",
    "-1e400",
    "1e-400",
    "1e999",
];

pub fn name() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just("a".to_owned()), 2 => Just("B".to_owned()), 1 => prop::sample::select(NAMES).prop_map(str::to_owned)]
}

pub fn text() -> impl Strategy<Value = String> {
    let random =
        any::<String>().prop_map(|text| text.chars().filter(|c| *c != '\0').take(6).collect());
    prop_oneof![12 => prop::sample::select(TEXTS).prop_map(str::to_owned), 1 => random]
}

/// Numbers of which doubles represent the first digits alone.
fn long_number() -> impl Strategy<Value = Value> {
    "-?90071992547409(9[0-9]|9[0-9][.][0-9]{1,3}|[0-9]{3}e[1-4])".prop_map(|text| number(&text))
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => long_number(),
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

fn moment() -> impl Strategy<Value = DateTime<Utc>> {
    prop::sample::select(MOMENTS).prop_map(|text| text.parse().expect("it is a moment"))
}

pub fn rows() -> impl Strategy<Value = Vec<Row>> {
    let one_of =
        |texts: &'static [&'static str]| prop::sample::select(texts).prop_map(str::to_owned);
    let attributes = prop::collection::vec((name(), value()), 0..4).prop_map(object);
    let row = (
        one_of(KINDS),
        one_of(STATES),
        prop::option::of(one_of(PORTFOLIOS)),
        moment(),
        moment(),
        0..4_usize,
        attributes,
    );
    prop::collection::vec(row, 1..60).prop_map(|rows| {
        let ids = ["e", "E", "ent", "entities.", "a~"].iter().cycle().zip(0..);
        ids.zip(rows)
            .map(
                |(
                    (id, number),
                    (kind, state, portfolio, created_at, updated_at, crosswalks, attributes),
                )| Row {
                    id: format!("{id}{number}"),
                    kind,
                    state,
                    portfolio,
                    created_at,
                    updated_at,
                    crosswalks,
                    attributes: exact(&attributes),
                },
            )
            .collect()
    })
}
