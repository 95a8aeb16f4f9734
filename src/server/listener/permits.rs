//! The permits of a listener: which connections have them, and which of them give way to new ones.
//!
//! Anybody who can reach a port can open as many connections as it accepts. So no connection is kept just because it is open: where a
//! listener or an address has all that it may, a connection gives way to the next one. First come those that never showed a valid key, idle
//! ones before others and the longest idle first; then those of callers with a key that have not called for a while. A call with a key is
//! never cut off.
//!
//! Nor has one realm all of them: a connection is of the realm whose key was shown on it last, and each realm has a share
//! ([`owners`](super::owners)). Where it has that, one of its own that has not called for a while gives way; where there is none, the call
//! is refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::activity::Activity;
use super::owners::Owners;
use crate::limits::allowance::network;
use crate::limits::listeners::CONNECTIONS_PER_REALM;
use crate::server::tally::{self, Full, Tally};

/// The permits of a listener. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Permits {
    tally: Tally,
    holders: Arc<Mutex<Holders>>,
}

#[derive(Debug)]
struct Holders {
    next: u64,
    by_id: HashMap<u64, Holder>,
    owners: Owners,
}

#[derive(Debug)]
struct Holder {
    /// None until a proxy has said whose connection it is.
    network: Option<IpAddr>,
    activity: Arc<Activity>,
    /// The realm of the key that was shown on it last.
    realm: Option<i32>,
    /// Taken for as long as this is there.
    permit: tally::Permit,
}

/// A permit that a connection has, until it is dropped or the connection gives way.
#[derive(Debug)]
pub struct ConnectionPermit(PermitHandle);

/// The handle of the same for the requests of the connection, which does not keep it.
#[derive(Clone, Debug)]
pub struct PermitHandle {
    id: u64,
    /// Its realm, or [`NOBODY`].
    realm: Arc<AtomicI64>,
    holders: Arc<Mutex<Holders>>,
}

/// No realm.
const NOBODY: i64 = -1;

/// A realm has its share of the connections.
#[derive(Debug)]
pub struct Crowded;

impl Permits {
    /// So many, of which each network and each realm may have so many.
    pub fn new(in_all: usize, network: usize, realm: usize) -> Self {
        let holders =
            Holders { next: 0, by_id: HashMap::new(), owners: Owners::new(in_all, realm) };
        Permits { tally: Tally::new(in_all, network), holders: Arc::new(Mutex::new(holders)) }
    }

    /// A permit for a connection from this address, if it is known yet, and which limit another one was closed for, if one was. Fails where none
    /// gives way.
    pub fn enter(
        &self,
        address: Option<IpAddr>,
        activity: &Arc<Activity>,
    ) -> Result<(ConnectionPermit, Option<Full>), Full> {
        let network = address.map(network);
        let mut holders = lock(&self.holders);
        let (mut permit, mut closed) = (self.tally.enter(address), None);
        if let Err(full) = permit
            && holders.make_room(|holder| full == Full::InAll || holder.network == network)
        {
            (permit, closed) = (self.tally.enter(address), Some(full));
        }
        let permit = permit?;
        let id = holders.next;
        holders.next += 1;
        holders
            .by_id
            .insert(id, Holder { network, activity: activity.clone(), realm: None, permit });
        Ok((
            ConnectionPermit(PermitHandle {
                id,
                realm: Arc::new(AtomicI64::new(NOBODY)),
                holders: self.holders.clone(),
            }),
            closed,
        ))
    }
}

impl PermitHandle {
    /// Makes the connection one from this address, which was not known before, and returns which limit another one was closed for, if one was. Fails where
    /// the address has its part, and none of its connections gives way.
    pub fn arrive(&self, address: IpAddr) -> Result<Option<Full>, Full> {
        lock(&self.holders).arrive(self.id, address)
    }

    /// Makes the connection one of this realm. Fails where the realm has its share of connections, and none of them gives way.
    pub fn own(&self, realm: i32) -> Result<(), Crowded> {
        if self.realm.load(Relaxed) == i64::from(realm) {
            return Ok(());
        }
        let mut holders = lock(&self.holders);
        holders.own(self.id, realm)?;
        self.realm.store(i64::from(realm), Relaxed);
        Ok(())
    }

    /// Makes it one of nobody.
    pub fn disown(&self) {
        let mut holders = lock(&self.holders);
        if let Some(realm) = holders.by_id.get_mut(&self.id).and_then(|holder| holder.realm.take())
        {
            holders.owners.leave(realm);
        }
        self.realm.store(NOBODY, Relaxed);
    }
}

