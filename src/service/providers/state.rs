//! What holds back the calls to a provider, as this server sees it: by its own calls at once, by those of other servers
//! within a second.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    domain::provider::{FAILURES_IN_A_ROW, next_try},
    store::provider_limits::SharedState,
};

/// For how long what this server noted itself stands before what it reads of others.
const OWN: Duration = Duration::from_secs(3);
/// How often an acquisition is let through while a provider that fails is due to be tried.
const OFFER: Duration = Duration::from_secs(1);

/// Why no call may be made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// For people.
    pub why: String,
    /// In how long one may be made.
    pub retry_after: Duration,
}

/// What is to be told to the other servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The provider fails as a whole.
    Failing { retry_in: Duration, failed_tries: u32, after_a_try: bool },
    /// It works again.
    Working,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Calls in a row that failed.
    failures: u32,
    failing: Option<Failing>,
    held_until: Option<Instant>,
    /// By a brake.
    stopped_until: Option<Instant>,
}

/// The provider fails as a whole.
#[derive(Clone, Copy, Debug)]
struct Failing {
    /// When it may be tried.
    retry_at: Instant,
    failed_tries: u32,
    /// When this server noted it by itself.
    noted_at: Option<Instant>,
    /// When an acquisition was let through last.
    offered_at: Option<Instant>,
}

impl State {
    /// Why no call may be made within `patience`. A provider that fails may be tried when it is due.
    pub(super) fn held(&self, now: Instant, patience: Duration) -> Option<Held> {
        let left = |until: Option<Instant>| {
            until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
        };
        if let Some(retry_after) = left(self.failing.map(|failing| failing.retry_at)) {
            let why = "its calls fail one after the other; it is tried again by itself".to_owned();
            return Some(Held { why, retry_after });
        }
        if let Some(retry_after) = left(self.stopped_until) {
            let why = "it has refused as many cards as it bears before it blocks its caller; the \
                       profile's brake stops before that"
                .to_owned();
            return Some(Held { why, retry_after });
        }
        let retry_after = self.held_for(now).filter(|held| *held > patience)?;
        Some(Held { why: "it has asked for no calls until then".to_owned(), retry_after })
    }

    /// The same for an acquisition. While a provider that fails is due to be tried, few are let through.
    pub(super) fn held_for_acquisitions(
        &mut self,
        now: Instant,
        patience: Duration,
    ) -> Option<Held> {
        let held = self.held(now, patience);
        if held.is_some() {
            return held;
        }
        let failing = self.failing.as_mut()?;
        if failing.offered_at.is_some_and(|at| now < at + OFFER) {
            let why = "its calls have failed one after the other; it is being tried".to_owned();
            return Some(Held { why, retry_after: OFFER });
        }
        failing.offered_at = Some(now);
        None
    }

    /// For how long the provider has asked for no calls.
    pub(super) fn held_for(&self, now: Instant) -> Option<Duration> {
        let left = self.held_until?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }

