//! Which members of requests name a thing of a realm. Every member with text is listed in `NAMES` or `OTHERS`, or a test that asks fails for it
//! by name: so a new RPC is tried with the things of others, without anyone remembering.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::rpcs::Rpc;

/// A kind of thing that belongs to a realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// An entity.
    Entity,
    /// A portfolio.
    Portfolio,
    /// An offboarding request, which is a removal job by its other contract.
    Request,
    /// A task.
    Task,
    /// An attribute index, named by its attribute.
    Index,
    /// A key.
    Key,
}

/// The members that name a thing.
const NAMES: &[(&str, Thing)] = &[
    ("attribute", Thing::Index),
    ("entity_id", Thing::Entity),
    ("entity_ids", Thing::Entity),
    ("exclude_list", Thing::Entity),
    ("job_id", Thing::Request),
    ("key_id", Thing::Key),
    ("offboarding_request_id", Thing::Request),
    ("portfolio_id", Thing::Portfolio),
    ("subject", Thing::Entity),
    ("task_id", Thing::Task),
    ("uri_list", Thing::Entity),
    ("uris", Thing::Entity),
];

/// The members with text that names nothing of a realm, or what is within a thing that is named beside it. Tenants, principals, tokens and
/// cursors of others have tests of their own.
const OTHERS: &[&str] = &[
    "BulkDeleteSpec.preview_token",
    "CreateKeyRequest.name",
    "CheckConsistencyRequest.send_mail",
    "CreatePortfolioRequest.name",
    "CreatePortfolioRequest.shared_registered_agent_id",
    "EntityUpdate.components",
    "EntityUpdate.type",
    "ListOffboardingRequestsRequest.continuation_token",
    "NewDependent.id",
    "NewEntity.components",
    "NewEntity.type",
    "PlaceHoldRequest.reason",
    "RemovalPolicy.mail_domains",
    "StartBulkDeleteRequest.preview_token",
    "StartBulkDeleteRequest.send_mail",
    "UpdateKeyRequest.name",
    "UpdatePortfolioRequest.name",
    "UpdatePortfolioRequest.shared_registered_agent_id",
    "WatchEventsRequest.cursor",
    "allowed",
    "api_version",
    "created_by",
    "dependent_id",
    "email",
    "entity_type",
    "filter",
    "kind",
    "order_by",
    "page_token",
    "scopes",
    "tenant",
    "types",
];

/// The members that give a new thing its id, by their message: what has the id in another realm is no matter there.
const NEW: &[&str] = &[
    "CreateAttributeIndexRequest.attribute",
    "CreatePortfolioRequest.portfolio_id",
    "NewEntity.entity_id",
];

/// A member of a request that names a thing.
#[derive(Clone, Debug)]
pub struct Place {
    /// What it names.
    pub thing: Thing,
    /// True if it gives a new thing its id.
    pub is_new: bool,
    path: Vec<FieldDescriptor>,
}

impl Rpc {
    /// The members of the request that name a thing, also those of messages in it.
    pub fn places(&self) -> Vec<Place> {
        let mut found = Vec::new();
        look(&self.method.input(), &mut Vec::new(), &mut found);
        found
    }
}

fn look(message: &MessageDescriptor, path: &mut Vec<FieldDescriptor>, found: &mut Vec<Place>) {
    for field in message.fields() {
        path.push(field.clone());
        match field.kind() {
            Kind::Message(inner) if inner.package_name() == "offboard.v1" => {
                look(&inner, path, found);
            }
            Kind::String => {
                let full = format!("{}.{}", message.name(), field.name());
                let name = NAMES.iter().find(|(name, _)| *name == field.name());
                let is_other = OTHERS.contains(&full.as_str()) || OTHERS.contains(&field.name());
                match name {
                    Some((_, thing)) => found.push(Place {
                        thing: *thing,
                        is_new: NEW.contains(&full.as_str()),
                        path: path.clone(),
                    }),
                    None => assert!(is_other, "tests/kit/names.rs does not say what {full} names"),
                }
            }
            _ => {}
        }
        path.pop();
    }
}

impl Place {
    /// The member, with those that it is in: `entity.portfolio_id`.
    pub fn name(&self) -> String {
        let names: Vec<&str> = self.path.iter().map(FieldDescriptor::name).collect();
        names.join(".")
    }

    /// Has the request name this id, in the first element where there are several.
    pub fn put(&self, request: &mut Value, id: &str) {
        put(request, &self.path, id);
    }
}

fn put(value: &mut Value, path: &[FieldDescriptor], id: &str) {
    let Some((field, rest)) = path.split_first() else {
        *value = json!(id);
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let mut member = &mut value[field.name()];
    if field.is_list() {
        // Nothing but the id, where ids are listed.
        if !member.is_array() || rest.is_empty() {
            *member = json!([null]);
        }
        member = &mut member[0];
    }
    put(member, rest, id);
}