impl Holders {
    /// Closes the connection among these that is the first to give way, if one does.
    fn make_room(&mut self, among: impl Fn(&Holder) -> bool) -> bool {
        let there = self.by_id.iter().filter(|(_, holder)| among(holder));
        let first =
            there.filter_map(|(id, holder)| Some((holder.activity.gives_way()?, *id))).min();
        let Some(holder) = first.and_then(|(_, id)| self.remove(id)) else { return false };
        holder.activity.cut();
        true
    }

    fn arrive(&mut self, id: u64, address: IpAddr) -> Result<Option<Full>, Full> {
        let network = network(address);
        let settle = |holders: &mut Holders| match holders.by_id.get_mut(&id) {
            // One that was closed counts no more.
            None => Ok(()),
            Some(holder) => {
                holder.permit.settle(network)?;
                holder.network = Some(network);
                Ok(())
            }
        };
        let Err(full) = settle(self) else { return Ok(None) };
        if !self.make_room(|holder| holder.network == Some(network)) {
            return Err(full);
        }
        settle(self).map(|()| Some(full))
    }

    fn remove(&mut self, id: u64) -> Option<Holder> {
        let holder = self.by_id.remove(&id)?;
        if let Some(realm) = holder.realm {
            self.owners.leave(realm);
        }
        Some(holder)
    }

    fn own(&mut self, id: u64, realm: i32) -> Result<(), Crowded> {
        // One that was closed counts no more.
        let Some(before) = self.by_id.get(&id).map(|holder| holder.realm) else { return Ok(()) };
        if before == Some(realm) {
            return Ok(());
        }
        if let Some(before) = before {
            self.owners.leave(before);
        }
        let may = self.owners.may_enter(realm) || {
            CONNECTIONS_PER_REALM.reached();
            self.make_room(|holder| holder.realm == Some(realm))
        };
        let now = if may { Some(realm) } else { before };
        if let Some(holder) = self.by_id.get_mut(&id) {
            holder.realm = now;
        }
        if let Some(owner) = now {
            self.owners.enter(owner);
        }
        if may { Ok(()) } else { Err(Crowded) }
    }
}

