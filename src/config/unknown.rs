//! Variables that look like settings and are none.

use std::collections::BTreeSet;

use clap::Command;

/// The beginning of the names of our variables.
const PREFIX: &str = "OFFBOARD_";
/// How alike a name must be to be taken for what was meant.
const ALIKE: f64 = 0.8;

/// The variables of this process that begin as ours do and are none, each with the one that was meant, if one is much like it.
pub fn unknown_variables(command: &Command) -> Vec<(String, Option<String>)> {
    let given = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    unknown(&known(command), given)
}

/// The variables of a command and of those below it.
fn known(command: &Command) -> BTreeSet<String> {
    let own = command
        .get_arguments()
        .filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned));
    own.chain(command.get_subcommands().flat_map(known)).collect()
}

fn unknown(
    known: &BTreeSet<String>,
    given: impl Iterator<Item = String>,
) -> Vec<(String, Option<String>)> {
    let ours = given
        .filter(|name| name.starts_with(PREFIX) && !known.contains(name) && !is_of_a_service(name));
    let mut unknown: Vec<_> =
        ours.map(|name| (nearest(known, &name), name)).map(|(meant, name)| (name, meant)).collect();
    unknown.sort();
    unknown
}

fn nearest(known: &BTreeSet<String>, name: &str) -> Option<String> {
    let plain = |name: &str| name[PREFIX.len()..].replace('_', "");
    let wanted = plain(name);
    let scored = known
        .iter()
        .map(|known| (strsim::normalized_damerau_levenshtein(&plain(known), &wanted), known));
    scored
        .filter(|(score, _)| *score >= ALIKE)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, known)| known.clone())
}

/// Whether a variable is of those by which Kubernetes says where a service named `offboard`, or named so and more, is.
fn is_of_a_service(name: &str) -> bool {
    let is_port = |rest: &str| rest.is_empty() || rest.starts_with('_');
    name.ends_with("_SERVICE_HOST")
        || name.split_once("_SERVICE_PORT").is_some_and(|(_, rest)| is_port(rest))
        || format!("{name}_").contains("_PORT_")
            && (name.ends_with("_PORT") || name.contains("_TCP") || name.contains("_UDP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_is_nearly_one_of_ours_is_reported_with_that() {
        let known = ["OFFBOARD_DB_POOL_SIZE", "OFFBOARD_LOG", "OFFBOARD_LOG_FORMAT"]
            .map(str::to_owned)
            .into();
        let found = |name: &str| unknown(&known, std::iter::once(name.to_owned()));
        for (name, meant) in [
            ("OFFBOARD_DB_POOLSIZE", Some("OFFBOARD_DB_POOL_SIZE")),
            ("OFFBOARD_LOGFORMAT", Some("OFFBOARD_LOG_FORMAT")),
            ("OFFBOARD_LOG_FROMAT", Some("OFFBOARD_LOG_FORMAT")),
            ("OFFBOARD_NOTHING_LIKE_IT", None),
        ] {
            assert_eq!(found(name), [(name.to_owned(), meant.map(str::to_owned))]);
        }
        for name in [
            "OFFBOARD_LOG",
            "HOME",
            "OFFBOARD_SERVICE_HOST",
            "OFFBOARD_SERVICE_PORT_GRPC",
            "OFFBOARD_PORT",
            "OFFBOARD_PORT_8080_TCP_ADDR",
        ] {
            assert!(found(name).is_empty(), "{name}");
        }
    }
}
