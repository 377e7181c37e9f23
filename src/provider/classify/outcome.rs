//! What is known of a call beside its answer, and what an answer can prove.

use std::time::Duration;

use time::OffsetDateTime;

use super::Doubt;
use crate::{
    domain::{
        hold::HoldCause,
        money::{Currency, Money},
        redemption::{CardCode, Failure},
    },
    provider::{json::Field, profile::Reading},
};

/// Whom a call is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Our key, as the profile writes it.
    pub key: String,
    /// The provider's id of its work, where we know it.
    pub task: Option<String>,
    /// The account to credit.
    pub account: String,
    /// The pool's currency.
    pub currency: Currency,
    /// The card. Without it no text of the provider's is kept, since its code could not be taken out.
    pub code: Option<CardCode>,
    /// When the redemption was recorded, by the clock of who asks.
    pub recorded_at: OffsetDateTime,
    /// Credentials that must not be kept: no `Debug` shows them.
    pub secrets: Secrets,
}

impl Subject {
    /// Takes the identity that an element of a list tells.
    pub(in crate::provider) fn own(&mut self, reading: &Reading) {
        if let Field::Is(key) = &reading.told.key {
            self.key.clone_from(key);
        }
        if let Field::Is(account) = &reading.told.account {
            self.account.clone_from(account);
        }
        self.task = None;
    }
}

/// Texts that are never shown.
#[derive(Clone, Default)]
pub struct Secrets(pub Vec<String>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// What is known of a call, beside its answer.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// Whether an earlier send may have been executed.
    pub doubt: Doubt,
    /// The provider still knows the keys that it saw.
    pub in_window: bool,
    /// The answer can be to no other request: its connection carried none before it, or it is HTTP/2.
    pub is_alone: bool,
    /// Since the redemption was recorded, when the call began.
    pub since_recorded: Duration,
    /// Since the last send began, when the call began; `None` where that is not recorded.
    pub since_last_send: Option<Duration>,
}

/// What follows from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The card was credited. Of an inquiry: it can be.
    Succeeded {
        /// How much.
        amount: Money,
        /// The provider's name for it.
        provider_ref: String,
        /// Of an inquiry: the card's country.
        country: Option<String>,
    },
    /// It was not credited, and will not be.
    Failed {
        /// Why.
        failure: Failure,
        /// What is wrong with the account, where that is why.
        hold: Option<HoldCause>,
    },
    /// The provider acted, but not as it was asked.
    Review {
        /// What does not fit.
        failure: Failure,
        /// What it says that it credited.
        amount: Option<Money>,
        /// Its name for it.
        provider_ref: String,
    },
    /// Cancelled or reversed: no effect, and none will come.
    Undone(Failure),
    /// At work on it.
    Processing {
        /// Its id of the work, where that is proven.
        task: Option<String>,
        /// How long to wait.
        after: Option<Duration>,
        /// For people.
        answer: String,
    },
    /// Nothing was executed of this send, the first.
    NotExecuted {
        /// How long to wait.
        after: Option<Duration>,
        /// For people.
        answer: String,
        /// The token was refused.
        unauthorized: bool,
    },
    /// The provider takes no calls now; nothing follows for the redemption.
    Busy {
        /// How long to wait.
        after: Option<Duration>,
        /// For people.
        answer: String,
        /// The token was refused.
        unauthorized: bool,
    },
    /// The provider has seen the key: look it up.
    Duplicate {
        /// For people.
        answer: String,
    },
    /// It is not there. Not proof.
    NotFound {
        /// For people.
        answer: String,
    },
    /// An answer to the first send that may be to another request: look it up at once.
    Unproven {
        /// For people.
        answer: String,
    },
    /// It may have been executed or not.
    InDoubt {
        /// For people.
        answer: String,
    },
}

impl Proof {
    /// Its word in a case.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Review { .. } => "review",
            Self::Undone(_) => "undone",
            Self::Processing { .. } => "processing",
            Self::NotExecuted { unauthorized: true, .. }
            | Self::Busy { unauthorized: true, .. } => "unauthorized",
            Self::NotExecuted { .. } | Self::Busy { .. } => "not_executed",
            Self::Duplicate { .. } => "duplicate",
            Self::NotFound { .. } => "not_found",
            Self::Unproven { .. } | Self::InDoubt { .. } => "in_doubt",
        }
    }

    /// Whether it says what became of the redemption.
    pub fn is_definite(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Failed { .. } | Self::Undone(_))
    }
}
