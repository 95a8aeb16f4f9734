//! A database for each test, cloned from a template that the real `offboard migrate` has made.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use diesel::connection::SimpleConnection;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel::{
    Connection, OptionalExtension, PgConnection, QueryableByName, RunQueryDsl, sql_query,
};
use offboard::db::embedded::EmbeddedPostgres;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use url::Url;

use super::offboard;

/// The advisory lock under which the template is made.
const TEMPLATE_LOCK: i64 = 0x0ff_b0a4d;

/// The embedded Postgres of this process's databases, while there are any.
static EMBEDDED: Mutex<Weak<EmbeddedPostgres>> = Mutex::const_new(Weak::new());

/// A database that is dropped at the end.
pub struct Database {
    /// Its URL.
    pub url: String,
    name: String,
    admin_url: Url,
    _embedded: Option<Arc<EmbeddedPostgres>>,
}

/// Makes a database with the schema and nothing in it: on the server of `OFFBOARD_TEST_DATABASE_URL`, which `script/test` sets, or else on an embedded Postgres that the test
/// processes share and the last of them stops.
pub async fn database() -> Database {
    create(|admin, admin_url| {
        let template = template_name();
        make_template(admin, admin_url, &template);
        format!("TEMPLATE {template}")
    })
    .await
}

/// Makes a database that no migration has seen; `options` are those of `CREATE DATABASE`.
pub async fn empty_database(options: &str) -> Database {
    create(|_, _| options.to_owned()).await
}

/// Makes a database with the schema and nothing in it on a server of the test's own, which ends with the test.
pub fn database_on(admin_url: &str) -> Database {
    let admin_url = Url::parse(admin_url).unwrap();
    let name = format!("test_{:016x}", rand::random::<u64>());
    PgConnection::establish(admin_url.as_str())
        .unwrap()
        .batch_execute(&format!("CREATE DATABASE {name}"))
        .unwrap();
    let database =
        Database { url: with_database(&admin_url, &name), name, admin_url, _embedded: None };
    offboard(&["migrate", "--database-url", &database.url]);
    database
}

async fn create(options: impl FnOnce(&mut PgConnection, &Url) -> String) -> Database {
    let (admin_url, embedded) = server().await;
    let admin_url = Url::parse(&admin_url).unwrap();
    let name = format!("test_{:016x}", rand::random::<u64>());
    let mut admin = PgConnection::establish(admin_url.as_str()).unwrap();
    let options = options(&mut admin, &admin_url);
    admin.batch_execute(&format!("CREATE DATABASE {name} {options}")).unwrap();
    Database { url: with_database(&admin_url, &name), name, admin_url, _embedded: embedded }
}

async fn server() -> (String, Option<Arc<EmbeddedPostgres>>) {
    if let Ok(url) = std::env::var("OFFBOARD_TEST_DATABASE_URL") {
        return (url, None);
    }
    let mut shared = EMBEDDED.lock().await;
    if let Some(embedded) = shared.upgrade() {
        return (embedded.database_url().to_owned(), Some(embedded));
    }
    let data_dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
    let embedded = Arc::new(EmbeddedPostgres::start_or_join(&data_dir).await.unwrap());
    *shared = Arc::downgrade(&embedded);
    (embedded.database_url().to_owned(), Some(embedded))
}

fn with_database(admin_url: &Url, name: &str) -> String {
    let mut url = admin_url.clone();
    url.set_path(name);
    url.into()
}

/// The template is named for the migrations that it has.
fn template_name() -> String {
    let mut hash = Sha256::new();
    for file in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")) {
        hash.update(file.as_os_str().as_encoded_bytes());
        hash.update(fs::read(&file).unwrap());
    }
    let digest = hash.finalize();
    format!(
        "offboard_template_{}",
        digest[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    )
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Makes the template unless it is there; a database of its name that is not a template yet was left by a test that was killed.
fn make_template(admin: &mut PgConnection, admin_url: &Url, template: &str) {
    #[derive(QueryableByName)]
    struct Found {
        #[diesel(sql_type = Bool)]
        datistemplate: bool,
    }
    admin.batch_execute(&format!("SELECT pg_advisory_lock({TEMPLATE_LOCK})")).unwrap();
    let found: Option<Found> =
        sql_query("SELECT datistemplate FROM pg_database WHERE datname = $1")
            .bind::<Text, _>(template)
            .get_result(admin)
            .optional()
            .unwrap();
    if !found.is_some_and(|found| found.datistemplate) {
        admin.batch_execute(&format!("DROP DATABASE IF EXISTS {template} WITH (FORCE)")).unwrap();
        admin.batch_execute(&format!("CREATE DATABASE {template}")).unwrap();
        offboard(&["migrate", "--database-url", &with_database(admin_url, template)]);
        admin.batch_execute(&format!("ALTER DATABASE {template} IS_TEMPLATE true")).unwrap();
    }
    admin.batch_execute(&format!("SELECT pg_advisory_unlock({TEMPLATE_LOCK})")).unwrap();
}

impl Database {
    /// A connection of its own.
    pub fn connection(&self) -> PgConnection {
        PgConnection::establish(&self.url).unwrap()
    }

    /// Runs statements.
    pub fn sql(&self, statements: &str) {
        self.connection()
            .batch_execute(statements)
            .unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// The number that a query of one row and one column returns.
    pub fn count(&self, query: &str) -> i64 {
        #[derive(QueryableByName)]
        struct Count {
            #[diesel(sql_type = BigInt)]
            value: i64,
        }
        let count: Count = sql_query(format!("SELECT ({query})::int8 AS value"))
            .get_result(&mut self.connection())
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        count.value
    }

    /// The text of what a query of one row and one column returns; `None` for NULL and for no row.
    pub fn text(&self, query: &str) -> Option<String> {
        #[derive(QueryableByName)]
        struct Cell {
            #[diesel(sql_type = Nullable<Text>)]
            value: Option<String>,
        }
        let cell: Cell = sql_query(format!("SELECT ({query})::text AS value"))
            .get_result(&mut self.connection())
            .unwrap_or_else(|error| panic!("{query}: {error}"));
        cell.value
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let dropped = PgConnection::establish(self.admin_url.as_str())
            .map_err(|error| error.to_string())
            .and_then(|mut admin| {
                admin
                    .batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name))
                    .map_err(|error| error.to_string())
            });
        if let Err(error) = dropped
            && !std::thread::panicking()
        {
            panic!("the database {} cannot be dropped: {error}", self.name);
        }
    }
}
