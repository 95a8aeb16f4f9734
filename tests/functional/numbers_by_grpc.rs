//! Numbers of any size by gRPC: the nearest double, and its text beside it.

use offboard::proto::v1::{ExactStruct, ExactValue};
use prost::Message as _;
use prost_reflect::{DynamicMessage, ReflectMessage, Value as Field};

use crate::kit::*;
use crate::numbers::{SENT, good, holds, number};

/// Calls a method by gRPC with a field of its request, by its path, that is made of these bytes.
async fn grpc_with(
    world: &World,
    rpc: &str,
    request: &Value,
    path: [&str; 2],
    bytes: Vec<u8>,
) -> Result<DynamicMessage, tonic::Status> {
    let method = spelling::method(rpc);
    let mut message = DynamicMessage::new(method.input());
    message.merge(bytes_of(request, &method.input()).as_slice()).unwrap();
    let holder = message.get_field_by_name_mut(path[0]).unwrap().as_message_mut().unwrap();
    let field = holder.descriptor().get_field_by_name(path[1]).unwrap();
    let prost_reflect::Kind::Message(kind) = field.kind() else { panic!("{path:?}") };
    // As a generated client does that keeps what it does not know.
    holder
        .set_field(&field, Field::Message(DynamicMessage::decode(kind, bytes.as_slice()).unwrap()));
    world.through(Protocol::Grpc).send(rpc, message).await
}

fn bytes_of(request: &Value, message: &prost_reflect::MessageDescriptor) -> Vec<u8> {
    DynamicMessage::deserialize(message.clone(), request.clone()).unwrap().encode_to_vec()
}

/// The attributes of an entity as a client sees them that knows the texts.
async fn exact_attributes(world: &World, id: &str) -> ExactStruct {
    let method = spelling::method("EntityService/GetEntity");
    let request = DynamicMessage::deserialize(method.input(), json!({"entity_id": id})).unwrap();
    let entity =
        world.through(Protocol::Grpc).send("EntityService/GetEntity", request).await.unwrap();
    let attributes =
        entity.get_field_by_name("attributes").unwrap().as_message().unwrap().encode_to_vec();
    ExactStruct::decode(attributes.as_slice()).unwrap()
}

#[tokio::test]
async fn by_grpc_a_number_is_the_nearest_double_and_its_text_stands_beside_it() {
    let world = &World::start(Protocol::Rest).await;
    good(
        world,
        "POST",
        "/v1/entities",
        &format!(r#"{{"entity_id":"a","type":"T","attributes":{SENT}}}"#),
    )
    .await;
    // A client that knows `google.protobuf.Struct` alone.
    let seen = world
        .through(Protocol::Grpc)
        .call("EntityService/GetEntity", json!({"entity_id": "a"}))
        .await
        .unwrap();
    let doubles = json!({"big": 9007199254740992.0, "dec": 1234567890.1234567, "deep": [{"n": -1.2345678901234568e29}],
                         "scale": [1.1, 15, 0], "vast": f64::MAX});
    assert_eq!(seen.get("attributes"), &doubles);
    // One that knows more.
    let exact = exact_attributes(world, "a").await;
    assert_eq!(exact.fields["big"], number(9007199254740992.0, "9007199254740993"));
    assert_eq!(exact.fields["dec"], number(1234567890.1234567, "1234567890.123456789"));
    assert_eq!(exact.fields["vast"], number(f64::MAX, "1e400"));

    let attributes = |value: ExactValue| {
        ExactStruct { fields: [("n".to_owned(), value)].into() }.encode_to_vec()
    };
    let create = async |id: &str, value: ExactValue| {
        let request = json!({"entity": {"entity_id": id, "type": "T"}});
        grpc_with(
            world,
            "EntityService/CreateEntity",
            &request,
            ["entity", "attributes"],
            attributes(value),
        )
        .await
    };
    for (id, double, text, reported) in [
        ("b", 9007199254740992.0, "9007199254740993", "9007199254740993"),
        ("c", 1.1, "1.10", "1.10"),
        ("d", f64::MIN, "-1e400", "-1e400"),
        // A caller who sets the double has not seen the text.
        ("e", 5.0, "9007199254740993", "5"),
        ("f", 2.5, "", "2.5"),
        ("g", 2.5, "two", "2.5"),
    ] {
        create(id, number(double, text)).await.unwrap();
        holds(
            &good(world, "GET", &format!("/v1/entities/{id}"), "").await,
            "attributes",
            &format!("{{\"n\":{reported}}}"),
        );
    }
    let refused = create("z", number(f64::MAX, "1e400000")).await.unwrap_err();
    assert!(
        refused.code() == tonic::Code::InvalidArgument
            && refused.message().contains("1,000 digits"),
        "{refused:?}"
    );
    // A client that sends back what it has read loses nothing, though it knows doubles alone.
    let read = exact_attributes(world, "b").await.encode_to_vec();
    let request = json!({"entity_id": "c", "entity": {}});
    grpc_with(world, "EntityService/UpdateEntity", &request, ["entity", "attributes"], read)
        .await
        .unwrap();
    holds(
        &good(world, "GET", "/v1/entities/c", "").await,
        "attributes",
        r#"{"n":9007199254740993}"#,
    );
}
