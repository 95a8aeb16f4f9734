//! The same bytes as the generated type, whatever is in them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct as Generated, Value};
use serde_json::{Value as Json, json};

use super::{Fault, MAX_BYTES, Struct, View};

fn generated(value: &Json) -> Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap()),
        Json::String(value) => Kind::StringValue(value.clone()),
        Json::Array(values) => {
            Kind::ListValue(ListValue { values: values.iter().map(generated).collect() })
        }
        Json::Object(members) => Kind::StructValue(Generated { fields: fields(members) }),
    };
    Value { kind: Some(kind) }
}

fn fields(members: &serde_json::Map<String, Json>) -> BTreeMap<String, Value> {
    members.iter().map(|(name, value)| (name.clone(), generated(value))).collect()
}

fn wire_of(value: &Json) -> Vec<u8> {
    Generated { fields: fields(value.as_object().unwrap()) }.encode_to_vec()
}

fn fault_of(members: impl IntoIterator<Item = (&'static str, Value)>) -> Option<Fault> {
    let fields = members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    Struct::decode(Generated { fields }.encode_to_vec().as_slice()).unwrap().fault()
}

fn number(value: f64) -> Value {
    Value { kind: Some(Kind::NumberValue(value)) }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(number(1.0), |inner, _| list(vec![inner]))
}

#[test]
fn what_no_json_has_is_refused_wherever_it_stands() {
    assert_eq!(fault_of([("a", number(1.0))]), None);
    let nothing = Value { kind: None };
    for value in [nothing.clone(), list(vec![number(1.0), nothing])] {
        assert_eq!(fault_of([("a", number(1.0)), ("b", value)]), Some(Fault::NoKind));
    }
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(fault_of([("a", list(vec![number(value)]))]), Some(Fault::NotANumber));
    }
    assert_eq!(fault_of([("a\0", number(1.0))]), Some(Fault::Nul));
    assert_eq!(fault_of([("a", text("\0"))]), Some(Fault::Nul));
    assert_eq!(
        (fault_of([("a", nested(31))]), fault_of([("a", nested(32))])),
        (None, Some(Fault::TooDeep))
    );
    // Far deeper than a stack would take.
    let mut deep = Vec::new();
    for _ in 0..4_000 {
        let mut around = vec![0x32];
        let element = [&[0x0a][..], &varint(deep.len()), &deep].concat();
        around.extend(varint(element.len()));
        around.extend(element);
        deep = around;
    }
    let entry = [&[0x0a, 1, b'a', 0x12][..], &varint(deep.len()), &deep].concat();
    let object = [&[0x0a][..], &varint(entry.len()), &entry].concat();
    assert_eq!(Struct::decode(object.as_slice()).unwrap().fault(), Some(Fault::TooDeep));
}

fn varint(value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(value as u64, &mut bytes);
    bytes
}

#[test]
fn an_object_stops_at_its_limit_and_keeps_nothing() {
    let fits =
        Struct::decode(wire_of(&json!({"a": "x".repeat(MAX_BYTES - 100)})).as_slice()).unwrap();
    assert_eq!(fits.fault(), None);
    let values =
        (0..200_000).map(|n| (format!("{n}"), json!(1))).collect::<serde_json::Map<_, _>>();
    for large in
        [json!({"a": "x".repeat(MAX_BYTES)}), Json::Object(values), json!({"a": vec![1; 600_000]})]
    {
        let read = Struct::decode(wire_of(&large).as_slice()).unwrap();
        assert_eq!((read.fault(), read.wire.capacity()), (Some(Fault::TooLarge), 0));
    }
}

