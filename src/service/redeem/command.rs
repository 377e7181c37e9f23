//! What is to be redeemed, and what came of it.

use std::sync::Arc;

use crate::{
    admission::Caller,
    domain::{
        id::{RedemptionId, RequestId},
        lease::LeaseRef,
        money::Money,
        principal::{Authority, RequestKey},
        redemption::{CardCode, Redemption},
    },
    service::clock::Deadline,
};

/// A card to redeem under a lease.
#[derive(Clone, Debug)]
pub struct RedeemCommand {
    /// The lease on the account.
    pub lease: LeaseRef,
    /// Ends the lease when the outcome is known.
    pub release_on_completion: bool,
    /// The card.
    pub card: Card,
}

/// A card to redeem.
#[derive(Clone, Debug)]
pub struct Card {
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// Which attempt of the request it is, counted from 1. What an earlier one began does not stand for it.
    pub attempt: i32,
    /// What was drawn for it already, where it was offered for an account that is free.
    pub(in crate::service) drawn: Option<Drawn>,
    /// What is on it.
    pub code: CardCode,
    /// What it should be worth.
    pub expected: Option<Money>,
    /// What the provider tells that it is worth, where nothing is expected: then this is, but it is no
    /// part of the request.
    pub learned: Option<Money>,
    /// Who calls, and what of others it may read.
    pub by: Arc<Authority>,
    /// The call: nothing is begun for one whose deadline has passed.
    pub caller: Caller,
}

/// The redemption of a card that was offered for an account that is free. Whatever way the card goes then, it keeps it.
#[derive(Clone, Copy, Debug)]
pub(in crate::service) struct Drawn {
    pub(super) redemption_id: RedemptionId,
    /// Until when it may be sent, from before it could be recorded.
    pub(super) window: Deadline,
}

impl Card {
    /// A card of this request. `attempt`: see [`Self::attempt`].
    pub fn new(
        (request_id, attempt): (RequestId, i32),
        code: CardCode,
        expected: Option<Money>,
        by: Arc<Authority>,
        caller: Caller,
    ) -> Self {
        Self { request_id, attempt, drawn: None, code, expected, learned: None, by, caller }
    }

    /// Which request it is.
    pub(super) fn request(&self) -> RequestKey {
        RequestKey::new(self.by.principal.clone(), self.request_id.clone())
    }

    pub(super) fn expected_or_learned(&self) -> Option<Money> {
        self.expected.or(self.learned)
    }
}

/// A redemption as far as it is known.
#[derive(Clone, Debug)]
pub struct Redeemed {
    /// The redemption. Boxed, because the calls and items that wait each keep room for one.
    pub redemption: Box<Redemption>,
    /// Whether an earlier call began it.
    pub replayed: bool,
}
