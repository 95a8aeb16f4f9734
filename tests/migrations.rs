//! The rules for migrations while the service runs: none takes a lock for longer than a moment, however large a table is.
//!
//! Each migration is applied to the schema of those before it, and the catalogue is compared before and after: a table with another file was
//! rewritten; an index that is new in a transaction was not built concurrently; a constraint that is new and valid was checked under the lock
//! of the statement that added it. Postgres' manual says which lock each statement takes:
//! <https://www.postgresql.org/docs/current/sql-altertable.html>.
//!
//! `offboard migrate` limits the wait of statements for locks: it sets `lock_timeout` for all of them and tries again;
//! `tests/functional/database_unfit.rs` has the test.

#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod kit;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::Text;
use kit::{Database, empty_database};
use regex::Regex;

/// Tables of a row for each realm or fewer. What is done to them takes no time, so they may be locked and read.
const SMALL: &[&str] = &[
    "access_policy",
    "api_key",
    "bulk_delete_turn",
    "event_history",
    "event_sequencer",
    "publisher",
    "realm",
    "removal_policy",
    "service_secret",
];

/// The migrations from before this rule, by their numbers. They are exempt because no version was released before them: the tables that
/// they change had no rows anywhere that must not be delayed, and a migration that databases have already is not edited.
const EARLIER: &[(&str, &[&str])] = &[
    (
        "00000000000005",
        &[
            "builds the index event_realm_xid on event in a transaction",
            "builds the index event_seq_order on event in a transaction",
            "builds the index event_xid on event in a transaction",
            "rewrites event",
        ],
    ),
    (
        "00000000000007",
        &[
            "builds the index entity_created on entity in a transaction",
            "checks the constraint entity_hold_reason on every row of entity",
        ],
    ),
    (
        "00000000000008",
        &[
            "changes rows of entity",
            "checks the constraint entity_deleted_detached on every row of entity",
        ],
    ),
    (
        "00000000000010",
        &[
            "builds the index offboarding_request_age on offboarding_request in a transaction",
            "builds the index tombstone_age on tombstone in a transaction",
            "checks the constraint offboarding_request_last_error on every row of offboarding_request",
            "checks the constraint offboarding_request_next_attempt on every row of offboarding_request",
        ],
    ),
    (
        "00000000000012",
        &[
            "changes rows of bulk_delete",
            "checks the constraint bulk_delete_fix on every row of bulk_delete",
            "checks the constraint bulk_delete_kind on every row of bulk_delete",
            "checks the constraint bulk_delete_mode on every row of bulk_delete",
            "checks the constraint bulk_delete_pace on every row of bulk_delete",
            "checks the constraint bulk_delete_worked on every row of bulk_delete",
        ],
    ),
    (
        "00000000000013",
        &[
            "builds the index bulk_delete_ended on bulk_delete in a transaction",
            "builds the index bulk_delete_history on bulk_delete in a transaction",
        ],
    ),
    ("00000000000014", &["builds the index event_removal on event in a transaction"]),
    (
        "00000000000015",
        &["checks the constraint bulk_delete_max_objects_check on every row of bulk_delete"],
    ),
    (
        "00000000000016",
        &["checks the constraint bulk_delete_finding_kind on every row of bulk_delete_finding"],
    ),
    (
        "00000000000025",
        &[
            "builds the index bulk_delete_mail_admitted on bulk_delete_mail in a transaction",
            "checks the constraint bulk_delete_mail_reason on every row of bulk_delete_mail",
        ],
    ),
    ("00000000000026", &["changes rows of offboarding_request"]),
    (
        "00000000000028",
        &["checks the constraint bulk_delete_lists_check on every row of bulk_delete"],
    ),
];

/// A migration, and whether it is run in a transaction, which `metadata.toml` beside it may deny.
struct Migration {
    number: String,
    text: String,
    down: String,
    in_transaction: bool,
}

