//! Postgres: outages, failover, lost replies, rights, schemas and versions, and the private one.

mod connections;
mod embedded;
mod failover;
mod outages;
mod replies;
mod rights;
mod schema_file;
mod schemas;
mod versions;
