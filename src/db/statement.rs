//! Hand-written SQL as diesel queries that are prepared once for each connection.
//!
//! diesel never caches statements of `sql_query`, and its query builder cannot express a statement of many CTEs. [`statement!`] makes a
//! typed query of a text with named parameters, cached by its Rust type.
//!
//! Filters of callers are unlimited in number, and a connection would keep a prepared statement of each, so a statement that is
//! [filtered](Statement::filtered) is prepared for one execution.

use diesel::QueryResult;
use diesel::pg::{Pg, PgConnection};
use diesel::query_builder::{AstPass, Query, QueryFragment};

/// A part of a statement's text.
#[derive(Debug, PartialEq, Eq)]
pub enum Segment<'a> {
    /// SQL, as it is.
    Sql(&'a str),
    /// The name of a parameter.
    Parameter(&'a str),
}

/// Cuts a text at its parameters: `{name}` with a name in lower snake case. Other braces, as in `'{}'`, are SQL.
pub fn segments(text: &str) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(after) = rest.strip_prefix('{')
            && let Some(end) = parameter_end(after)
        {
            rest = &after[end + 1..];
            return Some(Segment::Parameter(&after[..end]));
        }
        let mut from = usize::from(rest.starts_with('{'));
        loop {
            let cut = rest[from..].find('{').map_or(rest.len(), |at| at + from);
            if cut == rest.len() || parameter_end(&rest[cut + 1..]).is_some() {
                let (sql, tail) = rest.split_at(cut);
                rest = tail;
                return Some(Segment::Sql(sql));
            }
            from = cut + 1;
        }
    })
}

fn parameter_end(after_brace: &str) -> Option<usize> {
    let end = after_brace.find('}')?;
    let name = &after_brace[..end];
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'))
        .then_some(end)
}

/// Declares a statement: a struct of its parameters, the SQL types of the columns it returns, and its text. What returns no rows has the type `()`.
///
/// A test of the unit tests prepares it on the schema of today and compares the types of its parameters and its columns with those given here.
/// The example is one of them.
///
/// ```ignore
#[doc = include_str!("checked/example.rs")]
/// ```
macro_rules! statement {
    ($(#[$meta:meta])* $vis:vis struct $name:ident $(<$life:lifetime>)? {
        $($(#[$field_meta:meta])* $field:ident: $rust:ty as $sql:ty),* $(,)?
    } -> $row:ty, $text:expr) => {
        $(#[$meta])*
        #[derive(Debug)]
        #[allow(missing_docs, reason = "the fields are the statement's parameters")]
        $vis struct $name $(<$life>)? { $($(#[$field_meta])* pub $field: $rust),* }

        impl $(<$life>)? $name $(<$life>)? {
            /// The text, with named parameters.
            #[allow(dead_code, reason = "read by tests that explain the statement")]
            pub const TEXT: &'static str = $text;
        }

        impl $(<$life>)? $crate::db::statement::Statement for $name $(<$life>)? {
            const TEXT: &'static str = $text;

            #[allow(unused_variables, reason = "a statement may have no parameters")]
            fn push<'b>(&'b self, name: &str, out: &mut diesel::query_builder::AstPass<'_, 'b, diesel::pg::Pg>) -> diesel::QueryResult<()> {
                match name {
                    $(stringify!($field) => out.push_bind_param::<$sql, _>(&self.$field),)*
                    other => $crate::db::statement::no_parameter(other),
                }
            }
        }

        impl $(<$life>)? diesel::query_builder::QueryFragment<diesel::pg::Pg> for $name $(<$life>)? {
            fn walk_ast<'b>(&'b self, mut out: diesel::query_builder::AstPass<'_, 'b, diesel::pg::Pg>) -> diesel::QueryResult<()> {
                $crate::db::statement::push_text(Self::TEXT, &mut out, |name, out| $crate::db::statement::Statement::push(self, name, out))
            }
        }

        impl $(<$life>)? diesel::query_builder::QueryId for $name $(<$life>)? {
            type QueryId = $crate::db::statement::statement!(@id $name $($life)?);
            const HAS_STATIC_QUERY_ID: bool = true;
        }

        impl $(<$life>)? diesel::query_builder::Query for $name $(<$life>)? {
            type SqlType = $row;
        }

        impl $(<$life>)? diesel::RunQueryDsl<diesel::pg::PgConnection> for $name $(<$life>)? {}

        #[cfg(test)]
        inventory::submit! {
            $crate::db::checked::Declared {
                name: stringify!($name),
                file: file!(),
                text: $text,
                parameters: &[$((stringify!($field), $crate::db::checked::oid::<$sql> as fn() -> u32)),*],
                row: $crate::db::checked::cells::<$row>,
            }
        }
    };
    (@id $name:ident) => { $name };
    (@id $name:ident $life:lifetime) => { $name<'static> };
}
pub(crate) use statement;

/// Pushes a text with named parameters, of which `push` gives each its value.
pub fn push_text<'b>(
    text: &str,
    out: &mut AstPass<'_, 'b, Pg>,
    mut push: impl FnMut(&str, &mut AstPass<'_, 'b, Pg>) -> QueryResult<()>,
) -> QueryResult<()> {
    for segment in segments(text) {
        match segment {
            Segment::Sql(sql) => out.push_sql(sql),
            Segment::Parameter(name) => push(name, out)?,
        }
    }
    Ok(())
}

/// The failure of a statement whose text names what nobody gives it.
pub fn no_parameter(name: &str) -> QueryResult<()> {
    Err(diesel::result::Error::QueryBuilderError(format!("no parameter {name}").into()))
}

/// Makes what is put together at run time a statement whose rows have these columns, or a part of one. It is cached by its text, where it is cached.
macro_rules! built {
    ($name:ty => $row:ty $(; $($param:ident),+)?) => {
        $crate::db::statement::built!($name $(; $($param),+)?);

        impl $(<$($param),+>)? diesel::query_builder::Query for $name {
            type SqlType = $row;
        }

        impl $(<$($param),+>)? diesel::RunQueryDsl<diesel::pg::PgConnection> for $name {}
    };
    ($name:ty $(; $($param:ident),+)?) => {
        impl $(<$($param),+>)? diesel::query_builder::QueryId for $name {
            type QueryId = ();
            const HAS_STATIC_QUERY_ID: bool = false;
        }
    };
}
pub(crate) use built;

/// A statement of [`statement!`], taken apart.
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

#[cfg(test)]
mod tests {
    use super::{Segment, segments};

    #[test]
    fn parameters_are_cut_out_and_other_braces_stay() {
        let parts: Vec<_> =
            segments("SELECT {realm}, '{}'::jsonb, '{a,B}' WHERE id = {entity_id}").collect();
        assert_eq!(
            parts,
            [
                Segment::Sql("SELECT "),
                Segment::Parameter("realm"),
                Segment::Sql(", '{}'::jsonb, '{a,B}' WHERE id = "),
                Segment::Parameter("entity_id"),
            ]
        );
    }

    #[test]
    fn an_unclosed_brace_is_text() {
        assert_eq!(segments("{").collect::<Vec<_>>(), [Segment::Sql("{")]);
        assert_eq!(
            segments("{}{a}").collect::<Vec<_>>(),
            [Segment::Sql("{}"), Segment::Parameter("a")]
        );
    }
}
