//! The codec alone: every kind of field, there and back.

use proptest::prelude::*;
use std::sync::LazyLock;

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Map, Value, json};

use super::{Decoder, Schema, Shape, Style, encode_value};
use crate::gateway::opaque::opaque;
use crate::gateway::tests::service::pool;

struct Codec {
    schema: Schema,
    place: usize,
}

impl Codec {
    fn new(pool: &DescriptorPool, style: Style, message: &str) -> Codec {
        let (pool, free) = &opaque(pool).unwrap();
        let mut schema = Schema::new(style, free);
        let place = schema.add(&pool.get_message_by_name(message).unwrap());
        schema.add_contents(pool);
        Codec { schema, place }
    }

    fn all() -> Codec {
        static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| pool(&["sample.proto"]));
        Codec::new(&POOL, Style::SnakeCase, "sample.All")
    }

    fn decode(&self, text: &str) -> Result<DynamicMessage, Vec<String>> {
        let mut message = DynamicMessage::new(self.schema.message(self.place).descriptor.clone());
        let decoded =
            Decoder::new(&self.schema, text.as_bytes(), "").message(self.place, &mut message);
        let faults: Vec<_> = decoded
            .violations
            .as_slice()
            .iter()
            .map(|fault| format!("{}: {}", fault.field, fault.code))
            .collect();
        if faults.is_empty() { Ok(message) } else { Err(faults) }
    }

    fn encode(&self, message: &DynamicMessage) -> String {
        let mut text = Vec::new();
        encode_value(&self.schema, &Shape::Message(self.place), message, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// The member `name` after decoding `{name: value}` and encoding again.
    fn member(&self, name: &str, value: &str) -> Result<Value, Vec<String>> {
        let message = self.decode(&format!("{{\"{name}\":{value}}}"))?;
        let text = self.encode(&message);
        Ok(serde_json::from_str::<Value>(&text).unwrap()[name].clone())
    }
}

#[test]
fn every_member_is_present_in_an_empty_message() {
    let codec = Codec::all();
    let text = codec.encode(&codec.decode("{}").unwrap());
    let object: Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(object.len(), 37);
    for (name, empty) in [
        ("double_value", json!(0.0)),
        ("int64_value", json!(0)),
        ("bool_value", json!(false)),
        ("string_value", json!("")),
        ("bytes_value", json!("")),
        ("size", json!(null)),
        ("nested", json!(null)),
        ("many", json!([])),
        ("counts", json!({})),
        ("maybe", json!(null)),
        ("first_choice", json!(null)),
        ("time", json!(null)),
        ("object", json!(null)),
        ("anything", json!(null)),
        ("wrapped_number", json!(null)),
    ] {
        assert_eq!(object[name], empty, "{name}");
    }
}

#[test]
fn values_are_written_as_they_came() {
    let codec = Codec::all();
    for (name, value) in [
        ("double_value", "9.692307"),
        ("double_value", "\"NaN\""),
        ("float_value", "1.5"),
        ("float_value", "-1.7567538e35"),
        ("int64_value", "-9223372036854775808"),
        ("uint64_value", "18446744073709551615"),
        ("fixed32_value", "4294967295"),
        ("bytes_value", "\"AAH/\""),
        ("size", "\"extra_large\""),
        ("sizes", "[\"small\"]"),
        ("counts", "{\"a\":1,\"b\":9007199254740993}"),
        ("flags", "{\"false\":\"x\",\"true\":\"y\"}"),
        ("maybe", "0"),
        ("second_choice", "5"),
        ("time", "\"2026-04-25T00:00:00Z\""),
        ("time", "\"2026-04-25T00:00:00.120Z\""),
        ("time", "\"0001-01-01T00:00:00Z\""),
        ("duration", "\"3600s\""),
        ("duration", "\"-1.500s\""),
        ("mask", "\"a_b,c.d_e\""),
        ("object", "{\"a\":{\"b\":[1,2.5,\"x\",null,true,{}]}}"),
        ("object", "{}"),
        ("anything", "[]"),
        ("anything", "9007199254740992"),
        ("list", "[[],1e300]"),
        ("values", "[null,1]"),
        ("wrapped_number", "0"),
        ("wrapped_text", "\"\""),
        ("empty", "{}"),
        ("any", "{}"),
        ("any", r#"{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1.500s"}"#),
        ("any", r#"{"@type":"x/google.protobuf.Value","value":null}"#),
        ("any", r#"{"@type":"x/google.protobuf.Empty"}"#),
        (
            "any",
            r#"{"@type":"x/google.protobuf.Any","value":{"@type":"x/sample.UploadResponse","received":7}}"#,
        ),
        ("anys", r#"[{"@type":"x/sample.UploadResponse","received":7},{}]"#),
    ] {
        let expected: Value = serde_json::from_str(value).unwrap();
        assert_eq!(codec.member(name, value), Ok(expected), "{name}: {value}");
    }
}

#[test]
fn other_spellings_of_a_value_are_understood() {
    let codec = Codec::all();
    for (name, given, written) in [
        ("int64_value", "\"12\"", json!(12)),
        ("int32_value", "1e3", json!(1000)),
        ("int32_value", "7.0", json!(7)),
        ("bytes_value", "\"_-8\"", json!("/+8=")),
        ("size", "\"SIZE_SMALL\"", json!("small")),
        ("time", "\"2026-04-25T02:00:00+02:00\"", json!("2026-04-25T00:00:00Z")),
        ("many", "null", json!([])),
        ("anything", "1.0", json!(1.0)),
        (
            "any",
            r#"{"received":"7","@type":"a/b/sample.UploadResponse"}"#,
            json!({"@type": "a/b/sample.UploadResponse", "received": 7}),
        ),
    ] {
        assert_eq!(codec.member(name, given), Ok(written), "{name}: {given}");
    }
    assert_eq!(
        codec.encode(&codec.decode(r#"{"int64Value":1}"#).unwrap()),
        codec.encode(&codec.decode(r#"{"int64_value":1}"#).unwrap())
    );
}

#[test]
fn numbers_in_free_values_are_written_to_the_last_digit() {
    let codec = Codec::all();
    for (given, written) in [
        ("9007199254740993", "9007199254740993"),
        ("-1234567890.123456789", "-1234567890.123456789"),
        ("1.10", "1.10"),
        ("1.0e1", "10"),
        ("1e-400", "1e-400"),
        ("-0.0", "0.0"),
    ] {
        let text = |number: &str| format!("{{\"a\":[{number},{{\"b\":{number}}}]}}");
        let message = codec
            .decode(&format!("{{\"object\":{0},\"anything\":{0},\"list\":[{given}]}}", text(given)))
            .unwrap();
        let answer = codec.encode(&message);
        for part in [
            format!("\"object\":{}", text(written)),
            format!("\"anything\":{}", text(written)),
            format!("\"list\":[{written}]"),
        ] {
            assert!(answer.contains(&part), "{part} in {answer}");
        }
    }
}

#[test]
fn a_null_in_a_free_value_is_a_value() {
    let codec = Codec::all();
    assert!(codec.decode(r#"{"anything":null}"#).unwrap().has_field_by_name("anything"));
    assert!(!codec.decode(r#"{"wrapped_text":null}"#).unwrap().has_field_by_name("wrapped_text"));
}

#[test]
fn faults_are_reported_with_path_and_code() {
    let codec = Codec::all();
    for (name, value, fault) in [
        ("int32_value", "2147483648", "int32_value: out_of_range"),
        ("uint32_value", "-1", "uint32_value: out_of_range"),
        ("int64_value", "9223372036854775808", "int64_value: out_of_range"),
        ("int64_value", "true", "int64_value: invalid_type"),
        ("int64_value", "\"x\"", "int64_value: invalid_type"),
        ("float_value", "1e39", "float_value: out_of_range"),
        ("double_value", "0.1234567890123456789", "double_value: inexact_number"),
        ("bool_value", "\"true\"", "bool_value: invalid_type"),
        ("string_value", "1", "string_value: invalid_type"),
        ("bytes_value", "\"*\"", "bytes_value: invalid"),
        ("size", "\"unspecified\"", "size: invalid_value"),
        ("size", "1", "size: invalid_type"),
        ("time", "\"2026-02-30T00:00:00Z\"", "time: invalid"),
        ("time", "0", "time: invalid_type"),
        ("duration", "\"1H\"", "duration: invalid"),
        ("duration", "\"315576000001s\"", "duration: invalid"),
        ("object", "[]", "object: invalid_type"),
        ("object", "{\"a\":1e400000}", "object.a: out_of_range"),
        ("object", "{\"a\":1,\"a\":2}", "object.a: duplicate"),
        ("list", "{}", "list: invalid_type"),
        ("many", "{}", "many: invalid_type"),
        ("many", "[{\"many\":[{\"x\":1}]}]", "many[0].many[0].x: unknown_field"),
        ("orders", "{\"x\":{}}", "orders.x: invalid_type"),
        ("orders", "{\"1\":{\"x\":1}}", "orders.1.x: unknown_field"),
        ("counts", "[]", "counts: invalid_type"),
        ("counts", "{\"a\":null}", "counts.a: invalid_type"),
        ("empty", "{\"a\":1}", "empty.a: unknown_field"),
        ("any", "[]", "any: invalid_type"),
        ("any", "{\"a\":1}", "any.@type: required"),
        ("any", "{\"@type\":1}", "any.@type: invalid_type"),
        ("any", r#"{"@type":"x/no.Such"}"#, "any.@type: invalid_value"),
        ("any", r#"{"@type":"sample.UploadResponse"}"#, "any.@type: invalid_value"),
        ("any", r#"{"@type":"x/sample.Order","@type":"x/sample.Order"}"#, "any.@type: duplicate"),
        ("any", r#"{"@type":"x/sample.Order","item_count":true}"#, "any.item_count: invalid_type"),
        (
            "any",
            r#"{"@type":"x/sample.Order","sub_orders":[{"@type":"x"}]}"#,
            "any.sub_orders[0].@type: unknown_field",
        ),
        ("any", r#"{"@type":"x/google.protobuf.Duration","value":"soon"}"#, "any.value: invalid"),
    ] {
        assert_eq!(codec.member(name, value), Err(vec![fault.to_owned()]), "{name}: {value}");
    }
    assert_eq!(codec.decode(r#"{"maybe":1,"maybe":1}"#).unwrap_err(), ["maybe: duplicate"]);
    assert_eq!(
        codec.decode(r#"{"first_choice":"","second_choice":1}"#).unwrap_err(),
        ["second_choice: conflict"]
    );
}

#[test]
fn faults_are_reported_up_to_a_bound() {
    let codec = Codec::all();
    let text = format!("{{\"many\":[{}7]}}", "7,".repeat(5000));
    assert!((400..=1000).contains(&codec.decode(&text).unwrap_err().len()));
    // Each fault would report the whole path.
    let text = format!(
        "{{\"object\":{{\"{}\":[{}1e4000]}}}}",
        "k".repeat(1_000_000),
        "1e4000,".repeat(999)
    );
    let faults = codec.decode(&text).unwrap_err();
    assert!(faults.iter().map(String::len).sum::<usize>() < 320 << 10);
    assert!(
        faults[0].starts_with("object.kkk") && faults[0].ends_with("k…: out_of_range"),
        "{}",
        faults[0]
    );
}

#[test]
fn lists_and_free_values_stop_at_their_limits() {
    let codec = Codec::all();
    let many = |count: usize| format!("{{\"many\":[{}{{}}]}}", "{},".repeat(count - 1));
    assert!(codec.decode(&many(10_000)).is_ok());
    assert_eq!(codec.decode(&many(10_001)).unwrap_err(), ["many: too_many"]);
    for value in ["[],", "1,", "{},", "{\"a\":1},", "\"xxxxxxxxxxxxxxxxxxxxxxxx\",", "null,"] {
        let fits = format!("{{\"object\":{{\"a\":[{}0]}}}}", value.repeat(10_000));
        assert!(codec.decode(&fits).is_ok(), "{value}");
        let large = format!("{{\"object\":{{\"a\":[{}0]}},\"maybe\":true}}", value.repeat(600_000));
        assert_eq!(
            codec.decode(&large).unwrap_err(),
            ["object: too_long", "maybe: invalid_type"],
            "{value}"
        );
    }
}

#[test]
fn a_task_is_spelled_as_its_contract_has_it() {
    let pool = DescriptorPool::decode(crate::proto::DESCRIPTOR_SET).unwrap();
    let codec = Codec::new(&pool, Style::CamelCase, "offboard.v1.Task");
    let message = codec
        .decode(r#"{"status":"COMPLETED_WITH_ERRORS","started":1777068000000,"throughput":9.692307,"duration":"13s","current_state":{}}"#)
        .unwrap();
    let text = codec.encode(&message);
    for part in [
        r#""status":"COMPLETED_WITH_ERRORS""#,
        r#""started":1777068000000,"current":null"#,
        r#""throughput":9.692307,"duration":"13s""#,
        r#""lastHourThroughput":0.0,"numberOfProcessedObjects":0"#,
        r#""parameters":{}"#,
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn one_enum_is_spelled_by_the_style_of_each_service() {
    let pool = DescriptorPool::decode(crate::proto::DESCRIPTOR_SET).unwrap();
    let spelled = |style, message, name| {
        Codec::new(&pool, style, message).member(name, "\"OFFBOARDING_STATUS_PENDING\"").unwrap()
    };
    assert_eq!(spelled(Style::SnakeCase, "offboard.v1.RemovalJob", "status"), "pending");
    assert_eq!(spelled(Style::CamelCase, "offboard.v1.OffboardingRequest", "status"), "Pending");
}

#[test]
fn paths_are_spelled_as_the_members_are() {
    let schema = Codec::new(&pool(&["sample.proto"]), Style::CamelCase, "sample.All");
    for (path, spelled) in [
        ("many[2].int64_value", "many[2].int64Value"),
        ("orders.1.first_name", "orders.1.firstName"),
        ("counts.a_b", "counts.a_b"),
        ("object.a_b.c_d", "object.a_b.c_d"),
        ("not_a_field.int64_value", "not_a_field.int64_value"),
        ("", ""),
    ] {
        assert_eq!(schema.schema.spell(schema.place, path), spelled);
    }
}

/// Any JSON that a `google.protobuf.Value` can have.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-(1_i64 << 53)..=1 << 53).prop_map(Value::from),
        any::<f64>().prop_filter_map("fractions only", |number| (number.fract() != 0.0)
            .then(|| json!(number))),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|entries| json!(entries)),
        ]
    })
}

/// Some members of `sample.All`, in the form in which they are written.
fn some_members() -> impl Strategy<Value = Map<String, Value>> {
    let time = (-62_135_596_800_i64..=253_402_300_799, 0..1_000_000_000_u32).prop_map(
        |(seconds, nanos)| {
            let time = chrono::DateTime::from_timestamp(seconds, nanos).unwrap();
            json!(time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
        },
    );
    let objects = prop::collection::btree_map(any::<String>(), any_json(), 0..4)
        .prop_map(|entries| json!(entries));
    let members = prop_oneof![
        any::<f64>().prop_map(|value| ("double_value", json!(value))),
        any::<i16>().prop_map(|eighths| ("float_value", json!(f32::from(eighths) / 8.0))),
        any::<i32>().prop_map(|value| ("sint32_value", json!(value))),
        any::<i64>().prop_map(|value| ("int64_value", json!(value))),
        any::<u32>().prop_map(|value| ("fixed32_value", json!(value))),
        any::<u64>().prop_map(|value| ("uint64_value", json!(value))),
        any::<bool>().prop_map(|value| ("bool_value", json!(value))),
        any::<String>().prop_map(|value| ("string_value", json!(value))),
        prop::sample::select(vec!["small", "extra_large"]).prop_map(|value| ("size", json!(value))),
        prop::collection::btree_map(any::<String>(), any::<i64>(), 0..4)
            .prop_map(|value| ("counts", json!(value))),
        any::<i32>().prop_map(|value| ("maybe", json!(value))),
        any::<String>().prop_map(|value| ("first_choice", json!(value))),
        time.prop_map(|value| ("time", value)),
        (0..315_576_000_000_i64).prop_map(|seconds| ("duration", json!(format!("{seconds}s")))),
        objects.prop_map(|value| ("object", value)),
        any_json().prop_map(|value| ("anything", value)),
        prop::collection::vec(any_json(), 0..4).prop_map(|value| ("values", json!(value))),
        any::<String>().prop_map(|value| ("wrapped_text", json!(value))),
    ];
    prop::collection::vec(members, 0..8).prop_map(|members| {
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    })
}

proptest! {
    #[test]
    fn what_is_read_is_written_again(members in some_members(), nested in some_members()) {
        let codec = Codec::all();
        let mut given = members;
        given.insert("nested".to_owned(), Value::Object(nested));
        let message = codec.decode(&Value::Object(given.clone()).to_string()).unwrap();
        // Through the wire as well.
        let message = DynamicMessage::decode(codec.schema.message(codec.place).descriptor.clone(), message.encode_to_vec().as_slice()).unwrap();
        let text = codec.encode(&message);
        let written: Map<String, Value> = serde_json::from_str(&text).unwrap();
        // serde_json reads the last digit of a long fraction loosely, so it reads both sides.
        let given: Map<String, Value> = serde_json::from_str(&Value::Object(given).to_string()).unwrap();
        for (name, value) in given.iter().filter(|(name, _)| *name != "nested") {
            prop_assert_eq!(&written[name], value, "{}", name);
        }
        for (name, value) in given["nested"].as_object().unwrap() {
            prop_assert_eq!(&written["nested"][name], value, "{}", name);
        }
        prop_assert_eq!(codec.encode(&codec.decode(&text.replace("\"second_choice\":null,", "")).unwrap()), text);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[\\[\\]{}\",:0-9a-e.\\\\u \\-+nultrefs]{0,40}") {
        let codec = Codec::all();
        let is_json = serde_json::from_str::<Value>(&text).is_ok();
        if codec.decode(&text).is_ok() {
            prop_assert!(is_json, "{}", text);
        }
    }
}
