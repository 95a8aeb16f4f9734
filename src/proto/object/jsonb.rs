//! Objects as the database has them: `jsonb`, as text.

use std::io::Write;

use diesel::deserialize::{self, FromSql};
use diesel::pg::{Pg, PgValue};
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::Jsonb;

use super::{Struct, text};

/// The version byte before the text of a `jsonb` in the binary protocol.
const VERSION: u8 = 1;

/// Objects, as one JSON array.
#[derive(
    Clone,
    Debug,
    Default,
    PartialEq,
    diesel::expression::AsExpression,
    diesel::deserialize::FromSqlRow,
)]
#[diesel(sql_type = Jsonb)]
pub struct Objects(pub Vec<Struct>);

fn text_of(value: PgValue<'_>) -> deserialize::Result<&str> {
    match value.as_bytes().split_first() {
        Some((&VERSION, text)) => Ok(std::str::from_utf8(text)?),
        _ => Err("a jsonb of another version".into()),
    }
}

impl FromSql<Jsonb, Pg> for Struct {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Struct::from_text(text_of(value)?))
    }
}

impl ToSql<Jsonb, Pg> for Struct {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&[VERSION])?;
        out.write_all(self.to_text().as_bytes())?;
        Ok(IsNull::No)
    }
}

impl FromSql<Jsonb, Pg> for Objects {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Objects(text::read_objects(text_of(value)?)?))
    }
}

impl ToSql<Jsonb, Pg> for Objects {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        out.write_all(&[VERSION, b'['])?;
        for (count, object) in self.0.iter().enumerate() {
            if count > 0 {
                out.write_all(b",")?;
            }
            out.write_all(object.to_text().as_bytes())?;
        }
        out.write_all(b"]")?;
        Ok(IsNull::No)
    }
}
