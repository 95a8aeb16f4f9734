//! Queries about the schema before it is used. They change nothing.

use diesel::sql_types::{BigInt, Bool, Nullable, Text};

use super::statement;

/// The SQLSTATE of a table that is not there.
pub const UNDEFINED_TABLE: &str = "42P01";

statement! {
    /// The advisory lock of migrations, if nobody has it.
    pub struct TakeTurn { lock: i64 as BigInt } -> (Bool,),
    "SELECT pg_try_advisory_lock({lock})"
}

statement! {
    /// The migrations that the database has.
    pub struct ReadApplied {} -> (Text,),
    "SELECT version::text FROM __diesel_schema_migrations"
}

statement! {
    /// The schema in which a migration would make its tables, none if `search_path` names none that is there; that path; and whether the tables of the
    /// first migration are there.
    pub struct ReadPlace {} -> (Nullable<Text>, Text, Bool),
    "SELECT current_schema()::text, current_setting('search_path'),
            to_regclass('realm') IS NOT NULL AND to_regclass('api_key') IS NOT NULL AND to_regclass('portfolio') IS NOT NULL"
}

statement! {
    /// The first tables, views and sequences of the schema in which a migration would make its own. Those of extensions are nobody's, and the one in
    /// which migrations are noted is made before the first of them.
    pub struct ReadTables {} -> (Text,),
    "SELECT class.relname::text
     FROM pg_class AS class
     JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
     WHERE namespace.nspname = current_schema()
       AND class.relkind IN ('r', 'p', 'f', 'v', 'm', 'S')
       AND class.relname <> '__diesel_schema_migrations'
       AND NOT EXISTS (
           SELECT FROM pg_depend
           WHERE classid = 'pg_class'::regclass AND objid = class.oid AND deptype = 'e'
       )
     ORDER BY class.relname
     LIMIT 4"
}
