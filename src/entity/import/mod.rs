//! The import of a stream of entities: batches of lines in, results in the order of the lines out.
//!
//! Two batches are written at a time while the next is received, so that the database never waits for the caller. Batches that touch the same
//! ids follow one another: of two lines with one id the first counts, and members join their portfolio in the order of the stream.

mod batch;
mod results;
mod source;

use std::collections::{HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use diesel::pg::PgConnection;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, FuturesOrdered, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Response, Status};

use self::batch::Batch;
use self::results::{Checked, Results, fault_of};
pub use self::source::{ImportLine, Source};
use crate::access::{self, Authenticator, Caller, Once};
use crate::db::{Db, Work};
use crate::entity::queries;
use crate::error::Error;
use crate::limits::memory::Account;
use crate::limits::requests::{IMPORT_FAILURES, MAX_IMPORT_FAILURES};
use crate::proto::v1;
use crate::proto::v1::import_entities_response::Answer;

/// How many batches are written at a time.
const AT_ONCE: usize = 2;

/// How long an import continues once the process takes no more calls: one whose last lines are on their way then ends well.
const FAREWELL: Duration = Duration::from_millis(100);

/// The responses of an import.
pub type Answers = BoxStream<'static, Result<v1::ImportEntitiesResponse, Status>>;

/// Imports a stream. A failure before anything was written fails the whole: a bad request is reported by its status, and has changed
/// nothing. From then on the response has begun, be there a result to send or not, and a failure is its end. After a last call nothing more
/// is written; the results of written lines are sent before the stream fails. A response whose first batch was recorded earlier says so: it begins
/// before the results of the others exist.
pub async fn run(
    db: Db,
    last_call: LastCall,
    once: Once,
    account: Option<Account>,
    source: Source,
) -> Result<Response<Answers>, Status> {
    let mut import = Import::new(db, last_call, once, account, source);
    let metadata = import.begin().await?;
    let mut response = Response::new(
        stream::unfold(import, |mut import| async move { Some((import.next().await?, import)) })
            .boxed(),
    );
    *response.metadata_mut() = metadata;
    Ok(response)
}

/// Comes when an import is to end before its stream does.
pub type LastCall = BoxFuture<'static, Failure>;

/// Why an import ends without a summary.
pub enum Failure {
    /// Its stream or its caller has come to an end that they must hear of.
    Returned(Status),
    /// The process takes no more calls.
    Closing,
}

/// The last call of an import: when its caller's key ends, for which nobody need send anything, or when the process takes no more calls.
pub fn last_call(
    authenticator: Authenticator,
    caller: Caller,
    closing: CancellationToken,
) -> LastCall {
    let last_call = async move {
        tokio::select! {
            error = authenticator.expelled(caller) => Failure::Returned(error.into()),
            () = closing.cancelled() => {
                tokio::time::sleep(FAREWELL).await;
                Failure::Closing
            }
        }
    };
    last_call.boxed()
}

impl Failure {
    /// The status for the caller, with the results of the import so far.
    fn status(self, summary: &v1::ImportSummary) -> Status {
        if let Failure::Returned(status) = self {
            return status;
        }
        let received = summary.received;
        let message = format!(
            "This replica is shutting down. The first {received} entities of the import were processed, and nothing was done with those after them; \
             send them, or all again, and another replica will answer."
        );
        let error =
            Error::unavailable(message).with("received", received).with("created", summary.created);
        error.with("existing", summary.existing).with("failed", summary.failed).into()
    }
}

/// Comes when the next line has to wait for memory.
async fn is_short(account: Option<&Account>) {
    match account {
        Some(account) => account.is_short().await,
        None => std::future::pending().await,
    }
}

type Writing = Pin<Box<dyn Future<Output = Result<Response<Results>, Status>> + Send>>;

/// An import on its way.
struct Import {
    db: Db,
    once: Once,
    /// The memory of the lines that are received and not written.
    account: Option<Account>,
    source: Source,
    /// True if the source may have more.
    open: bool,
    last_call: LastCall,
    batch: Batch,
    /// Whether the next line waits for memory that the batch in hand may have.
    short: bool,
    writing: FuturesOrdered<Writing>,
    /// The ids that the batches being written name, the oldest first.
    named: VecDeque<HashSet<String>>,
    failures_only: bool,
    summary: v1::ImportSummary,
    ready: VecDeque<v1::ImportResult>,
    /// The result of the first batch, once it is written. It may have changed nothing; with an idempotency key it is recorded all the same.
    first: Option<MetadataMap>,
    /// Why it broke off.
    failure: Option<Failure>,
    ended: bool,
}

impl Import {
    fn new(
        db: Db,
        last_call: LastCall,
        once: Once,
        account: Option<Account>,
        source: Source,
    ) -> Self {
        Import {
            db,
            last_call,
            once,
            account,
            source,
            open: true,
            batch: Batch::default(),
            short: false,
            writing: FuturesOrdered::new(),
            named: VecDeque::new(),
            failures_only: false,
            summary: v1::ImportSummary::default(),
            ready: VecDeque::new(),
            first: None,
            failure: None,
            ended: false,
        }
    }

    /// Continues until a batch is written, and returns what there is to say of that. Fails where it breaks off before.
    async fn begin(&mut self) -> Result<MetadataMap, Status> {
        while self.first.is_none() && !self.is_over() {
            self.step().await;
        }
        match self.failure.take_if(|_| self.first.is_none()) {
            Some(failure) => Err(failure.status(&self.summary)),
            None => Ok(self.first.clone().unwrap_or_default()),
        }
    }

