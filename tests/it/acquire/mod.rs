//! Acquiring, renewing and releasing: which account is chosen, who waits, and what is reserved.

mod choice;
mod contention;
mod explain;
mod fairness;
mod held_rows;
mod leases;
mod ready_set;
mod reservation;
mod unmet_criteria;
