//! The page of the command line and the settings of the README are made of the flags.

use std::fmt::Write;
use std::fs;

use clap::{Arg, Command};

use super::{check, file};

const BEGIN: &str = "<!-- begin: settings -->";
const END: &str = "<!-- end: settings -->";

#[test]
fn the_page_of_the_command_line_is_what_the_binary_takes() {
    let root = offboard::cli::command();
    let mut page = format!(
        "# Command line\n\n{}\n\nThe page is made of the code; `offboard COMMAND --help` says the same. Where there is a variable, the flag takes precedence. A variable that is set to nothing, or to blanks, is not set; \
         a flag needs a value.\n\n\
         ## All commands\n\n{}",
        sentence(&root.get_about().unwrap().to_string()),
        table(root.get_arguments())
    );
    for command in root.get_subcommands().filter(|command| command.get_name() != "help") {
        describe(&mut page, command, "offboard", 2);
    }
    check("docs/cli.md", &page);
}

fn describe(page: &mut String, command: &Command, parent: &str, depth: usize) {
    let name = format!("{parent} {}", command.get_name());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    write!(page, "\n{} `{name}`\n\n{}\n", "#".repeat(depth), sentence(&about)).unwrap();
    for argument in command.get_positionals() {
        write!(page, "\n`{}`: {}.\n", argument.get_id().as_str().to_uppercase(), help(argument))
            .unwrap();
    }
    let table = table(command.get_arguments());
    if !table.is_empty() {
        write!(page, "\n{table}").unwrap();
    }
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        describe(page, command, &name, depth + 1);
    }
}

#[test]
fn the_settings_in_the_readme_are_those_of_serve() {
    let readme = fs::read_to_string(file("README.md")).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the README has a place for the settings");
    let (_, after) = rest.split_once(END).expect("the place for the settings ends");
    let root = offboard::cli::command();
    let table = table(root.find_subcommand("serve").unwrap().get_arguments());
    check("README.md", &format!("{before}{BEGIN}\n\n{table}\n{END}{after}"));
}

/// A table of flags; empty if there are none.
fn table<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let rows: Vec<_> = arguments
        .filter(|argument| !argument.is_positional() && !is_builtin(argument))
        .map(row)
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!(
        "| flag | variable | default | what for |\n| --- | --- | --- | --- |\n{}",
        rows.concat()
    )
}

fn row(argument: &Arg) -> String {
    let flag = argument.get_long().expect("every flag has a long name");
    let takes_values = argument.get_action().takes_values();
    let value = if takes_values { value_name(argument) } else { String::new() };
    let variable =
        argument.get_env().map(|name| format!("`{}`", name.to_str().unwrap())).unwrap_or_default();
    let defaults: Vec<_> =
        argument.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
    let default = match defaults.join(",") {
        _ if argument.is_required_set() => "required".to_owned(),
        text if takes_values && !text.is_empty() => format!("`{text}`"),
        _ => String::new(),
    };
    let mut help = help(argument);
    let values: Vec<_> = argument
        .get_possible_values()
        .iter()
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if takes_values && !values.is_empty() {
        write!(help, ": {}", values.join(", ")).unwrap();
    }
    format!("| `--{flag}{value}` | {variable} | {default} | {} |\n", help.replace('|', "\\|"))
}

fn is_builtin(argument: &Arg) -> bool {
    matches!(argument.get_id().as_str(), "help" | "version")
}

/// The name of the value of a flag, if it was given one of its own.
pub fn value_name(argument: &Arg) -> String {
    let name = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    name.filter(|name| *name != argument.get_id().as_str().to_uppercase())
        .map(|name| format!(" {name}"))
        .unwrap_or_default()
}

pub fn help(argument: &Arg) -> String {
    argument.get_help().map(ToString::to_string).unwrap_or_default()
}

fn sentence(text: &str) -> String {
    if text.is_empty() || text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}