fn migrations() -> Vec<Migration> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut all: Vec<Migration> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let metadata = fs::read_to_string(path.join("metadata.toml")).unwrap_or_default();
            Migration {
                number: name.split('_').next().unwrap().to_owned(),
                text: fs::read_to_string(path.join("up.sql")).unwrap(),
                down: fs::read_to_string(path.join("down.sql")).unwrap(),
                in_transaction: !metadata.contains("run_in_transaction = false"),
            }
        })
        .collect();
    all.sort_by(|one, other| one.number.cmp(&other.number));
    all
}

/// The tables in the catalogue; a partition goes by the name of its table.
struct Catalogue {
    /// The files of each.
    files: BTreeMap<String, BTreeSet<String>>,
    indexes: BTreeSet<(String, String)>,
    /// The constraints, and the validated ones among them.
    constraints: BTreeSet<(String, String)>,
    valid: BTreeSet<(String, String)>,
    says: BTreeSet<(String, String)>,
    /// Columns that may not be NULL, and all columns.
    not_null: BTreeSet<(String, String)>,
    columns: BTreeSet<(String, String)>,
}

#[derive(QueryableByName)]
struct Pair {
    #[diesel(sql_type = Text)]
    one: String,
    #[diesel(sql_type = Text)]
    other: String,
}

impl Catalogue {
    fn of(connection: &mut PgConnection) -> Catalogue {
        let mut pairs = |text: &str| -> BTreeSet<(String, String)> {
            let tables = "SELECT c.oid, c.relfilenode, t.relname::text AS name
                          FROM pg_class c JOIN pg_class t ON t.oid = coalesce(pg_partition_root(c.oid), c.oid)
                          WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')";
            let query = format!("WITH tables AS ({tables}) {text}");
            let found: Vec<Pair> = sql_query(query).load(connection).unwrap();
            found.into_iter().map(|pair| (pair.one, pair.other)).collect()
        };
        let mut files = BTreeMap::<String, BTreeSet<String>>::new();
        for (table, file) in
            pairs("SELECT name AS one, oid::text || ' ' || relfilenode::text AS other FROM tables")
        {
            files.entry(table).or_default().insert(file);
        }
        let mut constraints = |column: &str, which: &str| {
            let of = "FROM tables t JOIN pg_constraint k ON k.conrelid = t.oid WHERE k.contype IN ('c', 'f')";
            pairs(&format!("SELECT t.name AS one, {column} AS other {of} AND {which}"))
        };
        let (constraints, valid, says) = (
            constraints("k.conname::text", "true"),
            constraints("k.conname::text", "k.convalidated"),
            constraints("pg_get_constraintdef(k.oid)", "k.convalidated"),
        );
        let columns = "FROM tables t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped";
        Catalogue {
            files,
            // Those of partitions come with the one of their table.
            indexes: pairs(
                "SELECT t.name AS one, i.relname::text AS other
                 FROM tables t JOIN pg_index x ON x.indrelid = t.oid JOIN pg_class i ON i.oid = x.indexrelid
                 WHERE NOT i.relispartition",
            ),
            constraints,
            valid,
            says,
            not_null: pairs(&format!("SELECT t.name AS one, a.attname::text AS other {columns} WHERE a.attnotnull")),
            columns: pairs(&format!("SELECT t.name AS one, a.attname::text AS other {columns}")),
        }
    }

    /// Returns whether what is done to a table is felt: it was there, and may be large.
    fn minds(&self, table: &str) -> bool {
        self.files.contains_key(table) && !SMALL.contains(&table)
    }
}

