//! The recorded response to a call that changes something, the subjects that it shows, and the callers that may read it.

use diesel::pg::PgConnection;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::metadata::{KeyAndValueRef, MetadataKey, MetadataMap, MetadataValue};
use tonic::{Response, Status};

use crate::access::Caller;
use crate::db::{Realm, Work};
use crate::error::{Code, Error, Result};
use crate::limits::kept::{WHOLE, WHOLE_ANSWER};

/// The metadata that reports that a response is the first one over again.
pub const REPLAYED: &str = "idempotent-replayed";

/// A subject that a response shows: its removal erases the responses that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An entity, by its id.
    Entity(String),
    /// Something that hangs on an entity: the entity's id, the kind and the id.
    Dependent(String, String, String),
    /// A portfolio, by its id.
    Portfolio(String),
}

/// A response to a call that changes something. Each declares its subjects, so that it is erased with them, and the parts of it that only
/// some callers may read.
pub trait Answer: Message + Default + 'static {
    /// The resources whose content it shows. Ids alone are not content: they outlive their resources.
    fn shows(&self) -> Vec<Subject>;

    /// Takes out what the caller's key may not read: a call that changes a thing shows no more of it than a call that reads it. Responses of status
    /// 201 that show [what the caller has said](Answer::CREATED_IS_SAID) are left as they are.
    fn withhold(&mut self, caller: &Caller);

    /// What the record of the call keeps of it. A secret that is shown once is left out.
    fn recorded(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    /// True if a response of status 201 shows what the caller has said, and nothing that was there before.
    const CREATED_IS_SAID: bool = true;

    /// The response made again from the present state; none if it cannot be. Only for responses that may be large.
    fn again(
        _connection: &mut PgConnection,
        _realm: &Realm,
        _shown: &[Subject],
    ) -> Work<Option<Self>> {
        Ok(None)
    }

    /// True if [`Answer::again`] can make it.
    const CAN_BE_READ_AGAIN: bool = false;
}

/// Declares responses that show nothing but ids, states and numbers that the scope of their call opens.
macro_rules! shows_nothing {
    ($($answer:ty),+ $(,)?) => {
        $(impl $crate::access::Answer for $answer {
            fn shows(&self) -> Vec<$crate::access::Subject> {
                Vec::new()
            }

            fn withhold(&mut self, _caller: &$crate::access::Caller) {}
        })+
    };
}
pub(crate) use shows_nothing;

shows_nothing!(());

/// A response as it is stored: a message with its metadata, or a status.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
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
    /// Replaces a large message: its subject, and its digest, by which it is recognised when it is read again.
    #[prost(message, optional, tag = "6")]
    reference: Option<Reference>,
}

/// One piece of metadata.
#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// A message that is not kept.
#[derive(Clone, PartialEq, Message)]
struct Reference {
    #[prost(bytes = "vec", tag = "1")]
    sha256: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    shown: Vec<Shown>,
}

/// A [`Subject`] as it is stored.
#[derive(Clone, PartialEq, Message)]
struct Shown {
    #[prost(string, tag = "1")]
    entity: String,
    #[prost(string, tag = "2")]
    kind: String,
    #[prost(string, tag = "3")]
    dependent: String,
    #[prost(string, tag = "4")]
    portfolio: String,
}

impl Record {
    /// The record of what a service says.
    pub(super) fn of_response<A: Answer>(response: &Response<A>, shown: &[Subject]) -> Record {
        let (message, metadata) = (response.get_ref().recorded(), pairs(response.metadata()));
        if message.len() <= WHOLE || !A::CAN_BE_READ_AGAIN {
            return Record { message, metadata, ..Record::default() };
        }
        WHOLE_ANSWER.reached();
        let shown = shown.iter().cloned().map(Shown::from).collect();
        let reference = Some(Reference { sha256: Sha256::digest(&message).to_vec(), shown });
        // A version that knows no references takes it for a failure rather than for an empty response.
        let (code, text) = (
            tonic::Code::Unavailable.into(),
            "The response was recorded by a later version of the service.".to_owned(),
        );
        Record { code, text, metadata, reference, ..Record::default() }
    }

    /// The record of a refusal.
    pub(super) fn of_status(status: &Status) -> Record {
        let (code, text, details) =
            (status.code().into(), status.message().to_owned(), status.details().to_vec());
        Record { code, text, details, metadata: pairs(status.metadata()), ..Record::default() }
    }

