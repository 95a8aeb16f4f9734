//! The take-out of a portfolio: one moment of it, sent as slowly as the caller reads.
//!
//! An export reads in one transaction, from one snapshot, and so keeps a connection until its reader has come to the end. Its cost for
//! others is bounded: few exports at once, a reader that must continue, and a longest time for all of it.

use std::time::{Duration, Instant};

use diesel::pg::PgConnection;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tracing::Instrument;

use crate::db::{Db, Fail, Realm, Work};
use crate::error::{Code, Error, Result};
use crate::limits::shares::{EXPORTS, EXPORTS_AT_ONCE};
use crate::portfolio::answers::to_proto;
use crate::portfolio::model::View;
use crate::portfolio::{export_queries, queries};
use crate::proto::v1::{ExportPortfolioResponse, PortfolioExportSummary};
use crate::shares::{self, Rules, Turn, Turns};

/// How many exports are under way at once; one realm has two of them at most.
const AT_ONCE: usize = EXPORTS_AT_ONCE as usize;
/// How many may wait for that.
const WAITING: usize = 100;
/// How many ids a message has.
const IDS: i64 = 1_000;
/// How many messages are read ahead of the reader.
const AHEAD: usize = 4;
/// How long a reader may take nothing. Less than a session may be idle in its transaction.
const STALL: Duration = Duration::from_secs(30);
/// How long an export may take.
const LONGEST: Duration = Duration::from_secs(600);

/// The messages of an export.
pub type Messages = BoxStream<'static, Result<ExportPortfolioResponse, Status>>;

/// The exports of a service.
#[derive(Clone, Debug)]
pub struct Exports(Turns);

impl Exports {
    /// None so far, on a database.
    pub fn new(db: &Db) -> Self {
        // At least half of the connections stay for others, be the pool ever so small.
        let half = (db.options().pool_size as usize / 2).max(1);
        Exports(Turns::new(Rules::of_long_work(AT_ONCE.min(half), WAITING)))
    }

    /// Begins an export. It fails as a whole until the first message is there.
    pub async fn begin(
        &self,
        db: Db,
        realm: Realm,
        portfolio_id: String,
    ) -> Result<Messages, Status> {
        let turn = self
            .0
            .acquire(shares::current(), db.options().acquire_timeout, |_| EXPORTS.reached())
            .await;
        let turn =
            turn.map_err(|_| Error::unavailable("Too many exports are under way; try again."))?;
        let (sender, mut messages) = mpsc::channel(AHEAD);
        let exporting = tokio::spawn(
            shares::inherit(run(db, realm, portfolio_id, sender, turn)).in_current_span(),
        );
        // It ends with its reader, whatever it is about.
        let exporting = AbortOnDropHandle::new(exporting);
        let first = messages
            .recv()
            .await
            .ok_or_else(|| Error::internal("an export ended without a message"))??;
        let rest = ReceiverStream::new(messages).map(move |message| {
            let _exporting = &exporting;
            message
        });
        Ok(futures::stream::iter([Ok(first)]).chain(rest).boxed())
    }
}

type Sender = mpsc::Sender<Result<ExportPortfolioResponse, Status>>;

async fn run(db: Db, realm: Realm, portfolio_id: String, sender: Sender, turn: Turn) {
    let outlet =
        Outlet { sender: sender.clone(), runtime: Handle::current(), begun: Instant::now() };
    let exported = db.run(move |connection| {
        let mut snapshot = connection.build_transaction().repeatable_read().read_only();
        let outcome = snapshot.run(|connection| export(connection, &realm, &portfolio_id, &outlet));
        // Not to be tried again: some of it may have been sent.
        outcome.map_err(|fail| Fail::Answer(fail.into()))
    });
    let exported = exported.await;
    drop(turn);
    if let Err(error) = exported {
        // If the reader has left, nobody needs the message.
        let _ = sender.send(Err(error.into())).await;
    }
}

fn export(
    connection: &mut PgConnection,
    realm: &Realm,
    portfolio_id: &str,
    outlet: &Outlet,
) -> Work<()> {
    let portfolio = queries::get(connection, realm, portfolio_id, View::Full)?
        .ok_or_else(|| Error::not_found("portfolio", portfolio_id))?;
    let dependents = export_queries::dependents(connection, realm, portfolio_id, LONGEST)?;
    let mut summary = PortfolioExportSummary {
        entity_count: 0,
        dependent_count: dependents.iter().map(|(_, count)| count).sum(),
        version: portfolio.version,
    };
    let portfolio = Some(to_proto(portfolio, realm));
    let dependents = dependents.into_iter().collect();
    let mut wanted =
        outlet.send(ExportPortfolioResponse { portfolio, dependents, ..Default::default() })?;
    let mut behind = export_queries::start();
    while wanted {
        let positions = export_queries::positions(connection, realm, portfolio_id, &behind, IDS)?;
        let Some(last) = positions.last() else {
            outlet
                .send(ExportPortfolioResponse { summary: Some(summary), ..Default::default() })?;
            break;
        };
        behind = last.clone();
        summary.entity_count += positions.len() as i64;
        let entity_ids = positions.into_iter().map(|(_, id)| id).collect();
        wanted = outlet.send(ExportPortfolioResponse { entity_ids, ..Default::default() })?;
    }
    Ok(())
}

/// Where the messages are sent, from a blocking thread.
struct Outlet {
    sender: Sender,
    runtime: Handle,
    begun: Instant,
}

impl Outlet {
    /// Sends a message as soon as the reader has room for it. False if it has left.
    fn send(&self, message: ExportPortfolioResponse) -> Result<bool> {
        let patience = STALL.min(LONGEST.saturating_sub(self.begun.elapsed()));
        let sent =
            self.runtime.block_on(tokio::time::timeout(patience, self.sender.send(Ok(message))));
        match sent {
            Ok(sent) => Ok(sent.is_ok()),
            Err(_) => Err(Error::new(
                Code::DeadlineExceeded,
                "The export was not read in time; what was sent of it is not whole.",
            )),
        }
    }
}
