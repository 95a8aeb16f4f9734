//! The pages that are made of the code are as the code says. `UPDATE_DOCS=1 cargo test --test docs` writes them anew.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::collections::BTreeSet;
use std::fmt::{Display, Write};
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, Command};
use offboard::access::ApiVersion;
use offboard::entity::model::{Action, State};
use offboard::error::{Code, FAULT_COUNT, METADATA, MemberKind};
use offboard::events::EventType;
use offboard::events::catalogue::MEMBERS;
use offboard::filter::{Property, PropertyKind};
use offboard::gateway::openapi::{self, grpc_name};
use offboard::offboarding::model::{OffboardingAction, OffboardingState};
use offboard::task::state::{TaskAction, TaskState};
use prost_reflect::DescriptorPool;

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
    assert!(
        found == due,
        "{name} is not what the code says; `UPDATE_DOCS=1 cargo test --test docs` writes it anew"
    );
}

#[test]
fn the_document_of_the_api_is_what_the_service_answers() {
    let descriptors = DescriptorPool::decode(offboard::proto::DESCRIPTOR_SET).unwrap();
    let versions: Vec<String> = ApiVersion::all().map(|version| version.to_string()).collect();
    let document = openapi::document(&descriptors, "", &versions).unwrap();
    check("docs/openapi.json", &(serde_json::to_string_pretty(&document).unwrap() + "\n"));
}

#[test]
fn the_page_of_errors_is_the_catalogue() {
    let mut page = String::from(
        "# Errors\n\nEvery failure has one of these codes, by gRPC and by REST. The page is made of `src/error/code.rs`.\n\n\
         By REST a failure is a problem document ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457), `application/problem+json`) with `type`, `title`, `status`, \
         `code`, `detail`, `doc_url`, `request_id`, `errors` and the members that the code lists below. By gRPC it is a status with \
         [`google.rpc`](https://google.aip.dev/193) details: `ErrorInfo` with the domain `offboard`, the code in upper case as its `reason` and the same members, \
         as text, in its `metadata`; `BadRequest` with a field violation for each of the `errors`, as many as fit into the trailers; `RequestInfo` with the request id; `RetryInfo` where it is \
         worth trying again; `Help` with a link to the page of the code, where the service knows how it is reached (`--public-url`).\n\nA member is there when it has something to say.\n\nWhat \
         is answered with a status from 400 to 499 has changed nothing. An import, which writes batch after batch, begins its answer (200) once the first \
         is written. Should it fail from then on, the failure is the end of that answer, and what was written stays: see \
         [streams](gateway.md#streams).\n\n| code | HTTP | gRPC |\n| --- | --- | --- |\n",
    );
    for code in Code::ALL {
        writeln!(
            page,
            "| [`{0}`](#{0}) | {1} | `{2}` |",
            code.name(),
            code.http(),
            grpc_name(code.grpc())
        )
        .unwrap();
    }
    for code in Code::ALL {
        let description: Vec<_> = code.description().lines().map(str::trim).collect();
        write!(
            page,
            "\n## {}\n\n*{}*: {}\n",
            code.name(),
            code.title(),
            description.join(" ").trim()
        )
        .unwrap();
        write!(page, "\nWhat to do: {}\n", code.advice()).unwrap();
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
    page.push_str(
        "\n## In the metadata alone\n\nThe metadata of `ErrorInfo` may also have values that the message names. Problem documents have them in `detail`.\n\n\
         | name | what it is |\n| --- | --- |\n",
    );
    for (name, what) in METADATA {
        writeln!(page, "| `{name}` | {what} |").unwrap();
    }
    check("docs/errors.md", &page);
}

/// The code of each file of a folder, up to its unit tests.
fn code(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .flat_map(|path| match path.extension() {
            _ if path.ends_with("tests.rs") => Vec::new(),
            Some(extension) if extension == "rs" => {
                let text = fs::read_to_string(&path).unwrap();
                vec![text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned()]
            }
            _ if path.is_dir() => code(&path),
            _ => Vec::new(),
        })
        .collect()
}

#[test]
fn every_name_in_the_metadata_of_a_failure_is_on_the_page_of_errors() {
    let mut reported: BTreeSet<String> = [FAULT_COUNT.to_owned()].into();
    for text in code(&file("src")) {
        for call in [".with(\"", ".with_list(\"", ".with_choices(\"", ".with_whole(\""] {
            reported.extend(
                text.split(call).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()),
            );
        }
    }
    let members =
        Code::ALL.iter().flat_map(|code| code.members()).map(|(name, _)| (*name).to_owned());
    let known: BTreeSet<String> =
        members.chain(METADATA.iter().map(|(name, _)| (*name).to_owned())).collect();
    assert_eq!(
        reported.symmetric_difference(&known).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "written and not listed, or listed and not written"
    );
}

