//! Every RPC, as the descriptor set has it. A test of all RPCs, or of all of a kind, takes its list from here: so it has a new one without
//! anyone remembering.

use prost_reflect::{ExtensionDescriptor, FieldDescriptor, MethodDescriptor};

use super::spelling::POOL;

/// The first words of RPCs that change nothing.
const READS: &[&str] = &["Get", "List", "Count", "Watch", "BatchGet", "Export", "Preview"];

/// An RPC of the service.
#[derive(Clone, Debug)]
pub struct Rpc {
    /// Its name, such as `PortfolioService/DetachEntity`.
    pub name: String,
    /// Its descriptor.
    pub method: MethodDescriptor,
}

/// Every RPC, in the order of the protos.
pub fn rpcs() -> Vec<Rpc> {
    let services = POOL.services().filter(|service| service.package_name() == "offboard.v1");
    services
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .map(|method| Rpc {
            name: format!("{}/{}", method.parent_service().name(), method.name()),
            method,
        })
        .collect()
}

/// An option of the protos.
pub fn option(name: &str) -> ExtensionDescriptor {
    POOL.get_extension_by_name(name).unwrap_or_else(|| panic!("no option {name}"))
}

impl Rpc {
    /// The scope that a key must have.
    pub fn scope(&self) -> String {
        let options = self.method.options();
        options
            .get_extension(&option("offboard.v1.required_scope"))
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// The scopes that some calls need as well.
    pub fn further_scopes(&self) -> Vec<String> {
        let options = self.method.options();
        let scopes = options.get_extension(&option("offboard.v1.further_scopes"));
        let scopes = scopes.as_list().unwrap_or_default().iter();
        scopes.filter_map(|scope| scope.as_str().map(str::to_owned)).collect()
    }

    /// True if its name says that it changes nothing. A test sees whether that is so.
    pub fn only_reads(&self) -> bool {
        READS.iter().any(|word| self.method.name().starts_with(word))
    }

    /// True if it takes a stream, and so has calls of its own kind.
    pub fn takes_a_stream(&self) -> bool {
        self.method.is_client_streaming()
    }

    /// True if it answers with a stream.
    pub fn answers_with_a_stream(&self) -> bool {
        self.method.is_server_streaming()
    }

    /// A member of its request.
    pub fn member(&self, name: &str) -> Option<FieldDescriptor> {
        self.method.input().get_field_by_name(name)
    }
}
