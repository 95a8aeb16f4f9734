//! The gRPC codec of the services: prost's, after a count of the elements in the lists of a request.
//!
//! An empty message in a list is two bytes on the wire and a hundred in memory, so a list is counted before it is decoded.

use std::marker::PhantomData;

use prost::bytes::Buf;
use prost::{Message, Name};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstDecoder, ProstEncoder};

use super::guard;
use crate::error::{Error, Form};

/// See the module.
#[derive(Clone, Debug)]
pub struct BoundedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for BoundedCodec<T, U> {
    fn default() -> Self {
        BoundedCodec(PhantomData)
    }
}

impl<T, U> Codec for BoundedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Name + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = BoundedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        BoundedDecoder(ProstDecoder::default())
    }
}

/// Decodes messages whose lists are not too long.
#[derive(Clone, Debug)]
pub struct BoundedDecoder<U>(ProstDecoder<U>);

impl<U: Message + Default + Name> Decoder for BoundedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let chunk = buffer.chunk();
        if chunk.len() != buffer.remaining() {
            return Err(Status::internal("a message in more than one piece"));
        }
        let Some((shortened, faults)) = guard::shortened(&U::full_name(), chunk) else {
            return self.0.decode(buffer);
        };
        // The rest is handed to the service, which finds the other faults, and nothing is done.
        let (Some(form), Some(shortened)) = (Form::current(), shortened) else {
            return Err(Error::validation(faults).into());
        };
        let message = U::decode(shortened.as_slice()).map_err(|error| {
            Status::internal(format!("failed to decode Protobuf message: {error}"))
        })?;
        form.note(&faults);
        buffer.advance(buffer.remaining());
        Ok(Some(message))
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
