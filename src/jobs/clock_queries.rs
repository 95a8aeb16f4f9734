//! The SQL of reading the clock.

use chrono::{DateTime, Utc};
use diesel::RunQueryDsl;
use diesel::pg::PgConnection;
use diesel::sql_types::Timestamptz;

use crate::db::{Work, statement};

/// The time by the clock of the database.
pub fn read(connection: &mut PgConnection) -> Work<DateTime<Utc>> {
    let (now,): (DateTime<Utc>,) = ReadClock {}.get_result(connection)?;
    Ok(now)
}

statement! {
    /// The clock at this moment.
    struct ReadClock {} -> (Timestamptz,),
    "SELECT clock_timestamp()"
}
