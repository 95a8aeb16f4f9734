//! The filter of a list as a condition for diesel's query builder, prepared for one execution as in a filtered [statement](crate::db::statement).

use diesel::QueryResult;
use diesel::expression::{
    AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate,
};
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment};
use diesel::sql_types::Bool;

use crate::db::statement::built;

/// A condition for diesel's query builder, over whichever table it names.
#[derive(Debug)]
pub struct Condition<P>(pub P);

impl<P: QueryFragment<Pg>> QueryFragment<Pg> for Condition<P> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.unsafe_to_cache_prepared();
        self.0.walk_ast(out)
    }
}

built!(Condition<P>; P);

impl<P> Expression for Condition<P> {
    type SqlType = Bool;
}

impl<P> ValidGrouping<()> for Condition<P> {
    type IsAggregate = is_aggregate::No;
}

impl<P, T> AppearsOnTable<T> for Condition<P> {}

impl<P, T> SelectableExpression<T> for Condition<P> {}
