//! One request for each RPC, which succeeds once in a realm where `World::given_examples` has made what it names. The one place for what a
//! list of RPCs cannot derive: a test fails for an RPC that has no example, and names it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::rpcs::{Rpc, option, rpcs};
use super::world::World;
use super::{Answer, Client, Failure};

/// Stands for the offboarding request that reads read.
const ASKED: &str = "0190a1b2-0000-7000-8000-000000000001";
/// Stands for the offboarding request that is canceled.
const CANCELED: &str = "0190a1b2-0000-7000-8000-000000000002";
/// Tasks that no worker takes up: the one that reads read, and one for each RPC that changes one.
const TASKS: [&str; 5] = [
    "0190aaaa-0000-7000-8000-00000000000a",
    "0190aaaa-0000-7000-8000-00000000000b",
    "0190aaaa-0000-7000-8000-00000000000c",
    "0190aaaa-0000-7000-8000-00000000000d",
    "0190aaaa-0000-7000-8000-00000000000e",
];

/// Keys: the one that reads read, and one for each RPC that changes one.
const KEYS: [&str; 4] = [
    "0190a1b2-0000-7000-8000-00000000000a",
    "0190a1b2-0000-7000-8000-00000000000b",
    "0190a1b2-0000-7000-8000-00000000000c",
    "0190a1b2-0000-7000-8000-00000000000d",
];

/// The requests that were written by hand.
fn by_hand() -> BTreeMap<&'static str, Value> {
    let [read, updated, paused, resumed, stopped] = TASKS;
    let [read_key, updated_key, rotated_key, revoked_key] = KEYS;
    let seen = json!({"entity_id": "seen"});
    let dependent = json!({"entity_id": "seen", "kind": "task", "dependent_id": "t"});
    let fund = json!({"portfolio_id": "q"});
    BTreeMap::from([
        ("AccessService/CreateKey", json!({"scopes": ["keys:write"]})),
        ("AccessService/GetKey", json!({"key_id": read_key})),
        ("AccessService/UpdateKey", json!({"key_id": updated_key, "name": "Other"})),
        ("AccessService/RotateKey", json!({"key_id": rotated_key, "overlap": "60s"})),
        ("AccessService/RevokeKey", json!({"key_id": revoked_key})),
        ("AccessService/UpdateAccessPolicy", json!({"allowed": ["127.0.0.0/8", "::1/128"]})),
        ("AttributeIndexService/CreateAttributeIndex", json!({"attribute": "LastName"})),
        ("AttributeIndexService/GetAttributeIndex", json!({"attribute": "kept"})),
        ("AttributeIndexService/DeleteAttributeIndex", json!({"attribute": "known"})),
        (
            "BulkDeleteService/StartBulkDelete",
            json!({"spec": {"objects": {"filter": "equals(type, 'Nothing')"}}}),
        ),
        ("BulkDeleteService/CheckConsistency", json!({"fix": false})),
        ("BulkDeleteService/GetTask", json!({"task_id": read})),
        ("BulkDeleteService/WatchTask", json!({"task_id": read})),
        ("BulkDeleteService/PauseTask", json!({"task_id": paused})),
        ("BulkDeleteService/ResumeTask", json!({"task_id": resumed})),
        ("BulkDeleteService/StopTask", json!({"task_id": stopped})),
        ("BulkDeleteService/UpdateTask", json!({"task_id": updated, "max_objects_per_second": 10})),
        ("BulkDeleteService/ListTaskFailures", json!({"task_id": read})),
        ("BulkDeleteService/ListTaskExcludes", json!({"task_id": read})),
        ("BulkDeleteService/ListTaskFindings", json!({"task_id": read})),
        ("EntityService/CreateEntity", json!({"entity": {"type": "T"}})),
        (
            "EntityService/BatchCreateEntities",
            json!({"requests": [{"entity": {"type": "T"}}, {"entity": {"type": "T"}}]}),
        ),
        ("EntityService/BatchGetEntities", json!({"entity_ids": ["seen"]})),
        (
            "EntityService/UpdateEntity",
            json!({"entity_id": "updated", "entity": {"attributes": {"a": 1}}}),
        ),
        ("EntityService/CompleteOnboarding", json!({"entity_id": "new"})),
        ("EntityService/PlaceHold", json!({"entity_id": "free", "reason": "audit"})),
        ("EntityService/ReleaseHold", json!({"entity_id": "held"})),
        (
            "EntityService/PutDependent",
            json!({"entity_id": "updated", "kind": "task", "dependent_id": "t", "data": {"n": 1}}),
        ),
        ("EntityService/GetDependent", dependent),
        ("EntityService/ListDependents", seen.clone()),
        (
            "EntityService/DeleteDependent",
            json!({"entity_id": "parent", "kind": "task", "dependent_id": "t"}),
        ),
        ("EntityService/GetEntity", seen.clone()),
        ("EntityService/ImportEntities", json!({"entity": {"type": "T"}})),
        (
            "OffboardingService/RequestOffboarding",
            json!({"entity_id": "asked", "grace_period": "3600s"}),
        ),
        ("OffboardingService/GetOffboardingRequest", json!({"offboarding_request_id": ASKED})),
        ("OffboardingService/WatchOffboardingRequest", json!({"offboarding_request_id": ASKED})),
        (
            "OffboardingService/CancelOffboardingRequest",
            json!({"offboarding_request_id": CANCELED}),
        ),
        ("PortfolioService/CreatePortfolio", json!({"name": "Fund"})),
        ("PortfolioService/GetPortfolio", fund.clone()),
        ("PortfolioService/UpdatePortfolio", json!({"portfolio_id": "p", "name": "Other"})),
        ("PortfolioService/DeletePortfolio", json!({"portfolio_id": "empty"})),
        ("PortfolioService/AttachEntity", json!({"portfolio_id": "p", "entity_id": "attached"})),
        ("PortfolioService/DetachEntity", json!({"portfolio_id": "q", "entity_id": "member"})),
        (
            "PortfolioService/BatchAttachEntities",
            json!({"portfolio_id": "p", "entity_ids": ["many", "nobody"]}),
        ),
        (
            "PortfolioService/BatchDetachEntities",
            json!({"portfolio_id": "q", "entity_ids": ["other_member", "nobody"]}),
        ),
        ("PortfolioService/ListPortfolioEntities", fund.clone()),
        ("PortfolioService/ExportPortfolio", fund),
        ("RemovalService/RemoveEntity", json!({"entity_id": "removed"})),
        ("RemovalService/GetRemovalJob", json!({"job_id": ASKED})),
        ("RemovalService/PreviewRemoval", seen),
        (
            "RemovalService/UpdateRemovalPolicy",
            json!({"policy": {"max_grace_period": "7200s"}, "update_mask": "maxGracePeriod"}),
        ),
    ])
}

