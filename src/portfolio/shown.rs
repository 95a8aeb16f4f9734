//! The members that portfolios show, as far as this process knows them.
//!
//! Every answer to a change of membership shows up to 1,000 members. To read them each time would cost more than the change itself, so that a
//! change in a large portfolio were dearer than in a small one. A process therefore remembers what it showed last, and a statement that finds
//! the portfolio as it was then reads no more than the one member that comes into view. What is remembered is never trusted by itself: the
//! database decides, by the version of the portfolio's row and the transaction that wrote it, which no other change and no rollback repeats.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::db::Realm;
use crate::portfolio::model::MEMBERS_SHOWN;

/// Below this number, to read the members is as cheap as to remember them.
const WORTHWHILE: usize = 50;
/// Of how many portfolios the members are remembered; about 50 KiB each at most.
const REMEMBERED: usize = 200;

/// One state of a portfolio's row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// The version.
    pub version: i64,
    /// The transaction that wrote it.
    pub transaction: i64,
}

/// What was shown of a portfolio in one state of it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The state.
    pub stamp: Stamp,
    /// The members, in attach order.
    pub entity_ids: Arc<Vec<String>>,
}

impl Known {
    /// Whether there is no room for another member.
    fn is_full(&self) -> bool {
        self.entity_ids.len() as i64 >= MEMBERS_SHOWN
    }

    /// What is shown once a member has left and `next`, if there is one, has come into view.
    pub fn without(&self, entity_id: &str, next: Vec<String>) -> Vec<String> {
        let mut left: Vec<String> = self.entity_ids.iter().filter(|id| *id != entity_id).cloned().collect();
        if self.is_full() && left.len() < self.entity_ids.len() {
            left.extend(next);
        }
        left
    }

    /// What is shown once a member has joined.
    pub fn with(&self, entity_id: &str) -> Vec<String> {
        let mut joined = self.entity_ids.to_vec();
        if !self.is_full() {
            joined.push(entity_id.to_owned());
        }
        joined
    }
}

/// What is known of all portfolios. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Shown(Arc<Mutex<HashMap<(i32, String), Known>>>);

impl Shown {
    /// What was shown of a portfolio last.
    pub fn get(&self, realm: &Realm, portfolio_id: &str) -> Option<Known> {
        self.known().get(&(realm.id(), portfolio_id.to_owned())).cloned()
    }

    /// Remembers what is shown of a portfolio in a state of it, whether or not that state will be committed.
    pub fn put(&self, realm: &Realm, portfolio_id: &str, stamp: Stamp, entity_ids: &[String]) {
        let key = (realm.id(), portfolio_id.to_owned());
        let mut known = self.known();
        if entity_ids.len() < WORTHWHILE {
            known.remove(&key);
            return;
        }
        if known.len() >= REMEMBERED && !known.contains_key(&key) {
            // Any will do: it is read again when it is wanted.
            let other = known.keys().next().cloned();
            other.and_then(|other| known.remove(&other));
        }
        known.insert(key, Known { stamp, entity_ids: Arc::new(entity_ids.to_vec()) });
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<(i32, String), Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Mode;

    fn ids(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
        numbers.into_iter().map(|number| format!("e{number}")).collect()
    }

    fn known(count: usize) -> Known {
        Known { stamp: Stamp::default(), entity_ids: Arc::new(ids(0..count)) }
    }

    #[test]
    fn one_comes_into_view_when_one_of_a_full_page_has_left() {
        assert_eq!(known(1000).without("e3", ids([1000])), ids((0..1001).filter(|number| *number != 3)));
        assert_eq!(known(1000).without("e5000", ids([1000])), ids(0..1000), "one that was not shown");
        assert_eq!(known(1000).without("e3", Vec::new()), ids((0..1000).filter(|number| *number != 3)), "the last that there were");
        assert_eq!(known(60).without("e3", Vec::new()).len(), 59);
    }

    #[test]
    fn one_who_joins_is_shown_where_there_is_room() {
        assert_eq!(known(60).with("new")[60], "new");
        assert_eq!(known(1000).with("new"), ids(0..1000));
    }

    #[test]
    fn memory_is_bounded_and_apart_by_realm() {
        let shown = Shown::default();
        let realm = |id| Realm::from_row(id, "acme".to_owned(), Mode::Test);
        let stamp = Stamp { version: 7, transaction: 9 };
        shown.put(&realm(1), "p", stamp, &ids(0..100));
        assert_eq!(shown.get(&realm(1), "p").unwrap().stamp, stamp);
        assert!(shown.get(&realm(2), "p").is_none());
        shown.put(&realm(1), "p", stamp, &ids(0..3));
        assert!(shown.get(&realm(1), "p").is_none(), "few are read anew");
        for number in 0..3 * REMEMBERED {
            shown.put(&realm(1), &format!("p{number}"), stamp, &ids(0..100));
        }
        assert_eq!(shown.known().len(), REMEMBERED);
    }
}
