//! Offers: cards whose redemptions are begun in one change with their leases, where an account is free now.
//!
//! What the lease does not need is made ready first: the permit to send, and the redemption as it is to be recorded.

use super::{Began, Card, Inner, Redeem, Redeemed, Sending, refusal::code_in_use};
use crate::{
    domain::{
        id::PoolId,
        money::Currency,
        redemption::{AccountFacts, BeginRefusal, Begun, CardToBegin, Living},
    },
    service::{
        Error,
        clock::Deadline,
        providers::{LimitedProvider, SendPermit, free},
    },
};
use std::time::Duration;

/// A card that may be sent as soon as it is recorded under a lease.
pub(in crate::service) struct Offer {
    currency: Currency,
    provider: LimitedProvider,
    permit: SendPermit,
    window: Deadline,
    to_begin: CardToBegin,
}

impl Offer {
    /// What is to be recorded with the lease.
    pub(in crate::service) fn to_begin(&self) -> CardToBegin {
        self.to_begin.clone()
    }
}

impl Redeem {
    /// Makes a card ready to be begun with its lease, which ends with the redemption. `None`: it takes an account first,
    /// or a pause, or is refused; whoever redeems it under a lease is told which.
    pub(in crate::service) async fn offer(
        &self,
        pool_id: &PoolId,
        card: &mut Card,
    ) -> Result<Option<Box<Offer>>, Error> {
        self.0.offer(pool_id, card).await
    }

    /// Sends what was begun of an offer, and waits for its outcome. `None`: nothing was begun, and nothing that is known
    /// speaks against it.
    pub(in crate::service) async fn redeem_offered(
        &self,
        offer: Box<Offer>,
        begun: Option<Begun>,
        pool_id: &PoolId,
        card: &Card,
    ) -> Result<Option<Redeemed>, Error> {
        self.0.redeem_offered(offer, begun, pool_id, card).await
    }
}

impl Inner {
    async fn offer(&self, pool_id: &PoolId, card: &mut Card) -> Result<Option<Box<Offer>>, Error> {
        let Ok((currency, provider)) = self.provider_for(pool_id, card).await else {
            return Ok(None);
        };
        // Facts of an account are part of what is recorded.
        if provider.profile().names_account_facts() {
            return Ok(None);
        }
        let Ok(permit) = provider.admit(Duration::ZERO).await else { return Ok(None) };
        // From before it is recorded: the server that takes over counts from then.
        let window = Deadline::after(provider.limits().send_window);
        let facts = AccountFacts::default();
        let new = match self.record_of(card, pool_id, true, &facts, &provider).await {
            Ok(new) => new,
            Err(error) => {
                free(permit.brake);
                return Err(error);
            }
        };
        card.redemption_id = Some(new.redemption_id);
        let to_begin = CardToBegin { new, limits: provider.limits().send() };
        Ok(Some(Box::new(Offer { currency, provider, permit, window, to_begin })))
    }

    async fn redeem_offered(
        &self,
        offer: Box<Offer>,
        begun: Option<Begun>,
        pool_id: &PoolId,
        card: &Card,
    ) -> Result<Option<Redeemed>, Error> {
        let Offer { currency, provider, permit, window, to_begin } = *offer;
        let began = match self.began_of_offer(begun, &to_begin, pool_id, card, &provider).await {
            Ok(Some(began)) => began,
            nothing => {
                free(permit.brake);
                return nothing.map(|_| None);
            }
        };
        let facts = AccountFacts::default();
        let sending = Sending { currency, provider: &provider, permit, facts, window };
        Ok(Some(self.send_begun(began, card, sending).await?))
    }

    async fn began_of_offer(
        &self,
        begun: Option<Begun>,
        to_begin: &CardToBegin,
        pool_id: &PoolId,
        card: &Card,
        provider: &LimitedProvider,
    ) -> Result<Option<Began>, Error> {
        let Some(begun) = begun else { return Ok(None) };
        let id = to_begin.new.redemption_id;
        match self.began(begun, id, pool_id, card, provider.limits()).await? {
            Ok(began) => Ok(Some(began)),
            Err(BeginRefusal::CodeInUse { redemption_id, request, state }) => {
                Err(code_in_use(Living { redemption_id, request, state }, &card.by))
            }
            Err(_) => Ok(None),
        }
    }
}
