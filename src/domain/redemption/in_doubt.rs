//! Redemptions in doubt: what to do about one, by what the provider can do.

use std::time::Duration;

/// How often in a row the provider must not know a key before more is done than a look-up. The first request may
/// still be on its way.
const CHECKS_BEFORE_MORE: i32 = 2;

/// What a provider can do for a redemption in doubt, as an operator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The same key counts once, however often it is sent.
    pub deduplicates: bool,
    /// It tells what became of a key.
    pub looks_up: bool,
    /// It cancels a key, also one that it has never seen: a later arrival is refused.
    pub cancels: bool,
    /// How long after a key was first seen it still counts once.
    pub key_retention: Duration,
    /// How long after a request arrived a look-up may still not find its key.
    pub visibility_horizon: Duration,
    /// The longest that it is at work on a redemption.
    pub max_processing_time: Duration,
}

/// A redemption in doubt, as far as it decides what is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubtful {
    /// Since it was recorded, by the database's clock: it was not sent before that.
    pub age: Duration,
    /// How long what is decided now may take to be done.
    pub lead_time: Duration,
    /// How often in a row a look-up did not find the key, this time included.
    pub not_found: i32,
    /// The provider may not begin it any more.
    pub not_after_passed: bool,
}

/// What to do about a redemption in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask what became of the key.
    LookUp,
    /// Nothing for now; check once more, later.
    Wait,
    /// Send the same bytes under the same key: whether or not the first arrived, it counts once.
    SendAgain,
    /// Cancel the key, so that nothing can happen under it any more.
    Cancel,
    /// Nothing more can be found out: a person has to review.
    Review,
}

impl Capabilities {
    /// The action to begin with.
    pub fn first_action(&self, doubtful: &Doubtful) -> Action {
        if self.looks_up { Action::LookUp } else { self.without_look_up(doubtful) }
    }

    /// The action after a look-up that did not find the key.
    pub fn action_after_not_found(&self, doubtful: &Doubtful) -> Action {
        let may_be_on_its_way =
            doubtful.not_found <= CHECKS_BEFORE_MORE || doubtful.age < self.visibility_horizon;
        if may_be_on_its_way { Action::Wait } else { self.without_look_up(doubtful) }
    }

    /// The action when the provider has been at work on it for this long.
    pub fn action_after_processing(&self, doubtful: &Doubtful) -> Action {
        if doubtful.age < self.max_processing_time {
            Action::Wait
        } else if self.cancels {
            Action::Cancel
        } else if doubtful.age < self.max_processing_time.saturating_mul(2) {
            Action::Wait
        } else {
            Action::Review
        }
    }

    /// The action after a cancellation that was refused because the key is at work or has succeeded.
    pub fn action_after_vain_cancel(&self, doubtful: &Doubtful) -> Action {
        // The next look-up tells which, where there are look-ups; but not for ever.
        let has_had_its_time = doubtful.age >= self.max_processing_time.saturating_mul(4);
        if !self.looks_up || has_had_its_time { Action::Review } else { Action::Wait }
    }

    /// The action where look-ups do not help.
    fn without_look_up(&self, doubtful: &Doubtful) -> Action {
        let remembered =
            self.deduplicates && doubtful.age + doubtful.lead_time < self.key_retention;
        // Past its time it would be refused, which is an outcome too, where there is no better one.
        if remembered && !(doubtful.not_after_passed && self.cancels) {
            Action::SendAgain
        } else if self.cancels {
            Action::Cancel
        } else if self.looks_up && doubtful.age < self.max_processing_time {
            // A request that is slow to arrive would be found in the end.
            Action::Wait
        } else {
            Action::Review
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn able(deduplicates: bool, looks_up: bool, cancels: bool) -> Capabilities {
        Capabilities {
            deduplicates,
            looks_up,
            cancels,
            key_retention: SECOND * 1000,
            visibility_horizon: SECOND * 5,
            max_processing_time: SECOND * 60,
        }
    }

    fn doubtful(age: u32, not_found: i32) -> Doubtful {
        Doubtful {
            age: SECOND * age,
            lead_time: SECOND * 10,
            not_found,
            not_after_passed: age >= 500,
        }
    }

    #[test]
    fn a_key_that_is_not_found_is_looked_for_past_the_horizon_before_more_is_done() {
        let provider = able(true, true, true);
        assert_eq!(provider.first_action(&doubtful(9, 0)), Action::LookUp);
        assert_eq!(provider.action_after_not_found(&doubtful(9, 1)), Action::Wait, "once only");
        assert_eq!(provider.action_after_not_found(&doubtful(4, 9)), Action::Wait, "too early");
        assert_eq!(provider.action_after_not_found(&doubtful(5, 3)), Action::SendAgain);
    }

    #[test]
    fn a_key_is_sent_again_while_it_is_remembered_and_cancelled_after() {
        let provider = able(true, true, true);
        assert_eq!(provider.action_after_not_found(&doubtful(499, 3)), Action::SendAgain);
        assert_eq!(provider.action_after_not_found(&doubtful(500, 3)), Action::Cancel);
        let without_cancel = able(true, true, false);
        assert_eq!(without_cancel.action_after_not_found(&doubtful(989, 3)), Action::SendAgain);
        assert_eq!(without_cancel.action_after_not_found(&doubtful(990, 3)), Action::Review);
    }

    #[test]
    fn what_a_provider_cannot_do_is_never_asked_of_it() {
        for bits in 0..8u8 {
            let provider = able(bits & 1 > 0, bits & 2 > 0, bits & 4 > 0);
            for age in [0, 4, 5, 59, 60, 119, 120, 499, 500, 989, 990, 5000] {
                for not_found in 0..5 {
                    let doubtful = doubtful(age, not_found);
                    for action in [
                        provider.first_action(&doubtful),
                        provider.action_after_not_found(&doubtful),
                        provider.action_after_processing(&doubtful),
                    ] {
                        let able = match action {
                            Action::LookUp => provider.looks_up,
                            Action::SendAgain => provider.deduplicates && age < 990,
                            Action::Cancel => provider.cancels,
                            Action::Wait => true,
                            Action::Review => !provider.cancels,
                        };
                        assert!(able, "{provider:?} {doubtful:?} {action:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn where_nothing_helps_a_person_looks_at_the_latest_after_twice_the_longest_processing() {
        assert_eq!(able(false, false, false).first_action(&doubtful(0, 0)), Action::Review);
        let looks_up = able(false, true, false);
        assert_eq!(looks_up.action_after_not_found(&doubtful(59, 9)), Action::Wait);
        assert_eq!(looks_up.action_after_not_found(&doubtful(60, 9)), Action::Review);
        let cancels = able(false, true, true);
        assert_eq!(cancels.action_after_vain_cancel(&doubtful(239, 0)), Action::Wait);
        assert_eq!(cancels.action_after_vain_cancel(&doubtful(240, 0)), Action::Review);
        let blind = able(false, false, true);
        assert_eq!(blind.action_after_vain_cancel(&doubtful(0, 0)), Action::Review);
        assert_eq!(looks_up.action_after_processing(&doubtful(119, 0)), Action::Wait);
        assert_eq!(looks_up.action_after_processing(&doubtful(120, 0)), Action::Review);
    }
}
