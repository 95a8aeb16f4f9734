//! Calls that take effect once, however often they are sent.
//!
//! A caller that does not know whether a call took effect sends it again with the same `Idempotency-Key`. The record of a call is written
//! in the transaction of its effect, so there is never one without the other: a crash before the commit leaves neither, and after it the
//! response can be given again.

use diesel::Connection;
use diesel::pg::PgConnection;
use prost::Message;
use sha2::{Digest, Sha256};
use tonic::{Request, Response, Status};

use crate::access::Caller;
use crate::access::answer::{Answer, Record};
use crate::access::idempotency_key::{IdempotencyKey, RecordId};
use crate::access::idempotency_queries::{self as queries, Claim};
use crate::db::{Db, Work};
use crate::error::{Code, Error, Result};

/// The metadata that has the HTTP status of a response, where it is not 200.
const HTTP_CODE: &str = "x-http-code";

/// One call that changes something, by its caller: it takes effect once if it has a key.
#[derive(Clone, Debug)]
pub struct Once {
    caller: Caller,
    record: Option<RecordId>,
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
    pub fn part<'a, M: Message + 'a>(
        &self,
        part: i64,
        messages: impl Iterator<Item = &'a M>,
    ) -> Once {
        let record = self.record.as_ref().map(|record| {
            let mut hash = Sha256::new();
            messages.for_each(|message| hash.update(message.encode_length_delimited_to_vec()));
            RecordId { key: record.key.clone(), request_sha256: hash.finalize().into(), part }
        });
        Once { caller: self.caller.clone(), record }
    }

    /// Returns whether the call has an idempotency key.
    pub fn has_key(&self) -> bool {
        self.record.is_some()
    }

    /// The caller.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Does `work`, or gives the response that it gave before. Without a key, `work` must be one statement or make its own transaction; with
    /// one it is part of the transaction that writes the record. It may be done again when it lost a race. The response shows what the caller may
    /// read, as it may now.
    pub async fn run<A, W>(self, db: &Db, mut work: W) -> Result<Response<A>, Status>
    where
        A: Answer,
        W: FnMut(&mut PgConnection) -> Work<Response<A>> + Send + 'static,
    {
        let Once { caller, record } = self;
        let Some(record) = record else { return Ok(seen_by(&caller, db.run(work).await?)) };
        let of = caller.clone();
        let outcome: Outcome<A> =
            db.run(move |connection| answer(connection, &of, &record, &mut work)).await?;
        outcome.map(|response| seen_by(&caller, response))
    }

    /// The response to a call without a key that was done already, as its caller may see it.
    pub fn seen<A: Answer>(self, response: Response<A>) -> Response<A> {
        seen_by(&self.caller, response)
    }

    /// Does `work` in one transaction, or gives the response that it gave before. See [`Once::run`].
    pub async fn transaction<A, W>(self, db: &Db, mut work: W) -> Result<Response<A>, Status>
    where
        A: Answer,
        W: FnMut(&mut PgConnection) -> Work<Response<A>> + Send + 'static,
    {
        if self.record.is_some() {
            return self.run(db, work).await;
        }
        Ok(seen_by(&self.caller, db.transaction(move |connection| work(connection)).await?))
    }
}

/// The response to a call: what the service says, or its refusal.
type Outcome<A> = Result<Response<A>, Status>;

fn seen_by<A: Answer>(caller: &Caller, mut response: Response<A>) -> Response<A> {
    let created = response.metadata().get(HTTP_CODE).is_some_and(|code| code == "201");
    if !(created && A::CREATED_IS_SAID) {
        response.get_mut().withhold(caller);
    }
    response
}

/// How often a key with an expired record is read again.
const ROUNDS: usize = 3;

fn answer<A: Answer>(
    connection: &mut PgConnection,
    caller: &Caller,
    record: &RecordId,
    work: &mut impl FnMut(&mut PgConnection) -> Work<Response<A>>,
) -> Work<Outcome<A>> {
    for _ in 0..ROUNDS {
        let attempt = connection.transaction(|connection| {
            let kept = known(connection, caller, record)?;
            if !matches!(kept, Recorded::Nothing) {
                return Ok(kept);
            }
            let response = work(connection)?;
            let shown = response.get_ref().shows();
            queries::record(
                connection,
                caller,
                record,
                &Record::of_response(&response, &shown).encode_to_vec(),
                &shown,
            )?;
            Ok(Recorded::Answer(Ok(response)))
        });
        let outcome = match attempt {
            Err(crate::db::Fail::Answer(error)) if is_answer(&error) => {
                keep(connection, caller, record, Status::from(error))?
            }
            outcome => outcome?,
        };
        match outcome {
            Recorded::Answer(answer) => return Ok(answer),
            // In a transaction of its own: removing records from the count must not wait for transactions that wait for entities.
            Recorded::Nothing | Recorded::Expired => queries::forget(connection, caller, record)?,
        }
    }
    Err(Error::unavailable("Others are at work on the same thing; try again.").into())
}

/// Refusals that depend on the form of the call, on the caller or on the moment, and not on the data. They leave the key free, wherever
/// they come to light: the caller fixes the request, or the key, and sends it again.
const NO_ANSWER: [Code; 13] = [
    Code::ValidationFailed,
    Code::InvalidFilter,
    Code::UnknownAttribute,
    Code::SuspectValue,
    Code::UnknownValue,
    Code::AuthenticationRequired,
    Code::InvalidCredentials,
    Code::AddressNotAllowed,
    Code::CallerExcluded,
    Code::PermissionDenied,
    Code::PayloadTooLarge,
    Code::RateLimitExceeded,
    Code::IdempotencyKeyReused,
];

/// A refusal that depends on the data is a response too; it is recorded without the effects of the attempt. A failure of ours is not.
fn is_answer(error: &Error) -> bool {
    error.code().http() < 500 && !NO_ANSWER.contains(&error.code())
}

/// Keeps a refusal, unless the call has a response meanwhile.
fn keep<A: Answer>(
    connection: &mut PgConnection,
    caller: &Caller,
    record: &RecordId,
    refusal: Status,
) -> Work<Recorded<A>> {
    connection.transaction(|connection| {
        let kept = known(connection, caller, record)?;
        if !matches!(kept, Recorded::Nothing) {
            return Ok(kept);
        }
        queries::record(
            connection,
            caller,
            record,
            &Record::of_status(&refusal).encode_to_vec(),
            &[],
        )?;
        Ok(Recorded::Answer(Err(refusal)))
    })
}

/// The record of a call that was sent before.
enum Recorded<A> {
    /// Nothing: the record is ours to write.
    Nothing,
    /// The response that was given.
    Answer(Outcome<A>),
    /// A record that has had its time.
    Expired,
}

fn known<A: Answer>(
    connection: &mut PgConnection,
    caller: &Caller,
    record: &RecordId,
) -> Work<Recorded<A>> {
    match queries::claim(connection, caller, record)? {
        Claim::Ours => Ok(Recorded::Nothing),
        Claim::Expired => Ok(Recorded::Expired),
        Claim::Reused => Err(reused().into()),
        Claim::Full { records } => Err(record.quota().full(records).into()),
        Claim::Known(answer) => {
            let record = Record::decode(answer.as_slice()).map_err(Error::internal)?;
            Ok(Recorded::Answer(record.replay(connection, &caller.realm)?))
        }
    }
}

fn reused() -> Error {
    Error::new(
        Code::IdempotencyKeyReused,
        "This idempotency key was used for another request; use a new one.",
    )
}
