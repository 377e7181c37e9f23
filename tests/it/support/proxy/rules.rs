//! Rules of faults: the message that a fault is for, and how often it came.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::support::wait::eventually;

/// How long a fault that is waited for may take to happen.
const LIMIT: Duration = Duration::from_secs(10);

/// Which messages a fault is for: those that match, from one of them on, so many times.
#[derive(Clone, Debug)]
pub(crate) struct When<M> {
    matches: M,
    skip: usize,
    times: usize,
}

impl<M> When<M> {
    /// The first that matches.
    pub(super) fn first(matches: M) -> Self {
        Self { matches, skip: 0, times: 1 }
    }

    /// Not the first `count` of them.
    pub(crate) fn skip(self, count: usize) -> Self {
        Self { skip: count, ..self }
    }

    /// The next `count` of them.
    pub(crate) fn times(self, count: usize) -> Self {
        Self { times: count, ..self }
    }

    /// All of them, until the fault is lifted.
    pub(crate) fn always(self) -> Self {
        self.times(usize::MAX)
    }
}

/// A fault that was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Fired(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    matched: AtomicUsize,
    fired: AtomicUsize,
    /// Matches from this one on are let through.
    until: AtomicUsize,
}

impl Fired {
    /// How often it happened, to the end.
    pub(crate) fn times(&self) -> usize {
        self.0.fired.load(Ordering::SeqCst)
    }

    /// How many messages matched, whatever happened to them.
    pub(crate) fn matched(&self) -> usize {
        self.0.matched.load(Ordering::SeqCst)
    }

    /// Waits until it has happened so often.
    pub(crate) async fn wait(&self, times: usize) {
        let what = format!("a fault to happen {times} times");
        eventually(LIMIT, &what, async || (self.times() >= times).then_some(())).await;
    }

    /// Lets what matches through from now on.
    pub(crate) fn lift(&self) {
        self.0.until.store(0, Ordering::SeqCst);
    }

    /// It has happened once more.
    pub(super) fn count(&self) {
        self.0.fired.fetch_add(1, Ordering::SeqCst);
    }
}

/// The faults of a proxy, in the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Rules<M, A>(Mutex<Vec<Rule<M, A>>>);

#[derive(Debug)]
struct Rule<M, A> {
    when: When<M>,
    action: A,
    fired: Fired,
}

impl<M, A> Default for Rules<M, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<M, A: Clone> Rules<M, A> {
    pub(super) fn add(&self, when: When<M>, action: A) -> Fired {
        let fired = Fired(Arc::new(Counts {
            matched: AtomicUsize::new(0),
            fired: AtomicUsize::new(0),
            until: AtomicUsize::new(when.skip.saturating_add(when.times)),
        }));
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rules.push(Rule { when, action, fired: fired.clone() });
        fired
    }

    /// What is to happen to a message, if anything. Every rule that matches counts it; the first one
    /// whose turn it is has it.
    pub(super) fn pick(&self, matches: impl Fn(&M) -> bool) -> Option<(A, Fired)> {
        let rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut picked = None;
        for rule in rules.iter().filter(|rule| matches(&rule.when.matches)) {
            let counts = &rule.fired.0;
            let place = counts.matched.fetch_add(1, Ordering::SeqCst);
            let due = place >= rule.when.skip && place < counts.until.load(Ordering::SeqCst);
            if due && picked.is_none() {
                picked = Some((rule.action.clone(), rule.fired.clone()));
            }
        }
        picked
    }
}
