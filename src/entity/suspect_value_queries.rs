//! The SQL of finding out which comparisons of a filter no entity has a value for.

use diesel::pg::PgConnection;

use crate::db::{Realm, Work};
use crate::entity::suspect_value::{Evidence, Suspect};
use crate::entity::unknown_value_queries::{MOST_VALUES, along_the_keys};
use crate::entity::walk_queries::Among;
use crate::filter::{Comparison, Filter};

/// Returns which of the filter's comparisons, among those that are `wanted`, have values of these entities at the path, and none that can
/// be compared. As far as the search goes: if some entities were not read the evidence says so.
pub fn look(
    connection: &mut PgConnection,
    realm: &Realm,
    filter: &Filter,
    among: Among<'_>,
    wanted: impl Fn(&Comparison) -> bool,
) -> Work<Vec<Suspect>> {
    let mut open: Vec<(Comparison, bool)> = filter.comparisons().into_iter().filter(wanted).map(|comparison| (comparison, false)).collect();
    open.truncate(MOST_VALUES / 2);
    let condition = filter.type_condition();
    let tried = |(comparison, _): &(Comparison, bool)| vec![comparison.comparable.clone(), comparison.present.clone()];
    let looked = along_the_keys(connection, realm, (among, condition.as_ref()), &mut open, tried, |(_, is_present), has| {
        *is_present |= has.get(1) == Some(&true);
        has.first() != Some(&true)
    })?;
    let evidence = if looked.ended { Evidence::Entities } else { Evidence::Some(looked.at) };
    Ok(open.iter().filter(|(_, is_present)| *is_present).map(|(comparison, _)| Suspect::by_entities(comparison, evidence)).collect())
}