#[test]
fn the_page_of_limits_is_the_list_of_the_code() {
    let root = offboard::cli::command();
    let serve = root.find_subcommand("serve").unwrap();
    let mut page = String::from(
        "# Limits\n\nEverything has a bound. This page is made of `src/limits/`, and lists them all: what is bounded, by how much, where it is set, and what a \
         caller sees past it. The counter `offboard_limit_reached_total` says how often each limit was reached, by its `offboard_limit_name`. A limit \
         without a setting is fixed.\n",
    );
    for (heading, limits) in offboard::limits::ALL {
        write!(page, "\n## {heading}\n\n| name | limit | default | setting | past it |\n| --- | --- | --- | --- | --- |\n").unwrap();
        for limit in *limits {
            let (default, setting) = match limit.value {
                offboard::limits::Value::Fixed(number, unit) => {
                    (format!("{number} {unit}"), String::new())
                }
                offboard::limits::Value::Setting(flag) => {
                    let argument = serve
                        .get_arguments()
                        .chain(root.get_arguments())
                        .find(|argument| argument.get_long() == Some(flag));
                    let argument = argument.unwrap_or_else(|| {
                        panic!("`--{flag}`, which sets `{}`, is no setting", limit.name)
                    });
                    let default: Vec<_> = argument
                        .get_default_values()
                        .iter()
                        .map(|value| value.to_str().unwrap())
                        .collect();
                    let default = if default.is_empty() {
                        // One that follows from another setting is reported by the help.
                        let help = help(argument);
                        let reported = help
                            .split_once("[default: ")
                            .and_then(|(_, rest)| rest.strip_suffix(']'));
                        reported
                            .unwrap_or_else(|| {
                                panic!("the help of `--{flag}` does not show its default")
                            })
                            .to_owned()
                    } else {
                        format!("{}{}", default.join(","), value_name(argument).to_lowercase())
                    };
                    (default, format!("`--{flag}`"))
                }
            };
            writeln!(
                page,
                "| `{}` | {} | {default} | {setting} | {} |",
                limit.name, limit.bounds, limit.past
            )
            .unwrap();
        }
    }
    check("docs/limits.md", &page);
}

/// The call of an action, in the words of the API.
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

/// The call of an action on a request, in the words of the API.
fn who_acts_on_a_request(action: OffboardingAction) -> &'static str {
    match action {
        OffboardingAction::Start => {
            "a worker, when the grace period is over; another one, when the lease of the first has run out"
        }
        OffboardingAction::Cancel => "`CancelOffboardingRequest`",
        OffboardingAction::Succeed => "the worker, with the removal of the entity",
        OffboardingAction::Fail => {
            "the worker, when the entity cannot be removed; the entity is active again"
        }
    }
}

/// A state machine, as its code has it.
struct Machine<'a, S, A> {
    states: &'a [S],
    actions: &'a [A],
    after: fn(S, A) -> Option<S>,
}