    fn is_over(&self) -> bool {
        !self.open && self.batch.lines.is_empty() && self.writing.is_empty()
    }

    /// The next response; none after the summary or a failure.
    async fn next(&mut self) -> Option<Result<v1::ImportEntitiesResponse, Status>> {
        loop {
            if let Some(result) = self.ready.pop_front() {
                return Some(Ok(v1::ImportEntitiesResponse {
                    answer: Some(Answer::Result(result)),
                }));
            }
            if self.is_over() {
                let summary =
                    v1::ImportEntitiesResponse { answer: Some(Answer::Summary(self.summary)) };
                let is_first = !std::mem::replace(&mut self.ended, true);
                return is_first.then(|| {
                    self.failure
                        .take()
                        .map_or(Ok(summary), |failure| Err(failure.status(&self.summary)))
                });
            }
            self.step().await;
        }
    }

    /// Begins to write the batch in hand if it may be, and otherwise takes what comes first: the next line, or the results of the oldest
    /// batch.
    async fn step(&mut self) {
        // Under a key a batch is what it is when the import is sent again, however much memory there is.
        let may_be_short = !self.once.has_key() && !self.batch.lines.is_empty();
        let due = self.batch.is_full()
            || (!self.open || self.short && may_be_short) && !self.batch.lines.is_empty();
        // Under a key one batch follows another, so that nothing is written behind a batch that the key refuses.
        let at_once = if self.once.has_key() { 1 } else { AT_ONCE };
        let free = self.writing.len() < at_once
            && self.named.iter().all(|names| names.is_disjoint(&self.batch.names));
        if due && free {
            return self.write();
        }
        tokio::select! {
            biased;
            Some(results) = self.writing.next() => {
                self.named.pop_front();
                match results {
                    Ok(results) => self.take_results(results),
                    Err(failure) => self.break_off(Failure::Returned(failure)),
                }
            }
            failure = &mut self.last_call, if self.open => self.break_off(failure),
            () = is_short(self.account.as_ref()), if self.open && !due && may_be_short => self.short = true,
            line = self.source.next(), if self.open && !due => match line {
                Ok(Some(line)) => self.take(line),
                Ok(None) => self.open = false,
                Err(failure) => self.break_off(Failure::Returned(failure)),
            },
            else => {}
        }
    }

    fn take(&mut self, line: ImportLine) {
        if self.summary.received == 0 {
            self.failures_only = line.message.failures_only;
        }
        self.summary.received += 1;
        if self.source.ends_at(self.summary.received) {
            return self.break_off(Failure::Returned(fault_of(line, self.once.caller()).into()));
        }
        self.batch.push(self.summary.received, line);
    }

    /// Lines that are received and not being written are given up; the results of those being written are still sent. The first failure is the one
    /// that counts.
    fn break_off(&mut self, failure: Failure) {
        self.open = false;
        self.summary.received -= self.batch.lines.len() as i64;
        self.failure.get_or_insert(failure);
        self.batch = Batch::default();
    }

    fn write(&mut self) {
        let Batch { lines, names, .. } = std::mem::take(&mut self.batch);
        self.short = false;
        self.named.push_back(names);
        let first = self.summary.received + 1 - lines.len() as i64;
        let once = self.once.part(first, lines.iter().map(|line| &line.message));
        let caller = once.caller().clone();
        let named: Vec<(i64, String)> =
            lines.iter().map(|line| (line.number, line.entity_id().to_owned())).collect();
        let names = named.clone();
        let mut work = Some(lines);
        let mut checked: Option<Checked> = None;
        let (db, write) = (self.db.clone(), move |connection: &mut PgConnection| {
            // Off the runtime's threads, and once, also if the writing is tried again.
            let checked = checked
                .get_or_insert_with(|| Checked::of(work.take().unwrap_or_default(), &caller));
            // In the transaction that writes: a batch that comes after the end of the key is not written.
            access::check(connection, &caller)?;
            let outcome = queries::insert_each(
                connection,
                &caller.realm,
                caller.principal_id,
                &checked.batch,
            )?;
            Ok(Response::new(checked.results(&outcome).packed(&names))) as Work<Response<Results>>
        });
        // One transaction: entities, memberships and the rows of their indexed attributes.
        self.writing.push_back(Box::pin(async move {
            Ok(once.transaction(&db, write).await?.map(|results| results.unpacked(named)))
        }));
    }

    fn take_results(&mut self, written: Response<Results>) {
        let (metadata, Results { results }, _) = written.into_parts();
        if let Some(account) = &self.account {
            account.release(results.len());
        }
        self.first.get_or_insert(metadata);
        for result in results {
            match result.outcome() {
                v1::ImportOutcome::Created => self.summary.created += 1,
                v1::ImportOutcome::Existing => self.summary.existing += 1,
                _ => self.summary.failed += 1,
            }
            self.summary.soft_deleted += i64::from(result.soft_deleted);
            self.summary.different += i64::from(result.different);
            if self.summary.failed > MAX_IMPORT_FAILURES as i64 && result.error.is_some() {
                if self.summary.failures_left_out == 0 {
                    IMPORT_FAILURES.reached();
                }
                self.summary.failures_left_out += 1;
            } else if !self.failures_only || result.error.is_some() {
                self.ready.push_back(result);
            }
        }
    }
}
