//! The import of a stream of entities: batches of lines in, results in the order of the lines out.
//!
//! Two batches are written at a time while the next is received, so that the database never waits for the caller. Batches that touch the same
//! ids follow one another: of two lines with one id the first counts, and members join their portfolio in the order of the stream.

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;

use diesel::pg::PgConnection;
use futures::stream::{self, BoxStream, FuturesOrdered, StreamExt};
use tonic::{Response, Status, Streaming};

use crate::access::{self, Authenticator, Caller, Once, shows_nothing};
use crate::db::{Db, Work};
use crate::entity::new_entity::NewEntity;
use crate::entity::queries;
use crate::error::{Error, cut_at};
use crate::limits::faults::{MAX_DESCRIPTION_CHARACTERS, MAX_FIELD_CHARACTERS};
use crate::limits::memory::Account;
use crate::proto::v1;
use crate::proto::v1::import_entities_response::Answer;

/// How many lines a batch has at most: what one transaction writes.
const BATCH: usize = 500;
/// A batch also ends when its messages have this many bytes.
const BATCH_BYTES: usize = 4 << 20;
/// Why a line has failed that the database did not take.
const REFUSED: &str = "The database refused to store the entity; the service's log tells why.";
/// How many batches are written at a time.
const AT_ONCE: usize = 2;

/// The answers of an import.
pub type Answers = BoxStream<'static, Result<v1::ImportEntitiesResponse, Status>>;

/// Imports a stream. What fails before the first results fails as a whole, so that a bad request is told by its status.
/// Once the caller's key has ended nothing more is written; what was is told of before the stream fails.
pub async fn run(
    db: Db,
    authenticator: Authenticator,
    once: Once,
    account: Option<Account>,
    source: Streaming<v1::ImportEntitiesRequest>,
) -> Result<Answers, Status> {
    let mut import = Import::new(db, authenticator, once, account, source);
    let Some(first) = import.next().await.transpose()? else { return Ok(stream::empty().boxed()) };
    let rest = stream::unfold(import, |mut import| async move { Some((import.next().await?, import)) });
    Ok(stream::once(std::future::ready(Ok(first))).chain(rest).boxed())
}

/// The results of a batch; also what is recorded of one under an idempotency key.
#[derive(Clone, PartialEq, prost::Message)]
struct Results {
    #[prost(message, repeated, tag = "1")]
    results: Vec<v1::ImportResult>,
}

shows_nothing!(Results);

impl Results {
    /// Without what the batch itself tells, which is most of it: a caller who sends it again brings that along.
    fn packed(mut self, named: &[String]) -> Self {
        for (result, name) in self.results.iter_mut().zip(named) {
            result.line = 0;
            if result.entity_id == *name {
                result.entity_id.clear();
            }
        }
        self
    }

    /// The results of the batch that begins at this line and names these entities.
    fn unpacked(mut self, first: i64, named: Vec<String>) -> Self {
        for ((result, line), name) in self.results.iter_mut().zip(first..).zip(named) {
            result.line = line;
            if result.entity_id.is_empty() {
                result.entity_id = name;
            }
        }
        self
    }
}

type Writing = Pin<Box<dyn Future<Output = Result<Results, Status>> + Send>>;

/// An import on its way.
struct Import {
    db: Db,
    once: Once,
    /// What the lines cost that are received and not written.
    account: Option<Account>,
    source: Streaming<v1::ImportEntitiesRequest>,
    /// Whether the source may have more.
    open: bool,
    /// Ends when the caller's key does; nobody need send anything for that.
    expelled: Pin<Box<dyn Future<Output = Error> + Send>>,
    batch: Batch,
    writing: FuturesOrdered<Writing>,
    /// What the batches that are written name, the oldest first.
    named: VecDeque<HashSet<String>>,
    failures_only: bool,
    summary: v1::ImportSummary,
    ready: VecDeque<v1::ImportResult>,
    /// Why the source broke off.
    failure: Option<Status>,
    ended: bool,
}

/// Lines that are received and not written.
#[derive(Default)]
struct Batch {
    lines: Vec<v1::ImportEntitiesRequest>,
    bytes: usize,
    /// The ids of the entities and, behind a slash, which no id has, of the portfolios.
    names: HashSet<String>,
}

