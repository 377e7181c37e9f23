//! The inputs of one run of the lane, and how far each is.

use sqlx::types::time::OffsetDateTime;

use super::{Applied, Asked, Done, SettledColumns};
use crate::{
    domain::{
        account::{Account, AccountEvent, Change, Guard, Version},
        pool::PoolTerms,
    },
    store::{
        controls::{counts, decide},
        lane::Ran,
    },
};

/// What was decided about an input.
pub(super) enum Decided {
    /// This is to be written.
    Change(Box<Change>),
    /// It has its answer.
    Answered,
    /// It was refused by an account or by terms that may be old.
    Old,
    /// The same was decided before, and could not be written.
    Stuck,
}

/// How a change was lost.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct Lost {
    /// The revision from which it was decided.
    pub(in crate::store) revision: i64,
    /// With all others of its statement: the revision may be old.
    pub(in crate::store) is_all: bool,
}

#[derive(Default)]
struct Input {
    /// The account to decide from.
    account: Option<Account>,
    /// It was read since this run began.
    is_fresh: bool,
    /// It has to be: a change or a refusal was decided from what may be old.
    must_be_fresh: bool,
    /// The change that was lost last: from what it was decided.
    lost: Option<(Version, Guard, i64)>,
    answer: Option<Applied>,
    is_left: bool,
}

/// See [the module](self).
pub(in crate::store) struct Work<'a> {
    pub(in crate::store) inputs: Vec<&'a Asked>,
    pub(super) is_alone: bool,
    states: Vec<Input>,
    /// The terms of this round were read since this run began.
    has_fresh_terms: bool,
    /// Those of the next have to be: something was refused by older ones, or lost.
    needs_terms: bool,
}

impl<'a> Work<'a> {
    pub(in crate::store) fn new(inputs: Vec<&'a Asked>, is_alone: bool) -> Self {
        let state =
            |asked: &&Asked| Input { account: asked.told.as_deref().cloned(), ..Input::default() };
        let states = inputs.iter().map(state).collect();
        Self { inputs, is_alone, states, has_fresh_terms: false, needs_terms: false }
    }

    /// Those that have no answer yet.
    pub(super) fn next_round(&self) -> Vec<usize> {
        let is_waiting = |place: &usize| {
            let state = &self.states[*place];
            state.answer.is_none() && !state.is_left
        };
        (0..self.inputs.len()).filter(is_waiting).collect()
    }

    pub(super) fn needs_account(&self, place: usize) -> bool {
        let state = &self.states[place];
        state.account.is_none() || state.must_be_fresh && !state.is_fresh
    }

    pub(super) fn may_be_old(&self, place: usize) -> bool {
        !self.states[place].must_be_fresh
    }

    pub(super) fn needs_terms(&self) -> bool {
        self.needs_terms
    }

    pub(super) fn told_terms(&mut self, are_fresh: bool) {
        self.has_fresh_terms = are_fresh;
        self.needs_terms = false;
    }

    pub(super) fn told(&mut self, place: usize, account: Account, is_fresh: bool) {
        let state = &mut self.states[place];
        state.account = Some(account);
        state.is_fresh = is_fresh;
    }

    pub(in crate::store) fn account(&self, place: usize) -> Option<&Account> {
        self.states[place].account.as_ref()
    }

    pub(super) fn decide(&mut self, place: usize, terms: &PoolTerms) -> Decided {
        let has_fresh_terms = self.has_fresh_terms;
        let (asked, state) = (self.inputs[place], &mut self.states[place]);
        let Some(account) = &state.account else { return Decided::Answered };
        // It was chosen as it was told: what it has become may not be what is wanted.
        if asked
            .told
            .as_ref()
            .is_some_and(|told| asked.is_claim() && told.version != account.version)
        {
            state.answer = Some(Applied::Missed);
            return Decided::Answered;
        }
        match decide(account, &asked.event, terms) {
            Ok(change) if state.lost == Some((change.from, change.guard, terms.revision)) => {
                Decided::Stuck
            }
            Ok(change) => Decided::Change(Box::new(change)),
            Err(refusal)
                if !counts(state.is_fresh && (has_fresh_terms || !refusal.is_of_terms())) =>
            {
                state.must_be_fresh = true;
                self.needs_terms |= refusal.is_of_terms();
                Decided::Old
            }
            Err(refusal) => {
                state.answer = Some(Applied::Refused(refusal, Box::new(account.clone())));
                Decided::Answered
            }
        }
    }

