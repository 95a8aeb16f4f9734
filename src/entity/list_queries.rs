//! The SQL of reading many entities.

use diesel::connection::SimpleConnection;
use diesel::pg::{Pg, PgConnection, PgRowByRowLoadingMode};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::{
    Array, BigInt, Integer, Jsonb, Nullable, Text, Timestamptz, Uuid as SqlUuid,
};

use crate::db::schema::entity;
use crate::db::statement::{built, no_parameter, push_text};
use crate::db::{Realm, Work};
use crate::entity::bounded::{self, PAGE_BYTES, Read};
use crate::entity::index::lookup_queries::{self, Candidates};
use crate::entity::list::{EntityPosition, Key, Order};
use crate::entity::model::Entity;
use crate::entity::warning_queries;
use crate::filter::{Filter, Predicate};
use crate::proto::v1;

/// About how many bytes an entity has besides its attributes and components.
const FIXED_BYTES: usize = 512;

/// The arguments of a page of entities.
#[derive(Debug)]
pub struct Listing {
    order: Order,
    filter: Option<Filter>,
    predicate: Option<Predicate>,
    after: Option<EntityPosition>,
    limit: i64,
}

/// A page of a filter that fewer may match than this, as far as indexes can tell, is found by them. Where more may, going through the
/// entities in order meets some soon enough: of ten million, one in a thousand.
const FEW: i64 = 10_000;

impl Listing {
    /// The entities behind `after` that match the filter.
    pub fn new(
        order: Order,
        filter: Option<Filter>,
        after: Option<EntityPosition>,
        limit: i64,
    ) -> Self {
        Listing { order, predicate: filter.as_ref().map(Filter::predicate), filter, after, limit }
    }
}

/// Reads a page. It may end before its limit: see [`PAGE_BYTES`]. Call it in a transaction if there is a filter.
pub fn list(connection: &mut PgConnection, realm: &Realm, listing: &Listing) -> Work<Read<Entity>> {
    let candidates = lookup_queries::choose(connection, realm, listing.filter.as_ref(), FEW)?;
    if candidates.is_some() {
        // By key, whatever the planner believes of the number of candidates.
        connection
            .batch_execute("SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off")?;
    }
    let text = match candidates {
        Some(_) => text_among(listing.order, listing.after.is_some()),
        None => text(listing.order, listing.predicate.is_some(), listing.after.is_some()),
    };
    let statement = ListEntities { realm, listing, candidates: candidates.as_ref(), text };
    let rows = statement.load_iter::<Entity, PgRowByRowLoadingMode>(connection)?;
    Ok(bounded::read(rows, PAGE_BYTES, bytes)?)
}

/// The warnings of a page: see [`warning_queries::warnings`].
pub fn warnings(
    connection: &mut PgConnection,
    realm: &Realm,
    (listing, sees_portfolios): (&Listing, bool),
    page: &Read<Entity>,
) -> Work<Vec<v1::Warning>> {
    let filter = (listing.filter.as_ref(), sees_portfolios);
    warning_queries::warnings(
        connection,
        realm,
        filter,
        (listing.after.is_none(), page.rows.is_empty()),
    )
}

/// Reads the entities that have one of these ids, until they have this many bytes.
pub fn get_many(
    connection: &mut PgConnection,
    realm: &Realm,
    ids: &[String],
    at_most: usize,
) -> Work<Read<Entity>> {
    let rows = entity::table
        .filter(
            entity::realm_id
                .eq(realm.id())
                .and(entity::id.eq_any(ids))
                .and(entity::deleted_at.is_null()),
        )
        .select(Entity::as_select())
        .load_iter::<Entity, PgRowByRowLoadingMode>(connection)?;
    Ok(bounded::read(rows, at_most, bytes)?)
}

fn bytes(entity: &Entity) -> usize {
    FIXED_BYTES + entity.attributes.weight() + 40 * entity.components.len()
}

/// The statement of a page, with named parameters.
pub fn text(order: Order, filtered: bool, behind: bool) -> String {
    let condition = if filtered { " AND {predicate}" } else { "" };
    page(order, "entity e", condition, behind)
}

