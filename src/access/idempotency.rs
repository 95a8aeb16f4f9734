//! Calls that take effect once, however often they are sent.
//!
//! A caller who does not know whether a call took effect sends it again with the same `Idempotency-Key`. The record of a call is written in
//! the transaction of its effect, so there is never one without the other: a crash before the commit leaves neither, and after it the answer
//! is there to be given again.

use diesel::Connection;
use diesel::pg::PgConnection;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::metadata::{KeyAndValueRef, MetadataKey, MetadataMap, MetadataValue};
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::access::idempotency_queries::{self as queries, Claim};
use crate::db::{Db, Work};
use crate::error::{Code, Error, Result};

/// The metadata that tells that an answer is the first one over again.
pub const REPLAYED: &str = "idempotent-replayed";

const MAX_CHARACTERS: usize = 255;

/// The key of a call and the method that it calls. The idempotency layer puts it among the extensions of a request that has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    key: String,
    method: String,
}

impl IdempotencyKey {
    /// A key as a caller gives it, for a method: its path.
    pub fn parse(key: &[u8], method: &str) -> Result<Self> {
        let fault = || Error::invalid("Idempotency-Key", "invalid", "must be 1 to 255 printable ASCII characters");
        let is_sane = (1..=MAX_CHARACTERS).contains(&key.len()) && key.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        let key = std::str::from_utf8(key).ok().filter(|_| is_sane).ok_or_else(fault)?;
        Ok(IdempotencyKey { key: key.to_owned(), method: method.to_owned() })
    }

    /// The key alone.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// One call that changes something, by its caller: it takes effect once if it has a key.
#[derive(Clone, Debug)]
pub struct Once {
    caller: Caller,
    record: Option<RecordId>,
}

/// Where the record of a call is, and what it must agree with.
#[derive(Clone, Debug)]
pub(super) struct RecordId {
    pub key: IdempotencyKey,
    pub request_sha256: [u8; 32],
    pub part: i64,
}

impl RecordId {
    pub(super) fn method(&self) -> &str {
        &self.key.method
    }
}

impl Once {
    /// The call of a request.
    pub fn of<M: Message>(request: &Request<M>) -> Result<Once> {
        Ok(Once::of_stream(request)?.part(0, std::iter::once(request.get_ref())))
    }

    /// The call of a stream, of which [`Once::part`] makes those of its batches.
    pub fn of_stream<T>(request: &Request<T>) -> Result<Once> {
        let key = request.extensions().get::<IdempotencyKey>().cloned();
        let record = key.map(|key| RecordId { key, request_sha256: [0; 32], part: 0 });
        Ok(Once { caller: Caller::of(request)?, record })
    }

    /// The call of a part of a stream: the messages of the batch that begins at this place.
    pub fn part<'a, M: Message + 'a>(&self, part: i64, messages: impl Iterator<Item = &'a M>) -> Once {
        let record = self.record.as_ref().map(|record| {
            let mut hash = Sha256::new();
            messages.for_each(|message| hash.update(message.encode_length_delimited_to_vec()));
            RecordId { key: record.key.clone(), request_sha256: hash.finalize().into(), part }
        });
        Once { caller: self.caller.clone(), record }
    }

    /// Whether the call has an idempotency key.
    pub fn has_key(&self) -> bool {
        self.record.is_some()
    }

    /// Who calls.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Does `work`, or gives the answer that it gave before. Without a key, `work` must be one statement or make its own transaction; with
    /// one it is part of the transaction that writes the record. It may be done again when it lost a race.
    pub async fn run<A, W>(self, db: &Db, mut work: W) -> Result<Response<A>, Status>
    where
        A: Message + Default + 'static,
        W: FnMut(&mut PgConnection) -> Work<Response<A>> + Send + 'static,
    {
        let Once { caller, record } = self;
        let Some(record) = record else { return Ok(db.run(work).await?) };
        db.run(move |connection| answer(connection, &caller, &record, &mut work)).await?
    }

