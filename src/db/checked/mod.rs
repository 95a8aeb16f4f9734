//! Every statement of the project, for the test that checks them against the schema. It is in no build but that of the unit tests.
//!
//! [`statement!`](crate::db::statement) adds each statement by itself. A statement that is put together while the service runs adds its forms by
//! [`forms!`], and one with a place for a caller's filter adds the conditions by [`filtered!`]; the test fails for one that does not.

mod columns;
mod example;
mod house;
mod tests;

use std::any::Any;

use diesel::pg::{Pg, PgMetadataLookup, PgQueryBuilder, PgTypeMetadata};
use diesel::query_builder::bind_collector::RawBytesBindCollector;
use diesel::query_builder::{Query, QueryBuilder, QueryFragment};
use diesel::sql_types::HasSqlType;

pub(crate) use columns::{Cell, Columns, cells};

use crate::db::statement::{Segment, segments};
use crate::db::{Mode, Realm};

/// A statement of `statement!`.
pub(crate) struct Declared {
    pub name: &'static str,
    pub file: &'static str,
    pub text: &'static str,
    pub parameters: &'static [Parameter],
    pub row: fn() -> Vec<Cell>,
}

impl Declared {
    /// Returns whether its text has a place for a condition of the caller's.
    pub fn is_filtered(&self) -> bool {
        self.text.contains("{filter}") && self.parameters.iter().all(|(name, _)| *name != "filter")
    }
}

/// The name of a parameter, and the number of its type.
pub(crate) type Parameter = (&'static str, fn() -> u32);

inventory::collect!(Declared);

/// A statement that is put together while the service runs, with every form that it takes.
pub(crate) struct Forms {
    pub of: &'static str,
    pub file: &'static str,
    pub each: fn() -> Vec<Form>,
}

inventory::collect!(Forms);

/// The conditions that callers can put into a statement of `statement!`.
pub(crate) struct Conditions {
    pub of: &'static str,
    pub file: &'static str,
    pub each: fn() -> Vec<Condition>,
}

inventory::collect!(Conditions);

/// A condition, and the filter that it was made of.
pub(crate) type Condition = (String, Box<dyn QueryFragment<Pg>>);

/// Adds the forms of a statement: `forms!(ListEntities, || vec![Form::of("by id", &ListEntities { … }), …]);`.
macro_rules! forms {
    ($of:ident, $each:expr) => {
        inventory::submit! {
            $crate::db::checked::Forms { of: stringify!($of), file: file!(), each: $each }
        }
    };
}
pub(crate) use forms;

/// Adds the conditions that stand for `{filter}` in a statement: `filtered!(ListFailures, conditions(&FAILURE));`.
macro_rules! filtered {
    ($of:ident, $conditions:expr) => {
        inventory::submit! {
            $crate::db::checked::Conditions { of: stringify!($of), file: file!(), each: || $conditions }
        }
    };
}
pub(crate) use filtered;

/// Adds a text of `sql_query`, with its columns in order: it takes them by name.
macro_rules! raw {
    ($of:ident, $text:expr, $row:ty) => {
        $crate::db::checked::forms!($of, || vec![$crate::db::checked::Form::raw(
            $text,
            $crate::db::checked::cells::<$row>()
        )]);
    };
}
pub(crate) use raw;

/// A statement as it is sent to the server: its text, the types of its parameters, and the columns that the code expects.
#[derive(Debug)]
pub(crate) struct Form {
    /// Which statement, in which form.
    pub what: String,
    /// The text, with `$1` and so on.
    pub text: String,
    /// The types of the parameters.
    pub parameters: Vec<u32>,
    /// None where the compiler knows the columns, from the tables of `schema.rs`.
    pub columns: Option<Vec<Cell>>,
}

impl Form {
    /// A statement that knows its row.
    pub fn of<Q>(what: impl Into<String>, query: &Q) -> Form
    where
        Q: QueryFragment<Pg> + Query,
        Q::SqlType: Columns,
    {
        Form { columns: Some(cells::<Q::SqlType>()), ..Form::built(what, query) }
    }

    /// A statement of diesel's query builder.
    pub fn built(what: impl Into<String>, query: &dyn QueryFragment<Pg>) -> Form {
        let mut writer = Writer::default();
        writer.fragment(query);
        writer.form(what.into(), None)
    }

    /// A text without parameters.
    pub fn raw(text: &str, columns: Vec<Cell>) -> Form {
        Form {
            what: String::new(),
            text: text.to_owned(),
            parameters: Vec::new(),
            columns: Some(columns),
        }
    }

    /// A statement of `statement!`, with a condition where it has a place for one.
    pub fn declared(declared: &Declared, condition: Option<&Condition>) -> Form {
        let mut writer = Writer::default();
        for segment in segments(declared.text) {
            match (segment, condition) {
                (Segment::Sql(sql), _) => writer.builder.push_sql(sql),
                (Segment::Parameter("filter"), None) if declared.is_filtered() => {}
                (Segment::Parameter("filter"), Some((_, condition))) => {
                    writer.builder.push_sql(" AND ");
                    writer.fragment(condition);
                }
                (Segment::Parameter(name), _) => writer.parameter(declared, name),
            }
        }
        let what = match condition {
            None => format!("{} of {}", declared.name, declared.file),
            Some((filter, _)) => format!("{} of {} with {filter}", declared.name, declared.file),
        };
        writer.form(what, Some((declared.row)()))
    }
}

/// Writes a statement as diesel would send it.
#[derive(Default)]
struct Writer {
    builder: PgQueryBuilder,
    parameters: Vec<u32>,
}

impl Writer {
    fn fragment(&mut self, fragment: &(impl QueryFragment<Pg> + ?Sized)) {
        fragment.to_sql(&mut self.builder, &Pg).expect("a form can be written");
        let mut binds = RawBytesBindCollector::new();
        fragment.collect_binds(&mut binds, &mut BuiltIn, &Pg).expect("a form has its values");
        self.parameters.extend(binds.metadata.iter().map(known));
    }

    fn parameter(&mut self, declared: &Declared, name: &str) {
        let found = declared.parameters.iter().find(|(known, _)| *known == name);
        let (_, oid) = found.unwrap_or_else(|| panic!("{} has no parameter {name}", declared.name));
        self.builder.push_bind_param();
        self.parameters.push(oid());
    }

    fn form(self, what: String, columns: Option<Vec<Cell>>) -> Form {
        Form { what, text: self.builder.finish(), parameters: self.parameters, columns }
    }
}

/// The number of a type.
pub(crate) fn oid<T>() -> u32
where
    Pg: HasSqlType<T>,
{
    known(&Pg::metadata(&mut BuiltIn))
}

fn known(metadata: &PgTypeMetadata) -> u32 {
    metadata.oid().expect("the types of the house are built into Postgres")
}

/// Knows no types but those whose numbers are fixed.
struct BuiltIn;

impl PgMetadataLookup for BuiltIn {
    fn lookup_type(&mut self, name: &str, _: Option<&str>) -> PgTypeMetadata {
        panic!("`{name}` is not built into Postgres")
    }

    fn as_any<'a>(&mut self) -> &mut (dyn Any + 'a)
    where
        Self: 'a,
    {
        self
    }
}

/// A realm for forms, which are never run.
pub(crate) fn realm() -> Realm {
    Realm::from_row(1, "org".to_owned(), Mode::Test)
}
