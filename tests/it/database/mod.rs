//! Postgres: outages, failover, lost replies, rights, schemas and versions, and the private one.

mod addresses;
mod connections;
mod embedded;
mod failover;
mod outages;
mod poolers;
mod replies;
mod rights;
mod roles;
mod schema_file;
mod schemas;
mod versions;
