//! A redemption's states, and what can be known of its outcome.
//!
//! ```text
//!  SUBMITTED ──▶ IN_DOUBT ──▶ NEEDS_REVIEW       open: the account stays locked
//!      │             │              │
//!      └─────────────┴──────┬───────┘
//!                           ▼
//!                 SUCCEEDED | FAILED             settled: never changes again
//! ```
//!
//! Doubt is sticky: only evidence about this redemption's own key ends it, never its age.
//!
//! A success that is taken back stays `SUCCEEDED`: it has a [`Reversal`] then, which has states of its own.

mod begin;
mod check;
mod code;
mod entity;
mod filter;
mod in_doubt;
mod limits;
mod outcome;
mod reversal;

use std::{collections::BTreeMap, fmt, time::Duration};

use secrecy::zeroize::Zeroize;
use time::OffsetDateTime;

pub use self::{
    begin::{BeginRefusal, Begun, CardToBegin, NewRedemption, SendLimits},
    check::{DueCheck, EarlyCheck},
    code::CardCode,
    entity::{Living, OVERTURNED, Redemption, Resolution, SupersededResolution},
    filter::RedemptionFilter,
    in_doubt::{Action, Capabilities, Dedup, Doubtful, LookUp, Told},
    limits::RedeemLimits,
    outcome::{Deferral, LateCredit, Next, Outcome, Settled, Settlement},
    reversal::{
        CannotReverse, DueReversal, NewReversal, Past, Reversal, ReversalAction, ReversalAnswer,
        ReversalDoubt, ReversalMeans, ReversalRefusal, ReversalRequest, ReversalState,
        ReversalStep,
    },
};
use super::{
    hold::HoldCause,
    id::{AccountId, RedemptionId},
    money::{Currency, Money},
};

/// What is known of a redemption's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RedemptionState {
    /// Recorded, and being sent.
    Submitted,
    /// The provider may or may not have acted; the reconciler finds out.
    InDoubt,
    /// What the provider says does not fit; a person decides.
    NeedsReview,
    /// The provider credited the card.
    Succeeded,
    /// The provider did not credit the card.
    Failed,
}

impl RedemptionState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Submitted, Self::InDoubt, Self::NeedsReview, Self::Succeeded, Self::Failed];

    /// As the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "SUBMITTED",
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

    /// Whether the outcome is not known: the account stays locked.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Submitted | Self::InDoubt | Self::NeedsReview)
    }
}

/// What the provider is asked to do. The same redemption is always asked for with the same bytes.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The idempotency key.
    pub redemption_id: RedemptionId,
    /// The card.
    pub code: CardCode,
    /// The account to credit.
    pub account_id: AccountId,
    /// The amount that the card should be worth.
    pub expected: Option<Money>,
    /// The pool's currency.
    pub currency: Currency,
    /// The provider is not to begin after this time: RFC 3339, by the database's clock.
    pub not_after: String,
    /// What else of the account the provider's profile names, as it was when the redemption was recorded.
    pub account: AccountFacts,
    /// What is known by now.
    pub known: Known,
}

/// What of an account a provider may be told beside its id.
#[derive(Clone, Default)]
pub struct AccountFacts {
    /// ISO 3166-1 alpha-2.
    pub country: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its credentials.
    pub credentials: BTreeMap<String, String>,
}

impl AccountFacts {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.country.is_none() && self.labels.is_empty() && self.credentials.is_empty()
    }
}

/// Credentials leave the memory.
impl Drop for AccountFacts {
    fn drop(&mut self) {
        self.credentials.values_mut().for_each(Zeroize::zeroize);
    }
}

/// Credentials are never shown.
impl fmt::Debug for AccountFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccountFacts(…)")
    }
}

/// What is known of a redemption when a call about it is made.
#[derive(Clone, Debug)]
pub struct Known {
    /// The provider's id of its work, once it is told and committed.
    pub task: Option<String>,
    /// When it was recorded, by the database's clock.
    pub recorded_at: OffsetDateTime,
    /// Since then.
    pub age: Duration,
    /// Since the last send after the send window began; `None` when there was none.
    pub since_sent_again: Option<Duration>,
}

impl Known {
    /// Of a redemption that was just recorded.
    pub fn at_first(recorded_at: OffsetDateTime) -> Self {
        Self { task: None, recorded_at, age: Duration::ZERO, since_sent_again: None }
    }
}

