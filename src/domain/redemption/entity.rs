//! A redemption, as it is stored.

use time::OffsetDateTime;

use super::{Failure, RedemptionState};
use crate::domain::{
    failure::is_about_the_card,
    id::{AccountId, FencingToken, Holder, PlanId, PoolId, RedemptionId, RequestId},
    money::Money,
    principal::{Principal, RequestKey},
    provider::ProfileVersion,
};

/// How the last answer of a redemption begins that was recorded as failed before the provider credited it.
pub const OVERTURNED: &str = "recorded as FAILED before";

/// A redemption, as it is stored. Without its code.
#[derive(Clone, Debug)]
pub struct Redemption {
    /// Its name, and the provider's idempotency key.
    pub redemption_id: RedemptionId,
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// Which attempt of the request, counted from 1: those before it failed, and their card was not spent.
    pub attempt: i32,
    /// Who began it, as authentication found it.
    pub principal: Principal,
    /// Its pool.
    pub pool_id: PoolId,
    /// The account that the card was redeemed into.
    pub account_id: AccountId,
    /// The token of the lease that began it.
    pub token: FencingToken,
    /// Who held that lease, by its own word.
    pub holder: Holder,
    /// What is known of its outcome.
    pub state: RedemptionState,
    /// The last characters of its code.
    pub code_last4: String,
    /// The amount that was expected, in minor units of the pool's currency.
    pub expected_minor: Option<i64>,
    /// The provider told that amount before the redemption was begun, and nobody asked for it.
    pub expected_learned: bool,
    /// Its lease ends when the outcome is known.
    pub release_on_completion: bool,
    /// The plan of its account, and the day, when it began.
    pub begun_on: Option<(PlanId, i32)>,
    /// What the provider says that it credited.
    pub amount: Option<Money>,
    /// The provider's own name for it.
    pub provider_ref: Option<String>,
    /// The version of the provider's profile that it was begun under.
    pub profile: ProfileVersion,
    /// The provider's id of its work, where it tells one.
    pub provider_task: Option<String>,
    /// Why it failed or needs review.
    pub failure: Option<Failure>,
    /// Who closed it, and why, if a person did.
    pub resolution: Option<Resolution>,
    /// How many of its resolutions were corrected: the one that counts is the next.
    pub superseded: i32,
    /// Calls to the provider about it.
    pub attempts: i32,
    /// The provider's last answer, while the outcome was not known.
    pub last_answer: Option<String>,
    /// When the reconciler checks it next.
    pub next_check_at: Option<OffsetDateTime>,
    /// When it was recorded.
    pub created_at: OffsetDateTime,
    /// When its outcome was recorded.
    pub finished_at: Option<OffsetDateTime>,
    /// When a success was taken back.
    pub reversed_at: Option<OffsetDateTime>,
}

impl Redemption {
    /// The amount that the caller named, in minor units: a learned one is no part of the request.
    pub fn requested_minor(&self) -> Option<i64> {
        self.expected_minor.filter(|_| !self.expected_learned)
    }

    /// What it brought, in minor units, as far as it is known.
    pub fn credited_minor(&self) -> i64 {
        let amount = self.amount.filter(|_| self.state == RedemptionState::Succeeded);
        amount.map_or(0, |amount| amount.amount_minor)
    }

    /// Whether a person's word is what its outcome rests on: no evidence of the provider's has overturned that since.
    pub fn is_settled_by_word(&self) -> bool {
        let is_overturned =
            self.last_answer.as_ref().is_some_and(|answer| answer.starts_with(OVERTURNED));
        !self.state.is_open() && self.resolution.is_some() && !is_overturned
    }

    /// Which of its resolutions counts, counted from 1; 0 where nobody resolved it.
    pub fn resolution_number(&self) -> i32 {
        if self.resolution.is_some() { self.superseded.saturating_add(1) } else { 0 }
    }

    /// Whether its card should be redeemed again: it failed, its code is not spent, and the failure is not the card's.
    pub fn is_retryable(&self) -> bool {
        let is_retryable =
            |failure: &Failure| !is_about_the_card(&failure.reason, failure.code_spent);
        self.state == RedemptionState::Failed && self.failure.as_ref().is_some_and(is_retryable)
    }

    /// Whether it stands for an attempt of its request: it is that one or a later one, or an earlier one that did not fail
    /// after all.
    pub fn stands_for(&self, attempt: i32) -> bool {
        self.attempt >= attempt || self.state != RedemptionState::Failed
    }

    /// Whether the provider credited another amount than the one that was expected.
    pub fn has_amount_mismatch(&self) -> bool {
        matches!(self.state, RedemptionState::Succeeded | RedemptionState::NeedsReview)
            && self.expected_minor.is_some_and(|expected| {
                self.amount.is_some_and(|amount| amount.amount_minor != expected)
            })
    }
}

/// A person's word about a redemption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Who, by its own word.
    pub resolved_by: String,
    /// Who, as authentication found it.
    pub principal: Principal,
    /// Why.
    pub reason: String,
    /// The evidence of that person, where it is named.
    pub evidence: Option<String>,
}

/// A person's word that another one took the place of.
#[derive(Clone, Debug)]
pub struct SupersededResolution {
    /// Which of the redemption's resolutions it was, counted from 1.
    pub number: i32,
    /// The outcome that it had recorded.
    pub state: RedemptionState,
    /// What it said was credited.
    pub amount: Option<Money>,
    /// Whether it said that the code is spent.
    pub code_spent: bool,
    /// Who, and why.
    pub resolution: Resolution,
    /// When it was recorded.
    pub finished_at: OffsetDateTime,
    /// When the next one was.
    pub superseded_at: OffsetDateTime,
}

/// A redemption that has a code: its outcome is not known, or it is a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Living {
    /// Its name.
    pub redemption_id: RedemptionId,
    /// The caller's name for the request, and whose it is.
    pub request: RequestKey,
    /// What is known of its outcome.
    pub state: RedemptionState,
}
