//! A call that reads one entity.

use diesel::pg::PgConnection;

use crate::db::{Realm, Together, Work};
use crate::entity::model::Entity;
use crate::entity::queries;

/// A call that reads one entity; those that wait at once are done together.
pub(super) struct Get {
    pub realm: Realm,
    pub id: String,
}

impl Together for Get {
    type Answer = Option<Entity>;
    const ONLY_READS: bool = true;
    // An entity may have a megabyte.
    const IS_SMALL: bool = false;

    fn together(
        connection: &mut PgConnection,
        calls: &[Self],
    ) -> Work<Vec<Option<Option<Entity>>>> {
        let mut answers: Vec<_> = calls.iter().map(|_| Some(None)).collect();
        for (place, entity) in
            queries::get_each(connection, calls.iter().map(|call| (&call.realm, call.id.as_str())))?
        {
            answers[place as usize - 1] = entity.map(Some);
        }
        Ok(answers)
    }
}
