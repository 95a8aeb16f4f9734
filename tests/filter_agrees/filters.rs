//! Filters that have something to say of such entities.

use offboard::filter::{FUNCTIONS, Filter};
use proptest::prelude::*;
use proptest::sample::select;

use crate::entities::{KINDS, MOMENTS, PORTFOLIOS, STATES, name, text};

/// A filter of one function, with what it is of: its function, and the class of its path.
#[derive(Clone, Debug)]
pub struct Call {
    pub function: &'static str,
    pub class: &'static str,
    pub filter: Filter,
}

/// The classes of paths.
pub const CLASSES: &[&str] = &[
    "type",
    "uri",
    "state",
    "portfolio",
    "createdTime",
    "updatedTime",
    "crosswalks_count",
    "attributes",
    "attributes.A",
    "attributes.A.B",
    "count",
];

/// The values that may be found at paths of one class, and in what they are often found to be.
fn value(class: &'static str) -> BoxedStrategy<String> {
    let one_of = |texts: &'static [&'static str]| select(texts).prop_map(str::to_owned);
    match class {
        "type" => prop_oneof![one_of(KINDS), Just("configuration/entityTypes/HCO".to_owned()), text()].boxed(),
        "uri" => {
            prop_oneof![select(vec!["e0", "entities/E1", "Entities/ent2", "entities/entities.3", "e"]).prop_map(str::to_owned), text()]
                .boxed()
        }
        "state" => prop_oneof![6 => one_of(STATES), 2 => Just("Active".to_owned()), 1 => text()].boxed(),
        "portfolio" => prop_oneof![one_of(PORTFOLIOS), text()].boxed(),
        "createdTime" | "updatedTime" => {
            let others =
                ["2024-02-29", "2024-03-01", "1709200800000", "1709200800999", "-1e12", "0", "2024-02-29 12:30:00.5+02:30", "1.7092008e12"];
            prop_oneof![one_of(MOMENTS), select(others.to_vec()).prop_map(str::to_owned)].boxed()
        }
        "crosswalks_count" | "count" => select(vec!["0", "1", "2", "1.0", "3e0", "1.5", "-1", "100"]).prop_map(str::to_owned).boxed(),
        _ => prop_oneof![8 => text(), 1 => "-?90071992547409(9[0-9]|9[0-9][.][0-9]{1,3}|[0-9]{3}e[1-4])"].boxed(),
    }
}

fn path(class: &'static str) -> BoxedStrategy<String> {
    let names = |count| {
        prop::collection::vec(name(), count).prop_map(|names| {
            names
                .iter()
                .fold("attributes".to_owned(), |path, name| format!("{path}.{}", quoted(name)))
        })
    };
    match class {
        "attributes.A" => names(1..2).boxed(),
        "attributes.A.B" => names(2..4).boxed(),
        "count" => names(1..3).prop_map(|path| format!("{path}.count")).boxed(),
        property => Just(property.to_owned()).boxed(),
    }
}

pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Expressions, some of which match what the texts are made of.
fn expression() -> impl Strategy<Value = String> {
    let fixed = [
        ".*",
        "[a-z]+",
        r"\d+",
        "[^a]*",
        "(a|b|ab)+",
        ".{0,3}",
        "É|é|e.",
        r"\S*\s?\S*",
        r"[\w.~/]+",
        "",
        "a{2,}|A?",
        r"(?:[\d-]{1,4}){1,9}",
        "[\\[\\]{}\"a-]*",
        "(|a)[^\\W\\d]",
        "\\x{1F600}?[^\\x01-\\x{10FFFE}x]|.",
        "[éÉΣσ]*",
    ];
    let escaped = text().prop_map(|text| {
        text.chars()
            .map(|c| if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() })
            .collect()
    });
    let readable =
        |text: &String| Filter::parse(&format!("regexp(type, {})", quoted(text))).is_ok();
    prop_oneof![2 => select(fixed.to_vec()).prop_map(str::to_owned), 1 => escaped]
        .prop_filter("it is admitted", readable)
}

/// A text in which some characters gave way to wildcards.
fn wildcards() -> impl Strategy<Value = String> {
    (text(), prop::collection::vec(0..8_u8, 12)).prop_map(|(text, dice)| {
        let wild = |(c, die): (char, u8)| match die {
            0 => "*".to_owned(),
            1 => "?".to_owned(),
            2 => format!("*{}", escaped(c)),
            _ => escaped(c),
        };
        text.chars().zip(dice).map(wild).collect::<String>() + "?"
    })
}

fn escaped(c: char) -> String {
    if matches!(c, '*' | '?' | '\\') { format!("\\{c}") } else { c.to_string() }
}

fn is_of_texts(function: &str) -> bool {
    matches!(
        function,
        "startsWith" | "containsWordStartingWith" | "fullText" | "contains" | "regexp"
    )
}

fn names() -> Vec<&'static str> {
    FUNCTIONS.iter().map(|function| function.name).collect()
}

