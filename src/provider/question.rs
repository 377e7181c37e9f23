//! Questions that change nothing: what a card is worth, and what became of redemptions, for an audit.

use std::time::Duration;

use time::OffsetDateTime;

use crate::domain::{id::RedemptionId, money::Money};

/// Why a question that changes nothing has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No request left.
    #[error("the provider could not be reached: {0}")]
    NeverSent(String),
    /// No whole answer came back.
    #[error("the provider's answer was lost: {0}")]
    Lost(String),
    /// The provider takes no questions now.
    #[error("the provider answered HTTP {status}")]
    Busy {
        /// The status code.
        status: u16,
        /// When it wants to be asked again, if it says so.
        after: Option<Duration>,
    },
    /// An answer that the profile does not have for this question.
    #[error("the provider answered HTTP {0}")]
    Status(u16),
    /// A body that is not the profile's: which fields are wrong, and why. What it says is left out: it
    /// may repeat a code.
    #[error("the provider answered with a body that is not its profile's: {0}")]
    Malformed(String),
}

/// What a card is worth, as the provider says without redeeming it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Card {
    /// It could be redeemed now.
    Redeemable {
        /// Its value.
        amount: Money,
        /// ISO 3166-1 alpha-2, where the provider says one: two upper-case letters.
        country_code: Option<String>,
    },
    /// It could not, or there is nothing on it.
    NotRedeemable,
}

/// What the provider says of a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// The card was credited.
    Succeeded,
    /// It was not.
    Failed,
    /// It was not, and will not be.
    Cancelled,
    /// The provider is at work on it.
    Processing,
    /// Nothing that its profile understands.
    Unknown,
}

/// A redemption as the provider tells of it. The text of a failure is left out: it may repeat a code that
/// nobody who audits knows, and so nobody could remove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The key that it was asked for by.
    pub key: String,
    /// What became of it.
    pub said: Said,
    /// The provider's own name for it; `None` where its profile takes none here.
    pub provider_ref: Option<String>,
    /// What was credited, in the currency's minor unit; of a success, always there.
    pub amount_minor: Option<i64>,
    /// ISO 4217; `None` where it is not told: then it is the pool's.
    pub currency_code: Option<String>,
    /// The account that was credited, where it is told.
    pub account_ref: Option<String>,
    /// When it happened, where that is told.
    pub at: Option<OffsetDateTime>,
}

/// A page of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// In the provider's order.
    pub redemptions: Vec<Listed>,
    /// How many elements tell no key: somebody else made them.
    pub without_key: usize,
    /// Asks for the page after this one; `None` on the last.
    pub next: Option<String>,
}

/// A redemption of ours that the provider is asked about.
#[derive(Clone, Debug)]
pub struct About {
    /// Its id.
    pub id: RedemptionId,
    /// The provider's id of its work, where it told one.
    pub task: Option<String>,
    /// The provider's name for it, where it told one.
    pub reference: Option<String>,
    /// The account.
    pub account: String,
    /// What was expected.
    pub expected: Option<Money>,
}
