//! What can happen.

use super::world::{Account, Key};

/// A step. The first number is the server's or the reconciler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Acquire(usize, Account),
    Begin(usize),
    Send(usize),
    /// A fault: the request never leaves, or the provider is busy and says so.
    TurnedAway(usize),
    /// Hears the answer, and records it.
    Hear(usize),
    /// A fault: there is no answer, or not in time. Records that there is doubt.
    HearNothing(usize),
    /// Its request was lost, and nobody sends another: there will be no answer.
    NothingCame(usize),
    /// Commits the provider's id of its task.
    KeepTask(usize),
    GiveUp(usize),
    Release(usize),
    /// A fault: forgets the wish that it is at work on.
    Crash(usize),
    /// Claims, looks up, and records what is found.
    LookUp(usize, Key),
    SendAgain(usize),
    Cancel(usize),
    /// Hears that the key was seen before.
    HearRefused(usize),
    /// A fault: the reconciler crashes, or its call is lost.
    Forget(usize),
    /// Begins with it, and has an id for it.
    TakeUp(Key),
    Credit(Key),
    Refuse(Key),
    /// A fault: the request is lost.
    Lose(Key),
    RunOut(Account),
    Expire(Account),
    /// A person says what the provider's own records have.
    Resolve(Key),
}

impl Step {
    pub(super) fn is_fault(self) -> bool {
        matches!(
            self,
            Step::TurnedAway(_)
                | Step::HearNothing(_)
                | Step::Crash(_)
                | Step::Forget(_)
                | Step::Lose(_)
        )
    }
}
