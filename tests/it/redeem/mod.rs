//! Redemptions: sent, settled, recovered, and closed by people.

mod inquiry;
mod inquiry_again;
mod late_credit;
mod poll_hints;
mod recovery;
mod resolving;
pub(crate) mod review;
mod settling;
