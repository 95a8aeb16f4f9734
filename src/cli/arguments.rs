//! The command line as it was given, and all that is wrong with it at once.

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, Error};

use crate::config::{is_blank, without_blank_variables};

/// The metadata that completes the sentences of a refusal.
const HELP: &str = "\n\nFor more information, try '--help'.";

/// Reads the command line of this process.
///
/// A flag of a setting without a value is a slip, such as a variable of a shell that is not set, and is refused.
pub fn read(command: Command) -> Result<(Command, ArgMatches), Error> {
    let mut command = without_blank_variables(command);
    let (mut first, mut faults, mut faulty) = (None, Vec::new(), Vec::new());
    loop {
        let mut attempt = command.clone();
        let error = match attempt.try_get_matches_from_mut(std::env::args_os()) {
            Ok(matches) => {
                let blank = blank_flags(&attempt, &matches)
                    .into_iter()
                    .filter(|flag| !faulty.contains(flag));
                faults.extend(blank.map(|flag| {
                    format!("--{flag} must have a value; leave it out where there is none")
                }));
                return match (first, faults.len()) {
                    (_, 0) => Ok((attempt, matches)),
                    (Some(only), 1) => Err(only),
                    _ => Err(together(&faults)),
                };
            }
            Err(error) => error,
        };
        // Help and the version were asked for, and are given whatever else is wrong.
        if !error.use_stderr() {
            return Err(error);
        }
        let text = error.to_string();
        let sentence = text.trim_start_matches("error: ");
        faults.push(
            sentence.split_once("\n\n").map_or(sentence, |(sentence, _)| sentence).to_owned(),
        );
        match flag_of(&error).filter(|flag| !faulty.contains(flag)) {
            // The others are searched for without it.
            Some(flag) => {
                command = taking_anything(command, &flag);
                faulty.push(flag);
                first = first.or(Some(error));
            }
            None if faults.len() == 1 => return Err(error),
            None => return Err(together(&faults)),
        }
    }
}

fn together(faults: &[String]) -> Error {
    Error::raw(ErrorKind::ValueValidation, faults.join("\nerror: ") + HELP + "\n")
}

/// The long name of the flag whose value an error is about.
fn flag_of(error: &Error) -> Option<String> {
    if !matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue) {
        return None;
    }
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let name = argument.strip_prefix("--")?.split([' ', '=']).next()?;
    Some(name.to_owned())
}

fn taking_anything(command: Command, flag: &str) -> Command {
    let anything = |argument: Arg| match argument.get_long() {
        Some(long) if long == flag => argument.value_parser(ValueParser::os_string()),
        _ => argument,
    };
    command.mut_args(anything).mut_subcommands(|inner| taking_anything(inner, flag))
}

/// The long names of settings that are given as flags without a value. A flag with a variable is a setting.
fn blank_flags(command: &Command, matches: &ArgMatches) -> Vec<String> {
    let is_given = |argument: &&Arg| {
        let id = argument.get_id().as_str();
        let given = matches.value_source(id) == Some(ValueSource::CommandLine);
        given && matches.get_raw(id).is_some_and(|mut values| values.any(is_blank))
    };
    let settings = command.get_arguments().filter(|argument| argument.get_env().is_some());
    let mut flags: Vec<_> = settings
        .filter(is_given)
        .filter_map(|argument| argument.get_long())
        .map(str::to_owned)
        .collect();
    if let Some((name, matches)) = matches.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        flags.extend(blank_flags(command, matches));
    }
    // Those of all commands are found at each level.
    flags.sort();
    flags.dedup();
    flags
}
