//! Counts of outcomes.

use std::fmt;

use super::outcome::{Outcome, Standing};

/// Counts of outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Tally {
    /// The card was credited.
    pub(in crate::cli) succeeded: u64,
    /// Of those: with another amount than was expected.
    pub(in crate::cli) other_amount: u64,
    /// The card was not credited.
    pub(in crate::cli) failed: u64,
    /// Of those: for another reason than the card; its code is not spent.
    pub(in crate::cli) unspent: u64,
    /// The outcome is not known yet.
    pub(in crate::cli) in_doubt: u64,
    /// A person must find it out.
    pub(in crate::cli) needs_review: u64,
    /// Not begun.
    pub(in crate::cli) rejected: u64,
    /// Of those: because the card was credited for another request.
    pub(in crate::cli) redeemed_already: u64,
}

impl Tally {
    /// All items with an outcome of any kind.
    pub(in crate::cli) fn total(&self) -> u64 {
        self.succeeded + self.failed + self.in_doubt + self.needs_review + self.rejected
    }

    /// Whether something is left to do about an item, for a person or for another run.
    pub(super) fn wants_a_look(&self) -> bool {
        let Self { other_amount, unspent, in_doubt, needs_review, .. } = self;
        let rejected = self.rejected - self.redeemed_already;
        other_amount + unspent + in_doubt + needs_review + rejected > 0
    }

    /// Counts an outcome.
    pub(super) fn count(&mut self, outcome: &Outcome) {
        let (all, some) = match outcome.standing() {
            Standing::Credited => (&mut self.succeeded, None),
            Standing::OtherAmount => (&mut self.succeeded, Some(&mut self.other_amount)),
            Standing::Refused => (&mut self.failed, None),
            Standing::Unspent => (&mut self.failed, Some(&mut self.unspent)),
            Standing::InDoubt => (&mut self.in_doubt, None),
            Standing::NeedsReview => (&mut self.needs_review, None),
            Standing::Rejected => (&mut self.rejected, None),
            Standing::RedeemedAlready => (&mut self.rejected, Some(&mut self.redeemed_already)),
        };
        *all += 1;
        if let Some(some) = some {
            *some += 1;
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items: {} succeeded", self.total(), self.succeeded)?;
        if self.other_amount > 0 {
            write!(f, " ({} with another amount than expected)", self.other_amount)?;
        }
        write!(f, ", {} failed", self.failed)?;
        if self.unspent > 0 {
            write!(f, " ({} of them to redeem again)", self.unspent)?;
        }
        let Self { in_doubt, needs_review, rejected, .. } = self;
        write!(f, ", {in_doubt} in doubt, {needs_review} to review, {rejected} rejected")?;
        match self.redeemed_already {
            0 => Ok(()),
            some => write!(f, " ({some} of them redeemed already)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_has_one_number_for_what_is_in_doubt_and_another_for_what_is_to_review() {
        let tally = Tally {
            succeeded: 5,
            other_amount: 2,
            failed: 3,
            unspent: 1,
            in_doubt: 4,
            needs_review: 6,
            rejected: 7,
            redeemed_already: 3,
        };
        assert_eq!(
            tally.to_string(),
            "25 items: 5 succeeded (2 with another amount than expected), 3 failed (1 of them to \
             redeem again), 4 in doubt, 6 to review, 7 rejected (3 of them redeemed already)"
        );
    }
}
