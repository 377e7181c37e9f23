//! Plans: their days, their changes, and accounts that are filled by them.

mod changes;
mod checks;
mod days;
mod deletion;
mod filling;