    /// Does `work` in one transaction, or gives the answer that it gave before. See [`Once::run`].
    pub async fn transaction<A, W>(self, db: &Db, mut work: W) -> Result<Response<A>, Status>
    where
        A: Message + Default + 'static,
        W: FnMut(&mut PgConnection) -> Work<Response<A>> + Send + 'static,
    {
        if self.record.is_some() {
            return self.run(db, work).await;
        }
        Ok(db.transaction(move |connection| work(connection)).await?)
    }
}

/// The answer to a call: what the service says, or its refusal.
type Answer<A> = Result<Response<A>, Status>;

fn answer<A: Message + Default>(
    connection: &mut PgConnection,
    caller: &Caller,
    record: &RecordId,
    work: &mut impl FnMut(&mut PgConnection) -> Work<Response<A>>,
) -> Work<Answer<A>> {
    let mut replayed = false;
    let outcome = connection.transaction(|connection| {
        if let Some(known) = known(connection, caller, record)? {
            replayed = true;
            return Ok(known);
        }
        let response = work(connection)?;
        queries::record(connection, caller, record, &Record::of_response(&response).encode_to_vec())?;
        Ok(Ok(response))
    });
    match outcome {
        // What the service refused is an answer too; it is kept without the effects of the attempt. A failure of ours is not, nor is that the
        // caller's key has ended, which is no answer to the request.
        Err(crate::db::Fail::Answer(error))
            if !replayed && error.code().http() < 500 && !matches!(error.code(), Code::IdempotencyKeyReused | Code::InvalidCredentials) =>
        {
            let status = Status::from(error);
            connection.transaction(|connection| {
                if let Some(known) = known(connection, caller, record)? {
                    return Ok(known);
                }
                queries::record(connection, caller, record, &Record::of_status(&status).encode_to_vec())?;
                Ok(Err(status))
            })
        }
        outcome => outcome,
    }
}

/// The answer that was given before. None if there is none: then the record is ours to write.
fn known<A: Message + Default>(connection: &mut PgConnection, caller: &Caller, record: &RecordId) -> Work<Option<Answer<A>>> {
    match queries::claim(connection, caller, record)? {
        Claim::Ours => Ok(None),
        Claim::Reused => Err(reused().into()),
        Claim::Known(answer) => {
            let record = Record::decode(answer.as_slice()).map_err(Error::internal)?;
            Ok(Some(record.replay()?))
        }
    }
}

fn reused() -> Error {
    Error::new(Code::IdempotencyKeyReused, "This idempotency key was used for another request; use a new one.")
}

/// An answer as it is stored: a message with its metadata, or a status.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "vec", tag = "1")]
    message: Vec<u8>,
    #[prost(int32, tag = "2")]
    code: i32,
    #[prost(string, tag = "3")]
    text: String,
    #[prost(bytes = "vec", tag = "4")]
    details: Vec<u8>,
    #[prost(message, repeated, tag = "5")]
    metadata: Vec<Pair>,
}

/// One piece of metadata.
#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

impl Record {
    fn of_response<A: Message>(response: &Response<A>) -> Record {
        Record { message: response.get_ref().encode_to_vec(), metadata: pairs(response.metadata()), ..Record::default() }
    }

    fn of_status(status: &Status) -> Record {
        let (code, text, details) = (status.code().into(), status.message().to_owned(), status.details().to_vec());
        Record { code, text, details, metadata: pairs(status.metadata()), ..Record::default() }
    }

    fn replay<A: Message + Default>(self) -> Result<Answer<A>> {
        let mut metadata = MetadataMap::new();
        for Pair { name, value } in self.metadata {
            if let (Ok(name), Ok(value)) = (name.parse::<MetadataKey<_>>(), MetadataValue::try_from(value)) {
                metadata.insert(name, value);
            }
        }
        metadata.insert(REPLAYED, MetadataValue::from_static("true"));
        if self.code != 0 {
            let code = tonic::Code::from_i32(self.code);
            return Ok(Err(Status::with_details_and_metadata(code, self.text, self.details.into(), metadata)));
        }
        let mut response = Response::new(A::decode(self.message.as_slice()).map_err(Error::internal)?);
        *response.metadata_mut() = metadata;
        Ok(Ok(response))
    }
}

/// The metadata that services set: all of it is text.
fn pairs(metadata: &MetadataMap) -> Vec<Pair> {
    let text = metadata.iter().filter_map(|entry| match entry {
        KeyAndValueRef::Ascii(name, value) => Some(Pair { name: name.to_string(), value: value.to_str().ok()?.to_owned() }),
        KeyAndValueRef::Binary(..) => None,
    });
    text.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::GetEntityRequest;

    #[test]
    fn a_key_is_1_to_255_printable_characters() {
        assert_eq!(IdempotencyKey::parse(b"a key", "/m").unwrap().key(), "a key");
        assert!(IdempotencyKey::parse(&[b'x'; 255], "/m").is_ok());
        for bad in [b"".as_slice(), &[b'x'; 256], b"a\tb", "ä".as_bytes(), &[0xff]] {
            assert_eq!(IdempotencyKey::parse(bad, "/m").unwrap_err().violations()[0].field, "Idempotency-Key");
        }
    }

    #[test]
    fn an_answer_is_replayed_with_its_metadata_and_says_so() {
        let mut response = Response::new(GetEntityRequest { entity_id: "e".to_owned() });
        response.metadata_mut().insert("x-http-code", MetadataValue::from(201_u16));
        let replay = Record::of_response(&response).replay::<GetEntityRequest>().unwrap().unwrap();
        assert_eq!(replay.get_ref().entity_id, "e");
        assert_eq!(replay.metadata().get("x-http-code").unwrap(), "201");
        assert_eq!(replay.metadata().get(REPLAYED).unwrap(), "true");
    }

    #[test]
    fn a_refusal_is_replayed_with_its_details() {
        let status = Status::from(Error::not_found("entity", "e"));
        let replay = Record::of_status(&status).replay::<GetEntityRequest>().unwrap().unwrap_err();
        assert_eq!((replay.code(), replay.message(), replay.details()), (status.code(), status.message(), status.details()));
        assert_eq!(replay.metadata().get(REPLAYED).unwrap(), "true");
    }
}