impl<S: Copy + PartialEq + Display, A: Copy + Display> Machine<'_, S, A> {
    /// A diagram of every move from one state to another, with ways in and out.
    fn diagram(&self, ways_in: &str, ways_out: &str) -> String {
        let mut diagram = format!("```mermaid\nstateDiagram-v2\n{ways_in}");
        for state in self.states {
            for action in self.actions {
                if let Some(next) = (self.after)(*state, *action).filter(|next| next != state) {
                    writeln!(diagram, "    {state} --> {next}: {action}").unwrap();
                }
            }
        }
        diagram + ways_out + "```\n"
    }

    /// A table of what each action does in each state, with a last column of the page's own if it has a title.
    fn table(
        &self,
        who: fn(A) -> &'static str,
        last: &str,
        last_of: impl Fn(A) -> &'static str,
    ) -> String {
        let mut table = String::from("| action | by |");
        self.states.iter().for_each(|state| write!(table, " `{state}` |").unwrap());
        table.push_str(last);
        table.push_str("\n| --- | --- |");
        table.push_str(&" --- |".repeat(self.states.len() + usize::from(!last.is_empty())));
        for action in self.actions {
            write!(table, "\n| `{action}` | {} |", who(*action)).unwrap();
            for state in self.states {
                match (self.after)(*state, *action) {
                    Some(next) if next == *state => table.push_str(" stays |"),
                    Some(next) => write!(table, " becomes `{next}` |").unwrap(),
                    None => table.push_str(" - |"),
                }
            }
            table.push_str(last_of(*action));
        }
        table + "\n"
    }
}

#[test]
fn the_page_of_states_is_the_state_machine() {
    let machine = Machine { states: State::ALL, actions: Action::ALL, after: State::after };
    let on_hold = |action: Action| {
        let refused = State::ALL.iter().any(|state| {
            state.transition(action).is_ok() && state.transition_on_hold(action).is_err()
        });
        if refused { " refused |" } else { " possible |" }
    };
    let page = format!(
        "# The states of an entity\n\nThe page is made of the state machine in `src/entity/model.rs`.\n\n{}\n\
         What is gone has no state: a hard removal leaves a tombstone (`ListTombstones`), and an entity that was soft-deleted is not visible any more.\n\n\
         ## What can be done\n\nA dash means `invalid_state_transition`, with the `allowed_transitions` of the state. An entity on hold also refuses what \
         the last column says, with the `current_state` `on_hold`; a bulk delete counts it as failed. A hold is not replaced: release it first. While an offboarding \
         is pending or running nothing of its entity can be changed and no hold can be placed: cancel the offboarding first. Detaching is possible \
         in every state.\n\n{}",
        machine.diagram(
            "    [*] --> onboarding: create\n    [*] --> active: create\n",
            "    active --> [*]: bulk delete\n    offboarding --> [*]: the job is done\n",
        ),
        machine.table(who_acts, " on hold |", on_hold),
    );
    check("docs/entity-states.md", &page);
}

#[test]
fn the_page_of_the_states_of_a_request_is_its_state_machine() {
    let machine = Machine {
        states: OffboardingState::ALL,
        actions: OffboardingAction::ALL,
        after: OffboardingState::after,
    };
    let ended = |state: &&OffboardingState| !state.is_live();
    let ways_out: String = OffboardingState::ALL
        .iter()
        .filter(ended)
        .map(|state| format!("    {state} --> [*]\n"))
        .collect();
    let page = format!(
        "# The states of an offboarding request\n\nThe page is made of the state machine in `src/offboarding/model.rs` and of the migrations. The job of \
         `RemovalService` is the same request, with the same states. On the wire `OffboardingService` spells them with a capital: `Pending`.\n\n{}\n\
         An entity is `offboarding` while its request is `pending` or `running`, and no longer: it is gone with `succeeded`, and active again with `failed` \
         or `canceled`. What a request moves to, what becomes of its entity, and its event are one transaction.\n\n\
         ## What can be done\n\nA dash means that it is not possible. A cancel is answered with `not_cancelable` then, with the `current_state`; cancel and start are \
         one compare-and-set, so exactly one of the two wins. A worker that lost its lease changes nothing: each lease has a higher `lease_token` than all before it.\n\n{}\n\
         ## What the database holds to\n\nThese are constraints of the table `offboarding_request`, so no statement can leave a row that breaks them. The index \
         `offboarding_request_one_live` is unique over the live requests of an entity: there is one at most.\n\n{}",
        machine.diagram("    [*] --> pending: request\n", &ways_out),
        machine.table(who_acts_on_a_request, "", |_| ""),
        constraints("offboarding_request"),
    );
    check("docs/offboarding-states.md", &page);
}

