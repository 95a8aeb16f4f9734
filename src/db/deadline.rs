//! How long a caller waits, for statements that may take as long as there are rows.

use std::time::{Duration, Instant};

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};

use crate::db::{Work, statement};

/// The end of a call's time. The layer that ends calls puts it among the extensions of each request that has one.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The end of a time that begins now.
    pub fn after(time: Duration) -> Self {
        Deadline(Instant::now() + time)
    }

    /// The deadline of a request, if it has one.
    pub fn of<T>(request: &tonic::Request<T>) -> Option<Deadline> {
        request.extensions().get().copied()
    }

    /// Ends the statements of the transaction in hand that run on behind the deadline: nobody would read what they find. Where statements have
    /// less time than that anyway, they keep to it.
    pub fn bound(self, connection: &mut PgConnection) -> Work<()> {
        let left = self.0.saturating_duration_since(Instant::now()).as_millis().max(1);
        let _: Option<(String,)> = Bound { millis: i64::try_from(left).unwrap_or(i64::MAX) }.get_result(connection).optional()?;
        Ok(())
    }
}

statement! {
    /// A shorter `statement_timeout` until the transaction ends; 0 is none.
    struct Bound { millis: i64 as BigInt } -> (Text,),
    "SELECT set_config('statement_timeout', {millis}::text, true)
     FROM pg_settings
     WHERE name = 'statement_timeout' AND (setting = '0' OR setting::int8 > {millis})"
}
