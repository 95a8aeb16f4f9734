//! Statements that a condition of the caller's is put into: the filter of a list.
//!
//! Filters are unlimited in number, and a connection would keep a prepared statement of each, so a statement with one is prepared for one
//! execution.

use diesel::QueryResult;
use diesel::expression::{
    AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate,
};
use diesel::pg::{Pg, PgConnection};
use diesel::query_builder::{AstPass, Query, QueryFragment};
use diesel::sql_types::Bool;

use crate::db::statement::{built, push_text};

/// A statement of [`statement!`](crate::db::statement), taken apart.
pub trait Statement {
    /// The text, with named parameters.
    const TEXT: &'static str;

    /// Pushes the value of a parameter.
    fn push<'b>(&'b self, name: &str, out: &mut AstPass<'_, 'b, Pg>) -> QueryResult<()>;

    /// This statement with a condition, if there is one, after an `AND` in place of `{filter}` in its text.
    fn filtered<P>(self, condition: Option<P>) -> Filtered<Self, P>
    where
        Self: Sized,
    {
        Filtered { statement: self, condition }
    }
}

/// A statement whose text has a place for a condition.
#[derive(Debug)]
pub struct Filtered<S, P> {
    statement: S,
    condition: Option<P>,
}

impl<S: Statement, P: QueryFragment<Pg>> QueryFragment<Pg> for Filtered<S, P> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        push_text(S::TEXT, &mut out, |name, out| match (name, &self.condition) {
            ("filter", None) => Ok(()),
            ("filter", Some(condition)) => {
                out.unsafe_to_cache_prepared();
                out.push_sql(" AND ");
                condition.walk_ast(out.reborrow())
            }
            (name, _) => self.statement.push(name, out),
        })
    }
}

built!(Filtered<S, P>; S, P);

impl<S: Query, P> Query for Filtered<S, P> {
    type SqlType = S::SqlType;
}

impl<S, P> diesel::RunQueryDsl<PgConnection> for Filtered<S, P> {}

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