/// Returns whether a function may read a path of the class.
pub fn possible(function: &str, class: &str) -> bool {
    match class {
        "createdTime" | "updatedTime" | "crosswalks_count" | "count" => {
            !is_of_texts(function)
                && !matches!(function, "exists" | "missing" | "inSameAttributeValue")
        }
        "attributes.A.B" => true,
        _ => function != "inSameAttributeValue",
    }
}

fn call_text(function: &'static str, class: &'static str) -> BoxedStrategy<String> {
    let values = |count| prop::collection::vec(value(class), count);
    let list = |values: Vec<String>| {
        values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ")
    };
    match function {
        "exists" | "missing" => {
            path(class).prop_map(move |path| format!("{function}({path})")).boxed()
        }
        "in" | "listEquals" | "listEqualsCaseSensitive" => (path(class), values(2..5))
            .prop_map(move |(path, values)| format!("{function}({path}, {})", list(values)))
            .boxed(),
        "range" => (path(class), values(2..3)).prop_map(ordered_range).boxed(),
        "contains" => (path(class), wildcards())
            .prop_map(|(path, text)| format!("contains({path}, {})", quoted(&text)))
            .boxed(),
        "regexp" => (path(class), expression())
            .prop_map(|(path, text)| format!("regexp({path}, {})", quoted(&text)))
            .boxed(),
        "inSameAttributeValue" => {
            let inner = select(names())
                .prop_filter("it has a path", |function| *function != "inSameAttributeValue");
            let two = prop::collection::vec(inner.prop_flat_map(within), 2);
            (two, select(vec![" and ", " or ", " and not "]))
                .prop_map(|(two, operator)| format!("inSameAttributeValue({})", two.join(operator)))
                .boxed()
        }
        _ => (path(class), value(class))
            .prop_map(move |(path, value)| format!("{function}({path}, {})", quoted(&value)))
            .boxed(),
    }
}

/// A call that reads a member of `attributes.a`.
fn within(function: &'static str) -> BoxedStrategy<String> {
    call_text(function, "attributes.A")
        .prop_map(|text| text.replacen("attributes.", "attributes.a.", 1))
        .boxed()
}

/// A range with its ends in their order, whichever it is.
fn ordered_range((path, ends): (String, Vec<String>)) -> String {
    let range =
        |first: &str, last: &str| format!("range({path}, {}, {})", quoted(first), quoted(last));
    let straight = range(&ends[0], &ends[1]);
    if Filter::parse(&straight).is_ok() { straight } else { range(&ends[1], &ends[0]) }
}

/// A filter of one function, each of which is as likely as the others.
pub fn call() -> impl Strategy<Value = Call> {
    let function_and_class = (select(names()), select(CLASSES))
        .prop_filter("it makes sense", |(function, class)| possible(function, class));
    function_and_class.prop_flat_map(|(function, class)| call_of(function, class))
}

/// A filter of this function.
pub fn call_of(function: &'static str, class: &'static str) -> impl Strategy<Value = Call> {
    // Some texts have no character that the function could search for.
    call_text(function, class).prop_filter_map("it is admitted", move |text| {
        let filter = Filter::parse(&text);
        let expected = |message: &str| {
            [
                "needs at least one",
                "this range is empty",
                "a list in a file",
                "an id is missing",
                "an exponent",
                "is never",
            ]
            .iter()
            .any(|part| message.contains(part))
        };
        assert!(
            filter.as_ref().err().is_none_or(|error| expected(&error.message)),
            "{text}: {filter:?}"
        );
        Some(Call { function, class, filter: filter.ok()? })
    })
}

/// A filter of many functions.
pub fn filter() -> impl Strategy<Value = Filter> {
    let text = call().prop_map(|call| call.filter.to_string()).prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|inner| format!("not ({inner})")),
            prop::collection::vec(inner.clone(), 2..4)
                .prop_map(|members| format!("({})", members.join(" and "))),
            prop::collection::vec(inner, 2..4)
                .prop_map(|members| format!("({})", members.join(" or "))),
        ]
    });
    text.prop_map(|text| Filter::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}")))
}

/// A filter of many functions that read few paths, so that what they read is taken out once.
pub fn crowd() -> impl Strategy<Value = Filter> {
    let classes = select(vec!["attributes", "attributes.A", "attributes.A", "attributes.A.B"]);
    let few = (select(names()), classes)
        .prop_filter("it makes sense", |(function, class)| possible(function, class))
        .prop_flat_map(|(function, class)| call_of(function, class));
    let group = |inner: BoxedStrategy<String>| {
        let operator = select(vec![" and ", " or ", " and not ", " or not "]);
        (prop::collection::vec(inner, 6), operator)
            .prop_map(|(members, operator)| format!("({})", members.join(operator)))
    };
    let crowd = group(few.prop_map(|call| call.filter.to_string()).boxed()).boxed();
    group(crowd)
        .prop_map(|text| Filter::parse(&text).unwrap_or_else(|error| panic!("{text}: {error}")))
}
