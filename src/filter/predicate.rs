//! A filter as a piece of SQL.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use diesel::QueryResult;
use diesel::expression::AsExpression;
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{Array, Integer, Jsonb, SqlType, Text, Timestamptz};

/// A boolean SQL expression, never NULL, over the names of the filter's vocabulary, such as the alias `e` of the table `entity`. It is in
/// parentheses. Everything from the caller of the filter is a bind, so filters of one shape have one text and share a prepared statement. A
/// clone is cheap.
///
/// A statement that embeds a predicate must not derive `QueryId` without carrying the predicate's type as a parameter: a derived id is
/// static, and diesel would run the cached statement of another filter. It implements `QueryId` with `HAS_STATIC_QUERY_ID = false`.
#[derive(Clone, Debug)]
pub struct Predicate {
    parts: Arc<[Part]>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Sql(String),
    Text(String),
    Texts(Vec<String>),
    Integer(i32),
    Number(JsonNumber),
    Numbers(Vec<JsonNumber>),
    Path(Jsonpath),
    Time(DateTime<Utc>),
    Times(Vec<DateTime<Utc>>),
}

impl Predicate {
    /// The text of the SQL, with `?` for each bind.
    pub fn sql(&self) -> String {
        self.parts
            .iter()
            .map(|part| if let Part::Sql(sql) = part { sql.as_str() } else { "?" })
            .collect()
    }
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sql())
    }
}

impl QueryFragment<Pg> for Predicate {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        for part in self.parts.iter() {
            match part {
                Part::Sql(sql) => out.push_sql(sql),
                Part::Text(text) => out.push_bind_param::<Text, _>(text)?,
                Part::Texts(texts) => out.push_bind_param::<Array<Text>, _>(texts)?,
                Part::Integer(integer) => out.push_bind_param::<Integer, _>(integer)?,
                Part::Number(number) => out.push_bind_param::<Jsonb, _>(number)?,
                Part::Numbers(numbers) => out.push_bind_param::<Array<Jsonb>, _>(numbers)?,
                Part::Path(path) => out.push_bind_param::<JsonpathType, _>(path)?,
                Part::Time(time) => out.push_bind_param::<Timestamptz, _>(time)?,
                Part::Times(times) => out.push_bind_param::<Array<Timestamptz>, _>(times)?,
            }
        }
        Ok(())
    }
}

/// The text differs from filter to filter, so statements are cached by their text.
impl QueryId for Predicate {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

/// A value that is available where the condition is written, as a row by the name of `s` and the number: `j` is the value that the names
/// lead to through objects alone, `x` its text, `l` its text with ASCII letters in lower case, and `r` the values that the names reach
/// through arrays.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub root: &'static str,
    pub names: Vec<String>,
    pub number: usize,
}

impl Shared {
    /// Returns whether it is what these names lead to.
    pub fn is(&self, root: &str, names: &[String]) -> bool {
        self.root == root && self.names == names
    }

    /// Returns whether more than one name leads to it.
    pub fn is_below_another(&self) -> bool {
        self.names.len() > 1
    }
}

/// Puts a [`Predicate`] together.
#[derive(Debug, Default)]
pub(super) struct Builder {
    parts: Vec<Part>,
    /// The values that are available at the present place of the text.
    pub shared: Vec<Shared>,
    /// How many values were shared so far.
    pub aliases: usize,
    /// True if the texts that are written now are in lower case already.
    pub lowered: bool,
}

impl Builder {
    /// SQL that contains nothing of the caller's.
    pub fn sql(&mut self, sql: &'static str) {
        match self.parts.last_mut() {
            Some(Part::Sql(before)) => before.push_str(sql),
            _ => self.parts.push(Part::Sql(sql.to_owned())),
        }
    }

    /// The name of a row of a shared value.
    pub fn alias(&mut self, number: usize) {
        self.sql("s");
        if let Some(Part::Sql(before)) = self.parts.last_mut() {
            before.push_str(&number.to_string());
        }
    }

    pub fn text(&mut self, text: &str) {
        self.parts.push(Part::Text(text.to_owned()));
    }

    pub fn texts<'a>(&mut self, texts: impl Iterator<Item = &'a str>) {
        self.parts.push(Part::Texts(texts.map(str::to_owned).collect()));
    }

    /// A count of characters.
    pub fn count(&mut self, count: usize) {
        self.parts.push(Part::Integer(i32::try_from(count).unwrap_or(i32::MAX)));
    }

    /// A plain decimal, as `jsonb`.
    pub fn number(&mut self, plain: &str) {
        self.parts.push(Part::Number(JsonNumber(plain.to_owned())));
    }

    pub fn numbers<'a>(&mut self, plain: impl Iterator<Item = &'a str>) {
        self.parts.push(Part::Numbers(plain.map(|plain| JsonNumber(plain.to_owned())).collect()));
    }

    pub fn time(&mut self, time: DateTime<Utc>) {
        self.parts.push(Part::Time(time));
    }

    pub fn times(&mut self, times: Vec<DateTime<Utc>>) {
        self.parts.push(Part::Times(times));
    }

    pub fn jsonpath(&mut self, path: String) {
        self.parts.push(Part::Path(Jsonpath(path)));
    }

    pub fn finish(self) -> Predicate {
        Predicate { parts: self.parts.into() }
    }
}

/// The version byte before the text in the binary form of `jsonb` and `jsonpath`.
const BINARY_VERSION: u8 = 1;

/// A number that is sent as `jsonb` with all of its digits; `serde_json` would make a float of it.
#[derive(Clone, Debug, PartialEq, AsExpression)]
#[diesel(sql_type = Jsonb)]
struct JsonNumber(String);

impl ToSql<Jsonb, Pg> for JsonNumber {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&[BINARY_VERSION])?;
        out.write_all(self.0.as_bytes())?;
        Ok(IsNull::No)
    }
}

/// Postgres' `jsonpath`. Sent as such, it is parsed once an execution; a cast from `text` would parse it for each row.
#[derive(SqlType, QueryId)]
#[diesel(postgres_type(oid = 4072, array_oid = 4073))]
struct JsonpathType;

#[derive(Clone, Debug, PartialEq, AsExpression)]
#[diesel(sql_type = JsonpathType)]
struct Jsonpath(String);

impl ToSql<JsonpathType, Pg> for Jsonpath {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&[BINARY_VERSION])?;
        out.write_all(self.0.as_bytes())?;
        Ok(IsNull::No)
    }
}
