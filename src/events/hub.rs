//! Reads new events once for all watches, and wakes them.
//!
//! Not by `NOTIFY`, which makes all commits of a database wait in one line: one task a process gives new events their positions and reads
//! them, many times a second, while there are watches. The events of a realm are kept for a while for all watches of that realm; a watch
//! that is farther behind, or in another history, reads by itself.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::db::outage::warn_of;
use crate::db::{Db, Realm};
use crate::error::Result;
use crate::events::Sequencer;
use crate::events::cursor::Cursor;
use crate::events::model::{Batch, Row};
use crate::events::queries::{self, Scope};
use crate::limits::events::SHARED_PER_REALM;

/// How often it reads. An event is sent within about this time of its commit.
const EVERY: Duration = Duration::from_millis(50);
/// The wait after a failure, such as a database that is unreachable.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// About how many events are read at once.
const READ: i64 = 1_000;

/// Wakes the readers that wait for events. One a process; cheap to clone. It costs nothing while there are none.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    db: Db,
    sequencer: Sequencer,
    turns: Arc<Semaphore>,
    state: Mutex<State>,
    wanted: Notify,
}

#[derive(Default)]
struct State {
    /// Up to where was read, of all realms that somebody watches.
    seen: Option<Cursor>,
    realms: HashMap<i32, Watched>,
}

/// A realm that somebody watches.
struct Watched {
    news: watch::Sender<()>,
    /// After this cursor no row of the realm is missing from `rows`; none until the first read.
    from: Option<Cursor>,
    rows: VecDeque<Arc<Row>>,
    /// How many events the rows record.
    events: usize,
}

/// A registration for wake-ups. Commits after it was made wake it; a wake-up may also come for nothing.
#[derive(Debug)]
pub struct WakeUp(watch::Receiver<()>);

impl WakeUp {
    /// Waits for the next wake-up; one that came since the last wait counts.
    pub async fn wait(&mut self) {
        // The hub keeps the other end for as long as there is a `WakeUp`.
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Hub {
    /// A hub on this database. It wakes nobody unless [`Hub::run`] runs.
    pub fn new(db: Db) -> Self {
        let (state, wanted) = Default::default();
        let turns =
            Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));
        Hub(Arc::new(Inner { sequencer: Sequencer::new(db.clone()), db, turns, state, wanted }))
    }