    /// Whether a call made now is a try of a provider that fails.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.is_some()
    }

    /// Nobody else on this server tries it for so long.
    pub(super) fn note_try(&mut self, until: Instant) {
        if let Some(failing) = &mut self.failing {
            failing.retry_at = until;
        }
    }

    /// No call for so long. False: that is known already.
    pub(super) fn hold(&mut self, now: Instant, hold: Duration) -> bool {
        let until = now + hold;
        let is_longer = self.held_until.is_none_or(|held| held < until);
        if is_longer {
            self.held_until = Some(until);
        }
        is_longer
    }

    pub(super) fn stop(&mut self, until: Instant) {
        self.stopped_until = Some(until);
    }

    /// A call has shown that the provider works.
    pub(super) fn works(&mut self) -> Option<Change> {
        self.failures = 0;
        self.failing.take().map(|_| Change::Working)
    }

    /// A call has failed as all would.
    pub(super) fn fails(&mut self, now: Instant, is_try: bool) -> Option<Change> {
        self.failures = self.failures.saturating_add(1);
        let failed_tries = match self.failing {
            Some(failing) if is_try => failing.failed_tries.saturating_add(1),
            None if self.failures >= FAILURES_IN_A_ROW => 0,
            // It is known, or not certain yet.
            _ => return None,
        };
        let retry_in = next_try(failed_tries);
        let retry_at = now + retry_in;
        let noted_at = Some(now);
        self.failing = Some(Failing { retry_at, failed_tries, noted_at, offered_at: None });
        Some(Change::Failing { retry_in, failed_tries, after_a_try: is_try })
    }

    /// Takes over what all servers know together.
    pub(super) fn read(&mut self, now: Instant, shared: &SharedState) {
        self.hold(now, shared.held_for);
        let is_own = self.failing.and_then(|failing| failing.noted_at);
        if is_own.is_some_and(|at| now < at + OWN) {
            return;
        }
        self.failing = shared.failing.then(|| Failing {
            retry_at: now + shared.retry_in,
            failed_tries: shared.failed_tries,
            noted_at: None,
            offered_at: self.failing.and_then(|failing| failing.offered_at),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::ProviderId;

    const SECOND: Duration = Duration::from_secs(1);

    fn failing(now: Instant) -> State {
        let mut state = State::default();
        for _ in 1..FAILURES_IN_A_ROW {
            assert_eq!(state.fails(now, false), None);
        }
        let change = Change::Failing { retry_in: next_try(0), failed_tries: 0, after_a_try: false };
        assert_eq!(state.fails(now, false), Some(change));
        state
    }

    fn shared(failing: bool, retry_in: Duration) -> SharedState {
        let provider_id = ProviderId::parse("other").unwrap();
        SharedState { provider_id, failing, failed_tries: 0, retry_in, held_for: Duration::ZERO }
    }

    #[tokio::test]
    async fn only_failures_in_a_row_count() {
        let now = Instant::now();
        let mut state = State::default();
        for _ in 0..5 {
            for _ in 1..FAILURES_IN_A_ROW {
                assert_eq!(state.fails(now, false), None);
            }
            assert_eq!(state.works(), None);
        }
        assert_eq!(state.held(now, SECOND), None);
    }

    #[tokio::test]
    async fn a_provider_that_fails_is_tried_ever_more_rarely_until_it_works() {
        let now = Instant::now();
        let mut state = failing(now);
        assert_eq!(state.held(now, SECOND).unwrap().retry_after, next_try(0));
        assert_eq!(state.fails(now, false), None, "told once");
        let due = now + next_try(0);
        assert_eq!(state.held(due, SECOND), None, "it may be tried");
        state.note_try(due + SECOND * 5);
        assert!(state.held(due, SECOND).is_some(), "by one alone");
        let change = Change::Failing { retry_in: next_try(1), failed_tries: 1, after_a_try: true };
        assert_eq!(state.fails(due, true), Some(change));
        assert_eq!(state.works(), Some(Change::Working));
        assert_eq!(state.held(due, SECOND), None);
    }

    #[tokio::test]
    async fn while_it_is_due_to_be_tried_few_acquisitions_pass() {
        let now = Instant::now();
        let mut state = failing(now);
        assert!(state.held_for_acquisitions(now, SECOND).is_some());
        let due = now + next_try(0);
        assert_eq!(state.held_for_acquisitions(due, SECOND), None);
        assert!(state.held_for_acquisitions(due, SECOND).is_some());
        assert_eq!(state.held_for_acquisitions(due + OFFER, SECOND), None);
    }

    #[tokio::test]
    async fn a_hold_is_waited_for_or_refused() {
        let now = Instant::now();
        let mut state = State::default();
        assert!(state.hold(now, SECOND * 10));
        assert!(!state.hold(now, SECOND), "never shorter");
        assert_eq!(state.held(now, SECOND * 30), None, "there is time to wait");
        assert_eq!(state.held(now, SECOND).unwrap().retry_after, SECOND * 10);
        assert_eq!(state.held_for(now + SECOND * 10), None);
    }

    #[tokio::test]
    async fn what_other_servers_noted_counts_and_what_this_one_noted_just_now_first() {
        let now = Instant::now();
        let mut state = failing(now);
        state.read(now + SECOND / 2, &shared(false, Duration::ZERO));
        assert!(state.is_failing(), "the other servers have not been told yet");
        state.read(now + OWN, &shared(false, Duration::ZERO));
        assert!(!state.is_failing());
        state.read(now, &shared(true, SECOND * 7));
        assert_eq!(state.held(now, SECOND).unwrap().retry_after, SECOND * 7);
    }
}
