//! Offers: cards whose redemptions are begun in one change with their leases, where an account is free now.
//!
//! What the lease does not need is made ready first: the permit to send, and the redemption as it is to be recorded.

use std::time::Duration;

use super::{Began, Card, Drawn, Inner, Redeem, Redeemed, Sending, own, refusal::code_in_use};
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
    /// or a pause, or is refused; redeemed under a lease it is told which. So it is where a permit that is not used would
    /// be missed by others.
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

    /// Sends what was recorded of an offer whose answer was lost, and waits for its outcome. `None`: nothing was.
    pub(in crate::service) async fn resume_offered(
        &self,
        pool_id: &PoolId,
        card: &Card,
    ) -> Result<Option<Redeemed>, Error> {
        self.0.resume_offered(pool_id, card).await
    }
}

impl Inner {
    async fn offer(&self, pool_id: &PoolId, card: &mut Card) -> Result<Option<Box<Offer>>, Error> {
        let Ok((currency, provider)) = self.provider_for(pool_id, card).await else {
            return Ok(None);
        };
        let profile = provider.profile();
        // Facts of an account are part of what is recorded. A key of which others may have a part is reserved for good.
        let needs_account = profile.names_account_facts() || !profile.identity.key.is_whole();
        if needs_account || !provider.gives_back_permits() {
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
        card.drawn = Some(Drawn { redemption_id: new.redemption_id, window });
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
        match self.began(begun, pool_id, card, (id, provider.limits())).await? {
            Ok(began) => Ok(Some(began)),
            Err(BeginRefusal::CodeInUse { redemption_id, request, state }) => {
                Err(code_in_use(Living { redemption_id, request, state }, &card.by))
            }
            Err(_) => Ok(None),
        }
    }

    async fn resume_offered(
        &self,
        pool_id: &PoolId,
        card: &Card,
    ) -> Result<Option<Redeemed>, Error> {
        let Some(drawn) = card.drawn else { return Ok(None) };
        let found = self.store.get_redemption(pool_id, drawn.redemption_id).await?;
        let Some(redemption) = found.map(Box::new) else { return Ok(None) };
        let (currency, provider) = self.provider_for(pool_id, card).await?;
        let began = own(redemption, card, provider.limits());
        let permit = match &began {
            Began::Before(_) => None,
            _ => Box::pin(provider.admit(drawn.window.left())).await.ok(),
        };
        let (facts, window) = (AccountFacts::default(), drawn.window);
        match (began, permit) {
            (began, Some(permit)) => {
                let sending = Sending { currency, provider: &provider, permit, facts, window };
                Ok(Some(self.send_begun(began, card, sending).await?))
            }
            // Another server takes it over, or has done so.
            (
                Began::Before(redemption) | Began::Now(redemption, _) | Began::Found(redemption, _),
                None,
            ) => {
                let redemption = Box::new(self.join(*redemption).await?);
                Ok(Some(Redeemed { redemption, replayed: true }))
            }
        }
    }
}