/// A table of the named CHECKs of a table, as the migrations leave them.
fn constraints(table: &str) -> String {
    let mut folders: Vec<_> =
        fs::read_dir(file("migrations")).unwrap().map(|folder| folder.unwrap().path()).collect();
    folders.sort();
    let mut held: Vec<(String, String)> = Vec::new();
    for folder in folders {
        let text = fs::read_to_string(folder.join("up.sql")).unwrap();
        for (at, word) in text.match_indices("CONSTRAINT ") {
            let rest = text[at + word.len()..].trim_start_matches("IF EXISTS ");
            let name: String = rest
                .chars()
                .take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
                .collect();
            if name.strip_prefix(table).is_none_or(|rest| !rest.starts_with('_'))
                || name.starts_with("bulk_delete_slice")
            {
                continue;
            }
            held.retain(|(other, _)| *other != name);
            if let Some(condition) = rest[name.len()..].strip_prefix(" CHECK (") {
                held.push((name, in_parentheses(condition)));
            }
        }
    }
    let rows: String =
        held.iter().map(|(name, condition)| format!("| `{name}` | `{condition}` |\n")).collect();
    format!("| constraint | holds |\n| --- | --- |\n{rows}")
}

/// The text up to the parenthesis that closes it, as one line.
fn in_parentheses(text: &str) -> String {
    let mut depth = 1;
    let end = text.find(|letter| {
        depth += i32::from(letter == '(') - i32::from(letter == ')');
        depth == 0
    });
    text[..end.expect("a condition ends")].split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The call of an action on a task, in the words of the API.
fn who_acts_on_a_task(action: TaskAction) -> &'static str {
    match action {
        TaskAction::Start => "a worker that takes up a slice",
        TaskAction::Pause => "`PauseTask`",
        TaskAction::Paused => {
            "whoever gives back the last slice, or frees it of a worker that was lost"
        }
        TaskAction::Resume => "`ResumeTask`",
        TaskAction::Stop => "`StopTask`",
        TaskAction::Stopped => {
            "whoever gives back the last slice, or frees it of a worker that was lost"
        }
        TaskAction::Update => "`UpdateTask`",
        TaskAction::Wait => "its last worker, when it turns to another task that waits",
        TaskAction::Lose => {
            "its last worker, when it ends or has failed; another process, when the lease has run out"
        }
        TaskAction::Complete | TaskAction::CompleteWithErrors => {
            "the worker that does the last chunk"
        }
        TaskAction::Fail => "a worker, when a slice has not moved for ten tries",
    }
}

#[test]
fn the_page_of_the_states_of_a_task_is_its_state_machine() {
    let machine =
        Machine { states: TaskState::ALL, actions: TaskAction::ALL, after: TaskState::after };
    let ways_out: String = TaskState::ALL
        .iter()
        .filter(|state| state.is_ended())
        .map(|state| format!("    {state} --> [*]\n"))
        .collect();
    let page = format!(
        "# The states of a task\n\nThe page is made of the state machine in `src/task/state.rs` and of the migrations. On the wire a status is spelled in capitals: \
         `PROCESSING`. `docs/bulk-delete.md` explains how tasks are worked on.\n\n{}\n\
         What a task moves to and its event are one transaction.\n\n\
         ## What can be done\n\nA dash means that it is not possible: `invalid_state_transition`, with the `allowed_transitions` of the state. What is asked for twice \
         is done once. A task that no worker has a slice of has nothing to end first: it pauses and stops at once, also before it was ever taken up. A task that \
         was to pause when its last chunk was in hand is complete; one that was to stop is canceled.\n\n{}\n\
         ## What the database holds to\n\nThese are constraints of the table `bulk_delete`, so no statement can leave a row that breaks them.\n\n{}",
        machine.diagram("    [*] --> scheduled: start of a bulk delete or a check\n", &ways_out),
        machine.table(who_acts_on_a_task, "", |_| ""),
        constraints("bulk_delete"),
    );
    check("docs/task-states.md", &page);
}