/// The example of an RPC. One that only reads and can be asked with nothing needs none that is written by hand.
pub fn example(rpc: &Rpc) -> Value {
    let given = by_hand().remove(rpc.name.as_str());
    given.or_else(|| (rpc.only_reads() && !needs_something(rpc)).then(|| json!({}))).unwrap_or_else(
        || panic!("{} has no example: write one into tests/kit/examples.rs", rpc.name),
    )
}

/// The examples of RPCs that there are not, for a test that names them.
pub fn examples_of_nothing() -> Vec<&'static str> {
    let names: Vec<String> = rpcs().into_iter().map(|rpc| rpc.name).collect();
    by_hand().into_keys().filter(|name| !names.iter().any(|known| known == name)).collect()
}

/// True if a member of the request is required.
fn needs_something(rpc: &Rpc) -> bool {
    const REQUIRED: i32 = 2;
    let behaviour = option("google.api.field_behavior");
    rpc.method.input().fields().any(|field| {
        let options = field.options();
        let behaviours = options.get_extension(&behaviour);
        behaviours
            .as_list()
            .is_some_and(|list| list.iter().any(|one| one.as_enum_number() == Some(REQUIRED)))
    })
}

/// The examples, with the ids that were made for them.
pub struct Examples {
    made: Vec<(&'static str, String)>,
}

impl Examples {
    /// The example of an RPC.
    pub fn of(&self, rpc: &Rpc) -> Value {
        let mut text = example(rpc).to_string();
        for (stands_for, id) in &self.made {
            text = text.replace(stands_for, id);
        }
        serde_json::from_str(&text).unwrap()
    }
}

impl World {
    /// Makes all that the examples name.
    pub async fn given_examples(&self) -> Examples {
        let done = async |method: &str, request: Value| {
            let answer = self.call(method, request).await;
            answer.unwrap_or_else(|failure| panic!("{method}: {failure:#?}")).json
        };
        for portfolio in ["p", "q", "empty"] {
            let request = json!({"portfolio_id": portfolio, "name": "Fund"});
            done("PortfolioService/CreatePortfolio", request).await;
        }
        let entities = [
            "seen",
            "updated",
            "free",
            "held",
            "parent",
            "attached",
            "member",
            "other_member",
            "many",
            "removed",
            "asked",
            "waiting",
            "canceled",
        ];
        for entity in entities {
            let entity = json!({"entity_id": entity, "type": "T"});
            done("EntityService/CreateEntity", json!({"entity": entity})).await;
        }
        let new = json!({"entity_id": "new", "type": "T", "state": "onboarding"});
        done("EntityService/CreateEntity", json!({"entity": new})).await;
        done("EntityService/PlaceHold", json!({"entity_id": "held", "reason": "audit"})).await;
        for parent in ["seen", "parent"] {
            let task = json!({"entity_id": parent, "kind": "task", "dependent_id": "t"});
            done("EntityService/PutDependent", task).await;
        }
        for attribute in ["kept", "known"] {
            done("AttributeIndexService/CreateAttributeIndex", json!({"attribute": attribute}))
                .await;
        }
        for member in ["member", "other_member"] {
            let request = json!({"portfolio_id": "q", "entity_id": member});
            done("PortfolioService/AttachEntity", request).await;
        }
        for task in TASKS {
            self.database.given_task(task);
        }
        for key in KEYS {
            self.database.given_key(key);
        }
        let mut made = Vec::new();
        for (stands_for, entity) in [(ASKED, "waiting"), (CANCELED, "canceled")] {
            let request = json!({"entity_id": entity, "grace_period": "3600s"});
            let asked = done("OffboardingService/RequestOffboarding", request).await;
            made.push((stands_for, asked["id"].as_str().unwrap().to_owned()));
        }
        Examples { made }
    }
}

impl Client {
    /// Calls any RPC, with more headers: one that takes a stream with one message, one that answers with a stream until it has begun, of which
    /// the answer has the headers alone.
    pub async fn call_any(
        &self,
        rpc: &Rpc,
        request: Value,
        headers: &[(&str, &str)],
    ) -> Result<Answer, Failure> {
        if rpc.takes_a_stream() {
            return self.import_with(&[request["entity"].clone()], headers).await;
        }
        if rpc.answers_with_a_stream() {
            let stream = self.stream(&rpc.name, request, headers).await?;
            let headers = stream.headers().to_vec();
            return Ok(Answer { json: Value::Null, http: None, headers });
        }
        self.call_with(&rpc.name, request, headers).await
    }
}
