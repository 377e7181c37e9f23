//! Redemptions in doubt: what to do about one, by what the provider can do.
//!
//! The order is: ask what became of it, by the provider's id of its work, by our key or by a search. Where it was not
//! found several times: send the same again, while the provider counts a key once. Then cancel it, then reverse it.
//! Then a person has to review it. What the provider cannot do is left out.

use std::time::Duration;

/// How often in a row the provider must not find a redemption before more is done than asking. The first request may
/// still be on its way.
const CHECKS_BEFORE_MORE: i32 = 2;
/// How often in a row it may not be found although it was sent again, and the provider said that it has it.
const CHECKS_BEFORE_VAIN: i32 = 6;

/// What a provider does with a key that it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dedup {
    /// Answers what it answered first.
    Replay,
    /// Says that it is a duplicate.
    Reject,
    /// Nothing: it counts again.
    None,
}

/// How a provider is asked what became of a redemption by a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// By our key.
    ByKey,
    /// By the provider's own id of its work, which has to be known.
    ByTask,
}

/// What a provider can do for a redemption in doubt, as its profile says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// What it does with a key that it has seen.
    pub dedup: Dedup,
    /// How it is looked up, if it can be.
    pub looks_up: Option<LookUp>,
    /// It finds a redemption by the key, the code or a search.
    pub finds: bool,
    /// That it does not find a redemption proves something, asked late enough.
    pub not_found_ends_doubt: bool,
    /// It cancels a key, also one that it has never seen: a later arrival is refused.
    pub cancels: bool,
    /// It takes back what it did, also something that it has never seen.
    pub reverses: bool,
    /// It refuses a request that comes after its `not_after`.
    pub refuses_late: bool,
    /// How long after a key was first seen it still counts once.
    pub window: Duration,
    /// How long after it was recorded a request that was slow may still arrive, and have its effect.
    pub latest_effect: Duration,
    /// How long after a request arrived it may still not be found.
    pub visibility: Duration,
    /// After a send began, the longest until it has had its effect or never will.
    pub max_processing: Duration,
}

/// A redemption in doubt, as far as it decides what is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubtful {
    /// Since it was recorded, by the database's clock: it was not sent before that.
    pub age: Duration,
    /// Since the last send began, by the database's clock, or at least that.
    pub since_last_send: Duration,
    /// How long what is decided now may take to be done.
    pub lead_time: Duration,
    /// How often in a row it was not found, this time included.
    pub not_found: i32,
    /// How often an answer proved nothing since it was not found several times in a row, this time included.
    pub odd: i32,
    /// The provider's id of its work is known.
    pub has_task: bool,
    /// The provider may not begin it any more.
    pub not_after_passed: bool,
}

/// What to do about a redemption in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask what became of it, by the key or the provider's id of its work.
    LookUp,
    /// Ask what became of it, by a search.
    Find,
    /// Nothing for now; check once more, later.
    Wait,
    /// Send the same bytes under the same key: whether or not the first arrived, it counts once.
    SendAgain,
    /// Cancel the key, so that nothing can happen under it any more.
    Cancel,
    /// Take back what was done, if anything was.
    Reverse,
    /// Nothing more can be found out: a person has to review.
    Review,
}

/// What an action brought that settles nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// No whole answer came, or the provider takes no calls now. It says nothing of the redemption.
    Nothing,
    /// It was not found.
    NotFound,
    /// The provider is at work on it, or has seen its key.
    AtWork,
    /// An answer that proves nothing, and would not when asked again.
    Odd,
}

impl Doubtful {
    fn is_often_odd(&self) -> bool {
        self.odd > CHECKS_BEFORE_MORE
    }

    /// How many odd answers count after a check. `not_found`: it did not find the redemption, whatever was answered to
    /// what was done then. Several such checks in a row show that the provider answers as it should.
    pub fn odd_after(&self, told: Option<Told>, not_found: bool) -> i32 {
        match told {
            _ if not_found && self.not_found > CHECKS_BEFORE_MORE => 0,
            Some(Told::Odd) if !not_found => self.odd,
            _ => self.odd.saturating_sub(1),
        }
    }
}

impl Capabilities {
    /// The question to begin with, if any can be asked.
    pub fn question(&self, has_task: bool) -> Option<Action> {
        match self.looks_up {
            Some(LookUp::ByKey) => Some(Action::LookUp),
            Some(LookUp::ByTask) if has_task => Some(Action::LookUp),
            _ => self.finds.then_some(Action::Find),
        }
    }