#[test]
fn the_page_of_the_command_line_is_what_the_binary_takes() {
    let root = offboard::cli::command();
    let mut page = format!(
        "# Command line\n\n{}\n\nThe page is made of the code; `offboard COMMAND --help` says the same. Where there is a variable, the flag goes before it. A variable that is set to nothing, or to blanks, is not set; \
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

/// The service config of gRPC clients (github.com/grpc/proposal, A2 and A6), with retries as AIP-194 has them: only of calls whose repetition
/// changes nothing, that are unary, and that found the service unavailable. Which calls only read, their HTTP rules say.
#[test]
fn the_service_config_retries_what_only_reads() {
    let pool = prost_reflect::DescriptorPool::decode(offboard::proto::DESCRIPTOR_SET).unwrap();
    let http = pool.get_extension_by_name("google.api.http").unwrap();
    let reads = |method: &prost_reflect::MethodDescriptor| {
        let rule = method.options().get_extension(&http).into_owned();
        let is_get = rule.as_message().is_some_and(|rule| rule.has_field_by_name("get"));
        is_get && !method.is_client_streaming() && !method.is_server_streaming()
    };
    let methods =
        pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()).filter(reads);
    let names: Vec<_> =
        methods.map(|method| serde_json::json!({"service": method.parent_service().full_name(), "method": method.name()})).collect();
    let named = |name: &str| names.iter().any(|method| method["method"] == name);
    assert!(
        named("GetEntity")
            && named("ListPortfolios")
            && !named("DetachEntity")
            && !named("ExportPortfolio")
    );
    let config = serde_json::json!({
        "methodConfig": [{
            "name": names,
            "retryPolicy": {
                "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }],
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    });
    check("docs/service-config.json", &(serde_json::to_string_pretty(&config).unwrap() + "\n"));
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

#[test]
fn the_properties_in_the_guide_of_filters_are_those_of_the_lists() {
    let (begin, end) = ("<!-- begin: properties -->", "<!-- end: properties -->");
    let lists = [
        ("`ListEntities`, `ListPortfolioEntities`, bulk deletes", &offboard::filter::ENTITY),
        ("`ListDependents`", &offboard::entity::dependent_queries::DEPENDENT),
        ("`ListAttributeIndexes`", &offboard::entity::index::queries::ATTRIBUTE_INDEX),
        ("`ListTombstones`", &offboard::entity::tombstone_queries::TOMBSTONE),
        ("`ListPortfolios`", &offboard::portfolio::registry_queries::PORTFOLIO),
        (
            "`ListOffboardingRequests`, `ListRemovalJobs`",
            &offboard::offboarding::queries::OFFBOARDING,
        ),
        ("`ListEvents`", &offboard::events::EVENT),
        (
            "`ListTasks`, `ListTaskHistory`, `CountTasks`, `CountTaskHistory`",
            &offboard::task::list::TASK,
        ),
        ("`ListTaskFailures`", &offboard::task::queries::FAILURE),
        ("`ListTaskFindings`", &offboard::consistency::queries::FINDING),
    ];
    let mut table = String::from("| lists | properties |\n| --- | --- |\n");
    for (list, vocabulary) in lists {
        let property = |property: &Property| {
            let names: Vec<_> = property.names.iter().map(|name| format!("`{name}`")).collect();
            let kind = match property.kind {
                PropertyKind::Text => "text",
                PropertyKind::Uri => "`entities/ID` or `ID`",
                PropertyKind::Number => "number",
                PropertyKind::Time => "time",
                PropertyKind::Json => "with members",
            };
            let absent = if property.nullable { ", may be missing" } else { "" };
            format!("{} ({kind}{absent})", names.join(" or "))
        };
        let properties: Vec<_> = vocabulary.properties.iter().map(property).collect();
        writeln!(table, "| {list} | {} |", properties.join("; ")).unwrap();
    }
    let guide = fs::read_to_string(file("docs/filter.md")).unwrap();
    let (before, rest) = guide.split_once(begin).expect("the guide has a place for the properties");
    let (_, after) = rest.split_once(end).expect("the place for the properties ends");
    check("docs/filter.md", &format!("{before}{begin}\n\n{table}\n{end}{after}"));
}

#[test]
fn the_types_and_members_in_the_guide_of_events_are_those_of_the_code() {
    let (begin, end) = ("<!-- begin: types -->", "<!-- end: types -->");
    let mut tables = String::from(
        "| type | subject | meaning | `data`, beside `principal_id` |\n| --- | --- | --- | --- |\n",
    );
    for event in EventType::ALL {
        let about = event.about();
        let members: Vec<_> = about.members.iter().map(|name| format!("`{name}`")).collect();
        writeln!(
            tables,
            "| `{event}` | {} | {} | {} |",
            about.subject,
            about.reports,
            members.join(", ")
        )
        .unwrap();
    }
    tables.push_str("\n| member | type | meaning |\n| --- | --- | --- |\n");
    for member in MEMBERS {
        writeln!(tables, "| `{}` | {} | {} |", member.name, member.kind, member.reports).unwrap();
    }
    let guide = fs::read_to_string(file("docs/events.md")).unwrap();
    let (before, rest) = guide.split_once(begin).expect("the guide has a place for the types");
    let (_, after) = rest.split_once(end).expect("the place for the types ends");
    check("docs/events.md", &format!("{before}{begin}\n\n{tables}\n{end}{after}"));
}

/// Every record has its number and its status; the index has every record, and says which numbers have none.
#[test]
fn the_index_of_decisions_has_every_record() {
    let mut names: Vec<String> = fs::read_dir(file("docs/adr"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.retain(|name| name != "README.md");
    names.sort();
    let mut table = String::from("| | decision | status |\n| --- | --- | --- |\n");
    let mut numbers = BTreeSet::new();
    for name in &names {
        let text = fs::read_to_string(file("docs/adr").join(name)).unwrap();
        let mut lines = text.lines();
        let number: usize = name.split('-').next().unwrap().parse().unwrap();
        let (reported, title) = lines
            .next()
            .and_then(|line| line.strip_prefix("# ")?.split_once(". "))
            .unwrap_or_else(|| panic!("{name} has no title"));
        assert_eq!(reported, number.to_string(), "{name}");
        let status = lines
            .nth(1)
            .and_then(|line| line.strip_prefix("Status: "))
            .unwrap_or_else(|| panic!("{name} has no status in its third line"));
        writeln!(table, "| {number} | [{title}]({name}) | {} |", status.trim_end_matches('.'))
            .unwrap();
        assert!(numbers.insert(number), "two records have the number {number}");
    }
    let last = *numbers.last().unwrap();
    let missing: Vec<String> = (1..last)
        .filter(|number| !numbers.contains(number))
        .map(|number| number.to_string())
        .collect();
    let page = format!(
        "# Decisions\n\nWhat was decided, what else was weighed, and what would make the decision wrong. [Record 1](0001-record-decisions.md) says when a change needs a \
         record and which form it has. The page is made of the records by `UPDATE_DOCS=1 cargo test --test docs`.\n\n{table}\n\
         ## Numbers without a record\n\n{}: no commit in the history of this repository has a record with one of these numbers. A number is taken when work on a change begins, so that changes \
         that are made side by side do not collide; it stays unused when the change needs no record. The next record takes the number after the last.\n",
        missing.join(", "),
    );
    check("docs/adr/README.md", &page);
}

/// The pages of what has many members report all of them.
#[test]
fn the_guides_of_removals_name_every_member() {
    let pool = DescriptorPool::decode(offboard::proto::DESCRIPTOR_SET).unwrap();
    for (page, messages) in [
        ("docs/removal-policy.md", &["RemovalPolicy"][..]),
        ("docs/removal-preview.md", &["RemovalPreview", "RemovalBlocker"]),
    ] {
        let text = fs::read_to_string(file(page)).unwrap();
        for message in messages {
            let message = pool.get_message_by_name(&format!("offboard.v1.{message}")).unwrap();
            for field in message.fields() {
                assert!(
                    text.contains(&format!("`{}`", field.name())),
                    "{page} does not describe `{}`",
                    field.name()
                );
            }
        }
    }
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
fn value_name(argument: &Arg) -> String {
    let name = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    name.filter(|name| *name != argument.get_id().as_str().to_uppercase())
        .map(|name| format!(" {name}"))
        .unwrap_or_default()
}

fn help(argument: &Arg) -> String {
    argument.get_help().map(ToString::to_string).unwrap_or_default()
}

fn sentence(text: &str) -> String {
    if text.is_empty() || text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}

#[test]
fn nothing_of_the_document_of_the_api_is_null() {
    let document = fs::read_to_string(file("docs/openapi.json")).unwrap();
    let nulls: Vec<&str> =
        document.lines().filter(|line| line.trim_end_matches(',').ends_with(": null")).collect();
    assert_eq!(nulls, Vec::<&str>::new());
}
