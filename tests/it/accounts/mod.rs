//! Accounts: their keys, credentials, imports, holds, corrected balances and state machine, and pools and accounts that are
//! closed.

mod closing;
mod corrections;
mod credentials;
mod holds;
mod imports;
mod keys;
mod resources;
mod state_machine;