    /// Whether the same may be sent again at this age: the key still counts once, however late this request or the
    /// first one arrives.
    pub fn may_send_again(&self, age: Duration, lead_time: Duration) -> bool {
        let mut arrives_by = age + self.max_processing;
        if self.refuses_late {
            arrives_by = arrives_by.min(self.latest_effect);
        }
        self.dedup != Dedup::None
            && (age + lead_time).max(arrives_by) < self.window
            && age + self.window > self.latest_effect
    }

    /// The action to begin with.
    pub fn first_action(&self, doubtful: &Doubtful) -> Action {
        self.question(doubtful.has_task).unwrap_or_else(|| self.without_answer(doubtful))
    }

    /// The action after one that settled nothing.
    pub fn next_action(&self, after: Action, told: Told, doubtful: &Doubtful) -> Action {
        match (after, told) {
            (_, Told::Nothing) => Action::Wait,
            (Action::LookUp, Told::NotFound) if self.finds => Action::Find,
            (Action::LookUp | Action::Find, Told::NotFound) => self.after_not_found(doubtful),
            // It has only just begun with it, when the check before this one did not find it.
            (Action::LookUp | Action::Find, Told::AtWork) if doubtful.not_found > 1 => Action::Wait,
            (Action::LookUp | Action::Find, Told::AtWork) => self.after_its_time(doubtful),
            (Action::LookUp | Action::Find, Told::Odd) => {
                self.after_odd(doubtful, doubtful.is_often_odd())
            }
            // It has only just begun with it: it is asked what became of it at the next check.
            (Action::SendAgain, Told::AtWork)
                if self.question(doubtful.has_task).is_some()
                    && doubtful.not_found <= CHECKS_BEFORE_VAIN =>
            {
                Action::Wait
            }
            (Action::SendAgain, Told::Odd) => {
                let is_in_vain = doubtful.not_found > CHECKS_BEFORE_VAIN;
                self.after_odd(doubtful, is_in_vain || doubtful.is_often_odd())
            }
            (Action::SendAgain, _) => self.after_its_time(doubtful),
            (Action::Cancel, _) if self.reverses => Action::Reverse,
            (Action::Cancel | Action::Reverse, _)
                if self.question(doubtful.has_task).is_none() || self.is_for_review(doubtful) =>
            {
                Action::Review
            }
            _ => Action::Wait,
        }
    }

    fn after_not_found(&self, doubtful: &Doubtful) -> Action {
        let may_be_on_its_way =
            doubtful.not_found <= CHECKS_BEFORE_MORE || doubtful.age < self.visibility;
        if may_be_on_its_way { Action::Wait } else { self.without_answer(doubtful) }
    }

    /// The action where the provider has been at work on it, or has told nothing of use, until now.
    fn after_its_time(&self, doubtful: &Doubtful) -> Action {
        if doubtful.age < self.max_processing {
            Action::Wait
        } else if self.cancels {
            Action::Cancel
        } else if self.reverses {
            Action::Reverse
        } else if self.is_for_review(doubtful) {
            Action::Review
        } else {
            Action::Wait
        }
    }

    /// The same where an answer proved nothing. One alone leaves nothing to a person: the next may be a good one.
    fn after_odd(&self, doubtful: &Doubtful, is_often: bool) -> Action {
        match self.after_its_time(doubtful) {
            Action::Review if !is_often => Action::Wait,
            action => action,
        }
    }

    /// The action where questions do not help.
    fn without_answer(&self, doubtful: &Doubtful) -> Action {
        // Past its time it would be refused, which is an outcome too, where there is no better one.
        let would_be_refused = self.refuses_late && doubtful.not_after_passed && self.cancels;
        // Each send puts off the time from which not being found proves something.
        let is_for_proof = self.not_found_ends_doubt && doubtful.age >= self.max_processing;
        let may_be_sent = !would_be_refused && !is_for_proof;
        if may_be_sent && self.may_send_again(doubtful.age, doubtful.lead_time) {
            Action::SendAgain
        } else if self.cancels {
            Action::Cancel
        } else if self.reverses {
            Action::Reverse
        } else if self.question(doubtful.has_task).is_some() && !self.is_for_review(doubtful) {
            // A request that is slow to arrive would be found in the end, or never.
            Action::Wait
        } else {
            Action::Review
        }
    }

    /// Whether it has had all its time: twice the longest processing time, and as long after the last send where not
    /// being found may still prove something.
    fn is_for_review(&self, doubtful: &Doubtful) -> bool {
        let proven = (self.max_processing + self.visibility).saturating_mul(2);
        doubtful.age >= self.max_processing.saturating_mul(2)
            && (!self.not_found_ends_doubt || doubtful.since_last_send >= proven)
    }
}

#[cfg(test)]
mod tests;
