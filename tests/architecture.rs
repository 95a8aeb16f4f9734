//! The rules of the project that the compiler does not know: who may call whom, and where a realm may be made.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use imports::Imports;

#[path = "architecture/imports.rs"]
mod imports;

/// Each room, and the rooms that it may use. `docs/architecture.md` has the same table in words. `error` and `limits` may be used everywhere.
const ROOMS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("config", &[]),
    ("telemetry", &[]),
    ("limits", &["telemetry"]),
    ("shares", &[]),
    ("mail", &[]),
    ("proto", &[]),
    ("filter", &["proto"]),
    ("db", &["shares", "proto", "telemetry"]),
    ("jobs", &["db"]),
    ("access", &["filter", "mail", "db", "proto", "telemetry"]),
    ("gateway", &["proto"]),
    ("events", &["access", "filter", "db", "proto", "telemetry"]),
    ("entity", &["events", "access", "jobs", "filter", "db", "proto", "telemetry"]),
    (
        "portfolio",
        &["entity", "events", "access", "jobs", "filter", "db", "shares", "proto", "telemetry"],
    ),
    (
        "offboarding",
        &["entity", "portfolio", "events", "access", "jobs", "filter", "db", "proto", "telemetry"],
    ),
    ("task", &["events", "access", "jobs", "filter", "mail", "db", "proto", "telemetry"]),
    ("consistency", &["task", "entity", "access", "filter", "db", "proto"]),
    (
        "bulk_delete",
        &[
            "consistency",
            "task",
            "entity",
            "events",
            "access",
            "filter",
            "db",
            "proto",
            "telemetry",
        ],
    ),
    (
        "server",
        &[
            "offboarding",
            "bulk_delete",
            "task",
            "portfolio",
            "entity",
            "events",
            "gateway",
            "access",
            "jobs",
            "mail",
            "db",
            "shares",
            "proto",
            "config",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "server",
            "gateway",
            "entity",
            "events",
            "access",
            "filter",
            "mail",
            "config",
            "db",
            "proto",
            "telemetry",
        ],
    ),
];

/// The one file in which a realm is made from a key, those in which one is made from a claimed job, and the one of the unit tests' check of all SQL.
const REALM_MAKERS: &[&str] = &[
    "src/access/key.rs",
    "src/access/queries.rs",
    "src/db/checked/mod.rs",
    "src/db/realm.rs",
    "src/entity/index/lease_queries.rs",
    "src/offboarding/removal_queries.rs",
    "src/task/mail_queries.rs",
    "src/task/slice_queries.rs",
    "src/task/turn_queries.rs",
];

/// Files that import from each other, and why each group of them may.
const CIRCLES: &[(&str, &[&str])] = &[
    (
        "a condition on JSON is made of others, and what is written once for several conditions is written by each",
        &["filter/sql.rs", "filter/sql_json.rs", "filter/sql_shared.rs"],
    ),
    (
        "a message may contain another one as a `google.protobuf.Any`",
        &["gateway/json/decode.rs", "gateway/json/packed.rs"],
    ),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The code of a file: no comments, and nothing behind its unit tests' start; nothing of a file of unit tests.
fn code(path: &Path) -> String {
    if path.ends_with("tests.rs") {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The room of a file: the first part of its path below `src/`.
fn room(path: &Path) -> String {
    let below = path.strip_prefix(root().join("src")).unwrap();
    below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// Every room that is named by a path from the crate's root: `crate::room`, also in groups such as `crate::{a, b}`.
fn used(code: &str) -> BTreeSet<String> {
    let mut rooms = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let word = |text: &str| {
            text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let end = group.char_indices().find(|(_, c)| {
                depth += i32::from(*c == '{') - i32::from(*c == '}');
                depth < 0
            });
            let group = &group[..end.unwrap().0];
            let mut depth = 0;
            for part in group.split(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                c == ',' && depth == 0
            }) {
                rooms.insert(word(part.trim()));
            }
        } else {
            rooms.insert(word(rest));
        }
    }
    rooms
}

#[test]
fn rooms_use_only_rooms_below_them() {
    let allowed: BTreeMap<_, _> = ROOMS.iter().copied().collect();
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for path in sources(&root().join("src")) {
        let room = room(&path);
        if room == "lib" || room == "main" {
            continue;
        }
        seen.insert(room.clone());
        let Some(may) = allowed.get(room.as_str()) else {
            faults.push(format!("{} is in a room that the table does not have", path.display()));
            continue;
        };
        for other in used(&code(&path)) {
            let known = allowed.contains_key(other.as_str());
            if known
                && other != room
                && other != "error"
                && other != "limits"
                && !may.contains(&other.as_str())
            {
                faults.push(format!("{} uses {other}", path.display()));
            }
        }
    }
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(seen.len(), ROOMS.len(), "the table has a room that is not there");
}

#[test]
fn the_table_has_no_circle() {
    let order: Vec<_> = ROOMS.iter().map(|(room, _)| *room).collect();
    for (n, (room, uses)) in ROOMS.iter().enumerate() {
        for other in *uses {
            let below = order.iter().position(|known| known == other).unwrap();
            assert!(below < n, "{room} uses {other}, which does not stand above it in the table");
        }
    }
}

/// From each file to those that it imports from.
fn imports() -> Imports {
    let src = root().join("src");
    let name = |path: &Path| path.strip_prefix(&src).unwrap().to_str().unwrap().to_owned();
    let files: Vec<_> =
        sources(&src).into_iter().filter(|path| !path.ends_with("src/main.rs")).collect();
    Imports::read(files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())))
}

