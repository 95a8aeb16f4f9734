//! How many elements the lists of a request have, counted on the wire.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

use super::DESCRIPTOR_SET;
use crate::error::Error;
use crate::limits::bodies::{DEFAULT_MAX_ITEMS, MAX_LISTED_MESSAGES, MESSAGE_ITEMS, MESSAGE_LISTED};
use crate::limits::thousands;

/// The request messages of every method, and what is in them.
static GUARDS: LazyLock<Guards> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(DESCRIPTOR_SET).expect("the build made this descriptor set");
    let mut guards = Guards::default();
    for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
        let place = guards.add(&method.input());
        guards.requests.insert(method.input().full_name().to_owned(), place);
    }
    guards
});

#[derive(Default)]
struct Guards {
    requests: HashMap<String, usize>,
    places: HashMap<String, usize>,
    messages: Vec<HashMap<u32, Field>>,
}

/// A field that is a list, or a message that may hold one.
struct Field {
    name: String,
    /// How many elements it may have, if it is a list, and which of the lists of its message it is.
    list: Option<(usize, usize)>,
    message: Option<usize>,
}

impl Guards {
    fn add(&mut self, descriptor: &MessageDescriptor) -> usize {
        if let Some(place) = self.places.get(descriptor.full_name()) {
            return *place;
        }
        let place = self.messages.len();
        self.places.insert(descriptor.full_name().to_owned(), place);
        self.messages.push(HashMap::new());
        let mut lists = 0;
        for field in descriptor.fields() {
            let message = match field.kind() {
                // Those that are free-form check themselves.
                Kind::Message(inner) if inner.full_name() != "google.protobuf.Struct" => Some(self.add(&inner)),
                _ => None,
            };
            let list = (field.is_list() || field.is_map()).then(|| (max_items(&field), lists));
            lists += usize::from(list.is_some());
            if list.is_some() || message.is_some() {
                self.messages[place].insert(field.number(), Field { name: field.name().to_owned(), list, message });
            }
        }
        place
    }
}

/// How many elements are decoded.
fn max_items(field: &FieldDescriptor) -> usize {
    let declared = || {
        let extension = field.parent_pool().get_extension_by_name("offboard.v1.limits")?;
        let options = field.options();
        let limits = options.get_extension(&extension);
        let limits = limits.as_message().filter(|limits| limits.has_field_by_name("max_items"))?;
        usize::try_from(limits.get_field_by_name("max_items")?.as_i32()?).ok()
    };
    declared().unwrap_or_default().max(DEFAULT_MAX_ITEMS)
}

/// Why a message is not decoded: the path to the list, from its end, and what is wrong with it.
enum Stop {
    TooMany(Vec<String>, String),
    /// prost says what is wrong.
    Malformed,
}

/// Fails where a list of the message of this type is too long. Messages that are no requests are not looked into.
pub fn check(full_name: &str, message: &[u8]) -> Result<(), Error> {
    let Some(place) = GUARDS.requests.get(full_name) else { return Ok(()) };
    match walk(*place, message, &mut 0) {
        Ok(()) | Err(Stop::Malformed) => Ok(()),
        Err(Stop::TooMany(mut path, description)) => {
            path.reverse();
            Err(Error::invalid(path.join("."), "too_many", description))
        }
    }
}

fn walk(place: usize, mut rest: &[u8], listed: &mut usize) -> Result<(), Stop> {
    let fields = &GUARDS.messages[place];
    if fields.is_empty() {
        return Ok(());
    }
    // No request has more lists in one message.
    let mut counts = [0_usize; 16];
    while !rest.is_empty() {
        let (number, wire_type) = decode_key(&mut rest).map_err(|_| Stop::Malformed)?;
        let Some(field) = fields.get(&number).filter(|_| wire_type == WireType::LengthDelimited) else {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).map_err(|_| Stop::Malformed)?;
            continue;
        };
        let length = decode_varint(&mut rest).ok().and_then(|length| usize::try_from(length).ok()).ok_or(Stop::Malformed)?;
        let (content, behind) = rest.split_at_checked(length).ok_or(Stop::Malformed)?;
        rest = behind;
        let mut index = None;
        if let Some((max, list)) = field.list {
            let count = counts.get_mut(list).ok_or(Stop::Malformed)?;
            index = Some(*count);
            *count += 1;
            if *count > max {
                MESSAGE_ITEMS.reached();
                return Err(Stop::TooMany(vec![field.name.clone()], format!("must be at most {}", thousands(max))));
            }
            *listed += usize::from(field.message.is_some());
            if *listed > MAX_LISTED_MESSAGES {
                MESSAGE_LISTED.reached();
                return Err(Stop::TooMany(
                    vec![field.name.clone()],
                    format!("the request has more than {} objects in lists", thousands(MAX_LISTED_MESSAGES)),
                ));
            }
        }
        if let Some(message) = field.message {
            walk(message, content, listed).map_err(|stop| match stop {
                Stop::TooMany(mut path, description) => {
                    path.push(index.map_or_else(|| field.name.clone(), |index| format!("{}[{index}]", field.name)));
                    Stop::TooMany(path, description)
                }
                Stop::Malformed => stop,
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::v1;

    fn fault(name: &str, message: &impl Message) -> Option<(String, String)> {
        let error = check(name, &message.encode_to_vec()).err()?;
        Some((error.violations()[0].field.clone(), error.violations()[0].description.clone()))
    }

    fn entity(dependents: usize) -> Option<v1::NewEntity> {
        Some(v1::NewEntity { dependents: vec![v1::NewDependent::default(); dependents], ..Default::default() })
    }

    #[test]
    fn every_request_is_known_and_has_few_lists() {
        assert!(GUARDS.requests.len() > 20);
        for fields in &GUARDS.messages {
            assert!(fields.values().filter(|field| field.list.is_some()).count() <= 16);
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_named() {
        let create = |dependents| v1::CreateEntityRequest { entity: entity(dependents) };
        assert_eq!(fault("offboard.v1.CreateEntityRequest", &create(10_000)), None);
        let too_many = Some(("entity.dependents".to_owned(), "must be at most 10,000".to_owned()));
        assert_eq!(fault("offboard.v1.CreateEntityRequest", &create(10_001)), too_many);
        let batch = |requests, dependents| v1::BatchCreateEntitiesRequest { requests: vec![create(dependents); requests] };
        assert_eq!(fault("offboard.v1.BatchCreateEntitiesRequest", &batch(1_000, 49)), None);
        let (path, _) = fault("offboard.v1.BatchCreateEntitiesRequest", &batch(10_001, 0)).unwrap();
        assert_eq!(path, "requests");
        let (path, _) = fault("offboard.v1.BatchCreateEntitiesRequest", &batch(1_000, 100)).unwrap();
        assert_eq!(path, "requests[495].entity.dependents");
    }

    #[test]
    fn what_is_no_request_or_no_message_is_left_to_prost() {
        let entities = vec![v1::Entity::default(); 20_000];
        assert_eq!(fault("offboard.v1.ListEntitiesResponse", &v1::ListEntitiesResponse { entities, ..Default::default() }), None);
        assert!(check("offboard.v1.CreateEntityRequest", b"\x0a\xff").is_ok());
    }
}
