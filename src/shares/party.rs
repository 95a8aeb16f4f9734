//! The party of the present work.

use std::future::Future;
use std::sync::Arc;

use uuid::Uuid;

tokio::task_local! {
    static PARTY: Party;
    static HEAVY: ();
}

/// The realm and the key of work, and its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// The realm of the key.
    pub realm: i32,
    /// The key.
    pub key: Uuid,
    /// The kind of work: the path of the method. Whether work takes long is foretold by what others of its kind took.
    pub kind: Arc<str>,
    /// True if it is part of a stream, which may wait longer: nobody waits for its end.
    pub streams: bool,
    /// True if it computes for long, so that little of it at once keeps processors busy.
    pub heavy: bool,
}

/// Does work for this party.
pub async fn of<T>(party: Party, work: impl Future<Output = T>) -> T {
    PARTY.scope(party, work).await
}

/// The same for work that is not async, such as waiting for the next message of a stream.
pub fn of_sync<T>(party: &Party, work: impl FnOnce() -> T) -> T {
    PARTY.sync_scope(party.clone(), work)
}

/// The party of the present work; none if it is the service's own.
pub fn current() -> Option<Party> {
    PARTY.try_with(Party::clone).ok()
}

/// Does a step of work that computes for long.
pub fn heavily<T>(work: impl FnOnce() -> T) -> T {
    HEAVY.sync_scope((), work)
}

/// Returns whether the present work computes for long.
pub fn computes_long() -> bool {
    HEAVY.try_with(|()| ()).is_ok()
}

/// Work that continues in a task of its own, with the party it was begun for.
pub fn inherit<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let party = current();
    async move {
        match party {
            Some(party) => of(party, work).await,
            None => work.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_of_its_own_keeps_the_party_only_if_it_inherits_it() {
        let party = Party {
            realm: 1,
            key: Uuid::nil(),
            kind: "/a.B/C".into(),
            streams: false,
            heavy: false,
        };
        let (kept, lost) = of(party.clone(), async {
            let kept = tokio::spawn(inherit(async { current() }));
            let lost = tokio::spawn(async { current() });
            (kept.await.unwrap(), lost.await.unwrap())
        })
        .await;
        assert_eq!((kept, lost, current()), (Some(party.clone()), None, None));
        assert_eq!(of_sync(&party, current), Some(party));
    }
}
