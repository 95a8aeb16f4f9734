//! Limits of reading events.

use super::limits;

/// For how many milliseconds one call evaluates its filter.
pub const FILTER_MILLIS: u64 = 200;
/// How many calls evaluate filters at once.
pub const FILTERS_AT_ONCE: usize = 1;
/// How many events are kept for the watches of one realm.
pub const SHARED_PER_REALM: usize = 5_000;
/// How many messages of a broker are read after a restore.
pub const READ_BACK_AT_MOST: usize = 500_000;

limits! {
    FILTER_TIME "event_filter_time" {
        bounds: "Time in which one list of events evaluates its filter",
        value: Fixed(FILTER_MILLIS, "milliseconds"),
        past: "A page that is short or empty, with `caught_up` false; the next page continues",
    }
    FILTERS "event_filters" {
        bounds: "Lists of events that evaluate their filters at the same moment, at one replica",
        value: Fixed(FILTERS_AT_ONCE as u64, "call"),
        past: "The call waits; those that wait take turns every few milliseconds",
    }
    READ_BACK "publisher_read_back" {
        bounds: "Messages that a publisher reads after a restore, to find out which events a broker has already",
        value: Fixed(READ_BACK_AT_MOST as u64, "messages"),
        past: "Events that the broker took later than these are published again, with the same ids",
    }
    SHARED "shared_events" {
        bounds: "Events of one realm that one replica keeps in memory for all its watches",
        value: Fixed(SHARED_PER_REALM as u64, "events"),
        past: "A watcher that is farther behind reads from the database by itself",
    }
}