/// The statement of a page of a filter for which there are candidates. Each of them is judged on its own row.
pub fn text_among(order: Order, behind: bool) -> String {
    let (direction, beyond) = if order.descending { (" DESC", "<") } else { ("", ">") };
    let after = if behind && order.key == Key::Id {
        format!(" WHERE x.entity_id {beyond} {{id}}")
    } else {
        String::new()
    };
    let among = format!(
        "(SELECT DISTINCT x.entity_id FROM ({{candidates}}) x{after} ORDER BY x.entity_id{direction}) c
     JOIN entity e ON e.realm_id = {{realm}} AND e.id = c.entity_id"
    );
    page(order, &among, " AND {predicate}", behind)
}

fn page(order: Order, from: &str, condition: &str, behind: bool) -> String {
    let (direction, beyond) = if order.descending { (" DESC", "<") } else { ("", ">") };
    let after = match order.key {
        _ if !behind => String::new(),
        Key::Id => format!(" AND e.id {beyond} {{id}}"),
        Key::CreatedAt => format!(" AND (e.created_at, e.id) {beyond} ({{created_at}}, {{id}})"),
    };
    let order = match order.key {
        Key::Id => format!("e.id{direction}"),
        Key::CreatedAt => format!("e.created_at{direction}, e.id{direction}"),
    };
    format!(
        "SELECT e.id, e.type, e.state, e.attributes, e.components, e.portfolio_id, e.hold_reason, e.hold_placed_by, e.hold_placed_at,
            e.version, e.created_at, e.updated_at
     FROM {from}
     WHERE e.realm_id = {{realm}} AND e.deleted_at IS NULL{after}{condition}
     ORDER BY {order}
     LIMIT {{limit}}"
    )
}

struct ListEntities<'a> {
    realm: &'a Realm,
    listing: &'a Listing,
    candidates: Option<&'a Candidates>,
    text: String,
}

impl QueryFragment<Pg> for ListEntities<'_> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        let Listing { predicate, after, limit, .. } = self.listing;
        if predicate.is_some() {
            // Filters are unlimited in number, and a connection would keep a prepared statement of each.
            out.unsafe_to_cache_prepared();
        }
        push_text(&self.text, &mut out, |name, out| {
            match (name, predicate, after, self.candidates) {
                ("realm", ..) => out.push_bind_param::<Integer, _>(self.realm.id_ref()),
                ("limit", ..) => out.push_bind_param::<BigInt, _>(limit),
                ("predicate", Some(predicate), ..) => predicate.walk_ast(out.reborrow()),
                ("candidates", .., Some(candidates)) => candidates.walk_ast(out.reborrow()),
                ("id", _, Some(position), _) => out.push_bind_param::<Text, _>(&position.id),
                ("created_at", _, Some(position), _) => {
                    out.push_bind_param::<Timestamptz, _>(&position.created_at)
                }
                (name, ..) => no_parameter(name),
            }
        })
    }
}

// Without a filter there are eight texts.
built!(ListEntities<'_> => EntityRow);

/// The columns of an entity, in the order in which [`Entity`] takes them.
pub type EntityRow = (
    Text,
    Text,
    Text,
    Jsonb,
    Array<SqlUuid>,
    Nullable<Text>,
    Nullable<Text>,
    Nullable<SqlUuid>,
    Nullable<Timestamptz>,
    BigInt,
    Timestamptz,
    Timestamptz,
);

#[cfg(test)]
mod forms {
    use chrono::Utc;

    use super::*;
    use crate::db::checked::{Form, forms, realm};

    forms!(ListEntities, || {
        let (realm, candidates) = (realm(), Candidates::of_every_kind());
        let filter = Filter::parse("equals(attributes.a, x)").expect("a filter");
        let mut all = Vec::new();
        for key in [Key::Id, Key::CreatedAt] {
            for descending in [false, true] {
                for after in
                    [None, Some(EntityPosition { created_at: Utc::now(), id: "a".to_owned() })]
                {
                    let (order, behind) = (Order { key, descending }, after.is_some());
                    let filters =
                        [(None, None), (Some(&filter), None), (Some(&filter), Some(&candidates))];
                    for (filter, candidates) in filters {
                        let listing = Listing::new(order, filter.cloned(), after.clone(), 1);
                        let text = if candidates.is_some() {
                            text_among(order, behind)
                        } else {
                            text(order, filter.is_some(), behind)
                        };
                        let said = format!(
                            "{order:?} behind {behind} filter {} candidates {}",
                            filter.is_some(),
                            candidates.is_some()
                        );
                        all.push(Form::of(
                            said,
                            &ListEntities { realm: &realm, listing: &listing, candidates, text },
                        ));
                    }
                }
            }
        }
        all
    });
}
