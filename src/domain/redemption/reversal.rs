//! Reversals: a person takes back what a success brought.
//!
//! ```text
//!  REQUESTED ──▶ IN_DOUBT ──▶ NEEDS_REVIEW       open: the account has the amount still
//!      │             │              │
//!      └─────────────┴──────┬───────┘
//!                           ▼
//!                 SUCCEEDED | FAILED             FAILED: it was not taken back, and may be asked for again
//! ```
//!
//! It is recorded before the provider is asked. Whether it is asked again is decided as for a redemption in doubt:
//! only what counts once is sent twice, and age alone proves nothing. Two reversals of one redemption are never open at
//! once, and a second one is begun only where the first had no effect.

use std::time::Duration;

use time::OffsetDateTime;

use super::{AccountFacts, Dedup, Redemption, RedemptionState, Resolution};
use crate::domain::{
    id::{AccountId, PoolId, RedemptionId},
    money::Money,
};

/// What is known of a reversal's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReversalState {
    /// Recorded, and the provider is being asked.
    Requested,
    /// The provider may or may not have taken it back; the reconciler finds out.
    InDoubt,
    /// Nothing that can be asked tells it; a person decides.
    NeedsReview,
    /// Taken back: the account does not have the amount any more.
    Succeeded,
    /// Not taken back.
    Failed,
}

impl ReversalState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Requested, Self::InDoubt, Self::NeedsReview, Self::Succeeded, Self::Failed];

    /// As the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "REQUESTED",
            Self::InDoubt => "IN_DOUBT",
            Self::NeedsReview => "NEEDS_REVIEW",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
        }
    }

    /// Reads what the database has.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether the outcome is not known.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Requested | Self::InDoubt | Self::NeedsReview)
    }
}

/// A reversal, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reversal {
    /// The redemption that is taken back.
    pub redemption_id: RedemptionId,
    /// Which of its reversals, counted from 1: those before it had no effect.
    pub number: i32,
    /// What is known of its outcome.
    pub state: ReversalState,
    /// Who asked for it, why, and by what evidence.
    pub request: Resolution,
    /// Who closed it, and why, if a person did.
    pub resolution: Option<Resolution>,
    /// Calls to the provider about it.
    pub attempts: i32,
    /// The provider's last answer.
    pub last_answer: Option<String>,
    /// When the reconciler checks it next.
    pub next_check_at: Option<OffsetDateTime>,
    /// When it was recorded.
    pub created_at: OffsetDateTime,
    /// When its outcome was recorded.
    pub finished_at: Option<OffsetDateTime>,
}

/// A reversal to record.
#[derive(Clone, Debug)]
pub struct NewReversal {
    /// Which of the redemption's.
    pub number: i32,
    /// `Requested`, or `NeedsReview` where a person's word about it follows and nothing is sent.
    pub state: ReversalState,
    /// When the reconciler takes over, if nobody has settled it.
    pub take_over: Option<Duration>,
}

/// A reversal that is the caller's to check.
#[derive(Clone, Debug)]
pub struct DueReversal {
    /// Its pool.
    pub pool_id: PoolId,
    /// The reversal.
    pub reversal: Reversal,
    /// Checks so far, this one included.
    pub checks: i32,
    /// Since it was recorded, by the database's clock.
    pub age: Duration,
}

/// What a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReversalRequest {
    /// The provider is to take it back.
    Ask,
    /// It was taken back, by that person's word.
    WasReversed,
    /// It was not taken back, by that person's word.
    WasNotReversed,
}

/// What follows from a person's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReversalStep {
    /// This reversal is recorded, and then the provider is asked.
    Begin(i32),
    /// This reversal is recorded for the person's word, and then closed as successful.
    Note(i32),
    /// The open one is closed as successful.
    Succeed,
    /// The open one is closed as failed.
    Fail,
    /// It is as it is wanted, or is on its way there.
    AsItIs,
}

/// Why a reversal cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReversalRefusal {
    /// The redemption is no success.
    NotSucceeded(RedemptionState),
    /// The provider cannot be asked for one.
    Unsupported(CannotReverse),
    /// Another one, or one whose asking is not over, is open.
    Open(ReversalState),
    /// It was taken back already, for another reason.
    AlreadyReversed,
    /// There is no open one to close.
    NothingOpen,
}

/// Why a provider cannot be asked to take something back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CannotReverse {
    /// Its profile has no `reverse`.
    NoOp,
    /// Its `reverse` sends the card's code, which is wiped.
    NeedsCode,
}

impl CannotReverse {
    /// For metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoOp => "no_op",
            Self::NeedsCode => "needs_code",
        }
    }
}

