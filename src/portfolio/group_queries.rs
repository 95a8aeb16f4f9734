//! The SQL of calls that are done together. Changes of membership leave out what is not plain, for [`queries`] to do by itself.
//!
//! Such a statement waits for nobody. What others have locked is left out, and so is an entity that two of the calls name; so the order of its
//! locks is of no matter.

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::db::{Realm, Together, Work, placed, statement};
use crate::portfolio::model::{Portfolio, View};
use crate::portfolio::queries::{Change, Changed, PortfolioRow};

/// A portfolio that is read.
pub(super) struct Get {
    pub realm: Realm,
    pub id: String,
    pub view: View,
}

impl Together for Get {
    type Answer = Option<Portfolio>;
    const ONLY_READS: bool = true;
    // A portfolio may show many members.
    const IS_SMALL: bool = false;

    fn together(
        connection: &mut PgConnection,
        calls: &[Self],
    ) -> Work<Vec<Option<Option<Portfolio>>>> {
        let statement = GetEach {
            realms: calls.iter().map(|call| call.realm.id()).collect(),
            ids: calls.iter().map(|call| call.id.as_str()).collect(),
            shown: calls.iter().map(|call| call.view.shown()).collect(),
        };
        let mut answers: Vec<_> = calls.iter().map(|_| Some(None)).collect();
        for (place, portfolio) in statement.load::<(i64, Portfolio)>(connection)? {
            answers[place as usize - 1] = Some(Some(portfolio));
        }
        Ok(answers)
    }
}

statement! {
    /// Portfolios by key with their first members, each for whoever asks for it.
    struct GetEach<'a> {
        realms: Vec<i32> as Array<Integer>,
        ids: Vec<&'a str> as Array<Text>,
        shown: Vec<i64> as Array<BigInt>,
    } -> (BigInt, PortfolioRow),
    "SELECT w.place, p.id, p.name, p.shared_registered_agent_id, p.shared_compliance_calendar, p.metadata, p.entity_count, p.version,
            p.created_at, p.updated_at,
            (SELECT coalesce(string_agg(m.id, ' '), '')
             FROM (SELECT e.id
                   FROM entity e
                   WHERE e.realm_id = w.realm AND e.portfolio_id = w.id
                   ORDER BY e.attached_at, e.id
                   LIMIT w.shown) m)
     FROM unnest({realms}, {ids}, {shown}) WITH ORDINALITY w(realm, id, shown, place)
     JOIN portfolio p ON p.realm_id = w.realm AND p.id = w.id"
}

