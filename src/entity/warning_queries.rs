//! The SQL of the warnings of a list of entities.

use diesel::pg::PgConnection;

use crate::db::{Realm, Work};
use crate::entity::look::Unchecked;
use crate::entity::look_queries::{self, Asking};
use crate::entity::suspect_value::Suspect;
use crate::entity::unknown::{self, LIST_PATIENCE};
use crate::entity::unknown_value::UnknownValue;
use crate::entity::walk_queries::Among;
use crate::filter::Filter;
use crate::proto::v1;

/// The warnings of a list that begins with this page: names and values of its filter that no undeleted entity has, what it compares otherwise than it looks, and
/// what there was no time to look at, as far as a short look finds out. A page that is not empty says enough of what is asked for, so that only what is denied
/// is looked for.
pub fn warnings(
    connection: &mut PgConnection,
    realm: &Realm,
    (filter, sees_portfolios): (Option<&Filter>, bool),
    (is_first, is_empty): (bool, bool),
) -> Work<Vec<v1::Warning>> {
    let Some(filter) = filter.filter(|_| is_first) else { return Ok(Vec::new()) };
    let mut named = filter.named_values();
    named.retain(|value| value.denied || is_empty);
    let asking = Asking {
        filter: Some(filter),
        named,
        compared: &|comparison| comparison.denied || is_empty,
        among: Among { undeleted: true, ..Among::default() },
        of_type: filter.only_type(),
        undeleted_values: true,
        sees_portfolios,
        with_attributes: true,
        is_far: false,
        patience: LIST_PATIENCE,
    };
    let mut looked = look_queries::look(connection, realm, asking)?;
    let denied: Vec<String> =
        filter.denied_attributes().into_iter().map(|attribute| attribute.canonical).collect();
    looked.attributes.unchecked.retain(|attribute| is_empty || denied.contains(attribute));
    let mut warnings = unknown::warnings(looked.attributes);
    warnings.extend(looked.values.iter().map(UnknownValue::warning));
    warnings.extend(looked.suspects.iter().map(Suspect::warning));
    warnings.extend(looked.unchecked.iter().map(Unchecked::warning));
    Ok(warnings)
}
