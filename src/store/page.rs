//! Pages of lists: no more rows than were asked for, and no more bytes than an answer may have.
//!
//! The statements of lists whose rows can be large cut them: a row is not answered where those before it have as
//! many bytes already. So neither Postgres sends nor the server reads what does not fit in.

use super::StoreError;

/// What the rows of a page have at most, in bytes; but a page has one row at least.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;
/// The same, as statements take it.
pub(super) const MAX_BYTES: i64 = MAX_PAGE_BYTES as i64;

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Its rows.
    pub rows: Vec<T>,
    /// Whether the list may go on after them.
    pub more: bool,
}

impl<T> Page<T> {
    /// Reads the rows that were found with this limit. `is_cut` says of the last one whether another followed
    /// that was not answered.
    pub(super) fn read<R>(
        rows: Vec<R>,
        limit: i64,
        is_cut: impl Fn(&R) -> bool,
        read: impl FnMut(R) -> Result<T, StoreError>,
    ) -> Result<Self, StoreError> {
        let is_full = i64::try_from(rows.len()).is_ok_and(|found| found >= limit);
        let more = is_full || rows.last().is_some_and(is_cut);
        Ok(Self { rows: rows.into_iter().map(read).collect::<Result<_, _>>()?, more })
    }
}
