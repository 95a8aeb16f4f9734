//! What is asked about the schema before anything of it is used. Reads, and does nothing else.

use diesel::sql_types::Text;

use super::statement;

/// The SQLSTATE of a table that is not there.
pub const UNDEFINED_TABLE: &str = "42P01";

statement! {
    /// The migrations that the database has.
    pub struct ReadApplied {} -> (Text,),
    "SELECT version::text FROM __diesel_schema_migrations"
}

statement! {
    /// The first tables of the schema in which a migration would make its own, with the name of that. Those of extensions are nobody's, and the one
    /// in which migrations are noted is made before the first of them.
    pub struct ReadTables {} -> (Text, Text),
    "SELECT namespace.nspname::text, class.relname::text
     FROM pg_class AS class
     JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
     WHERE namespace.nspname = current_schema()
       AND class.relkind IN ('r', 'p', 'f')
       AND class.relname <> '__diesel_schema_migrations'
       AND NOT EXISTS (
           SELECT FROM pg_depend
           WHERE classid = 'pg_class'::regclass AND objid = class.oid AND deptype = 'e'
       )
     ORDER BY class.relname
     LIMIT 4"
}
