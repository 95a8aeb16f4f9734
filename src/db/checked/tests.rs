//! Every statement is prepared on the schema that the migrations make, and its types are those that the code declares.
//!
//! Runs on the server of `OFFBOARD_TEST_DATABASE_URL`, or else on an embedded Postgres.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::query_builder::{AsQuery, Query, QueryFragment};
use diesel::sql_query;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Oid, SmallInt, Text, Timestamptz};
use pq_sys::describe::{Column, Describer};
use url::Url;

use super::house::{captured, sources};
use super::*;
use crate::db::embedded::EmbeddedPostgres;
use crate::db::{migrations, schema};

/// Pieces of statements, and what carries a statement of `statement!`: the statements that they are parts of have them in their forms.
const PIECES: [&str; 5] = ["$name", "Candidates", "Condition", "Filtered", "Predicate"];

/// Which declared type may stand for which: Postgres widens the one to the other without loss.
const WIDENS: [(&str, &str); 3] =
    [("integer", "bigint"), ("integer", "numeric"), ("bigint", "numeric")];

/// A database of this test's own.
struct Database {
    url: String,
    name: String,
    admin: PgConnection,
    _embedded: Option<(EmbeddedPostgres, tempfile::TempDir)>,
}

impl Database {
    async fn create() -> Database {
        let (admin_url, embedded) = match std::env::var("OFFBOARD_TEST_DATABASE_URL") {
            Ok(url) => (url, None),
            Err(_) => {
                let folder = tempfile::tempdir().unwrap();
                let embedded = EmbeddedPostgres::start_or_join(folder.path()).await.unwrap();
                (embedded.database_url().to_owned(), Some((embedded, folder)))
            }
        };
        let mut admin = PgConnection::establish(&admin_url).unwrap();
        let name = format!("test_{:016x}", rand::random::<u64>());
        admin.batch_execute(&format!("CREATE DATABASE {name}")).unwrap();
        let mut url = Url::parse(&admin_url).unwrap();
        url.set_path(&name);
        Database { url: url.into(), name, admin, _embedded: embedded }
    }

    fn server(&self) -> Server {
        Server::of(&self.url)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let dropped =
            self.admin.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        assert!(dropped.is_ok() || std::thread::panicking(), "{dropped:?}");
    }
}

/// The schema that statements are checked against.
struct Server {
    describer: Describer,
    /// The names of the types.
    types: HashMap<u32, String>,
    /// The columns of tables that may be NULL.
    nullable: BTreeSet<(u32, i32)>,
    faults: Vec<String>,
}

#[derive(QueryableByName)]
struct Type {
    #[diesel(sql_type = Oid)]
    oid: u32,
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct Attribute {
    #[diesel(sql_type = Oid)]
    attrelid: u32,
    #[diesel(sql_type = SmallInt)]
    attnum: i16,
}

impl Server {
    fn of(url: &str) -> Server {
        let mut connection = PgConnection::establish(url).unwrap();
        let types: Vec<Type> = sql_query("SELECT oid, format_type(oid, NULL) AS name FROM pg_type")
            .load(&mut connection)
            .unwrap();
        let nullable =
            "SELECT attrelid, attnum FROM pg_attribute WHERE NOT attnotnull AND attnum > 0";
        let nullable: Vec<Attribute> = sql_query(nullable).load(&mut connection).unwrap();
        Server {
            describer: Describer::connect(&CString::new(url).unwrap()).unwrap(),
            types: types.into_iter().map(|found| (found.oid, found.name)).collect(),
            nullable: nullable
                .into_iter()
                .map(|found| (found.attrelid, found.attnum.into()))
                .collect(),
            faults: Vec::new(),
        }
    }

    fn name(&self, oid: u32) -> String {
        self.types.get(&oid).cloned().unwrap_or_else(|| oid.to_string())
    }

