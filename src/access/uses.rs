//! When keys were last used, to the minute, until that is written. Pure.

use std::collections::HashMap;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use uuid::Uuid;

use crate::access::key::Caller;
use crate::limits::kept::{USED_KEYS, USED_KEYS_AT_MOST};

/// The use of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The realm of the key.
    pub realm_id: i32,
    /// The key.
    pub key_id: Uuid,
    /// The minute.
    pub minute: DateTime<Utc>,
}

/// The last minute of each key that was used lately, and whether that is written.
#[derive(Default)]
pub struct Uses(HashMap<Uuid, (Use, bool)>);

fn minute_of(moment: DateTime<Utc>) -> DateTime<Utc> {
    moment.duration_trunc(TimeDelta::minutes(1)).unwrap_or(moment)
}

impl Uses {
    /// Notes that the key of a caller is used now.
    pub fn note(&mut self, caller: &Caller, now: DateTime<Utc>) {
        let minute = minute_of(now);
        let (realm_id, key_id) = (caller.realm.id(), caller.key_id);
        if let Some((noted, is_written)) = self.0.get_mut(&key_id) {
            if noted.minute < minute {
                (noted.minute, *is_written) = (minute, false);
            }
        } else if self.0.len() < USED_KEYS_AT_MOST {
            self.0.insert(key_id, (Use { realm_id, key_id, minute }, false));
        } else {
            USED_KEYS.reached();
        }
    }

    /// Those that are to be written, in the order of keys. What is written and of an earlier minute is forgotten, and so is what could not be
    /// written for an hour.
    pub fn due(&mut self, now: DateTime<Utc>) -> Vec<Use> {
        let minute = minute_of(now);
        self.0.retain(|_, (noted, is_written)| {
            noted.minute >= minute || (!*is_written && minute - noted.minute < TimeDelta::hours(1))
        });
        let mut due: Vec<Use> = self
            .0
            .values()
            .filter(|(_, is_written)| !is_written)
            .map(|(noted, _)| *noted)
            .collect();
        due.sort_unstable_by_key(|noted| noted.key_id);
        due
    }

    /// Notes that these are written, of those of `due` whose keys are named.
    pub fn written(&mut self, due: &[Use], keys: &[Uuid]) {
        for written in due.iter().filter(|noted| keys.contains(&noted.key_id)) {
            if let Some((noted, is_written)) = self.0.get_mut(&written.key_id) {
                *is_written = noted.minute == written.minute;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::key::{Key, Presented};

    fn caller(id: u128) -> Caller {
        let key = Key { id: Uuid::from_u128(id), ..Key::example(&[]) };
        key.admit(Presented::example(), Utc::now()).unwrap()
    }

    fn at(text: &str) -> DateTime<Utc> {
        format!("2026-11-01T{text}Z").parse().unwrap()
    }

    #[test]
    fn a_key_is_written_once_a_minute_however_often_it_is_used() {
        let mut uses = Uses::default();
        for second in 0..60 {
            uses.note(&caller(1), at(&format!("10:00:{second:02}")));
        }
        uses.note(&caller(2), at("10:00:59"));
        let due = uses.due(at("10:00:59"));
        let seen: Vec<_> = due.iter().map(|noted| (noted.key_id.as_u128(), noted.minute)).collect();
        assert_eq!(seen, [(1, at("10:00:00")), (2, at("10:00:00"))]);
        uses.written(&due, &[Uuid::from_u128(1)]);
        uses.note(&caller(1), at("10:00:59.5"));
        let due = uses.due(at("10:00:59.5"));
        assert_eq!(due.len(), 1, "what was not written stays");
        assert_eq!(due[0].key_id.as_u128(), 2);
        uses.note(&caller(1), at("10:01:00"));
        uses.note(&caller(1), at("10:00:30"));
        let again = uses.due(at("10:01:00"));
        assert_eq!(again.len(), 2);
        assert_eq!(again[0].minute, at("10:01:00"), "a clock that steps back takes nothing back");
    }

    #[test]
    fn a_use_that_comes_while_another_is_written_is_written_too() {
        let mut uses = Uses::default();
        uses.note(&caller(1), at("10:00:00"));
        let due = uses.due(at("10:00:10"));
        uses.note(&caller(1), at("10:01:00"));
        uses.written(&due, &[Uuid::from_u128(1)]);
        assert_eq!(uses.due(at("10:01:10"))[0].minute, at("10:01:00"));
    }

    #[test]
    fn memory_has_a_bound_and_is_given_back() {
        let mut uses = Uses::default();
        for id in 0..USED_KEYS_AT_MOST as u128 + 5 {
            uses.note(&caller(id), at("10:00:00"));
        }
        let due = uses.due(at("10:00:10"));
        assert_eq!(due.len(), USED_KEYS_AT_MOST);
        let keys: Vec<Uuid> = due[..10].iter().map(|noted| noted.key_id).collect();
        uses.written(&due, &keys);
        assert_eq!(uses.due(at("10:01:00")).len(), USED_KEYS_AT_MOST - 10);
        assert_eq!(uses.due(at("11:01:00")).len(), 0, "what cannot be written is given up");
        assert!(uses.0.is_empty());
    }
}
