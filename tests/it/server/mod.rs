//! A server as a process: start, environment, polling and stop.

mod environment;
mod polling;
mod serving;
mod stopping;
mod tls;