fn lock(holders: &Mutex<Holders>) -> MutexGuard<'_, Holders> {
    holders.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConnectionPermit {
    /// The handle for requests.
    pub fn handle(&self) -> PermitHandle {
        self.0.clone()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        lock(&self.0.holders).remove(self.0.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    struct Connection {
        activity: Arc<Activity>,
        permit: ConnectionPermit,
    }

    impl Connection {
        fn is_cut(&self) -> bool {
            self.activity.is_cut().now_or_never().is_some()
        }
    }

    fn host(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    fn enter(permits: &Permits, address: IpAddr) -> Result<(Connection, Option<Full>), Full> {
        let activity = Arc::new(Activity::new());
        permits
            .enter(Some(address), &activity)
            .map(|(permit, closed)| (Connection { activity, permit }, closed))
    }

    fn entered(permits: &Permits, address: IpAddr) -> Connection {
        enter(permits, address).map(|(connection, _)| connection).expect("a permit")
    }

    async fn pass() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_idle_without_a_key_for_the_longest_gives_way_first() {
        let permits = Permits::new(4, 4, 4);
        let with_key = entered(&permits, host(1));
        with_key.activity.prove();
        let busy = entered(&permits, host(2));
        busy.activity.begin(false);
        let (first, second) = (entered(&permits, host(3)), entered(&permits, host(4)));
        pass().await;
        first.activity.begin(false);
        first.activity.end(false);
        let mut kept = Vec::new();
        for expected in [&second, &first] {
            pass().await;
            let (connection, closed) = enter(&permits, host(5)).expect("one gives way");
            connection.activity.prove();
            assert_eq!((expected.is_cut(), closed), (true, Some(Full::InAll)));
            kept.push(connection);
        }
        assert!(!busy.is_cut() && !with_key.is_cut());
        kept.push(entered(&permits, host(5)));
        assert!(busy.is_cut(), "no call with a key is on it");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_a_key_keeps_a_connection_while_it_calls_and_for_a_while() {
        let permits = Permits::new(2, 2, 2);
        let (busy, idle) = (entered(&permits, host(1)), entered(&permits, host(1)));
        for connection in [&busy, &idle] {
            connection.activity.begin(true);
            connection.activity.prove();
        }
        idle.activity.end(true);
        assert!(matches!(enter(&permits, host(2)), Err(Full::InAll)));
        for _ in 0..10 {
            pass().await;
        }
        let next = entered(&permits, host(2));
        assert!(idle.is_cut() && !busy.is_cut());
        next.activity.prove();
        assert!(matches!(enter(&permits, host(2)), Err(Full::InAll)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_shown_counts_until_one_is_refused_on_the_connection() {
        let permits = Permits::new(2, 2, 2);
        let (shared, revoked) = (entered(&permits, host(1)), entered(&permits, host(1)));
        for connection in [&shared, &revoked] {
            connection.activity.begin(true);
            connection.activity.prove();
        }
        revoked.activity.end(true);
        for connection in [&shared, &revoked] {
            connection.activity.begin(true);
            connection.activity.disprove();
            connection.activity.end(false);
        }
        let next = entered(&permits, host(2));
        assert!(revoked.is_cut() && !shared.is_cut(), "a call with a key continues beside it");
        next.activity.begin(true);
        next.activity.prove();
        assert!(matches!(enter(&permits, host(2)), Err(Full::InAll)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_has_its_part_gives_way_to_itself() {
        let permits = Permits::new(3, 2, 3);
        let other = entered(&permits, host(1));
        pass().await;
        let (first, second) = (entered(&permits, host(2)), entered(&permits, host(2)));
        let (third, closed) = enter(&permits, host(2)).expect("one gives way");
        assert_eq!(closed, Some(Full::Each));
        assert!(first.is_cut() && !second.is_cut() && !other.is_cut());
        drop((first, second));
        entered(&permits, host(2));
        assert!(!third.is_cut(), "who was closed has freed no permit twice");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_by_a_proxy_counts_with_its_client_once_that_is_known() {
        let permits = Permits::new(4, 2, 4);
        let announced = || {
            let activity = Arc::new(Activity::new());
            let (permit, _) = permits.enter(None, &activity).expect("a permit");
            Connection { activity, permit }
        };
        let pending = [announced(), announced(), announced()];
        for connection in &pending[..2] {
            assert_eq!(connection.permit.handle().arrive(host(1)), Ok(None));
        }
        pass().await;
        assert_eq!(pending[2].permit.handle().arrive(host(1)), Ok(Some(Full::Each)));
        assert_eq!(pending.each_ref().map(Connection::is_cut), [true, false, false]);
        let next = announced();
        for connection in &pending[1..] {
            connection.activity.begin(true);
            connection.activity.prove();
        }
        assert_eq!(next.permit.handle().arrive(host(1)), Err(Full::Each), "none gives way");
        assert_eq!(next.permit.handle().arrive(host(2)), Ok(None));
        drop(pending);
        let [first, second] = [entered(&permits, host(1)), entered(&permits, host(1))];
        assert!(!first.is_cut() && !second.is_cut(), "who has left is counted no more");
    }

    /// Shows a key of this realm on a connection; returns whether it may.
    fn shows(connection: &Connection, realm: i32) -> bool {
        let may = connection.permit.handle().own(realm).is_ok();
        if may {
            connection.activity.prove();
        }
        may
    }

    #[tokio::test(start_paused = true)]
    async fn a_realm_that_has_its_share_loses_one_of_its_own_or_is_refused() {
        let permits = Permits::new(8, 8, 4);
        let mut own = Vec::new();
        let refused = loop {
            let connection = entered(&permits, host(1));
            connection.activity.begin(false);
            if !shows(&connection, 1) {
                break connection;
            }
            own.push(connection);
        };
        assert_eq!(own.len(), 4, "half");
        let other = entered(&permits, host(2));
        assert!(shows(&other, 2), "others have what is left");
        own[1].activity.end(true);
        assert!(!shows(&refused, 1), "it has called only now");
        for _ in 0..10 {
            pass().await;
        }
        assert!(shows(&refused, 1), "now one gives way");
        let cut = own.iter().map(Connection::is_cut).collect::<Vec<_>>();
        assert_eq!((cut, other.is_cut()), (vec![false, true, false, false], false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_of_the_realm_that_called_last_and_of_nobody_once_a_key_is_refused() {
        let permits = Permits::new(4, 4, 2);
        let (first, second, third) =
            (entered(&permits, host(1)), entered(&permits, host(1)), entered(&permits, host(1)));
        assert!(shows(&first, 1) && shows(&second, 1) && !shows(&third, 1));
        assert!(shows(&second, 2), "a proxy sends it the call of another realm");
        assert_eq!(lock(&permits.holders).by_id[&second.permit.handle().id].realm, Some(2));
        drop(second);
        assert!(shows(&third, 1), "it has one less");
        first.permit.handle().disown();
        assert!(shows(&first, 1), "it counted no longer");
        drop((first, third));
        let holders = lock(&permits.holders);
        assert!(holders.by_id.is_empty() && holders.owners.may_enter(1));
    }
}