    /// The form of a response after something that it shows was removed.
    pub(super) fn erased() -> Vec<u8> {
        let error = Error::new(
            Code::AnswerGone,
            "The call took effect; what its response showed was removed since, and the response with it.",
        );
        Record::of_status(&Status::from(error)).encode_to_vec()
    }

    /// The response over again.
    pub(super) fn replay<A: Answer>(
        self,
        connection: &mut PgConnection,
        realm: &Realm,
    ) -> Work<Result<Response<A>, Status>> {
        let mut metadata = MetadataMap::new();
        for Pair { name, value } in self.metadata {
            if let (Ok(name), Ok(value)) =
                (name.parse::<MetadataKey<_>>(), MetadataValue::try_from(value))
            {
                metadata.insert(name, value);
            }
        }
        metadata.insert(REPLAYED, MetadataValue::from_static("true"));
        let message = match self.reference {
            Some(reference) => match reference.read::<A>(connection, realm)? {
                Some(message) => message,
                None => {
                    let mut status = Status::from(changed());
                    status.metadata_mut().insert(REPLAYED, MetadataValue::from_static("true"));
                    return Ok(Err(status));
                }
            },
            None if self.code != 0 => {
                let code = tonic::Code::from_i32(self.code);
                return Ok(Err(Status::with_details_and_metadata(
                    code,
                    self.text,
                    self.details.into(),
                    metadata,
                )));
            }
            None => A::decode(self.message.as_slice()).map_err(Error::internal)?,
        };
        let mut response = Response::new(message);
        *response.metadata_mut() = metadata;
        Ok(Ok(response))
    }
}

impl Reference {
    /// The very message that is referred to; none if its subject has changed.
    fn read<A: Answer>(self, connection: &mut PgConnection, realm: &Realm) -> Work<Option<A>> {
        let shown: Vec<Subject> = self.shown.into_iter().map(Subject::from).collect();
        let message = A::again(connection, realm, &shown)?;
        Ok(message
            .filter(|message| Sha256::digest(message.encode_to_vec()).as_slice() == self.sha256))
    }
}

impl From<Subject> for Shown {
    fn from(subject: Subject) -> Shown {
        match subject {
            Subject::Entity(entity) => Shown { entity, ..Shown::default() },
            Subject::Dependent(entity, kind, dependent) => {
                Shown { entity, kind, dependent, ..Shown::default() }
            }
            Subject::Portfolio(portfolio) => Shown { portfolio, ..Shown::default() },
        }
    }
}

impl From<Shown> for Subject {
    fn from(Shown { entity, kind, dependent, portfolio }: Shown) -> Subject {
        match (portfolio.is_empty(), kind.is_empty()) {
            (false, _) => Subject::Portfolio(portfolio),
            (true, true) => Subject::Entity(entity),
            (true, false) => Subject::Dependent(entity, kind, dependent),
        }
    }
}

fn changed() -> Error {
    let message = format!(
        "The call took effect; its response was of more than {WHOLE} bytes, and what it showed has changed since."
    );
    Error::new(Code::AnswerGone, message).with("limit_bytes", WHOLE)
}

/// The metadata that services set: all of it is text.
fn pairs(metadata: &MetadataMap) -> Vec<Pair> {
    let text = metadata.iter().filter_map(|entry| match entry {
        KeyAndValueRef::Ascii(name, value) => {
            Some(Pair { name: name.to_string(), value: value.to_str().ok()?.to_owned() })
        }
        KeyAndValueRef::Binary(..) => None,
    });
    text.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_shows_is_stored_and_read() {
        let subjects = [
            Subject::Entity("e".to_owned()),
            Subject::Dependent("e".to_owned(), "task".to_owned(), "t".to_owned()),
            Subject::Portfolio("p".to_owned()),
        ];
        for subject in subjects {
            assert_eq!(Subject::from(Shown::from(subject.clone())), subject);
        }
    }

    #[test]
    fn a_refusal_is_stored_with_its_details() {
        let status = Status::from(Error::not_found("entity", "e"));
        let record = Record::of_status(&status);
        assert_eq!(
            (record.code, record.text.as_str(), record.details.as_slice()),
            (5, status.message(), status.details())
        );
    }

    #[test]
    fn what_takes_the_place_of_an_erased_answer_reports_so_to_versions_that_know_nothing_of_it() {
        let record = Record::decode(Record::erased().as_slice()).unwrap();
        assert_eq!(
            (record.code, record.message.len()),
            (tonic::Code::FailedPrecondition.into(), 0)
        );
    }
}
