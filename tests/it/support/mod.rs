//! Support of the tests: servers, databases, proxies, and checks after each test.

pub(crate) mod batch;
pub(crate) mod books;
pub(crate) mod by_store;
pub(crate) mod caller;
pub(crate) mod cells;
pub(crate) mod checks;
mod checks_of_plans;
pub(crate) mod cluster;
pub(crate) mod fleet;
pub(crate) mod journal;
pub(crate) mod load;
pub(crate) mod logs;
pub(crate) mod plans;
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod raw_grpc;
pub(crate) mod raw_http2;
pub(crate) mod real;
pub(crate) mod secrets;
pub(crate) mod statements;
pub(crate) mod steady;
pub(crate) mod tls;
pub(crate) mod tokens;
pub(crate) mod wait;
pub(crate) mod watch;
pub(crate) mod world;
