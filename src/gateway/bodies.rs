//! The bodies of a route outside of any request: for a command that sends what a file has. It is read as the REST door reads it, with the same faults.

use std::sync::Arc;

use prost::Message;
use prost_reflect::DescriptorPool;

use super::binding::{self, Binding, BuildError};
use super::opaque;
use super::request::Target;
use crate::error::Error;

/// Reads the bodies of one RPC.
#[derive(Debug)]
pub struct Bodies {
    target: Target,
}

impl Bodies {
    /// Those of the RPC of this name, such as `offboard.v1.EntityService.ImportEntities`; none if it has no route.
    pub fn of(descriptors: &DescriptorPool, rpc: &str) -> Result<Option<Bodies>, BuildError> {
        let (descriptors, free) = opaque::opaque(descriptors)?;
        let routes = binding::routes(&descriptors, &free, "")?;
        let found = routes.targets().find(|binding| binding.rpc.name == rpc);
        Ok(found.map(|binding| Bodies {
            target: Target { binding: Arc::clone(binding), variables: Vec::new(), query: None, expected_version: None },
        }))
    }

    /// The request message with this body. Faults are spelled as the caller of the route would see them.
    pub fn read<M: Message + Default>(&self, body: &[u8]) -> Result<M, Error> {
        let spelled = |error| spelled(error, &self.target.binding);
        let (message, faults) = self.target.message(body).map_err(spelled)?;
        faults.check().map_err(spelled)?;
        M::decode(message.encode_to_vec().as_slice()).map_err(Error::internal)
    }
}

fn spelled(error: Error, binding: &Binding) -> Error {
    if error.violations().is_empty() {
        return error;
    }
    Error::validation(error.into_violations().map(|mut fault| {
        fault.field = binding.spell(&fault.field);
        fault
    }))
}
