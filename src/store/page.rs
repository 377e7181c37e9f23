//! Pages of lists: no more rows than were asked for, and no more bytes than an answer may have.
//!
//! The statements of lists whose rows can be large cut them: a row is not answered where those before it have as
//! many bytes already. So neither Postgres sends nor the server reads what does not fit in.

use super::StoreError;
use crate::domain::page::{MAX_PAGE_BYTES, Page};

/// What the rows of a page have at most, in bytes, as statements take it.
pub(super) const MAX_BYTES: i64 = MAX_PAGE_BYTES as i64;

/// Reads the rows of a page that were found with this limit. `is_cut` says of the last one whether another followed
/// that was not answered.
pub(super) fn read_page<R, T>(
    rows: Vec<R>,
    limit: i64,
    is_cut: impl Fn(&R) -> bool,
    read: impl FnMut(R) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let is_full = i64::try_from(rows.len()).is_ok_and(|found| found >= limit);
    let more = is_full || rows.last().is_some_and(is_cut);
    Ok(Page { rows: rows.into_iter().map(read).collect::<Result<_, _>>()?, more })
}
