//! The SQL of calls that are done together. Changes of membership leave out what is not plain, for [`queries`] to do by itself.
//!
//! Such a statement waits for nobody. What others have locked is left out, and so is the second of two calls that name the same entity; so the
//! order of its locks is of no matter.

use std::collections::HashMap;

use diesel::pg::PgConnection;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Bool, Integer, Nullable, Text, Uuid as SqlUuid};
use uuid::Uuid;

use crate::db::{Outcome, Realm, Together, Work, statement};
use crate::portfolio::batch::MembershipChange;
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
    ) -> Work<Vec<Outcome<Option<Portfolio>>>> {
        let statement = GetEach {
            realms: calls.iter().map(|call| call.realm.id()).collect(),
            ids: calls.iter().map(|call| call.id.as_str()).collect(),
            shown: calls.iter().map(|call| call.view.shown()).collect(),
        };
        let mut answers: Vec<_> = calls.iter().map(|_| Outcome::Done(None)).collect();
        for (place, portfolio) in statement.load::<(i64, Portfolio)>(connection)? {
            answers[place as usize - 1] = Outcome::Done(Some(portfolio));
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

/// An entity that leaves its portfolio, or that is in none and joins one. Both are one kind: calls of one portfolio share its row, and whoever made
/// them apart would find it locked by the others.
pub(super) struct Membership {
    pub kind: MembershipChange,
    pub change: Change,
}

impl Together for Membership {
    type Answer = Changed;
    const ONLY_READS: bool = false;
    const IS_SMALL: bool = true;

    fn together(connection: &mut PgConnection, calls: &[Self]) -> Work<Vec<Outcome<Changed>>> {
        let changes = || calls.iter().map(|call| &call.change);
        let statement = ChangeEach {
            realms: changes().map(|change| change.realm.id()).collect(),
            principals: changes().map(|change| change.principal).collect(),
            portfolios: changes().map(|change| change.portfolio.as_str()).collect(),
            entities: changes().map(|change| change.entity.as_str()).collect(),
            attach: calls.iter().map(|call| call.kind == MembershipChange::Attach).collect(),
            full: changes().map(|change| change.view == View::Full).collect(),
            shown: View::Full.shown(),
        };
        let mut outcomes: Vec<_> = calls.iter().map(|_| Outcome::Alone).collect();
        for (place, changed) in statement.load::<(i64, Option<Changed>)>(connection)? {
            outcomes[place as usize - 1] = changed.map_or(Outcome::Again, Outcome::Done);
        }
        // What the second call finds is what the first has left. By itself it would keep the next group from the portfolio.
        let mut first = HashMap::with_capacity(calls.len());
        for (place, change) in changes().enumerate() {
            let first = *first.entry((change.realm.id(), &change.entity)).or_insert(place);
            if first != place && !matches!(outcomes[first], Outcome::Alone) {
                outcomes[place] = Outcome::Again;
            }
        }
        Ok(outcomes)
    }
}

statement! {
    /// Changes links, raises versions and records an event of each.
    ///
    /// Of the calls, the first that names an entity; of the entities those that can be changed so, locked; of their portfolios those that nobody
    /// else has locked; and what each call makes of its portfolio, as if one came after the other. Then the links are changed, the portfolios
    /// stepped and an event written of each call. A call whose portfolio somebody else has locked is returned without one.
    struct ChangeEach<'a> {
        realms: Vec<i32> as Array<Integer>,
        principals: Vec<Uuid> as Array<SqlUuid>,
        portfolios: Vec<&'a str> as Array<Text>,
        entities: Vec<&'a str> as Array<Text>,
        attach: Vec<bool> as Array<Bool>,
        full: Vec<bool> as Array<Bool>,
        shown: i64 as BigInt,
    } -> (BigInt, Nullable<(PortfolioRow, Bool)>),
    "WITH wanted AS MATERIALIZED (
        SELECT DISTINCT ON (w.realm, w.entity) w.*
        FROM unnest({realms}, {principals}, {portfolios}, {entities}, {attach}, {full}) WITH ORDINALITY
             w(realm, principal, portfolio, entity, attaches, shows, place)
        ORDER BY w.realm, w.entity, w.place
     ),
     free AS MATERIALIZED (
        SELECT w.*
        FROM wanted w
        JOIN entity e ON e.realm_id = w.realm AND e.id = w.entity
        WHERE e.deleted_at IS NULL
          AND CASE WHEN w.attaches THEN e.portfolio_id IS NULL AND e.state <> 'offboarding' ELSE e.portfolio_id = w.portfolio END
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
        SELECT f.*, p.version + f.nth AS version, p.entity_count + f.more AS entity_count, p.version AS was
        FROM (SELECT f.*, row_number() OVER earlier AS nth, sum(CASE WHEN f.attaches THEN 1 ELSE -1 END) OVER earlier AS more
              FROM free f
              WINDOW earlier AS (PARTITION BY f.realm, f.portfolio ORDER BY f.place)) f
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
        SET portfolio_id = CASE WHEN r.attaches THEN r.portfolio END, attached_at = CASE WHEN r.attaches THEN clock_timestamp() END,
            version = e.version + 1, updated_at = now()
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
        SELECT r.realm, CASE WHEN r.attaches THEN 'portfolio.entity_attached' ELSE 'portfolio.entity_detached' END, ARRAY[r.portfolio],
               r.principal, jsonb_build_object('entity_ids', jsonb_build_array(r.entity), 'version', r.version)
        FROM ready r
        ORDER BY r.place
     )
     SELECT f.place, s.id, s.name, s.shared_registered_agent_id, s.shared_compliance_calendar, s.metadata, r.entity_count, r.version,
            s.created_at, s.updated_at,
            (SELECT coalesce(string_agg(m.id, ' '), '')
             FROM (SELECT e.id
                   FROM entity e
                   WHERE r.lists AND e.realm_id = r.realm AND e.portfolio_id = r.portfolio AND e.id <> r.entity
                   ORDER BY e.attached_at, e.id
                   LIMIT {shown}) m)
            -- The statement does not see the entity as a member yet: it is the last.
            || CASE WHEN r.attaches AND r.lists AND r.entity_count <= {shown}
                    THEN CASE WHEN r.entity_count > 1 THEN ' ' ELSE '' END || r.entity ELSE '' END,
            r.lists OR NOT r.shows
     FROM free f
     LEFT JOIN (ready r JOIN stepped s ON s.realm_id = r.realm AND s.id = r.portfolio) ON r.place = f.place
     -- One that asks for a portfolio that is missing is not asked again.
     WHERE s.id IS NOT NULL OR (SELECT true FROM portfolio p WHERE p.realm_id = f.realm AND p.id = f.portfolio)"
}
