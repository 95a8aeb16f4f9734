//! The SQL of the warnings of a list of entities.

use diesel::pg::PgConnection;

use crate::db::{Realm, Work};
use crate::entity::filter_check::Unchecked;
use crate::entity::filter_check_queries::{self, Asking};
use crate::entity::suspect_value::Suspect;
use crate::entity::unknown::{self, LIST_PATIENCE};
use crate::entity::unknown_value::UnknownValue;
use crate::entity::walk_queries::Among;
use crate::filter::Filter;
use crate::proto::v1;

/// The warnings of a list that begins with this page: names and values of its filter that no undeleted entity has, what it compares otherwise than it looks, and
/// what there was no time to check, as far as a short check finds out. A page that is not empty says enough of what is asked for, so that only what is denied
/// is searched for.
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
    let mut check = filter_check_queries::check_filter(connection, realm, asking)?;
    let denied: Vec<String> =
        filter.denied_attributes().into_iter().map(|attribute| attribute.canonical).collect();
    check.attributes.unchecked.retain(|attribute| is_empty || denied.contains(attribute));
    let mut warnings = unknown::warnings(check.attributes);
    warnings.extend(check.values.iter().map(UnknownValue::warning));
    warnings.extend(check.suspects.iter().map(Suspect::warning));
    warnings.extend(check.unchecked.iter().map(Unchecked::warning));
    Ok(warnings)
}
