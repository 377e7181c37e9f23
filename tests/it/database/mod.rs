//! Postgres: outages, failover, lost replies, rights and schemas, and the private one.

mod embedded;
mod failover;
mod outages;
mod replies;
mod rights;
mod schemas;
