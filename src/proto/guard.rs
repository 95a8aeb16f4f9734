//! How many elements the lists of a request have, counted on the wire.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint, skip_field,
};
use prost_reflect::{DescriptorPool, FieldDescriptor, Kind, MessageDescriptor};

use super::DESCRIPTOR_SET;
use crate::error::Violations;
use crate::limits::bodies::{
    DEFAULT_MAX_ITEMS, MAX_LISTED_MESSAGES, MESSAGE_ITEMS, MESSAGE_LISTED,
};
use crate::limits::thousands;

/// The request messages of every method, and their fields.
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

/// A field that is a list, or a message that may have one.
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
                Kind::Message(inner) if inner.full_name() != "google.protobuf.Struct" => {
                    Some(self.add(&inner))
                }
                _ => None,
            };
            let list = (field.is_list() || field.is_map()).then(|| (max_items(&field), lists));
            lists += usize::from(list.is_some());
            if list.is_some() || message.is_some() {
                self.messages[place]
                    .insert(field.number(), Field { name: field.name().to_owned(), list, message });
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

/// The faults of the lists of a message of this type, and the message without the surplus of its lists; nothing if no list is too long.
/// Messages that are not requests are not scanned. Nothing is left of a malformed one.
pub fn shortened(full_name: &str, message: &[u8]) -> Option<(Option<Vec<u8>>, Violations)> {
    let place = *GUARDS.requests.get(full_name)?;
    let mut scan = Scan { listed: 0, kept: None, path: Vec::new(), faults: Violations::new() };
    let is_malformed = scan.walk(place, message).is_err();
    if scan.faults.is_empty() {
        return None;
    }
    if is_malformed {
        return Some((None, scan.faults));
    }
    // Few have anything too long, so the rest is written only then.
    let mut again =
        Scan { listed: 0, kept: Some(Vec::new()), path: Vec::new(), faults: Violations::new() };
    let left = again.walk(place, message).ok().and(again.kept);
    Some((left, scan.faults))
}

/// A message that prost refuses.
struct Malformed;

/// A scan of a message.
struct Scan {
    /// How many objects were in lists so far.
    listed: usize,
    /// The rest of the message, if that is wanted.
    kept: Option<Vec<u8>>,
    /// Where it is.
    path: Vec<String>,
    faults: Violations,
}

impl Scan {
    fn walk(&mut self, place: usize, message: &[u8]) -> Result<(), Malformed> {
        let fields = &GUARDS.messages[place];
        if fields.is_empty() {
            self.keep(message);
            return Ok(());
        }
        // No request has more lists in one message.
        let mut counts = [0_usize; 16];
        let mut rest = message;
        while !rest.is_empty() {
            let start = rest;
            let (number, wire_type) = decode_key(&mut rest).map_err(|_| Malformed)?;
            let Some(field) =
                fields.get(&number).filter(|_| wire_type == WireType::LengthDelimited)
            else {
                skip_field(wire_type, number, &mut rest, DecodeContext::default())
                    .map_err(|_| Malformed)?;
                self.keep(&start[..start.len() - rest.len()]);
                continue;
            };
            let length = decode_varint(&mut rest)
                .ok()
                .and_then(|length| usize::try_from(length).ok())
                .ok_or(Malformed)?;
            let (content, behind) = rest.split_at_checked(length).ok_or(Malformed)?;
            rest = behind;
            let mut index = None;
            if let Some((max, list)) = field.list {
                let count = counts.get_mut(list).ok_or(Malformed)?;
                index = Some(*count);
                *count += 1;
                if *count > max {
                    if *count == max + 1 {
                        MESSAGE_ITEMS.reached();
                        self.fault(field, format!("must be at most {}", thousands(max)));
                    }
                    continue;
                }
                self.listed += usize::from(field.message.is_some());
                if field.message.is_some() && self.listed > MAX_LISTED_MESSAGES {
                    if self.listed == MAX_LISTED_MESSAGES + 1 {
                        MESSAGE_LISTED.reached();
                        self.fault(
                            field,
                            format!(
                                "the request has more than {} objects in lists",
                                thousands(MAX_LISTED_MESSAGES)
                            ),
                        );
                    }
                    continue;
                }
            }
            match field.message {
                None => self.keep(&start[..start.len() - rest.len()]),
                Some(message) => {
                    self.path.push(index.map_or_else(
                        || field.name.clone(),
                        |index| format!("{}[{index}]", field.name),
                    ));
                    self.nested(number, message, content)?;
                    self.path.pop();
                }
            }
        }
        Ok(())
    }

    fn nested(&mut self, number: u32, message: usize, content: &[u8]) -> Result<(), Malformed> {
        let Some(before) = self.kept.take() else { return self.walk(message, content) };
        self.kept = Some(Vec::with_capacity(content.len()));
        self.walk(message, content)?;
        let inner = self.kept.replace(before).unwrap_or_default();
        if let Some(kept) = &mut self.kept {
            encode_key(number, WireType::LengthDelimited, kept);
            encode_varint(inner.len() as u64, kept);
            kept.extend_from_slice(&inner);
        }
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) {
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
    }

    fn fault(&mut self, field: &Field, description: String) {
        let within = self.path.iter().flat_map(|name| [name.as_str(), "."]).collect::<String>();
        self.faults.add(format!("{within}{}", field.name), "too_many", description);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::proto::v1;

    fn fault(name: &str, message: &impl Message) -> Option<(String, String)> {
        let (_, faults) = shortened(name, &message.encode_to_vec())?;
        Some((faults.as_slice()[0].field.clone(), faults.as_slice()[0].description.clone()))
    }

    fn entity(dependents: usize) -> Option<v1::NewEntity> {
        Some(v1::NewEntity {
            dependents: vec![v1::NewDependent::default(); dependents],
            ..Default::default()
        })
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
        let batch = |requests, dependents| v1::BatchCreateEntitiesRequest {
            requests: vec![create(dependents); requests],
        };
        assert_eq!(fault("offboard.v1.BatchCreateEntitiesRequest", &batch(1_000, 49)), None);
        let (path, _) = fault("offboard.v1.BatchCreateEntitiesRequest", &batch(10_001, 0)).unwrap();
        assert_eq!(path, "requests");
        let (path, _) =
            fault("offboard.v1.BatchCreateEntitiesRequest", &batch(1_000, 100)).unwrap();
        assert_eq!(path, "requests[495].entity.dependents");
    }

    #[test]
    fn what_is_no_request_or_no_message_is_left_to_prost() {
        let entities = vec![v1::Entity::default(); 20_000];
        assert_eq!(
            fault(
                "offboard.v1.ListEntitiesResponse",
                &v1::ListEntitiesResponse { entities, ..Default::default() }
            ),
            None
        );
        assert!(shortened("offboard.v1.CreateEntityRequest", b"\x0a\xff").is_none());
        let broken = [
            v1::BatchCreateEntitiesRequest { requests: vec![Default::default(); 10_001] }
                .encode_to_vec(),
            vec![0x0a, 0xff],
        ]
        .concat();
        let (left, faults) = shortened("offboard.v1.BatchCreateEntitiesRequest", &broken).unwrap();
        assert_eq!(
            (left, faults.count()),
            (None, 1),
            "what is malformed behind a list that is too long is not decoded"
        );
    }

    #[test]
    fn all_that_is_not_too_much_is_left_with_every_fault() {
        let new = v1::NewEntity {
            entity_id: "e".to_owned(),
            components: vec!["c".to_owned(); 10_003],
            r#type: "T".to_owned(),
            ..entity(10_002).unwrap()
        };
        let request = v1::BatchCreateEntitiesRequest {
            requests: vec![
                v1::CreateEntityRequest { entity: Some(new.clone()) },
                v1::CreateEntityRequest { entity: entity(1) },
            ],
        };
        let (left, faults) =
            shortened("offboard.v1.BatchCreateEntitiesRequest", &request.encode_to_vec())
                .expect("faults");
        let mut fields: Vec<_> =
            faults.as_slice().iter().map(|fault| fault.field.as_str()).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["requests[0].entity.components", "requests[0].entity.dependents"]);
        let left = v1::BatchCreateEntitiesRequest::decode(left.expect("a message").as_slice())
            .expect("a message");
        let cut = v1::NewEntity {
            components: vec!["c".to_owned(); 10_000],
            dependents: vec![v1::NewDependent::default(); 10_000],
            ..new
        };
        assert_eq!(left.requests[0].entity, Some(cut));
        assert_eq!(left.requests[1], request.requests[1]);
    }
}
