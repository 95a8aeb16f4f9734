//! The pages that are made of the code are as the code says. `UPDATE_DOCS=1 cargo test --test docs` writes them anew.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use offboard::access::ApiVersion;
use offboard::error::{Code, FAULT_COUNT, METADATA, MemberKind};
use offboard::events::EventType;
use offboard::events::catalogue::MEMBERS;
use offboard::filter::{Property, PropertyKind};
use offboard::gateway::openapi::{self, grpc_name};
use prost_reflect::DescriptorPool;

use command_line::{help, value_name};

#[path = "docs/command_line.rs"]
mod command_line;
#[path = "docs/scopes.rs"]
mod scopes;
#[path = "docs/states.rs"]
mod states;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Compares a page with what it must be, or writes it.
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
         worth trying again; `Help` with a link to the page of the code, where the service knows how it is reached (`--public-url`).\n\nA member is there when it has something to say.\n\nA call that \
         gets a status from 400 to 499 has changed nothing. An import, which writes batch after batch, begins its response (200) once the first \
         is written. Should it fail from then on, the failure is the end of that response, and what was written stays: see \
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
        for call in [".with(", ".with_list(", ".with_choices(", ".with_whole("] {
            let names =
                text.split(call).skip(1).filter_map(|rest| rest.trim_start().strip_prefix('"'));
            reported.extend(names.map(|rest| rest.split('"').next().unwrap().to_owned()));
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
                        panic!("`--{flag}`, which sets `{}`, is not a setting", limit.name)
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
        ("`ListKeys`", &offboard::access::keys::queries::KEY),
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
        "# Decisions\n\nWhat was decided, what else was weighed, and what would make the decision wrong. [Record 1](0001-recording-decisions.md) says when a change needs a \
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

#[test]
fn nothing_of_the_document_of_the_api_is_null() {
    let document = fs::read_to_string(file("docs/openapi.json")).unwrap();
    let nulls: Vec<&str> =
        document.lines().filter(|line| line.trim_end_matches(',').ends_with(": null")).collect();
    assert_eq!(nulls, Vec::<&str>::new());
}