/// Applies a migration, and says what it did that those who use the database would feel.
fn faults(connection: &mut PgConnection, migration: &Migration) -> BTreeSet<String> {
    let before = Catalogue::of(connection);
    let (begin, end) = if migration.in_transaction { ("BEGIN;", ";COMMIT") } else { ("", "") };
    connection
        .batch_execute(&format!("{begin}{}{end}", migration.text))
        .unwrap_or_else(|error| panic!("{}: {error}", migration.number));
    let after = Catalogue::of(connection);
    let mut faults = BTreeSet::new();
    let files = after.files.iter().filter(|(table, _)| before.minds(table));
    for (table, files) in files {
        // One that is dropped and made again has nothing to be rewritten.
        let (was, made_again) = (&before.files[table], !shares_oid(&before.files[table], files));
        if !made_again && !was.is_subset(files) {
            faults.insert(format!("rewrites {table}"));
        }
    }
    let is_kept = |table: &str| {
        after.files.get(table).is_some_and(|files| shares_oid(&before.files[table], files))
    };
    let minds = |table: &str| before.minds(table) && is_kept(table);
    for (table, index) in
        after.indexes.difference(&before.indexes).filter(|(table, _)| minds(table))
    {
        if migration.in_transaction {
            faults.insert(format!("builds the index {index} on {table} in a transaction"));
        }
    }
    for (table, constraint) in
        after.valid.difference(&before.constraints).filter(|(table, _)| minds(table))
    {
        faults.insert(format!("checks the constraint {constraint} on every row of {table}"));
    }
    for (table, column) in
        after.not_null.difference(&before.not_null).filter(|(table, _)| minds(table))
    {
        // A valid constraint saves Postgres the check.
        let proved =
            before.says.contains(&(table.clone(), format!("CHECK (({column} IS NOT NULL))")));
        if !proved && before.columns.contains(&(table.clone(), column.clone())) {
            faults.insert(format!("looks for NULL in {column} of every row of {table}"));
        }
    }
    let text = plain(&migration.text);
    for (verb, expression) in
        [("changes", r"(?m)^ *update +([a-z_]+)"), ("deletes", r"(?m)^ *delete +from +([a-z_]+)")]
    {
        for found in Regex::new(expression)
            .unwrap()
            .captures_iter(&text)
            .filter(|found| before.minds(&found[1]))
        {
            faults.insert(format!("{verb} rows of {}", &found[1]));
        }
    }
    if text.contains("lock_timeout") {
        faults.insert("sets lock_timeout, which `offboard migrate` sets".to_owned());
    }
    faults
}

fn shares_oid(one: &BTreeSet<String>, other: &BTreeSet<String>) -> bool {
    let oids = |files: &BTreeSet<String>| {
        files.iter().map(|file| file.split(' ').next().unwrap().to_owned()).collect::<BTreeSet<_>>()
    };
    !oids(one).is_disjoint(&oids(other))
}

/// The statements in lower case, without comments and without the bodies of functions.
fn plain(text: &str) -> String {
    let text = Regex::new(r"--[^\n]*").unwrap().replace_all(text, "").into_owned();
    Regex::new(r"(?s)\$\$.*?\$\$").unwrap().replace_all(&text, "").to_lowercase()
}

fn connection(database: &Database) -> PgConnection {
    let mut connection = database.connection();
    connection.batch_execute("SET client_min_messages = error").unwrap();
    connection
}

#[tokio::test]
async fn a_migration_blocks_nobody() {
    let database = empty_database("").await;
    let mut connection = connection(&database);
    let earlier: BTreeMap<_, BTreeSet<String>> = EARLIER
        .iter()
        .map(|(number, faults)| (*number, faults.iter().map(|fault| (*fault).to_owned()).collect()))
        .collect();
    let mut found = BTreeMap::new();
    let migrations = migrations();
    for migration in &migrations {
        // A migration that fails halfway is not rolled back there, and is undone before it is tried again, however far it came.
        for again in 0..if migration.in_transaction { 0 } else { 3 } {
            let undone = connection.batch_execute(&migration.down);
            undone.unwrap_or_else(|error| {
                panic!("{} is not undone where there is nothing of it: {error}", migration.number)
            });
            if again == 1 {
                connection.batch_execute(&migration.text).unwrap();
            }
        }
        let faults = faults(&mut connection, migration);
        if !faults.is_empty() {
            found.insert(migration.number.as_str(), faults);
        }
    }
    assert_eq!(found, earlier, "add first and fill later: CONTRIBUTING.md says how");
    let catalogue = Catalogue::of(&mut connection);
    for table in SMALL {
        assert!(catalogue.files.contains_key(*table), "`{table}` is not there any more");
    }
}

