//! Postgres: its connections, its errors, its schema, and its statistics of tables.

mod clock;
mod commits;
mod connections;
pub(super) mod db;
pub(super) mod error;
mod facts;
mod rights;
pub mod schema;
pub mod script;
mod shape;
mod statistics;
pub(super) mod target;
mod url;
