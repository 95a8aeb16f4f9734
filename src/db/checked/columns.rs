//! The columns of a row type.

use diesel::pg::Pg;
use diesel::sql_types::{
    Array, BigInt, Binary, Bool, Cidr, Date, Double, HasSqlType, Integer, Jsonb, Nullable, Oid,
    Text, Timestamptz, Uuid as SqlUuid,
};

use super::oid;

/// A column, as the code expects it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// The number of its type.
    pub oid: u32,
    /// True if it may be NULL.
    pub nullable: bool,
}

/// A type of one column or more.
pub(crate) trait Columns {
    /// Adds the columns.
    fn push(cells: &mut Vec<Cell>);
}

/// The columns of a type.
pub(crate) fn cells<T: Columns>() -> Vec<Cell> {
    let mut cells = Vec::new();
    T::push(&mut cells);
    cells
}

/// The row type of a statement without rows.
impl Columns for () {
    fn push(_: &mut Vec<Cell>) {}
}

macro_rules! one {
    ($($type:ty),+) => {$(impl Columns for $type {
        fn push(cells: &mut Vec<Cell>) {
            cells.push(Cell { oid: oid::<$type>(), nullable: false });
        }
    })+};
}

one!(BigInt, Binary, Bool, Cidr, Date, Double, Integer, Jsonb, Oid, SqlUuid, Text, Timestamptz);

impl<T> Columns for Array<T>
where
    Pg: HasSqlType<Array<T>>,
{
    fn push(cells: &mut Vec<Cell>) {
        cells.push(Cell { oid: oid::<Array<T>>(), nullable: false });
    }
}

/// All of them are NULL together.
impl<T: Columns> Columns for Nullable<T>
where
    T: diesel::sql_types::SqlType,
{
    fn push(cells: &mut Vec<Cell>) {
        cells.extend(self::cells::<T>().into_iter().map(|cell| Cell { nullable: true, ..cell }));
    }
}

macro_rules! several {
    ($first:ident $($rest:ident)*) => {
        impl<$first: Columns, $($rest: Columns),*> Columns for ($first, $($rest,)*) {
            fn push(cells: &mut Vec<Cell>) {
                $first::push(cells);
                $($rest::push(cells);)*
            }
        }
        several!($($rest)*);
    };
    () => {};
}

several!(A B C D E F G H I J K L M N O P Q R S T U V W X Y Z Aa Ab Ac Ad Ae Af);
