//! The row of a realm.

use diesel::prelude::*;
use diesel::sql_types::Integer;

use crate::db::{Realm, Work, statement};

/// Lets those who lock a realm wait for each other, until the transaction ends.
pub fn lock_realm(connection: &mut PgConnection, realm: &Realm) -> Work<()> {
    Ok(LockRealm { realm: realm.id() }.get_result::<(i32,)>(connection).map(drop)?)
}

statement! {
    /// The row of a realm.
    struct LockRealm { realm: i32 as Integer } -> (Integer,),
    "SELECT id FROM realm WHERE id = {realm} FOR NO KEY UPDATE"
}