impl Batch {
    fn push(&mut self, line: v1::ImportEntitiesRequest) {
        self.bytes += prost::Message::encoded_len(&line);
        if let Some(entity) = &line.entity {
            self.names.insert(entity.entity_id.clone());
            self.names.insert(format!("/{}", entity.portfolio_id));
            // Those without a name are in nobody's way.
            self.names.remove("");
            self.names.remove("/");
        }
        self.lines.push(line);
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= BATCH || self.bytes >= BATCH_BYTES
    }
}

impl Import {
    fn new(
        db: Db,
        authenticator: Authenticator,
        once: Once,
        account: Option<Account>,
        source: Streaming<v1::ImportEntitiesRequest>,
    ) -> Self {
        Import {
            db,
            expelled: Box::pin(authenticator.expelled(once.caller().clone())),
            once,
            account,
            source,
            open: true,
            batch: Batch::default(),
            writing: FuturesOrdered::new(),
            named: VecDeque::new(),
            failures_only: false,
            summary: v1::ImportSummary::default(),
            ready: VecDeque::new(),
            failure: None,
            ended: false,
        }
    }

    /// The next answer; none after the summary or a failure.
    async fn next(&mut self) -> Option<Result<v1::ImportEntitiesResponse, Status>> {
        while !self.ended {
            if let Some(result) = self.ready.pop_front() {
                return Some(Ok(v1::ImportEntitiesResponse { answer: Some(Answer::Result(result)) }));
            }
            if let Err(status) = self.step().await {
                self.ended = true;
                return Some(Err(status));
            }
            if !self.open && self.batch.lines.is_empty() && self.writing.is_empty() && self.ready.is_empty() {
                self.ended = true;
                if let Some(failure) = self.failure.take() {
                    return Some(Err(failure));
                }
                return Some(Ok(v1::ImportEntitiesResponse { answer: Some(Answer::Summary(self.summary)) }));
            }
        }
        None
    }

    /// Begins to write the batch in hand if it may be, and otherwise takes what comes first: the next line, or the results of the oldest
    /// batch.
    async fn step(&mut self) -> Result<(), Status> {
        let due = self.batch.is_full() || !self.open && !self.batch.lines.is_empty();
        // Under a key one batch follows another, so that nothing is written behind a batch that the key refuses.
        let at_once = if self.once.has_key() { 1 } else { AT_ONCE };
        let free = self.writing.len() < at_once && self.named.iter().all(|names| names.is_disjoint(&self.batch.names));
        if due && free {
            self.write();
            return Ok(());
        }
        tokio::select! {
            biased;
            Some(results) = self.writing.next() => {
                self.named.pop_front();
                self.tell(results?);
            }
            error = &mut self.expelled, if self.open => self.break_off(error.into()),
            line = self.source.message(), if self.open && !due => match line {
                Ok(Some(line)) => self.take(line),
                Ok(None) => self.open = false,
                Err(failure) => self.break_off(failure),
            },
            else => {}
        }
        Ok(())
    }

    fn take(&mut self, line: v1::ImportEntitiesRequest) {
        if self.summary.received == 0 {
            self.failures_only = line.failures_only;
        }
        self.summary.received += 1;
        self.batch.push(line);
    }

    /// What is received and not being written is given up; what is being written is still told of.
    fn break_off(&mut self, failure: Status) {
        self.open = false;
        self.failure = Some(failure);
        self.batch = Batch::default();
    }

    fn write(&mut self) {
        let Batch { lines, names, .. } = std::mem::take(&mut self.batch);
        self.named.push_back(names);
        let first = self.summary.received + 1 - lines.len() as i64;
        let once = self.once.part(first, lines.iter());
        let caller = once.caller().clone();
        let named: Vec<String> =
            lines.iter().map(|line| line.entity.as_ref().map(|entity| entity.entity_id.clone()).unwrap_or_default()).collect();
        let names = named.clone();
        let mut work = Some(lines);
        let mut checked: Option<Checked> = None;
        let (db, write) = (self.db.clone(), move |connection: &mut PgConnection| {
            // Off the runtime's threads, and once, also if the writing is tried again.
            let checked = checked.get_or_insert_with(|| Checked::of(first, work.take().unwrap_or_default(), &caller));
            // In the transaction that writes: a batch that comes after the end of the key is not written.
            access::check(connection, &caller)?;
            let outcome = queries::insert_each(connection, &caller.realm, caller.principal_id, &checked.batch)?;
            Ok(Response::new(checked.results(&outcome).packed(&names))) as Work<Response<Results>>
        });
        // One transaction: entities, memberships and the rows of their indexed attributes.
        self.writing.push_back(Box::pin(async move { Ok(once.transaction(&db, write).await?.into_inner().unpacked(first, named)) }));
    }