#[tokio::test]
async fn a_blocking_migration_is_found() {
    let database = empty_database("").await;
    let mut connection = connection(&database);
    let start = "CREATE TABLE entity (id int4, note text);
                 CREATE TABLE realm (id int4);
                 CREATE TABLE event (at timestamptz) PARTITION BY RANGE (at);
                 CREATE TABLE event_default PARTITION OF event DEFAULT;
                 CREATE INDEX entity_note ON entity (note);
                 ALTER TABLE entity ADD CHECK (id > 0)";
    let mut apply = |text: &str, in_transaction| {
        let migration = Migration {
            number: "1".to_owned(),
            text: text.to_owned(),
            down: String::new(),
            in_transaction,
        };
        faults(&mut connection, &migration).into_iter().collect::<Vec<_>>()
    };
    let none: [&str; 0] = [];
    assert_eq!(apply(start, true), none, "tables that were not there");
    for harmless in [
        "ALTER TABLE entity ADD COLUMN size int4 NOT NULL DEFAULT 0",
        "ALTER TABLE entity ADD CONSTRAINT later CHECK (id > 1) NOT VALID",
        // In a migration of its own: others read and write meanwhile.
        "ALTER TABLE entity VALIDATE CONSTRAINT later",
        "ALTER TABLE entity ADD CONSTRAINT sized CHECK (size IS NOT NULL) NOT VALID",
        "ALTER TABLE entity VALIDATE CONSTRAINT sized",
        "ALTER TABLE entity ALTER COLUMN size DROP NOT NULL",
        "ALTER TABLE entity ALTER COLUMN size SET NOT NULL",
        "CREATE INDEX realm_id ON realm (id); ALTER TABLE realm ALTER COLUMN id TYPE int8",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$
             UPDATE entity SET id = 1; SELECT set_config('lock_timeout', '1', true)
         $$",
    ] {
        assert_eq!(apply(harmless, true), none, "{harmless}");
    }
    assert_eq!(apply("CREATE INDEX CONCURRENTLY entity_id ON entity (id)", false), none);
    for (text, fault) in [
        ("ALTER TABLE entity ALTER COLUMN id TYPE int8", "rewrites entity"),
        ("ALTER TABLE entity ADD COLUMN number uuid DEFAULT gen_random_uuid()", "rewrites entity"),
        ("ALTER TABLE event ADD COLUMN number uuid DEFAULT gen_random_uuid()", "rewrites event"),
        (
            "CREATE INDEX entity_size ON entity (size)",
            "builds the index entity_size on entity in a transaction",
        ),
        (
            "CREATE INDEX event_at ON event (at)",
            "builds the index event_at on event in a transaction",
        ),
        (
            "ALTER TABLE entity ADD CONSTRAINT now CHECK (id > 2)",
            "checks the constraint now on every row of entity",
        ),
        (
            "ALTER TABLE entity ADD CONSTRAINT soon CHECK (id > 1) NOT VALID; ALTER TABLE entity VALIDATE CONSTRAINT soon",
            "checks the constraint soon on every row of entity",
        ),
        (
            "ALTER TABLE entity ALTER COLUMN note SET NOT NULL",
            "looks for NULL in note of every row of entity",
        ),
        ("UPDATE entity SET id = 3", "changes rows of entity"),
        ("DELETE FROM entity", "deletes rows of entity"),
        ("SET LOCAL lock_timeout = 0", "sets lock_timeout, which `offboard migrate` sets"),
    ] {
        assert_eq!(apply(text, true), [fault], "{text}");
    }
}
