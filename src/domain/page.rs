//! Pages of lists.

/// What the rows of a page have at most, in bytes; but a page has one row at least.
pub const MAX_PAGE_BYTES: usize = 1024 * 1024;

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// Its rows.
    pub rows: Vec<T>,
    /// Whether the list may go on after them.
    pub more: bool,
}