    fn tell(&mut self, Results { results }: Results) {
        if let Some(account) = &self.account {
            account.release(results.len());
        }
        for result in results {
            match result.outcome() {
                v1::ImportOutcome::Created => self.summary.created += 1,
                v1::ImportOutcome::Existing => self.summary.existing += 1,
                _ => self.summary.failed += 1,
            }
            self.summary.soft_deleted += i64::from(result.soft_deleted);
            if !self.failures_only || result.error.is_some() {
                self.ready.push_back(result);
            }
        }
    }
}

/// The lines of a batch: those that are valid, and the results of those that are not.
struct Checked {
    /// The lines of the entities.
    lines: Vec<i64>,
    batch: Vec<NewEntity>,
    refused: Vec<v1::ImportResult>,
}

impl Checked {
    fn of(first: i64, messages: Vec<v1::ImportEntitiesRequest>, caller: &Caller) -> Self {
        let mut checked =
            Checked { lines: Vec::with_capacity(messages.len()), batch: Vec::with_capacity(messages.len()), refused: Vec::new() };
        for (line, message) in (first..).zip(messages) {
            let entity_id = message.entity.as_ref().map(|entity| entity.entity_id.clone()).unwrap_or_default();
            let message = message.entity.ok_or_else(|| Error::invalid("entity", "required", "must be given"));
            let new = message.and_then(|message| NewEntity::check(message, "entity"));
            match new.and_then(|new| new.check_scope(caller).map(|()| new)) {
                Ok(new) => {
                    checked.lines.push(line);
                    checked.batch.push(new);
                }
                Err(error) => checked.refused.push(refused(line, entity_id, &error)),
            }
        }
        checked
    }

    fn results(&self, outcome: &queries::Inserted) -> Results {
        let mut results = self.refused.clone();
        for (place, (line, new)) in self.lines.iter().zip(&self.batch).enumerate() {
            results.push(if outcome.refused.contains(&place) {
                let error = v1::JobError { code: "refused_by_database".to_owned(), message: REFUSED.to_owned() };
                v1::ImportResult {
                    line: *line,
                    entity_id: new.id.clone(),
                    outcome: v1::ImportOutcome::Failed.into(),
                    error: Some(error),
                    soft_deleted: false,
                }
            } else if outcome.no_portfolio.contains(&place) {
                let portfolio_id = new.portfolio_id.as_deref().unwrap_or_default();
                refused(*line, new.id.clone(), &Error::not_found("portfolio", portfolio_id))
            } else {
                let existing = outcome.existing.contains(&place);
                let soft_deleted = outcome.soft_deleted.contains(&place);
                let outcome = if existing { v1::ImportOutcome::Existing } else { v1::ImportOutcome::Created };
                v1::ImportResult { line: *line, entity_id: new.id.clone(), outcome: outcome.into(), error: None, soft_deleted }
            });
        }
        results.sort_unstable_by_key(|result| result.line);
        Results { results }
    }
}

fn refused(line: i64, entity_id: String, error: &Error) -> v1::ImportResult {
    let faults: Vec<_> = error.violations().iter().map(|fault| format!("{} {}", fault.field, fault.description)).collect();
    let message = if faults.is_empty() { error.message().to_owned() } else { cut_at(faults.join("; "), MAX_DESCRIPTION_CHARACTERS) };
    let entity_id = cut_at(entity_id, MAX_FIELD_CHARACTERS);
    let error = v1::JobError { code: error.code().name().to_owned(), message };
    v1::ImportResult { line, entity_id, outcome: v1::ImportOutcome::Failed.into(), error: Some(error), soft_deleted: false }
}