#[test]
fn the_order_of_members_does_not_matter_and_the_last_of_a_name_counts() {
    let entry = |name: &str, value: f64| {
        Generated { fields: [(name.to_owned(), number(value))].into() }.encode_to_vec()
    };
    let given = [entry("b", 1.0), entry("a", 2.0), entry("", 3.0), entry("b", 4.0)].concat();
    let read = Struct::decode(given.as_slice()).unwrap();
    assert_eq!(read.to_text(), r#"{"":3,"a":2,"b":4}"#);
    assert_eq!(read, Struct::from_json(&json!({"b": 4, "a": 2, "": 3})));
    assert_eq!(read.encoded_len(), read.encode_to_vec().len());
}

#[test]
fn bytes_that_are_no_message_are_an_error() {
    for wire in [
        &b"\x0a"[..],
        b"\x0a\x05\x0a\x01a",
        b"\x0a\x03\x0a\x01\xff",
        b"\x0a\x02\x12\x07",
        b"\x0f\x00",
    ] {
        assert!(Struct::decode(wire).is_err(), "{wire:?}");
    }
}

#[test]
fn one_zero_and_whole_numbers_are_written_plainly() {
    let object = Struct::decode(
        wire_of(&json!({"a": -0.0, "b": 9_007_199_254_740_992_i64, "c": 1e300, "d": 2.50}))
            .as_slice(),
    )
    .unwrap();
    assert_eq!(object.to_text(), r#"{"a":0,"b":9007199254740992,"c":1e300,"d":2.5}"#);
}

/// A value that a generated client would send, with the text of its number in the field that the type does not know.
fn exactly(double: f64, text: &str) -> Vec<u8> {
    let mut value = number(double).encode_to_vec();
    prost::encoding::string::encode(super::number::EXACT, &text.to_owned(), &mut value);
    let mut entry = vec![0x0a, 1, b'a', 0x12];
    entry.extend(varint(value.len()));
    entry.extend(value);
    [&[0x0a][..], &varint(entry.len()), &entry].concat()
}

#[test]
fn numbers_are_kept_to_the_last_digit() {
    let text = r#"{"a":[9007199254740993,1234567890.123456789,1.10,-0.000,1e400,-15e-30,18446744073709551616,0.1],"b":1}"#;
    let written = r#"{"a":[9007199254740993,1234567890.123456789,1.10,0.000,1e400,-15e-30,18446744073709551616,0.1],"b":1}"#;
    let object = Struct::from_text(text);
    assert_eq!(object.to_text(), written);
    // 1e400 counts as it is written out.
    assert_eq!(object.json_size(), written.len() - "1e400".len() + 401 - "-15e-30".len() + 33);
    let again = Struct::decode(object.encode_to_vec().as_slice()).unwrap();
    assert_eq!(
        (again.to_text(), again.json_size(), again.fault()),
        (written.to_owned(), object.json_size(), None)
    );
    // Readers of doubles alone see the nearest one.
    let seen = Generated::decode(object.encode_to_vec().as_slice()).unwrap();
    let Some(Kind::ListValue(list)) = &seen.fields["a"].kind else { panic!("{seen:?}") };
    let doubles: Vec<_> = list.values.iter().map(|value| value.kind.clone()).collect();
    let nearest = [
        9007199254740992.0,
        1234567890.1234567,
        1.1,
        0.0,
        f64::MAX,
        -1.5e-29,
        18446744073709551616.0,
        0.1,
    ];
    assert_eq!(doubles, nearest.map(|double| Some(Kind::NumberValue(double))));
}

#[test]
fn a_text_beside_a_double_counts_if_the_double_is_the_nearest_to_it() {
    let read = |double, text| Struct::decode(exactly(double, text).as_slice()).unwrap();
    for (double, text, taken) in [
        (9007199254740992.0, "9007199254740993", "9007199254740993"),
        (1.1, "1.10", "1.10"),
        (150.0, "1.50e2", "150"),
        (f64::MAX, "1e400", "1e400"),
        // The double was changed by a caller who has not seen the text.
        (5.0, "9007199254740993", "5"),
        (1.5, "one and a half", "1.5"),
        (0.0, "-0", "0"),
        (17.0, "017", "17"),
    ] {
        let object = read(double, text);
        assert_eq!(
            (object.to_text(), object.fault()),
            (format!("{{\"a\":{taken}}}"), None),
            "{text}"
        );
    }
    assert_eq!(read(f64::MAX, "1e400000").fault(), Some(Fault::LongNumber));
    assert_eq!(read(0.0, "1e-400000").fault(), Some(Fault::LongNumber));
}

#[test]
fn limits_are_measured_as_json() {
    // Of 11 bytes each as a message.
    let fits =
        Struct::decode(wire_of(&json!({"a": vec![1; (MAX_BYTES - 8) / 2]})).as_slice()).unwrap();
    assert_eq!((fits.fault(), fits.json_size()), (None, MAX_BYTES - 1));
    let longest = |length: usize| {
        Struct::decode(wire_of(&json!({"a": "x".repeat(length)})).as_slice()).unwrap().fault()
    };
    assert_eq!((longest(MAX_BYTES - 8), longest(MAX_BYTES - 7)), (None, Some(Fault::TooLarge)));
    // Of 6 bytes each in JSON.
    let escaped =
        Struct::decode(wire_of(&json!({"a": "\u{1}".repeat(MAX_BYTES / 6)})).as_slice()).unwrap();
    assert_eq!(escaped.fault(), Some(Fault::TooLarge));
    // Of 301 bytes each, written out.
    let large = Struct::decode(wire_of(&json!({"a": vec![1e300; 3_600]})).as_slice()).unwrap();
    assert_eq!(large.fault(), Some(Fault::TooLarge));
}

/// The test cases of RFC 7396, appendix A, whose results are objects, and a few more.
#[test]
fn patches_are_merged_as_the_rfc_says() {
    let cases = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        (
            json!({"b": 1, "d": 2}),
            json!({"a": 0, "c": 3, "e": {"f": 1}}),
            json!({"a": 0, "b": 1, "c": 3, "d": 2, "e": {"f": 1}}),
        ),
        (
            json!({"a": {"b": 1}, "z": 1.5}),
            json!({"a": {"c": {"d": null}}}),
            json!({"a": {"b": 1, "c": {}}, "z": 1.5}),
        ),
        (json!({"a": 7}), json!({"a": {"b": null, "c": 1}}), json!({"a": {"c": 1}})),
    ];
    for (target, patch, merged) in cases {
        let result = Struct::from_json(&target).merged(&Struct::from_json(&patch));
        assert_eq!(result, Struct::from_json(&merged), "{target} and {patch}");
        assert_eq!(result.json_size(), result.to_text().len());
    }
    let exact = Struct::from_text(r#"{"a":{"n":9007199254740993}}"#)
        .merged(&Struct::from_text(r#"{"a":{"m":0.10}}"#));
    assert_eq!(exact.to_text(), r#"{"a":{"m":0.10,"n":9007199254740993}}"#);
}

#[test]
fn an_object_is_put_in_order_and_members_left_out() {
    let entry = |name: &str, value: f64| {
        Generated { fields: [(name.to_owned(), number(value))].into() }.encode_to_vec()
    };
    let given = [entry("b", 1.0), entry("a", 2.0), entry("b", 42.0)].concat();
    let object = Struct::decode(given.as_slice()).unwrap().in_order();
    assert_eq!((object.to_text(), object.json_size()), (r#"{"a":2,"b":42}"#.to_owned(), 14));
    assert_eq!(
        object.view().get("b").and_then(|value| if let View::Number(b) = value {
            Some(b.nearest())
        } else {
            None
        }),
        Some(42.0)
    );
    let one = object.retain(|name| name != "a");
    assert_eq!((one.to_text(), one.json_size()), (r#"{"b":42}"#.to_owned(), 8));
    assert_eq!(one.retain(|_| false).json_size(), 2);
}

fn any_object() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-(1_i64 << 53)..=1 << 53).prop_map(Json::from),
        any::<f64>()
            .prop_filter_map("fractions that are written out", |number| (number.fract() != 0.0
                && number.abs() > 1e-18)
                .then(|| json!(number))),
        "[^\0]{0,200}".prop_map(Json::from),
    ];
    let value = leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[^\0]{0,5}", inner, 0..4)
                .prop_map(|members| json!(members)),
        ]
    });
    prop::collection::hash_map("[^\0]{0,5}", value, 0..6).prop_map(|members| json!(members))
}

proptest! {
    #[test]
    fn it_is_the_generated_type_on_the_wire(value in any_object()) {
        let wire = wire_of(&value);
        let read = Struct::decode(wire.as_slice()).unwrap();
        prop_assert_eq!(read.encode_to_vec(), wire.clone());
        prop_assert_eq!(Struct::from_json(&value).encode_to_vec(), wire.clone());
        prop_assert_eq!(Struct::from_text(&value.to_string()).encode_to_vec(), wire);
        prop_assert_eq!(read.json_size(), read.to_text().len());
        prop_assert_eq!(serde_json::from_str::<Json>(&read.to_text()).unwrap(), value);
        prop_assert_eq!(read.fault(), None);
    }

    #[test]
    fn a_number_is_what_numeric_makes_of_it(whole in "0|[1-9][0-9]{0,30}", fraction in "|[.][0-9]{1,30}", exponent in prop_oneof![Just(None), (-60..60_i32).prop_map(Some)], sign in any::<bool>()) {
        let exponent = exponent.map(|exponent| format!("e{exponent}")).unwrap_or_default();
        let text = format!("{}{whole}{fraction}{exponent}", if sign { "-" } else { "" });
        let plain = super::number::plain(&text).unwrap().into_owned();
        let object = Struct::from_text(&format!("{{\"a\":{text}}}"));
        prop_assert_eq!(object.json_size(), plain.len() + 6);
        let View::Number(number) = object.view().get("a").unwrap() else { panic!("no number") };
        let reported = number.text();
        prop_assert_eq!(super::number::plain(&reported).unwrap(), plain.as_str());
        prop_assert_eq!(number.nearest(), plain.parse::<f64>().unwrap() + 0.0);
        let again = Struct::decode(object.encode_to_vec().as_slice()).unwrap();
        prop_assert_eq!(&again, &object);
        prop_assert_eq!(Struct::from_text(&object.to_text()), object);
    }

    #[test]
    fn no_bytes_make_it_panic(wire in prop::collection::vec(prop_oneof![Just(0x0a), Just(0x12), Just(0x2a), Just(0x32), 0..12_u8, any::<u8>()], 0..60)) {
        if let Ok(read) = Struct::decode(wire.as_slice()) {
            prop_assert!(serde_json::from_str::<Json>(&read.to_text()).is_ok());
            let again = Struct::decode(read.encode_to_vec().as_slice()).unwrap();
            prop_assert_eq!(again.to_text(), read.to_text());
        }
    }
}