    /// Notes that a change was written. Answers with the account after it.
    pub(super) fn written(
        &mut self,
        place: usize,
        change: Change,
        at: OffsetDateTime,
        settled: Option<SettledColumns>,
    ) -> Option<&Account> {
        let (asked, state) = (self.inputs[place], &mut self.states[place]);
        let account = change.apply(state.account.take()?, asked.change_id, at);
        match state.answer.insert(Applied::Done(Box::new(Done { account, settled }))) {
            Applied::Done(done) => Some(&done.account),
            _ => None,
        }
    }

    /// Notes that a change was not written.
    pub(super) fn lost(&mut self, place: usize, change: &Change, lost: Lost) {
        let is_claim = self.inputs[place].is_claim();
        let state = &mut self.states[place];
        state.lost = Some((change.from, change.guard, lost.revision));
        self.needs_terms |= lost.is_all;
        if is_claim {
            // By the terms, if at all, it may still be had as it was chosen.
            if !lost.is_all {
                state.answer = Some(Applied::Missed);
            }
            return;
        }
        state.must_be_fresh = true;
        state.is_fresh = false;
    }

    /// Whether the account was read since this run began.
    pub(in crate::store) fn is_fresh(&self, place: usize) -> bool {
        self.states[place].is_fresh
    }

    /// Reads the account, and decides and writes once more.
    pub(in crate::store) fn read_again(&mut self, place: usize) {
        let state = &mut self.states[place];
        state.must_be_fresh = true;
        state.is_fresh = false;
    }

    /// Leaves an input to the next round, which decides from what this one makes of its account.
    pub(super) fn hold_back(&mut self, place: usize) {
        let state = &mut self.states[place];
        state.account = None;
        state.is_fresh = false;
    }

    /// Tries once more what was lost, since nobody holds the account any more.
    pub(super) fn try_again(&mut self, place: usize) {
        let state = &mut self.states[place];
        state.lost = None;
        state.is_fresh = false;
    }

    /// The change was written before, by a statement whose reply was lost. By now it may have been followed.
    pub(super) fn found_own(&mut self, place: usize, account: Account) {
        let is_gone = match &self.inputs[place].event {
            AccountEvent::Acquire(wanted) => {
                account.lease.as_ref().is_none_or(|lease| lease.request != wanted.request)
            }
            _ => false,
        };
        let done = Applied::Done(Box::new(Done { account, settled: None }));
        self.answer(place, if is_gone { Applied::Missed } else { done });
    }

    pub(in crate::store) fn answer(&mut self, place: usize, answer: Applied) {
        self.states[place].answer = Some(answer);
    }

    /// Leaves an input to be run alone.
    pub(super) fn leave(&mut self, place: usize) {
        self.states[place].is_left = true;
    }

    /// Answers all that have no answer yet.
    pub(super) fn answer_all(&mut self, answer: &Applied) {
        for state in self.states.iter_mut().filter(|state| state.answer.is_none()) {
            state.answer = Some(answer.clone());
        }
    }

    pub(in crate::store) fn into_outputs(self) -> Vec<Ran<Applied>> {
        let ran = |state: Input| match state.answer {
            Some(answer) => Ran::Done(answer),
            None if state.is_left => Ran::Held,
            None => Ran::Again,
        };
        self.states.into_iter().map(ran).collect()
    }
}
