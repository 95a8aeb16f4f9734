//! Every limit of the service: its name, where it is set, and the response when it is exceeded. A file for each kind; `docs/limits.md` is
//! made of this list, and one metric counts how often each limit was reached.

use std::fmt::Display;

use crate::telemetry;

pub(crate) mod allowance;
pub(crate) mod answers;
pub(crate) mod bodies;
pub(crate) mod buckets;
pub(crate) mod database;
pub(crate) mod events;
pub(crate) mod faults;
pub(crate) mod kept;
pub mod listeners;
pub(crate) mod log;
pub(crate) mod mail;
pub(crate) mod memory;
mod part;
pub(crate) mod proxies;
pub(crate) mod rates;
pub(crate) mod requests;
pub(crate) mod responses;
pub(crate) mod shares;
pub(crate) mod tokens;

/// Declares limits, and the list `ALL` of them. What one bounds is its doc comment too.
macro_rules! limits {
    ($($limit:ident $name:literal { bounds: $bounds:literal, value: $kind:ident($($value:expr),*), past: $past:literal $(,)? })*) => {
        $(
            #[doc = $bounds]
            pub static $limit: $crate::limits::Limit = $crate::limits::Limit {
                name: $name,
                bounds: $bounds,
                value: $crate::limits::Value::$kind($($value),*),
                past: $past,
            };
        )*

        /// All of them.
        pub const ALL: &[&$crate::limits::Limit] = &[$(&$limit),*];
    };
}
use limits;

/// One limit.
#[derive(Debug)]
pub struct Limit {
    /// Its name, in snake case: the value of `offboard.limit.name` in `offboard.limit.reached`.
    pub name: &'static str,
    /// The measured quantity, as the start of a sentence without a full stop: `Calls at once with a key, at one replica`.
    pub bounds: &'static str,
    /// Where its value comes from.
    pub value: Value,
    /// The response when the limit is reached, or the treatment of the surplus.
    pub past: &'static str,
}

/// Where the value of a limit comes from.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// A setting of `offboard serve`, by its flag without the dashes.
    Setting(&'static str),
    /// Fixed: how much of what, such as 256 and `characters`. The number is the constant that the code obeys.
    Fixed(u64, &'static str),
}

impl Limit {
    /// Counts that the limit was reached.
    pub fn reached(&self) {
        telemetry::limit_reached(self.name);
    }
}

/// All limits, by the heading that they stand under.
pub const ALL: &[(&str, &[&Limit])] = &[
    ("Calls and messages", requests::ALL),
    ("Rates", rates::ALL),
    ("Shares", shares::ALL),
    ("Connections, and callers without a key", listeners::ALL),
    ("Tokens", tokens::ALL),
    ("Proxies before the listeners", proxies::ALL),
    ("What is kept of calls", kept::ALL),
    ("The database", database::ALL),
    ("Bodies", bodies::ALL),
    ("Request lines, headers and responses", answers::ALL),
    ("Events", events::ALL),
    ("Mails", mail::ALL),
    ("Faults of requests", faults::ALL),
    ("The log", log::ALL),
];

/// An integer for people: `1,000`.
pub fn thousands(number: impl Display) -> String {
    let number = number.to_string();
    let digits = number.trim_start_matches('-');
    let mut text = String::from(&number[..number.len() - digits.len()]);
    for (place, digit) in digits.char_indices() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn numbers_are_written_for_people() {
        let written = [0, 999, 1_000, 50_000, -100, -1_234_567].map(super::thousands);
        assert_eq!(written, ["0", "999", "1,000", "50,000", "-100", "-1,234,567"]);
    }

    #[test]
    fn names_are_snake_case_and_given_once() {
        let mut names = BTreeSet::new();
        for limit in super::ALL.iter().flat_map(|(_, limits)| *limits) {
            assert!(
                limit.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{}",
                limit.name
            );
            assert!(names.insert(limit.name), "{} is there twice", limit.name);
            assert!(
                !limit.bounds.ends_with('.') && !limit.past.ends_with('.'),
                "{} ends in a full stop",
                limit.name
            );
        }
    }
}