/// All that can be come to from here.
fn reached<'a>(arrows: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str) -> BTreeSet<&'a str> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(next) = open.pop() {
        open.extend(arrows[next].iter().filter(|to| seen.insert(**to)));
    }
    seen
}

#[test]
fn files_import_in_no_circle() {
    let imports = imports();
    let arrows = imports.arrows();
    let mut circles = BTreeSet::new();
    for (from, to) in &arrows {
        circles.extend(
            to.iter().filter(|to| reached(&arrows, to).contains(from)).map(|to| (*from, *to)),
        );
    }
    let (listed, others): (Vec<_>, Vec<_>) = circles.iter().partition(|(from, to)| {
        CIRCLES.iter().any(|(_, group)| group.contains(from) && group.contains(to))
    });
    assert_eq!(others, Vec::new(), "each of these leads back to itself");
    let listed: BTreeSet<_> = listed.iter().map(|(from, _)| *from).collect();
    assert_eq!(
        listed,
        CIRCLES.iter().flat_map(|(_, group)| *group).copied().collect(),
        "no file is listed in vain"
    );
}

#[test]
fn the_reader_of_files_finds_where_an_item_is() {
    let files = [
        ("a/mod.rs", "mod one;\nmod two;\npub use one::{One, Other as Another};"),
        (
            "a/one.rs",
            "use super::two::{self, Two as T};\npub struct One(T);\n#[cfg(test)]\nmod tests {\n    use crate::c::C;\n}",
        ),
        (
            "a/two.rs",
            "// crate::c::C\nconst TEXT: &str = \"crate::c::C\";\nfn mark() -> char { '\"' }\npub struct Two<'a>(crate::b::B<'a>);",
        ),
        ("b.rs", "use crate::a::{self, Another};\npub fn b() { a::One::new() }"),
        ("c.rs", "use crate::{a, b::*};\npub struct C;"),
    ];
    let imports =
        Imports::read(files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
    let arrows: Vec<_> = imports
        .arrows()
        .into_iter()
        .flat_map(|(from, to)| to.into_iter().map(move |to| (from, to)))
        .collect();
    assert_eq!(
        arrows,
        [("a/one.rs", "a/two.rs"), ("a/two.rs", "b.rs"), ("b.rs", "a/one.rs"), ("c.rs", "b.rs")]
    );
}

#[test]
fn the_reader_of_imports_sees_groups_and_paths() {
    let code = "use crate::{db::{Db, id}, error::Error};\nuse crate::filter::Filter; fn f() { crate::telemetry::chunk() }";
    assert_eq!(used(code).into_iter().collect::<Vec<_>>(), ["db", "error", "filter", "telemetry"]);
}

#[test]
fn a_realm_is_made_only_from_a_key_or_a_claimed_job() {
    for path in sources(&root().join("src")) {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        if code(&path).contains("from_row(") && !REALM_MAKERS.contains(&name.as_str()) {
            panic!("{name} makes a realm");
        }
    }
}

#[test]
fn sql_stands_in_queries_alone() {
    let is_home =
        |file: &str| file.ends_with("queries.rs") || ["chunk.rs", "selector.rs"].contains(&file);
    for room in [
        "entity",
        "portfolio",
        "offboarding",
        "task",
        "consistency",
        "bulk_delete",
        "events",
        "access",
    ] {
        for path in sources(&root().join("src").join(room)) {
            let file = path.file_name().unwrap().to_str().unwrap();
            let code = code(&path);
            let has_sql = ["SELECT ", "UPDATE ", "INSERT INTO ", "DELETE FROM "]
                .iter()
                .any(|word| code.contains(word));
            assert!(!has_sql || is_home(file), "{} contains SQL", path.display());
        }
    }
}

#[test]
fn every_event_that_is_written_is_in_the_catalogue() {
    let known: BTreeSet<_> =
        offboard::events::EventType::ALL.iter().map(|event| event.as_str().to_owned()).collect();
    let mut written = BTreeSet::new();
    for path in
        sources(&root().join("src")).into_iter().filter(|path| !path.ends_with("events/model.rs"))
    {
        for piece in code(&path).split('\'') {
            let is_event = [
                "entity.",
                "portfolio.",
                "bulk_delete.",
                "removal_policy.",
                "attribute_index.",
                "key.",
                "access_policy.",
            ]
            .iter()
            .any(|prefix| {
                piece.strip_prefix(prefix).is_some_and(|name| {
                    !name.is_empty()
                        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
                })
            });
            if is_event {
                written.insert(piece.to_owned());
            }
        }
    }
    assert_eq!(written, known);
}
