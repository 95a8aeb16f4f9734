//! Who has the connections of a listener, and who gives way where there are too many.
//!
//! Whoever can reach a port can hold as many connections as there are. So none of them is kept by being there: where a listener or an address has all
//! that it may, a connection gives way to the next one that comes. First those give way on which nobody has shown a valid key, idle ones before
//! others and the longest idle before all; then those of callers with a key that have not called for a while. A call with a key is never cut off.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::activity::Activity;
use crate::server::tally::{self, Full, Tally};

/// The places of a listener. Clones are one and the same.
#[derive(Clone, Debug)]
pub struct Places {
    tally: Tally,
    holders: Arc<Mutex<Holders>>,
}

#[derive(Debug, Default)]
struct Holders {
    next: u64,
    by_id: HashMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    network: IpAddr,
    activity: Arc<Activity>,
    /// Taken for as long as this is there.
    _place: tally::Place,
}

/// A place that a connection has, until it is dropped or the connection gives way.
#[derive(Debug)]
pub struct Held {
    id: u64,
    holders: Arc<Mutex<Holders>>,
}

impl Places {
    /// So many, of which each network may have so many.
    pub fn new(in_all: usize, each: usize) -> Self {
        Places { tally: Tally::new(in_all, each), holders: Arc::default() }
    }

    /// A place for a connection from this address, and which limit another one was closed for, if one was. Fails where none gives way.
    pub fn enter(&self, address: IpAddr, activity: &Arc<Activity>) -> Result<(Held, Option<Full>), Full> {
        let network = tally::network(address);
        let mut holders = lock(&self.holders);
        let (mut place, mut closed) = (self.tally.enter(Some(address)), None);
        if let Err(full) = place
            && holders.make_room(|holder| full == Full::InAll || holder.network == network)
        {
            (place, closed) = (self.tally.enter(Some(address)), Some(full));
        }
        let place = place?;
        let id = holders.next;
        holders.next += 1;
        holders.by_id.insert(id, Holder { network, activity: activity.clone(), _place: place });
        Ok((Held { id, holders: self.holders.clone() }, closed))
    }
}

impl Holders {
    /// Closes the connection among these that is the first to give way, if one does.
    fn make_room(&mut self, among: impl Fn(&Holder) -> bool) -> bool {
        let there = self.by_id.iter().filter(|(_, holder)| among(holder));
        let first = there.filter_map(|(id, holder)| Some((holder.activity.gives_way()?, *id))).min();
        let Some(holder) = first.and_then(|(_, id)| self.by_id.remove(&id)) else { return false };
        holder.activity.cut();
        true
    }
}

fn lock(holders: &Mutex<Holders>) -> MutexGuard<'_, Holders> {
    holders.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.holders).by_id.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;

    use super::*;

    struct Connection {
        activity: Arc<Activity>,
        _held: Held,
    }

    impl Connection {
        fn is_cut(&self) -> bool {
            self.activity.is_cut().now_or_never().is_some()
        }
    }

    fn host(host: u8) -> IpAddr {
        [10, 0, 0, host].into()
    }

    fn enter(places: &Places, address: IpAddr) -> Result<(Connection, Option<Full>), Full> {
        let activity = Arc::new(Activity::new());
        places.enter(address, &activity).map(|(held, closed)| (Connection { activity, _held: held }, closed))
    }

    fn entered(places: &Places, address: IpAddr) -> Connection {
        enter(places, address).map(|(connection, _)| connection).expect("a place")
    }

    async fn pass() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_idle_without_a_key_for_the_longest_gives_way_first() {
        let places = Places::new(4, 4);
        let with_key = entered(&places, host(1));
        with_key.activity.prove();
        let busy = entered(&places, host(2));
        busy.activity.begin(false);
        let (first, second) = (entered(&places, host(3)), entered(&places, host(4)));
        pass().await;
        first.activity.begin(false);
        first.activity.end(false);
        let mut kept = Vec::new();
        for expected in [&second, &first] {
            pass().await;
            let (connection, closed) = enter(&places, host(5)).expect("one gives way");
            connection.activity.prove();
            assert_eq!((expected.is_cut(), closed), (true, Some(Full::InAll)));
            kept.push(connection);
        }
        assert!(!busy.is_cut() && !with_key.is_cut());
        kept.push(entered(&places, host(5)));
        assert!(busy.is_cut(), "no call with a key is on it");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_a_key_keeps_a_connection_while_it_calls_and_for_a_while() {
        let places = Places::new(2, 2);
        let (busy, idle) = (entered(&places, host(1)), entered(&places, host(1)));
        for connection in [&busy, &idle] {
            connection.activity.begin(true);
            connection.activity.prove();
        }
        idle.activity.end(true);
        assert!(matches!(enter(&places, host(2)), Err(Full::InAll)));
        for _ in 0..10 {
            pass().await;
        }
        let next = entered(&places, host(2));
        assert!(idle.is_cut() && !busy.is_cut());
        next.activity.prove();
        assert!(matches!(enter(&places, host(2)), Err(Full::InAll)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_shown_counts_until_one_is_refused_on_the_connection() {
        let places = Places::new(2, 2);
        let (shared, revoked) = (entered(&places, host(1)), entered(&places, host(1)));
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
        let next = entered(&places, host(2));
        assert!(revoked.is_cut() && !shared.is_cut(), "a call with a key goes on beside it");
        next.activity.begin(true);
        next.activity.prove();
        assert!(matches!(enter(&places, host(2)), Err(Full::InAll)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_has_its_part_gives_way_to_itself() {
        let places = Places::new(3, 2);
        let other = entered(&places, host(1));
        pass().await;
        let (first, second) = (entered(&places, host(2)), entered(&places, host(2)));
        let (third, closed) = enter(&places, host(2)).expect("one gives way");
        assert_eq!(closed, Some(Full::Each));
        assert!(first.is_cut() && !second.is_cut() && !other.is_cut());
        drop((first, second));
        entered(&places, host(2));
        assert!(!third.is_cut(), "who was closed has left no place twice");
    }
}