impl ReversalRequest {
    /// What follows for a redemption, of which this is the newest reversal.
    ///
    /// # Errors
    /// See [`ReversalRefusal`].
    pub fn step(
        self,
        redemption: &Redemption,
        newest: Option<&Reversal>,
        words: &Resolution,
        means: &ReversalMeans,
    ) -> Result<ReversalStep, ReversalRefusal> {
        if redemption.state != RedemptionState::Succeeded {
            return Err(ReversalRefusal::NotSucceeded(redemption.state));
        }
        let next = newest.map_or(1, |newest| newest.number + 1);
        let open = newest.filter(|newest| newest.state.is_open());
        let is_reversed = redemption.reversed_at.is_some();
        match (self, open) {
            (Self::Ask, _) if is_reversed => match newest {
                Some(newest) if newest.request == *words => Ok(ReversalStep::AsItIs),
                _ => Err(ReversalRefusal::AlreadyReversed),
            },
            (Self::Ask, Some(open)) if open.request == *words => Ok(ReversalStep::AsItIs),
            (Self::Ask, Some(open)) => Err(ReversalRefusal::Open(open.state)),
            (Self::Ask, None) => match means.cannot {
                Some(why) => Err(ReversalRefusal::Unsupported(why)),
                None => Ok(ReversalStep::Begin(next)),
            },
            (Self::WasReversed, _) if is_reversed => Ok(ReversalStep::AsItIs),
            // A server is still at work on it, or its outcome is found out in a moment.
            (_, Some(Reversal { state: ReversalState::Requested, .. })) => {
                Err(ReversalRefusal::Open(ReversalState::Requested))
            }
            (Self::WasReversed, Some(_)) => Ok(ReversalStep::Succeed),
            (Self::WasReversed, None) => Ok(ReversalStep::Note(next)),
            (Self::WasNotReversed, _) if is_reversed => Err(ReversalRefusal::AlreadyReversed),
            (Self::WasNotReversed, Some(_)) => Ok(ReversalStep::Fail),
            (Self::WasNotReversed, None) => match newest {
                Some(_) => Ok(ReversalStep::AsItIs),
                None => Err(ReversalRefusal::NothingOpen),
            },
        }
    }
}

/// How a provider can be asked to take something back, and what became of that, when the code is wiped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReversalMeans {
    /// Why it cannot be asked, if so.
    pub cannot: Option<CannotReverse>,
    /// Asked twice it takes back once, for good: its profile says that an `undone` ends doubt.
    pub counts_once: bool,
    /// Asked twice under one key it takes back once, for as long as a key is remembered.
    pub sends_key: bool,
    /// What it does with a key that it has seen.
    pub dedup: Dedup,
    /// How long after a key was first seen it still counts once.
    pub window: Duration,
    /// It can be asked what became of a redemption by the key, or by its id of the work.
    pub asks: bool,
    /// After a call began, the longest until it has had its effect or never will.
    pub max_processing: Duration,
}

/// A reversal in doubt, as far as it decides what is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReversalDoubt {
    /// Since it was recorded, by the database's clock.
    pub age: Duration,
    /// How long what is decided now may take to be done.
    pub lead_time: Duration,
}

/// What to do about a reversal in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReversalAction {
    /// Ask what became of the redemption.
    Question,
    /// Ask to take it back once more: it counts once.
    Again,
    /// Nothing for now; check once more, later.
    Wait,
    /// Nothing more can be found out: a person has to review.
    Review,
}

/// What an answer about a reversal tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReversalAnswer {
    /// Nothing of the redemption's credit is left, and none will come.
    Undone(String),
    /// The redemption is credited still.
    Credited(String),
    /// What was answered is a person's to judge.
    Review(String),
    /// Nothing was sent, for certain.
    NeverSent(String),
    /// No whole answer came, or the provider takes no calls now.
    Nothing(String),
    /// Nothing follows from it, and would not when asked again.
    Unclear(String),
}

impl ReversalMeans {
    /// The action to begin a check with.
    pub fn first_action(&self, doubt: &ReversalDoubt) -> ReversalAction {
        if self.asks { ReversalAction::Question } else { self.without_answer(doubt) }
    }

    /// The action after one whose answer ended nothing.
    pub fn next_action(&self, after: ReversalAction, doubt: &ReversalDoubt) -> ReversalAction {
        match after {
            ReversalAction::Question => self.without_answer(doubt),
            _ if doubt.age >= self.longest() => ReversalAction::Review,
            _ if self.asks || self.may_repeat(doubt) => ReversalAction::Wait,
            _ => ReversalAction::Review,
        }
    }

    /// Whether it may be asked for once more.
    fn may_repeat(&self, doubt: &ReversalDoubt) -> bool {
        let is_remembered = self.sends_key
            && self.dedup != Dedup::None
            && doubt.age + doubt.lead_time < self.window
            // Should the first call be slower than the second, its key still counts.
            && doubt.age + self.window > self.max_processing;
        self.cannot.is_none() && (self.counts_once || is_remembered)
    }

    fn without_answer(&self, doubt: &ReversalDoubt) -> ReversalAction {
        if doubt.age >= self.longest() {
            ReversalAction::Review
        } else if self.may_repeat(doubt) {
            ReversalAction::Again
        } else if self.asks {
            ReversalAction::Wait
        } else {
            ReversalAction::Review
        }
    }

    /// When it has had all its time.
    fn longest(&self) -> Duration {
        self.max_processing.saturating_mul(2)
    }
}

/// A redemption that is settled, as its provider is asked about it. Its code is gone.
#[derive(Clone, Debug)]
pub struct Past {
    /// The idempotency key.
    pub redemption_id: RedemptionId,
    /// The account that was credited.
    pub account_id: AccountId,
    /// What else of the account the provider's profile names, as it is now.
    pub account: AccountFacts,
    /// What was expected.
    pub expected: Option<Money>,
    /// What was credited.
    pub amount: Money,
    /// The provider's own name for it.
    pub provider_ref: Option<String>,
    /// The provider's id of its work.
    pub task: Option<String>,
    /// When it was recorded.
    pub recorded_at: OffsetDateTime,
}

#[cfg(test)]
mod tests;
