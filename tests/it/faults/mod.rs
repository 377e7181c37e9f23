//! Faults: the crash table, the negative controls, the model of the protocol, and the proxy that makes faults.

mod controls;
mod crash_profiles;
mod crash_table;
mod model;
mod proxy;
mod takeover;
mod unwritable_rows;
