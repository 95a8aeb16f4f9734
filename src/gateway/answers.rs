//! The responses of a service outside of any request: for a command that shows as JSON what it got by gRPC, as REST spells it.

use prost::Name;
use prost_reflect::{DescriptorPool, DynamicMessage};

use super::json::{Schema, Shape, encode_value};
use super::opaque;
use super::rules::{BuildError, style_of};
use crate::error::{Error, Result};

/// Spells the messages that a service returns, and those in them.
#[derive(Debug)]
pub struct Answers {
    schema: Schema,
}

impl Answers {
    /// Those of the service of this name, such as `offboard.v1.BulkDeleteService`; none if it declares no spelling.
    pub fn of(descriptors: &DescriptorPool, service: &str) -> Result<Option<Answers>, BuildError> {
        let (descriptors, free) = opaque::opaque(descriptors)?;
        let Some(service) = descriptors.get_service_by_name(service) else { return Ok(None) };
        let Some(style) = style_of(&service) else { return Ok(None) };
        let mut schema = Schema::new(style, &free);
        for method in service.methods() {
            schema.add(&method.output());
        }
        schema.add_contents(&descriptors);
        Ok(Some(Answers { schema }))
    }

    /// The text of a message.
    pub fn write<M: Name>(&self, message: &M) -> Result<String> {
        let place = self
            .schema
            .place(&M::full_name())
            .ok_or_else(|| Error::internal("the service returns no such message"))?;
        let descriptor = self.schema.message(place).descriptor.clone();
        let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
            .map_err(Error::internal)?;
        let mut text = Vec::new();
        encode_value(&self.schema, &Shape::Message(place), &message, &mut text)
            .map_err(Error::internal)?;
        String::from_utf8(text).map_err(Error::internal)
    }
}