impl Verdict {
    /// A failure of the card, or of the provider.
    pub fn failed(failure: Failure) -> Self {
        Self::Failed { failure, hold: None }
    }
}

/// Definite knowledge about a redemption: what settling it records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The provider credited the card.
    Succeeded {
        /// What was credited.
        amount: Money,
        /// The provider's own name for it.
        provider_ref: String,
    },
    /// The provider did not credit the card, and will not.
    Failed {
        /// Why.
        failure: Failure,
        /// What is wrong with the account, where that is why.
        hold: Option<HoldCause>,
    },
    /// The provider acted, but not as it was asked: a person decides.
    NeedsReview {
        /// What does not fit.
        failure: Failure,
        /// What the provider says that it credited, if it can be read.
        amount: Option<Money>,
        /// The provider's own name for it.
        provider_ref: String,
    },
}

/// Why a redemption failed or needs review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The provider's failure code, or one of [`reason`].
    pub reason: String,
    /// For a person. Never contains the card's code.
    pub message: String,
    /// Whether trying the code elsewhere is no use.
    pub code_spent: bool,
}

/// The reasons of failures that are Holdfast's own words, not the provider's.
pub mod reason {
    /// No request ever left: DNS, refused, TLS or connect timeout.
    pub const PROVIDER_UNREACHABLE: &str = "PROVIDER_UNREACHABLE";
    /// By every answer nothing was executed, until the time to send was over.
    pub const PROVIDER_BUSY: &str = "PROVIDER_BUSY";
    /// Cancelled by its key at the provider, before it was executed.
    pub const CANCELLED: &str = "CANCELLED";
    /// Taken back at the provider: the card has its value again.
    pub const REVERSED: &str = "REVERSED";
    /// The provider credited another account than the one asked for.
    pub const ACCOUNT_MISMATCH: &str = "ACCOUNT_MISMATCH";
    /// The provider credited in another currency than the one asked for.
    pub const CURRENCY_MISMATCH: &str = "CURRENCY_MISMATCH";
    /// The provider credited another amount than the one expected, and the pool wants a person to review it.
    pub const AMOUNT_MISMATCH: &str = "AMOUNT_MISMATCH";
    /// The provider does not have it, asked when it could no longer come to have it.
    pub const NOT_EXECUTED: &str = "NOT_EXECUTED";
    /// The code was redeemed before this redemption was recorded: by whom is for a person to find out.
    pub const REDEEMED_BEFORE: &str = "REDEEMED_BEFORE";
    /// The provider's profile sends a value that the redemption does not have: nothing was sent.
    pub const VALUE_MISSING: &str = "VALUE_MISSING";
    /// The provider's profile sends a value that cannot stand where it is to be sent: nothing was sent.
    pub const VALUE_UNUSABLE: &str = "VALUE_UNUSABLE";
    /// Nothing that can be asked of the provider tells the outcome. Or the stored code can no longer be read, so
    /// that nothing can be asked.
    pub const UNRESOLVED: &str = "UNRESOLVED";
    /// A failure code of the provider's contract: the account's login was refused.
    pub const ACCOUNT_LOGIN_INVALID: &str = "ACCOUNT_LOGIN_INVALID";
}

/// What an answer of the provider calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The outcome is known: record it.
    Settle(Verdict),
    /// Nothing was executed, for certain: send again with the same key, after a while.
    SendAgain {
        /// The failure to record when the time to send is over.
        failure: Failure,
        /// How long the provider asked to wait.
        after: Option<Duration>,
    },
    /// The provider is at work on it, or has seen its key: ask what became of it, after a while.
    LookUp {
        /// The provider's id of its work, where that is proven.
        task: Option<String>,
        /// How long the provider asked to wait.
        after: Option<Duration>,
        /// What was answered, for people.
        answer: String,
    },
    /// The provider is busy, and did nothing about this call; earlier ones may have been executed.
    Busy {
        /// How long the provider asked to wait.
        after: Option<Duration>,
        /// What was answered, for people.
        answer: String,
    },
    /// An answer to the first send that may be to another request: it is in doubt, and looked up by its
    /// key at once.
    Unproven {
        /// What was answered, for people.
        answer: String,
    },
    /// The provider has never seen the key. Not proof: the request may still be on its way.
    NotFound,
    /// The provider may or may not have acted.
    InDoubt {
        /// What was answered, for people. Never contains the card's code.
        answer: String,
        /// A whole answer said this, which was not the provider's own failure. Asked again it may say the same for
        /// ever.
        is_answer: bool,
    },
}