/// Makes a kind of change with the statement that makes many of it.
///
/// Of the calls, the first that names an entity; of the entities those that are `$ready`, locked; of their portfolios those that nobody else has
/// locked; and what each call makes of its portfolio, as if one came after the other. Then the links are changed, the
/// portfolios stepped and an event written of each call.
macro_rules! change {
    (
        $(#[$meta:meta])* $change:ident by $each:ident,
        entity: $ready:literal, link: $link:literal, count: $step:literal, event: $event:literal, members: $members:literal
    ) => {
        $(#[$meta])*
        pub(super) struct $change(pub Change);

        impl Together for $change {
            type Answer = Changed;
            const ONLY_READS: bool = false;
            const IS_SMALL: bool = true;

            fn together(connection: &mut PgConnection, calls: &[Self]) -> Work<Vec<Option<Changed>>> {
                let statement = $each {
                    realms: calls.iter().map(|call| call.0.realm.id()).collect(),
                    principals: calls.iter().map(|call| call.0.principal).collect(),
                    portfolios: calls.iter().map(|call| call.0.portfolio.as_str()).collect(),
                    entities: calls.iter().map(|call| call.0.entity.as_str()).collect(),
                    full: calls.iter().map(|call| call.0.view == View::Full).collect(),
                    shown: View::Full.shown(),
                };
                let rows: Vec<(i64, Portfolio, bool)> = statement.load(connection)?;
                let changed = rows.into_iter().map(|(place, portfolio, settled)| (place, (portfolio, settled)));
                Ok(placed(changed, calls.len()))
            }
        }

        statement! {
            /// Changes links, raises versions and records an event of each.
            struct $each<'a> {
                realms: Vec<i32> as Array<Integer>,
                principals: Vec<Uuid> as Array<SqlUuid>,
                portfolios: Vec<&'a str> as Array<Text>,
                entities: Vec<&'a str> as Array<Text>,
                full: Vec<bool> as Array<Bool>,
                shown: i64 as BigInt,
            } -> (BigInt, PortfolioRow, Bool),
            concat!(
            "WITH wanted AS MATERIALIZED (
        SELECT DISTINCT ON (w.realm, w.entity) w.*
        FROM unnest({realms}, {principals}, {portfolios}, {entities}, {full}) WITH ORDINALITY w(realm, principal, portfolio, entity, shows, place)
        ORDER BY w.realm, w.entity, w.place
     ),
     free AS MATERIALIZED (
        SELECT w.*
        FROM wanted w
        JOIN entity e ON e.realm_id = w.realm AND e.id = w.entity
        WHERE e.deleted_at IS NULL AND ",
            $ready,
            "
        FOR NO KEY UPDATE OF e SKIP LOCKED
     ),
     folio AS MATERIALIZED (
        -- The numbers are the latest; the row that the statement sees may be an older one.
        SELECT p.realm_id, p.id, p.entity_count, p.version
        FROM (SELECT DISTINCT f.realm, f.portfolio FROM free f) f
        JOIN portfolio p ON p.realm_id = f.realm AND p.id = f.portfolio
        FOR NO KEY UPDATE OF p SKIP LOCKED
     ),
     stepping AS MATERIALIZED (
        SELECT f.*, p.version + f.nth AS version, p.entity_count ",
            $step,
            " f.nth AS entity_count, p.version AS was
        FROM (SELECT f.*, row_number() OVER (PARTITION BY f.realm, f.portfolio ORDER BY f.place) AS nth FROM free f) f
        JOIN folio p ON p.realm_id = f.realm AND p.id = f.portfolio
     ),
     ready AS MATERIALIZED (
        -- A call lists members if they are few, or it is alone, and the statement sees those of the version that it has locked.
        SELECT s.*, s.shows AND s.nth = 1 AND p.version = s.was AND (s.entity_count < 50 OR cardinality({realms}) = 1) AS lists
        FROM stepping s
        JOIN portfolio p ON p.realm_id = s.realm AND p.id = s.portfolio
     ),
     link AS (
        UPDATE entity e
        SET ",
            $link,
            ", version = e.version + 1, updated_at = now()
        FROM ready r
        WHERE e.realm_id = r.realm AND e.id = r.entity
     ),
     stepped AS (
        UPDATE portfolio p
        SET entity_count = l.entity_count, version = l.version, updated_at = now()
        FROM (SELECT DISTINCT ON (r.realm, r.portfolio) r.realm, r.portfolio, r.entity_count, r.version
              FROM ready r
              ORDER BY r.realm, r.portfolio, r.nth DESC) l
        WHERE p.realm_id = l.realm AND p.id = l.portfolio
        RETURNING p.*
     ),
     recorded AS (
        INSERT INTO event (realm_id, type, subjects, principal_id, data)
        SELECT r.realm, '",
            $event,
            "', ARRAY[r.portfolio], r.principal,
               jsonb_build_object('entity_ids', jsonb_build_array(r.entity), 'version', r.version)
        FROM ready r
        ORDER BY r.place
     )
     SELECT r.place, s.id, s.name, s.shared_registered_agent_id, s.shared_compliance_calendar, s.metadata, r.entity_count, r.version,
            s.created_at, s.updated_at,
            (SELECT coalesce(string_agg(m.id, ' '), '')
             FROM (SELECT e.id
                   FROM entity e
                   WHERE r.lists AND e.realm_id = r.realm AND e.portfolio_id = r.portfolio AND e.id <> r.entity
                   ORDER BY e.attached_at, e.id
                   LIMIT {shown}) m)",
            $members,
            ", r.lists OR NOT r.shows
     FROM ready r
     JOIN stepped s ON s.realm_id = r.realm AND s.id = r.portfolio"
            )
        }
    };
}

change! {
    /// An entity that leaves a portfolio.
    Detach by DetachEach,
    entity: "e.portfolio_id = w.portfolio",
    link: "portfolio_id = NULL, attached_at = NULL",
    count: "-",
    event: "portfolio.entity_detached",
    members: ""
}

change! {
    /// An entity that is in no portfolio and joins one.
    Attach by AttachEach,
    entity: "e.portfolio_id IS NULL AND e.state <> 'offboarding'",
    link: "portfolio_id = r.portfolio, attached_at = clock_timestamp()",
    count: "+",
    event: "portfolio.entity_attached",
    members: " || CASE WHEN r.lists AND r.entity_count <= {shown} THEN CASE WHEN r.entity_count > 1 THEN ' ' ELSE '' END || r.entity ELSE '' END"
}
