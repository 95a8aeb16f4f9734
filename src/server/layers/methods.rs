//! Which gRPC methods there are, from the descriptors.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use prost_types::FileDescriptorSet;

use crate::limits::listeners::{HEALTH_CHECK_SECONDS, HEALTH_WATCH_SECONDS, REFLECTION_SECONDS};

/// The properties of a method that the layers need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// `package.Service/Method`.
    pub name: String,
    /// Either side sends more than one message.
    pub streaming: bool,
    /// The caller sends more than one message.
    pub sends_many: bool,
    /// It changes nothing, by its name (AIP-131, AIP-132, AIP-231).
    pub only_reads: bool,
    /// It serves the machinery around the service, not its callers: health and reflection.
    pub probe: bool,
    /// The longest that it may take, where the kind of the method says so: callers of health and reflection need no key.
    pub at_most: Option<Duration>,
}

/// The class of a call, each of which has a rate of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It changes nothing.
    Read,
    /// It changes something.
    Write,
    /// It starts a task, which goes on when the call is over.
    Task,
    /// Either side sends more than one message.
    Stream,
}

/// The methods that start tasks.
const STARTS_TASK: [&str; 3] = [
    "offboard.v1.AttributeIndexService/CreateAttributeIndex",
    "offboard.v1.BulkDeleteService/CheckConsistency",
    "offboard.v1.BulkDeleteService/StartBulkDelete",
];

impl Method {
    /// Its class.
    pub fn class(&self) -> Class {
        match self {
            _ if self.streaming => Class::Stream,
            _ if STARTS_TASK.contains(&self.name.as_str()) => Class::Task,
            _ if self.only_reads => Class::Read,
            _ => Class::Write,
        }
    }
}

/// The methods that this process serves, by path. A path that is not among them was invented by the caller, and must name no span and no
/// time series.
#[derive(Clone, Debug)]
pub struct Methods(Arc<HashMap<String, Method>>);

impl Methods {
    /// Those of this crate's protos, of health and of reflection.
    pub fn served() -> Self {
        let own = methods_in(crate::proto::DESCRIPTOR_SET, false);
        let probes = [
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let probes = probes.into_iter().flat_map(|set| methods_in(set, true));
        Methods(Arc::new(
            own.into_iter()
                .chain(probes)
                .map(|method| (format!("/{}", method.name), method))
                .collect(),
        ))
    }

    /// The class of the method at this path; that of a method that does not exist is to read.
    pub fn class(&self, path: &str) -> Class {
        self.find(path).map_or(Class::Read, Method::class)
    }

    /// The method that the path of a request names.
    pub fn find(&self, path: &str) -> Option<&Method> {
        self.0.get(path)
    }
}

fn methods_in(descriptor_set: &[u8], probe: bool) -> Vec<Method> {
    let set = FileDescriptorSet::decode(descriptor_set)
        .expect("descriptor sets are made by the compiler of the protos");
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            methods.extend(service.method.iter().map(|method| {
                Method {
                    name: format!("{}.{}/{}", file.package(), service.name(), method.name()),
                    streaming: method.client_streaming() || method.server_streaming(),
                    sends_many: method.client_streaming(),
                    only_reads: ["Get", "List", "BatchGet", "Count", "Preview", "Watch", "Export"]
                        .iter()
                        .any(|verb| method.name().starts_with(verb)),
                    probe,
                    at_most: probe.then(|| match (service.name(), method.name()) {
                        ("Health", "Watch") => Duration::from_secs(HEALTH_WATCH_SECONDS),
                        ("Health", _) => Duration::from_secs(HEALTH_CHECK_SECONDS),
                        _ => Duration::from_secs(REFLECTION_SECONDS),
                    }),
                }
            }));
        }
    }
    methods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_is_of_one_class_and_those_that_start_tasks_are_there() {
        let methods = Methods::served();
        for name in STARTS_TASK {
            assert_eq!(methods.class(&format!("/{name}")), Class::Task, "{name}");
        }
        for (path, class) in [
            ("/offboard.v1.EntityService/GetEntity", Class::Read),
            ("/offboard.v1.RemovalService/PreviewRemoval", Class::Read),
            ("/offboard.v1.RemovalService/RemoveEntity", Class::Write),
            ("/offboard.v1.EntityService/ImportEntities", Class::Stream),
            ("/offboard.v1.EventService/WatchEvents", Class::Stream),
            ("/no.such/Method", Class::Read),
        ] {
            assert_eq!(methods.class(path), class, "{path}");
        }
    }

    #[test]
    fn own_methods_and_probes_are_known_with_their_kinds() {
        let methods = Methods::served();
        let kind = |path: &str| methods.find(path).map(|method| (method.streaming, method.probe));
        assert_eq!(kind("/offboard.v1.EntityService/GetEntity"), Some((false, false)));
        assert_eq!(kind("/offboard.v1.EntityService/ImportEntities"), Some((true, false)));
        assert_eq!(kind("/grpc.health.v1.Health/Check"), Some((false, true)));
        assert_eq!(kind("/grpc.health.v1.Health/Watch"), Some((true, true)));
        assert_eq!(
            kind("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
            Some((true, true))
        );
        assert_eq!(kind("/offboard.v1.EntityService/Invented"), None);
        let sends_many = |path: &str| methods.find(path).is_some_and(|method| method.sends_many);
        assert!(
            sends_many("/offboard.v1.EntityService/ImportEntities")
                && !sends_many("/offboard.v1.EventService/WatchEvents")
        );
        let bounded = |method: &&Method| method.at_most.is_some() == method.probe;
        assert_eq!(
            methods.0.values().filter(bounded).count(),
            methods.0.len(),
            "who needs no key has a time"
        );
    }
}