    /// Prepares a statement with the types that it declares, and compares its columns.
    fn check(&mut self, form: &Form) -> Option<Vec<Column>> {
        let text = CString::new(form.text.as_str()).unwrap();
        let described = match self.describer.describe(&text, &form.parameters) {
            Ok(described) => described,
            Err(error) => {
                self.faults.push(format!("{}: {error}", form.what));
                return None;
            }
        };
        let Some(declared) = &form.columns else { return Some(described.columns) };
        if declared.len() != described.columns.len() {
            let (declared, returned) = (declared.len(), described.columns.len());
            self.faults
                .push(format!("{}: declares {declared} columns and returns {returned}", form.what));
            return None;
        }
        for (n, (declared, column)) in declared.iter().zip(&described.columns).enumerate() {
            if declared.oid != column.oid {
                let (declared, returned) = (self.name(declared.oid), self.name(column.oid));
                self.faults.push(format!(
                    "{}: column {} (`{}`) is declared as {declared} and is {returned}",
                    form.what,
                    n + 1,
                    column.name
                ));
            }
        }
        Some(described.columns)
    }

    /// Asks the server which type each parameter would have by itself, as far as it can say. A parameter that the statement casts has its
    /// declared type.
    fn check_parameters(&mut self, form: &Form) {
        let text = CString::new(form.text.as_str()).unwrap();
        for (n, declared) in form.parameters.iter().enumerate() {
            if form.text.contains(&format!("${}::", n + 1)) {
                continue;
            }
            let mut open = form.parameters.clone();
            open[n] = 0;
            let Ok(described) = self.describer.describe(&text, &open) else { continue };
            let widens = WIDENS.contains(&(
                self.name(*declared).as_str(),
                self.name(described.parameters[n]).as_str(),
            ));
            if described.parameters[n] != *declared && !widens {
                let (declared, meant) = (self.name(*declared), self.name(described.parameters[n]));
                self.faults.push(format!(
                    "{}: parameter ${} is declared as {declared} and is used as {meant}",
                    form.what,
                    n + 1
                ));
            }
        }
    }

    /// Compares a table of `schema.rs` with the database.
    fn check_table(&mut self, what: &str, form: &Form) {
        let Some(columns) = self.check(form) else { return };
        for (declared, column) in form.columns.iter().flatten().zip(columns) {
            if declared.nullable != self.nullable.contains(&column.origin) {
                self.faults.push(format!(
                    "{what}.{}: `Nullable` in one of schema and database, and not in the other",
                    column.name
                ));
            }
        }
    }
}

fn declared() -> impl Iterator<Item = &'static Declared> {
    inventory::iter::<Declared>.into_iter()
}

fn conditions_of(declared: &Declared) -> Option<Vec<Condition>> {
    let mut all = inventory::iter::<Conditions>.into_iter();
    all.find(|conditions| (conditions.of, conditions.file) == (declared.name, declared.file))
        .map(|conditions| (conditions.each)())
}

fn table<T>(table: T) -> Form
where
    T: AsQuery,
    T::Query: QueryFragment<Pg> + Query,
    <T::Query as Query>::SqlType: Columns,
{
    Form::of("", &table.as_query())
}

fn tables() -> BTreeMap<&'static str, Form> {
    macro_rules! tables {
        ($($name:ident),+) => { BTreeMap::from([$((stringify!($name), table(schema::$name::table))),+]) };
    }
    tables!(
        access_policy,
        api_key,
        bulk_delete_failure,
        entity,
        offboarding_request,
        portfolio,
        realm
    )
}

#[tokio::test]
async fn every_statement_fits_the_schema() {
    let database = Database::create().await;
    migrations::migrate(&mut PgConnection::establish(&database.url).unwrap(), false).unwrap();
    let mut server = database.server();
    for declared in declared() {
        let form = Form::declared(declared, None);
        server.check(&form);
        server.check_parameters(&form);
        for condition in conditions_of(declared).unwrap_or_default() {
            server.check(&Form::declared(declared, Some(&condition)));
        }
    }
    for forms in inventory::iter::<Forms> {
        for form in (forms.each)() {
            let form =
                Form { what: format!("{} of {} ({})", forms.of, forms.file, form.what), ..form };
            server.check(&form);
            server.check_parameters(&form);
        }
    }
    for (name, form) in tables() {
        server.check_table(name, &form);
    }
    server.faults.sort();
    assert!(
        server.faults.is_empty(),
        "{} faults:\n{}",
        server.faults.len(),
        server.faults.join("\n")
    );
}

