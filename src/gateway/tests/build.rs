//! Rules that cannot be obeyed are refused when the gateway is built.

use prost_reflect::DescriptorPool;

use super::service::pool;
use crate::gateway::{Gateway, Options};

/// The descriptors of one service with this RPC.
fn with_rpc(rpcs: &str) -> DescriptorPool {
    let source = format!(
        r#"syntax = "proto3";
        package broken;
        import "google/api/annotations.proto";
        import "offboard/v1/annotations.proto";
        service Broken {{
          option (offboard.v1.json_style) = JSON_STYLE_SNAKE_CASE;
          {rpcs}
        }}
        message Thing {{ string id = 1; repeated string many = 2; Thing inner = 3; map<string, string> map = 4; }}"#
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("broken.proto"), source).unwrap();
    let root = env!("CARGO_MANIFEST_DIR");
    let mut compiler =
        protox::Compiler::new([folder.path().to_path_buf(), format!("{root}/proto").into()])
            .unwrap();
    compiler.include_imports(true).open_file("broken.proto").unwrap();
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap()
}

fn failure(rpcs: &str) -> String {
    Gateway::new(with_rpc(rpcs), (), Options::default()).map(drop).unwrap_err().to_string()
}

fn rule(rule: &str) -> String {
    format!("rpc Do(Thing) returns (Thing) {{ option (google.api.http) = {{ {rule} }}; }}")
}

#[test]
fn the_routes_of_the_project_are_built() {
    let descriptors = DescriptorPool::decode(crate::proto::DESCRIPTOR_SET).unwrap();
    Gateway::new(descriptors, (), Options::default()).unwrap();
}

#[test]
fn descriptors_without_rules_have_no_routes() {
    Gateway::new(pool(&["google/rpc/status.proto"]), (), Options::default()).unwrap();
}

#[test]
fn a_rule_that_does_not_fit_its_messages_is_refused() {
    for (text, fault) in [
        (
            r#"get: "/{id""#,
            "broken.Broken.Do: the path `/{id` cannot be read: `}` is expected before ``",
        ),
        (r#"get: "/{other}""#, "broken.Broken.Do: `other` is not a field that a path can set"),
        (r#"get: "/{many}""#, "broken.Broken.Do: `many` is not a field that a path can set"),
        (r#"get: "/{inner}""#, "broken.Broken.Do: `inner` is not a field that a path can set"),
        (r#"get: "/{many.id}""#, "broken.Broken.Do: `many.id` is not a field that a path can set"),
        (
            r#"post: "/x" body: "other""#,
            "broken.Broken.Do: `other` is not a field that a body can be",
        ),
        (
            r#"get: "/x" response_body: "other""#,
            "broken.Broken.Do: `other` is not a field that a body can be",
        ),
        (
            r#"custom: {kind: "HEAD" path: "/x"}"#,
            "broken.Broken.Do: HEAD is served for every route and cannot have one of its own",
        ),
        (r#"custom: {kind: "A B" path: "/x"}"#, "broken.Broken.Do: `A B` is not an HTTP method"),
        (r#"body: "*""#, "broken.Broken.Do: the rule has no path"),
    ] {
        assert_eq!(failure(&rule(text)), fault);
    }
}

#[test]
fn a_member_that_the_answer_does_not_have_is_refused() {
    let rpc = r#"rpc Do(Thing) returns (Thing) {
        option (google.api.http) = { get: "/x" };
        option (offboard.v1.answer_members) = "other";
    }"#;
    assert_eq!(failure(rpc), "broken.Broken.Do: `other` is not a member of the response");
}

#[test]
fn two_rpcs_cannot_have_one_route() {
    let one =
        r#"rpc One(Thing) returns (Thing) { option (google.api.http) = { get: "/x/{id}" }; }"#;
    let two = r#"rpc Two(Thing) returns (Thing) { option (google.api.http) = { get: "/x/{inner.id}" }; }"#;
    assert_eq!(
        failure(&format!("{one} {two}")),
        "broken.Broken.Two: GET /x/* leads to broken.Broken.One already"
    );
}

#[test]
fn a_stream_without_a_body_is_refused() {
    let rpc =
        r#"rpc Do(stream Thing) returns (Thing) { option (google.api.http) = { post: "/x" }; }"#;
    assert_eq!(
        failure(rpc),
        "broken.Broken.Do: an RPC to which the client sends a stream needs a body"
    );
}
