use diesel::sql_types::{BigInt, Integer, Text};

use crate::db::statement;

statement! {
    /// Counts the members of a portfolio.
    pub struct CountMembers<'a> {
        realm: i32 as Integer,
        portfolio: &'a str as Text,
    } -> (BigInt,),
    "SELECT count(*) FROM entity WHERE realm_id = {realm} AND portfolio_id = {portfolio}"
}
