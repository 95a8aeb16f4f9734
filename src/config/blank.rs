//! Settings that are given without a value.

use std::ffi::OsStr;

use clap::builder::{OsStr as Name, Resettable};
use clap::{Arg, Command};

/// The command for which a variable that is set to nothing is not set: that is what templates leave of values that nobody has given.
pub fn without_blank_variables(command: Command) -> Command {
    let unset = |argument: Arg| {
        let value = argument.get_env().and_then(std::env::var_os);
        if value.is_some_and(|value| is_blank(&value)) {
            argument.env(Resettable::<Name>::Reset)
        } else {
            argument
        }
    };
    command.mut_args(unset).mut_subcommands(without_blank_variables)
}

/// Returns whether a value is blank: empty, or white space.
pub fn is_blank(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| text.trim().is_empty())
}
