//! The data that a filter reads in memory.

use chrono::{DateTime, Utc};

use crate::proto::object::Object;

/// The value of a property of one record.
#[derive(Clone, Copy, Debug)]
pub enum Datum<'a> {
    /// No value: NULL.
    None,
    /// A text; of a URI, the id alone.
    Text(&'a str),
    /// A number.
    Number(i64),
    /// A moment. It counts to the microsecond, as in the database.
    Time(DateTime<Utc>),
    /// A JSON object.
    Json(Object<'a>),
}

/// Something that a filter can be evaluated on.
pub trait Record {
    /// The value of a property, which is named by its canonical spelling.
    fn datum(&self, property: &str) -> Datum<'_>;
}

/// The data that a filter reads in one entity.
#[derive(Clone, Copy, Debug)]
pub struct EntityRecord<'a> {
    /// The entity's id, without `entities/`.
    pub id: &'a str,
    /// The entity's type in full, as it is stored.
    pub r#type: &'a str,
    /// Its state, such as `active`.
    pub state: &'a str,
    /// The portfolio that it is in.
    pub portfolio_id: Option<&'a str>,
    /// When it was created.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// How many references to other systems it has.
    pub crosswalks: i64,
    /// Its attributes.
    pub attributes: Object<'a>,
}

impl Record for EntityRecord<'_> {
    fn datum(&self, property: &str) -> Datum<'_> {
        match property {
            "type" => Datum::Text(self.r#type),
            "uri" => Datum::Text(self.id),
            "state" => Datum::Text(self.state),
            "portfolio" => self.portfolio_id.map_or(Datum::None, Datum::Text),
            "createdTime" => Datum::Time(self.created_at),
            "updatedTime" => Datum::Time(self.updated_at),
            "crosswalks_count" => Datum::Number(self.crosswalks),
            "attributes" => Datum::Json(self.attributes),
            _ => Datum::None,
        }
    }
}
