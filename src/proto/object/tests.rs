//! The same bytes as the generated type, whatever is in them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct as Generated, Value};
use serde_json::{Value as Json, json};

use super::{Fault, MAX_BYTES, Struct};

fn generated(value: &Json) -> Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap()),
        Json::String(value) => Kind::StringValue(value.clone()),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(generated).collect() }),
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
    Struct::decode(Generated { fields }.encode_to_vec().as_slice()).unwrap().fault(32)
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
    assert_eq!((fault_of([("a", nested(31))]), fault_of([("a", nested(32))])), (None, Some(Fault::TooDeep)));
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
    assert_eq!(Struct::decode(object.as_slice()).unwrap().fault(32), Some(Fault::TooDeep));
}

fn varint(value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(value as u64, &mut bytes);
    bytes
}

#[test]
fn an_object_stops_at_its_limit_and_keeps_nothing() {
    let fits = Struct::decode(wire_of(&json!({"a": "x".repeat(MAX_BYTES - 100)})).as_slice()).unwrap();
    assert_eq!(fits.fault(32), None);
    let values = (0..200_000).map(|n| (format!("{n}"), json!(1))).collect::<serde_json::Map<_, _>>();
    for large in [json!({"a": "x".repeat(MAX_BYTES)}), Json::Object(values), json!({"a": vec![1; 100_000]})] {
        let read = Struct::decode(wire_of(&large).as_slice()).unwrap();
        assert_eq!((read.fault(32), read.wire.capacity()), (Some(Fault::TooLarge), 0));
    }
}

#[test]
fn the_order_of_members_does_not_matter_and_the_last_of_a_name_counts() {
    let entry = |name: &str, value: f64| Generated { fields: [(name.to_owned(), number(value))].into() }.encode_to_vec();
    let given = [entry("b", 1.0), entry("a", 2.0), entry("", 3.0), entry("b", 4.0)].concat();
    let read = Struct::decode(given.as_slice()).unwrap();
    assert_eq!(read.to_text(), r#"{"":3,"a":2,"b":4}"#);
    assert_eq!(read, Struct::from_json(&json!({"b": 4, "a": 2, "": 3})));
    assert_eq!(read.encoded_len(), read.encode_to_vec().len());
}

#[test]
fn bytes_that_are_no_message_are_an_error() {
    for wire in [&b"\x0a"[..], b"\x0a\x05\x0a\x01a", b"\x0a\x03\x0a\x01\xff", b"\x0a\x02\x12\x07", b"\x0f\x00"] {
        assert!(Struct::decode(wire).is_err(), "{wire:?}");
    }
}

#[test]
fn one_zero_and_whole_numbers_are_written_plainly() {
    let object = Struct::decode(wire_of(&json!({"a": -0.0, "b": 9_007_199_254_740_992_i64, "c": 1e300, "d": 2.50})).as_slice()).unwrap();
    assert_eq!(object.to_text(), r#"{"a":0,"b":9007199254740992,"c":1e+300,"d":2.5}"#);
}

fn any_object() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        (-(1_i64 << 53)..=1 << 53).prop_map(Json::from),
        any::<f64>().prop_filter_map("fractions only", |number| (number.fract() != 0.0).then(|| json!(number))),
        "[^\0]{0,200}".prop_map(Json::from),
    ];
    let value = leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[^\0]{0,5}", inner, 0..4).prop_map(|members| json!(members)),
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
        prop_assert_eq!(&read.to_json(), &value);
        prop_assert_eq!(serde_json::from_str::<Json>(&read.to_text()).unwrap(), value);
        prop_assert_eq!(read.fault(32), None);
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
