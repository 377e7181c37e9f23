//! Accounts: their keys, credentials, imports, holds and state machine, and pools and accounts that are closed.

mod closing;
mod credentials;
mod holds;
mod imports;
mod keys;
mod resources;
mod state_machine;
