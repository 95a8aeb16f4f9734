//! Reading as many rows as fit into memory, whatever each of them has.

use diesel::QueryResult;

/// The bytes after which a page ends. With one entity more it still fits into the 4 MiB that gRPC clients take by default.
pub const PAGE_BYTES: usize = 2 << 20;

/// Rows, as far as they were read.
#[derive(Debug, PartialEq, Eq)]
pub struct Read<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// True if there are others that were left, because these are large enough.
    pub more: bool,
}

/// Reads rows one by one until they have this many bytes.
pub fn read<T>(
    rows: impl Iterator<Item = QueryResult<T>>,
    bytes: usize,
    weigh: impl Fn(&T) -> usize,
) -> QueryResult<Read<T>> {
    let mut read = Read { rows: Vec::new(), more: false };
    let mut weight = 0;
    for row in rows {
        if weight >= bytes {
            read.more = true;
            break;
        }
        let row = row?;
        weight += weigh(&row);
        read.rows.push(row);
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_ends_behind_the_row_that_is_one_too_heavy() {
        let read = |weights: &[usize]| {
            read(weights.iter().copied().map(Ok), 10, |weight| *weight).unwrap()
        };
        assert_eq!(read(&[4, 5, 6, 1]), Read { rows: vec![4, 5, 6], more: true });
        assert_eq!(read(&[4, 6]), Read { rows: vec![4, 6], more: false });
        assert_eq!(read(&[99, 1]), Read { rows: vec![99], more: true });
        assert_eq!(read(&[]), Read { rows: vec![], more: false });
    }
}