#[test]
fn every_statement_of_the_sources_is_checked() {
    let sources = sources();
    let count = |found: Vec<(String, String)>| {
        let mut counts = BTreeMap::<String, usize>::new();
        found.into_iter().for_each(|(file, _)| *counts.entry(file).or_default() += 1);
        counts
    };

    // A macro may make several of one.
    let registered =
        count(declared().map(|declared| (declared.file.to_owned(), String::new())).collect());
    for (file, written) in count(captured(&sources, r"(statement!) \{")) {
        assert!(
            registered.get(&file).is_some_and(|registered| *registered >= written),
            "{file} has {written} statements: {registered:?}"
        );
    }

    let mut forms: BTreeSet<_> = inventory::iter::<Forms>
        .into_iter()
        .map(|forms| (forms.file.to_owned(), forms.of.to_owned()))
        .collect();
    for (file, of) in captured(&sources, r"QueryFragment<Pg> for (\$?[A-Za-z]+)")
        .into_iter()
        .filter(|(_, of)| !PIECES.contains(&of.as_str()))
    {
        assert!(forms.remove(&(file.clone(), of.clone())), "`{of}` of {file} has no `forms!`");
    }

    // Texts of diesel's `sql_query` and `sql`, each with its forms.
    let raw = count(captured(&sources, r"(sql_query|dsl::sql::<[A-Za-z]+>)\("));
    let of_raw = [
        ("src/db/fitness.rs", 1),
        ("src/db/sequences.rs", 2),
        ("src/db/session.rs", 1),
        ("src/offboarding/queries.rs", 1),
    ];
    assert_eq!(raw, BTreeMap::from(of_raw.map(|(file, count)| (file.to_owned(), count))));
    let named = [("sequences.rs", "Behind"), ("sequences.rs", "Set"), ("session.rs", "Facts")];
    let mut expected =
        BTreeSet::from(named.map(|(file, of)| (format!("src/db/{file}"), of.to_owned())));
    expected.insert(("src/offboarding/queries.rs".to_owned(), "Page".to_owned()));
    assert_eq!(forms, expected, "forms of statements that are not there");

    let filtered = declared().filter(|declared| declared.is_filtered());
    for declared in filtered {
        let conditions = conditions_of(declared).unwrap_or_default();
        assert!(
            conditions.len() > 10,
            "`{}` of {} has no `filtered!`",
            declared.name,
            declared.file
        );
    }

    let written = captured(&sources, r"diesel::table! \{ *\n *([a-z_]+) \(")
        .into_iter()
        .map(|(_, table)| table)
        .collect::<BTreeSet<_>>();
    assert_eq!(written, tables().into_keys().map(str::to_owned).collect());
}

/// A statement over tables that every database has.
fn form(text: &str, parameters: &[u32], columns: Vec<Cell>) -> Form {
    Form {
        what: "S".to_owned(),
        text: text.to_owned(),
        parameters: parameters.to_vec(),
        columns: Some(columns),
    }
}

#[tokio::test]
async fn what_does_not_fit_is_found() {
    let database = Database::create().await;
    let faults = |form: Form| {
        let mut server = database.server();
        server.check(&form);
        server.check_parameters(&form);
        server.faults
    };
    let none: [&str; 0] = [];
    let text =
        "SELECT c.relpages, c.reloptions FROM pg_class c WHERE c.oid = $1 AND c.relpages < $2";
    let row = || cells::<(Integer, Array<Text>)>();
    let right = [oid::<Oid>(), oid::<Integer>()];
    assert_eq!(faults(form(text, &right, row())), none);

    let column = faults(form(&text.replace("relpages,", "pages,"), &right, row()));
    assert!(column[0].starts_with("S: ERROR:  column c.pages does not exist"), "{column:?}");
    let parameter = faults(form(text, &[oid::<Oid>(), oid::<Bool>()], row()));
    assert!(
        parameter[0].starts_with("S: ERROR:  operator does not exist: integer < boolean"),
        "{parameter:?}"
    );
    let wide = faults(form(text, &[oid::<Oid>(), oid::<BigInt>()], row()));
    assert_eq!(wide, ["S: parameter $2 is declared as bigint and is used as integer"]);
    let result = faults(form(text, &right, cells::<(BigInt, Array<Text>)>()));
    assert_eq!(result, ["S: column 1 (`relpages`) is declared as bigint and is integer"]);
    let fewer = faults(form(text, &right, cells::<(Integer,)>()));
    assert_eq!(fewer, ["S: declares 1 columns and returns 2"]);
    let cast = form("SELECT $1::timestamptz", &[oid::<Text>()], cells::<(Timestamptz,)>());
    assert_eq!(faults(cast), none, "what is cast is what it is declared");
}