    /// A turn at sending an event to a watcher. One event may wake a thousand watchers, and all of them at once would stand in the way of
    /// every call that comes then: so as many have a turn as there are processors, and calls come in between.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        self.0.turns.clone().acquire_owned().await.ok()
    }

    /// Gives events their positions in this process.
    pub fn sequencer(&self) -> &Sequencer {
        &self.0.sequencer
    }

    /// Registers for wake-ups of a realm. To be done before the last read.
    pub fn subscribe(&self, realm: &Realm) -> WakeUp {
        let receiver =
            self.state().realms.entry(realm.id()).or_insert_with(Watched::new).news.subscribe();
        self.0.wanted.notify_one();
        WakeUp(receiver)
    }

    /// The rows of a realm behind a cursor, as far as they were read, and the cursor behind them. None if they are not all here, or if the
    /// cursor may be of another history of the database: then the database is to be asked.
    pub fn shared(&self, realm: &Realm, cursor: &Cursor) -> Option<(Vec<Arc<Row>>, Cursor)> {
        let state = self.state();
        let seen = state.seen.as_ref()?;
        let watched = state.realms.get(&realm.id())?;
        let from = watched.from.as_ref()?;
        let is_here = cursor.history() == seen.history()
            && !cursor.is_partial()
            && (from.position()..=seen.position()).contains(&cursor.position());
        if !is_here {
            return None;
        }
        let start = watched.rows.partition_point(|row| row.position() <= cursor.position());
        Some((watched.rows.range(start..).cloned().collect(), seen.clone()))
    }

    /// Reads and wakes until it is dropped.
    pub async fn run(self) {
        loop {
            if self.is_idle() {
                self.state().seen = None;
                self.0.wanted.notified().await;
            }
            let pause = match self.read_on().await {
                Ok(()) => EVERY,
                Err(error) => {
                    warn_of!(error, "cannot ask for new events");
                    self.forget();
                    AFTER_FAILURE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn read_on(&self) -> Result<()> {
        self.0.sequencer.catch_up().await?;
        loop {
            let (seen, scope) = {
                let mut state = self.state();
                let seen = state.seen.clone();
                state.begin_all();
                (seen, Scope::of_many(state.realms.keys().copied().collect()))
            };
            let Some(seen) = seen else {
                let now = self.0.db.run(queries::now).await?;
                self.state().start(now);
                return Ok(());
            };
            let batch = self
                .0
                .db
                .run(move |connection| queries::read(connection, &scope, &seen, READ))
                .await?;
            let caught_up = batch.caught_up;
            if let Some(last) = batch.rows.last() {
                self.0.sequencer.remember_sent(last);
            }
            self.state().take(batch);
            if caught_up {
                return Ok(());
            }
        }
    }

    /// Forgets the rows, and makes every reader read for itself: the database may be another one.
    fn forget(&self) {
        let mut state = self.state();
        state.seen = None;
        for watched in state.realms.values_mut() {
            watched.clear();
            watched.news.send_replace(());
        }
    }

    /// Returns whether nobody waits; forgets those that left.
    fn is_idle(&self) -> bool {
        let mut state = self.state();
        state.realms.retain(|_, watched| watched.news.receiver_count() > 0);
        state.realms.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Makes the rows of realms that were added since the last read be kept from the next read on.
    fn begin_all(&mut self) {
        for watched in self.realms.values_mut().filter(|watched| watched.from.is_none()) {
            watched.from.clone_from(&self.seen);
        }
    }

    /// Begins at a cursor. What came before is unknown, so everyone is to read.
    fn start(&mut self, now: Cursor) {
        for watched in self.realms.values_mut() {
            watched.clear();
            watched.news.send_replace(());
        }
        self.seen = Some(now);
    }

    /// Keeps the rows, and wakes the readers of their realms.
    fn take(&mut self, batch: Batch) {
        self.seen = Some(batch.cursor);
        let mut concerned = HashSet::new();
        for row in batch.rows {
            if let Some(watched) = self.realms.get_mut(&row.realm_id) {
                concerned.insert(row.realm_id);
                watched.push(Arc::new(row));
            }
        }
        for watched in concerned.iter().filter_map(|realm| self.realms.get(realm)) {
            watched.news.send_replace(());
        }
    }
}

impl Watched {
    fn new() -> Self {
        Watched { news: watch::Sender::new(()), from: None, rows: VecDeque::new(), events: 0 }
    }

    fn push(&mut self, row: Arc<Row>) {
        self.events += row.subjects.len();
        self.rows.push_back(row);
        while self.events > SHARED_PER_REALM && self.rows.len() > 1 {
            let Some(oldest) = self.rows.pop_front() else { break };
            self.events -= oldest.subjects.len();
            self.from = Some(oldest.cursor());
        }
    }

    fn clear(&mut self) {
        self.from = None;
        self.rows.clear();
        self.events = 0;
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use uuid::Uuid;

    use super::*;
    use crate::db::{Mode, Options};
    use crate::events::cursor::{Histories, History};
    use crate::proto::object::Struct;

    const HISTORY: Uuid = Uuid::from_u128(1);

    fn cursor(history: Uuid, position: i64) -> Cursor {
        let histories =
            Histories { all: vec![History { id: history, begins: 1 }], last: i64::MAX, dropped: 0 };
        histories.behind(position, None)
    }

    fn row(position: i64, subjects: usize) -> Row {
        Row {
            id: Uuid::nil(),
            realm_id: 1,
            org: "acme".to_owned(),
            mode: Mode::Test,
            occurred_at: Utc::now(),
            event_type: "entity.created".to_owned(),
            subjects: vec!["e".to_owned(); subjects],
            data: Struct::default(),
            principal_id: Uuid::nil(),
            delivered: 0,
            cursor: cursor(HISTORY, position),
        }
    }

    /// A hub that has begun at position 10, with one reader.
    fn hub() -> (Hub, Realm, WakeUp) {
        let hub = Hub::new(Db::new(Options::new("postgresql://nowhere")));
        let realm = Realm::from_row(1, "acme".to_owned(), Mode::Test);
        let wake_up = hub.subscribe(&realm);
        hub.state().start(cursor(HISTORY, 10));
        hub.state().begin_all();
        (hub, realm, wake_up)
    }

    fn take(hub: &Hub, rows: Vec<Row>, to: i64) {
        hub.state().take(Batch { rows, cursor: cursor(HISTORY, to), caught_up: true });
    }

    fn shared(hub: &Hub, realm: &Realm, from: &Cursor) -> Option<(Vec<i64>, i64)> {
        let (rows, to) = hub.shared(realm, from)?;
        Some((rows.iter().map(|row| row.position()).collect(), to.position()))
    }

    #[tokio::test]
    async fn what_was_read_is_there_for_all_who_stand_within() {
        let (hub, realm, _wake_up) = hub();
        take(&hub, vec![row(12, 1), row(15, 1)], 20);
        take(&hub, vec![], 25);
        take(&hub, vec![row(28, 1)], 30);
        for (from, expected) in [
            (10, vec![12, 15, 28]),
            (12, vec![15, 28]),
            (14, vec![15, 28]),
            (23, vec![28]),
            (30, vec![]),
        ] {
            assert_eq!(
                shared(&hub, &realm, &cursor(HISTORY, from)),
                Some((expected, 30)),
                "from {from}"
            );
        }
    }

    #[tokio::test]
    async fn who_stands_elsewhere_asks_the_database() {
        let (hub, realm, _wake_up) = hub();
        take(&hub, vec![row(12, 3)], 20);
        for from in [
            cursor(HISTORY, 9),
            cursor(HISTORY, 21),
            cursor(Uuid::from_u128(2), 15),
            cursor(HISTORY, 12).within(1, 3),
            Cursor::beginning(),
        ] {
            assert_eq!(shared(&hub, &realm, &from), None, "{from:?}");
        }
        let other = Realm::from_row(2, "acme".to_owned(), Mode::Live);
        assert_eq!(shared(&hub, &other, &cursor(HISTORY, 15)), None, "nobody watches it");
        let _late = hub.subscribe(&other);
        assert_eq!(shared(&hub, &other, &cursor(HISTORY, 15)), None, "nothing of it was read yet");
        hub.forget();
        assert_eq!(shared(&hub, &realm, &cursor(HISTORY, 15)), None);
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded() {
        let (hub, realm, _wake_up) = hub();
        let most = SHARED_PER_REALM as i64;
        take(&hub, (11..11 + 2 * most).map(|position| row(position, 1)).collect(), 10 + 2 * most);
        assert_eq!(shared(&hub, &realm, &cursor(HISTORY, 10 + most - 1)), None);
        let kept =
            shared(&hub, &realm, &cursor(HISTORY, 10 + most)).map(|(rows, _)| rows.len() as i64);
        assert_eq!(kept, Some(most));
    }
}
