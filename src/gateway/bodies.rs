//! The bodies of a route outside of any request: for a command that sends a file. It is read as the REST listener reads it, with the same
//! faults.

use std::sync::Arc;

use prost::Message;
use prost_reflect::DescriptorPool;

use super::opaque;
use super::problem::spell_names;
use super::request::Target;
use super::rules::{self, BuildError};
use crate::error::{Error, Form, Violations};

/// Reads the bodies of one RPC.
#[derive(Debug)]
pub struct Bodies {
    target: Target,
}

impl Bodies {
    /// Those of the RPC of this name, such as `offboard.v1.EntityService.ImportEntities`; none if it has no route.
    pub fn of(descriptors: &DescriptorPool, rpc: &str) -> Result<Option<Bodies>, BuildError> {
        let (descriptors, free) = opaque::opaque(descriptors)?;
        let routes = rules::routes(&descriptors, &free, "")?;
        let found = routes.targets().find(|binding| binding.rpc.name == rpc);
        Ok(found.map(|binding| Bodies {
            target: Target {
                binding: Arc::clone(binding),
                variables: Vec::new(),
                query: None,
                expected_version: None,
                mask_is_made: Arc::default(),
                form: Form::default(),
            },
        }))
    }

    /// The request message with this body, and the faults of its form; fails where nothing of it can be read.
    pub fn read<M: Message + Default>(&self, body: &[u8]) -> Result<(M, Violations), Error> {
        let (message, faults) = self.target.message(body)?;
        let message = M::decode(message.encode_to_vec().as_slice()).map_err(Error::internal)?;
        Ok((message, faults))
    }

    /// The request message with this body, which must have nothing wrong with it.
    pub fn read_sound<M: Message + Default>(&self, body: &[u8]) -> Result<M, Error> {
        let sound = self.read(body).and_then(|(message, faults)| faults.check().map(|()| message));
        sound.map_err(|error| self.spelled(error))
    }

    /// The fault, spelled as the caller of the route would see it.
    pub fn spelled(&self, error: Error) -> Error {
        if error.violations().is_empty() {
            return error;
        }
        Error::validation(error.into_violations().map(|mut fault| {
            fault.field = self.target.binding.spell(&fault.field);
            fault.description =
                spell_names(&fault.description, |name| self.target.binding.spell(name));
            fault
        }))
    }
}
