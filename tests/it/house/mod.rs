//! The rules of the source: imports, statements and pages.

mod book;
pub(crate) mod layering;
mod sql_rules;
