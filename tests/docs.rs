//! The pages that are made of the code are as the code says. `UPDATE_DOCS=1 cargo test --test docs` writes them anew.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, Command};
use offboard::entity::model::{Action, State};
use offboard::error::{Code, MemberKind};

const BEGIN: &str = "<!-- begin: settings -->";
const END: &str = "<!-- end: settings -->";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Holds a page to what it must be, or writes it.
fn check(name: &str, due: &str) {
    let path = file(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, due).unwrap();
        return;
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == due, "{name} is not what the code says; `UPDATE_DOCS=1 cargo test --test docs` writes it anew");
}

#[test]
fn the_page_of_errors_is_the_catalogue() {
    let mut page = String::from(
        "# Errors\n\nEvery failure has one of these codes, whichever door the call came through. The page is made of `src/error.rs`.\n\n\
         By REST a failure is a problem document ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457), `application/problem+json`) with `type`, `title`, `status`, \
         `code`, `detail`, `doc_url`, `request_id`, `errors` and the members that the code lists below. By gRPC it is a status with \
         [`google.rpc`](https://google.aip.dev/193) details: `ErrorInfo` with the domain `offboard`, the code in upper case as its `reason` and the same members, \
         as text, in its `metadata`; `BadRequest` with a field violation for each of the `errors`, as many as fit into the trailers; `RequestInfo` with the request id; `RetryInfo` where it is \
         worth trying again.\n\nA member is there when it has something to say.\n\n| code | HTTP | gRPC |\n| --- | --- | --- |\n",
    );
    for code in Code::ALL {
        writeln!(page, "| [`{0}`](#{0}) | {1} | {2} |", code.name(), code.http(), grpc_name(*code)).unwrap();
    }
    for code in Code::ALL {
        let description: Vec<_> = code.description().lines().map(str::trim).collect();
        write!(page, "\n## {}\n\n*{}*: {}\n", code.name(), code.title(), description.join(" ").trim()).unwrap();
        if !code.members().is_empty() {
            page.push('\n');
        }
        for (member, kind) in code.members() {
            let kind = match kind {
                MemberKind::Text => "text",
                MemberKind::Integer => "integer",
                MemberKind::List => "list of texts",
            };
            writeln!(page, "- `{member}`: {kind}").unwrap();
        }
    }
    check("docs/errors.md", &page);
}

/// The status code as the gRPC specification spells it.
fn grpc_name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{:?}", code.grpc()).chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    format!("`{name}`")
}

/// What does an action, in the words of the API.
fn who_acts(action: Action) -> &'static str {
    match action {
        Action::CompleteOnboarding => "`CompleteOnboarding`",
        Action::Update => "`UpdateEntity`, `PutDependent`, `DeleteDependent`",
        Action::Attach => "`AttachEntity`",
        Action::PlaceHold => "`PlaceHold`",
        Action::ReleaseHold => "`ReleaseHold`",
        Action::RequestOffboarding => "`RequestOffboarding`, `RemoveEntity`",
        Action::Restore => "the service, when an offboarding is canceled or fails",
    }
}

#[test]
fn the_page_of_states_is_the_state_machine() {
    let mut page = String::from(
        "# The states of an entity\n\nThe page is made of the state machine in `src/entity/model.rs`.\n\n```mermaid\nstateDiagram-v2\n    [*] --> onboarding: create\n    \
         [*] --> active: create\n",
    );
    for state in State::ALL {
        for (action, next) in
            Action::ALL.iter().filter_map(|action| Some((action, state.after(*action)?))).filter(|(_, next)| next != state)
        {
            writeln!(page, "    {state} --> {next}: {action}").unwrap();
        }
    }
    page.push_str("    active --> [*]: bulk delete\n    offboarding --> [*]: the job is done\n```\n\n");
    page.push_str(
        "What is gone has no state: a hard removal leaves a tombstone (`ListTombstones`), and an entity that was soft-deleted is not visible any more.\n\n\
         ## What can be done\n\nA dash means `invalid_state_transition`, with the `allowed_transitions` of the state. An entity on hold also refuses what \
         the last column says, with the `current_state` `on_hold`; a bulk delete counts it as failed. A hold is not replaced: release it first. While an offboarding \
         is pending or running nothing of its entity can be changed and no hold can be placed: cancel the offboarding first. Detaching is possible \
         in every state.\n\n| action | by |",
    );
    State::ALL.iter().for_each(|state| write!(page, " `{state}` |").unwrap());
    page.push_str(" on hold |\n| --- | --- |");
    page.push_str(&" --- |".repeat(State::ALL.len() + 1));
    for action in Action::ALL {
        write!(page, "\n| `{action}` | {} |", who_acts(*action)).unwrap();
        for state in State::ALL {
            match state.after(*action) {
                Some(next) if next == *state => page.push_str(" stays |"),
                Some(next) => write!(page, " becomes `{next}` |").unwrap(),
                None => page.push_str(" - |"),
            }
        }
        let refused = State::ALL.iter().any(|state| state.transition(*action).is_ok() && state.transition_on_hold(*action).is_err());
        page.push_str(if refused { " refused |" } else { " possible |" });
    }
    page.push('\n');
    check("docs/entity-states.md", &page);
}

#[test]
fn the_page_of_the_command_line_is_what_the_binary_takes() {
    let root = offboard::cli::command();
    let mut page = format!(
        "# Command line\n\n{}\n\nThe page is made of the code; `offboard COMMAND --help` says the same. Where there is a variable, the flag goes before it.\n\n\
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
        write!(page, "\n`{}`: {}.\n", argument.get_id().as_str().to_uppercase(), help(argument)).unwrap();
    }
    let table = table(command.get_arguments().filter(|argument| !argument.is_global_set()));
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
    let rows: Vec<_> = arguments.filter(|argument| !argument.is_positional() && !is_builtin(argument)).map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("| flag | variable | default | what for |\n| --- | --- | --- | --- |\n{}", rows.concat())
}

fn row(argument: &Arg) -> String {
    let flag = argument.get_long().expect("every flag has a long name");
    let takes_values = argument.get_action().takes_values();
    let value = if takes_values { value_name(argument) } else { String::new() };
    let variable = argument.get_env().map(|name| format!("`{}`", name.to_str().unwrap())).unwrap_or_default();
    let defaults: Vec<_> = argument.get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
    let default = match defaults.join(",") {
        _ if argument.is_required_set() => "required".to_owned(),
        text if takes_values && !text.is_empty() => format!("`{text}`"),
        _ => String::new(),
    };
    let mut help = help(argument);
    let values: Vec<_> = argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    if takes_values && !values.is_empty() {
        write!(help, ": {}", values.join(", ")).unwrap();
    }
    format!("| `--{flag}{value}` | {variable} | {default} | {} |\n", help.replace('|', "\\|"))
}

fn is_builtin(argument: &Arg) -> bool {
    matches!(argument.get_id().as_str(), "help" | "version")
}

/// What stands for the value behind a flag, if it was given a name of its own.
fn value_name(argument: &Arg) -> String {
    let name = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    name.filter(|name| *name != argument.get_id().as_str().to_uppercase()).map(|name| format!(" {name}")).unwrap_or_default()
}

fn help(argument: &Arg) -> String {
    argument.get_help().map(ToString::to_string).unwrap_or_default()
}

fn sentence(text: &str) -> String {
    if text.is_empty() || text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}
