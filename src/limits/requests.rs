//! Limits of calls and messages.

use super::limits;

/// How long before they would be cut off calls are ended as the process ends, in milliseconds.
pub const LAST_WORDS_MILLIS: u64 = 1000;

/// How many organisations are read for the name of a new one.
pub const MAX_ORGANISATIONS: usize = 10_000;

/// How many values of one entity an attribute index has rows for.
pub const MAX_INDEXED_VALUES: usize = 1_000;

/// How long a start of a task searches for the attributes of its filter, in milliseconds, and a list.
pub const ATTRIBUTE_LOOK_MILLIS: (u64, u64) = (5_000, 50);

/// How many entities are read at once for the attributes of a filter, and for names that may have been meant.
pub const ATTRIBUTE_WALK: i64 = 50_000;
/// How many entities, each with other names than the others, are read for names that may have been meant.
pub const SUGGESTING_ENTITIES: i64 = 200;
/// How many names are kept of what those have.
pub const SUGGESTED_NAMES: usize = 5_000;

/// How many ids of each list of a bulk delete are shown, such as those of no entity.
pub const LISTED_IDS: i64 = 100;

/// How many refused entities of an import have a result.
pub const MAX_IMPORT_FAILURES: usize = 10_000;

/// How many entities at most are read for the values that a filter names.
pub const VALUE_LOOK_ENTITIES: u64 = 14_600;

limits! {
    CALLS "calls" {
        bounds: "Calls with a key at once, at one replica",
        value: Setting("max-concurrent-calls"),
        past: "`unavailable` (503), at once",
    }
    MESSAGE_BYTES "message_bytes" {
        bounds: "Bytes of one message or one body, after decompression",
        value: Setting("max-body-bytes"),
        past: "`payload_too_large` (413) with `limit_bytes`",
    }
    CALL_TIME "call_time" {
        bounds: "Time of a unary call",
        value: Setting("request-timeout"),
        past: "`deadline_exceeded` (504)",
    }
    LAST_WORDS "last_words" {
        bounds: "Time before the end of what calls have of `--drain-timeout`, four fifths of it, at which those that still run are ended; a quarter of that where it is less than four seconds",
        value: Fixed(LAST_WORDS_MILLIS, "milliseconds"),
        past: "`unavailable` (503), so that no call is cut off without a word",
    }
    INDEXED_VALUES "indexed_values" {
        bounds: "Different values of an attribute that one entity has rows for in an attribute index",
        value: Fixed(MAX_INDEXED_VALUES as u64, "values"),
        past: "It has one row, by which every filter finds it; responses are the same",
    }
    ATTRIBUTE_LOOK "attribute_look" {
        bounds: "Time for which the start of a bulk delete searches for entities with the attributes of its filter; a list searches for 50 milliseconds",
        value: Fixed(ATTRIBUTE_LOOK_MILLIS.0, "milliseconds"),
        past: "The worker finds out before anything is deleted; a dry run and a list have the warning `unchecked_attribute`",
    }
    ATTRIBUTE_NAMES_WALK "attribute_names_walk" {
        bounds: "Entities, from the first that the filter is about, that are searched for attributes with names similar to one that no entity has",
        value: Fixed(ATTRIBUTE_WALK as u64, "entities"),
        past: "What entities behind them have is not suggested",
    }
    ATTRIBUTE_NAMES_ENTITIES "attribute_names_entities" {
        bounds: "Entities among those, each with other names at its top than the others and of at most 16 KiB, whose attributes are read for it",
        value: Fixed(SUGGESTING_ENTITIES as u64, "entities"),
        past: "What others have is not suggested",
    }
    ATTRIBUTE_NAMES "attribute_names" {
        bounds: "Names of attributes, with their paths, that are kept of those",
        value: Fixed(SUGGESTED_NAMES as u64, "names"),
        past: "Further ones are not suggested",
    }
    VALUE_LOOK "value_look" {
        bounds: "Entities that are read to find whether any has a type or the value of an attribute that a filter names, where no index has it, and which kinds of values they have; the values that a hard delete denies are searched for among all, for as long as `attribute_look` says",
        value: Fixed(VALUE_LOOK_ENTITIES, "entities"),
        past: "There is the warning `unchecked_value`, or `unknown_value` of a type that is spelt much like one that was met; a hard delete of which it must be known is refused with `suspect_value`",
    }
    IDS_SHOWN "ids_shown" {
        bounds: "Ids of each list of a bulk delete that its task, its preview and its refusal show: those that are excluded, and those of no entity",
        value: Fixed(LISTED_IDS as u64, "ids"),
        past: "The first in their order are shown; a count says how many there are",
    }
    IMPORT_FAILURES "import_failures" {
        bounds: "Entities of an import that were refused and have a result that says why",
        value: Fixed(MAX_IMPORT_FAILURES as u64, "results"),
        past: "Those refused behind them have none; `failures_left_out` of the summary says how many",
    }
    ORGANISATIONS "organisations_compared" {
        bounds: "Organisations that `offboard key create` and `import --offline` search for names similar to that of a new one",
        value: Fixed(MAX_ORGANISATIONS as u64, "organisations"),
        past: "Further ones are not named",
    }
}
