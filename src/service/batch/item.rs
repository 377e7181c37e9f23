//! One item of a batch: its card's worth, an account for it, and its redemption.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use rand::RngExt as _;
use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    BatchItem, BatchOpen, Inner, Services,
    inquiry::{Worth, check_fit},
};
use crate::{
    admission::Caller,
    domain::{
        id::RequestId, lease::LeaseRef, pool::Pool, principal::RequestKey, selector::Selector,
    },
    service::{
        Error,
        acquire::{AcquireCommand, too_far_ahead},
        card::{
            MAX_LEASES, is_before_any_account, redeem_at_once, redeem_under, wants_another_account,
        },
        pools::check_currencies,
        redeem::{Card, RedeemCommand, Redeemed},
    },
};

/// The longest that `not_before` of an item may be from now.
const MAX_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest pause until it is seen again whether the provider takes calls.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// One item under way. Thousands may be, so what few of them need is in a box, and let go of after it.
pub(super) struct Item {
    pub(super) batch: Arc<Inner>,
    pub(super) open: Arc<BatchOpen>,
    pub(super) pool: Arc<Pool>,
    pub(super) resumed: bool,
    pub(super) client_gone: CancellationToken,
    /// How many items of the batch wait for the provider to take calls.
    pub(super) held_back: Arc<AtomicI64>,
    pub(super) item: BatchItem,
}

/// What is to be begun for an item.
struct Attempt {
    request: RequestKey,
    /// Of all that were begun for it, whenever the batch was open, counted from 1.
    number: i32,
    /// It was looked for what stands for it, while its provider takes no calls.
    is_looked_for: bool,
}

impl Item {
    pub(super) async fn run(&self) -> Result<Redeemed, Error> {
        let item = &self.item;
        check_currencies(
            &self.pool,
            [
                ("item.expected", item.expected),
                ("item.selector.min_headroom", item.selection.min_headroom),
                ("item.selector.expected", item.selection.expected),
            ],
        )?;
        let request = RequestKey::new(
            self.open.by.principal.clone(),
            RequestId::of_item(&self.open.batch_id, &item.item_id),
        );
        let mut attempt = Box::new(Attempt { request, number: 1, is_looked_for: false });
        if self.resumed
            && let Some(found) = Box::pin(self.find(&attempt)).await?
        {
            if !found.redemption.is_retryable() {
                return Ok(found);
            }
            attempt.number = found.redemption.attempt + 1;
        }
        if let Some(time) = item.not_before {
            Box::pin(self.wait_until(time)).await?;
        }
        let mut leases = 0;
        let worth = match Box::pin(self.worth(&mut leases)).await {
            Err(error) if !self.client_gone.is_cancelled() => {
                return Box::pin(self.refused(&attempt, error)).await;
            }
            worth => worth?,
        };
        loop {
            let outcome = self.redeemed(&mut attempt, worth.as_ref()).await;
            let pause = match &outcome {
                Err(error) => self.pause_before_next(error, &mut leases),
                Ok(_) => None,
            };
            let Some(pause) = pause else { return outcome };
            drop(outcome);
            self.pause(pause).await?;
        }
    }

    /// Waits for the time before which the item is not to be begun.
    async fn wait_until(&self, time: OffsetDateTime) -> Result<(), Error> {
        let pause = self.batch.services.store.time_until(time).await?;
        if pause > MAX_AHEAD {
            return Err(too_far_ahead("item.not_before", MAX_AHEAD));
        }
        self.sleep(pause).await
    }

    /// What the card is worth, of an item that does not say, where the provider can be asked.
    async fn worth(&self, leases: &mut u32) -> Result<Option<Worth>, Error> {
        if self.item.expected.is_some() {
            return Ok(None);
        }
        loop {
            let error = match self.inquire().await {
                Err(error) => error,
                worth => return worth,
            };
            let Some(pause) = self.pause_before_next(&error, leases) else { return Err(error) };
            self.pause(pause).await?;
        }
    }

    /// Locks an account, and redeems the card under it.
    async fn redeemed(
        &self,
        attempt: &mut Attempt,
        worth: Option<&Worth>,
    ) -> Result<Redeemed, Error> {
        // Waits for a permit: an item is not refused for want of one, it slows its stream.
        let admit = self.batch.services.store.overload().admit_item(self.open.pool_id.as_str());
        let admitted = self.batch.closing.run_until_cancelled(admit).await;
        let caller = Caller::new(admitted.ok_or(Error::ShuttingDown)?, None);
        let mut card = Box::new(self.card(&caller, attempt, worth));
        match Box::pin(self.redeem_at_once(&caller, worth, &mut card)).await {
            Ok(None) => {}
            Err(error) => return Box::pin(self.not_begun(attempt, error)).await,
            Ok(Some(redeemed)) => return Ok(redeemed),
        }
        Box::pin(self.redeemed_under_a_lease(attempt, worth, *card)).await
    }

    /// The same where no account is free at once.
    async fn redeemed_under_a_lease(
        &self,
        attempt: &mut Attempt,
        worth: Option<&Worth>,
        card: Card,
    ) -> Result<Redeemed, Error> {
        match Box::pin(self.acquire(&card.caller, worth)).await {
            Err(error) => self.not_begun(attempt, error).await,
            Ok(lease) => self.redeem(lease, card).await,
        }
    }

    /// What an item is answered with for which no account was leased.
    async fn not_begun(&self, attempt: &mut Attempt, error: Error) -> Result<Redeemed, Error> {
        if !is_before_any_account(&error) {
            return Err(error);
        }
        // It may have been sent twice, and the first one was begun. Thousands may be held back by one provider: for each
        // it is looked once.
        let is_held_back = matches!(error, Error::ProviderUnavailable { .. });
        if is_held_back && std::mem::replace(&mut attempt.is_looked_for, true) {
            return Err(error);
        }
        Box::pin(self.find(attempt)).await?.ok_or(error)
    }

    /// Where an account is free now its lease and the redemption begin in one change.
    async fn redeem_at_once(
        &self,
        caller: &Caller,
        worth: Option<&Worth>,
        card: &mut Card,
    ) -> Result<Option<Redeemed>, Error> {
        let is_over = self.client_gone.is_cancelled() || self.batch.closing.is_cancelled();
        if is_over {
            return Ok(None);
        }
        let Services { redeem, acquire, .. } = &self.batch.services;
        let asked = AcquireCommand { wait: Duration::ZERO, ..self.acquire_command(caller, worth) };
        redeem_at_once(redeem, acquire, asked, card).await
    }

    /// How long to wait until the item is tried again; `None`: it is not.
    fn pause_before_next(&self, error: &Error, leases: &mut u32) -> Option<Duration> {
        match error {
            error if wants_another_account(error) => {
                *leases += 1;
                (*leases < MAX_LEASES).then_some(Duration::ZERO)
            }
            // The provider takes no calls now, which holds the whole batch back for as long as its client stays.
            Error::ProviderUnavailable { retry_after: Some(after), .. } => {
                // Those who wait for the same are not to come back together.
                let pause = (*after).min(LONGEST_PAUSE);
                let pause = pause.mul_f64(rand::rng().random_range(1.0..1.5));
                (!self.client_gone.is_cancelled()).then_some(pause)
            }
            _ => None,
        }
    }

    async fn pause(&self, pause: Duration) -> Result<(), Error> {
        if pause.is_zero() {
            return Ok(());
        }
        self.held_back.fetch_add(1, Ordering::Relaxed);
        let paused = self.sleep(pause).await;
        self.held_back.fetch_sub(1, Ordering::Relaxed);
        paused
    }

    /// Sleeps, unless the client goes away or the server stops.
    async fn sleep(&self, pause: Duration) -> Result<(), Error> {
        tokio::select! {
            () = sleep(pause) => Ok(()),
            () = self.client_gone.cancelled() => Err(Error::Internal("the client has gone")),
            () = self.batch.closing.cancelled() => Err(Error::ShuttingDown),
        }
    }

    /// What was begun for the item before and stands for this attempt.
    async fn find(&self, attempt: &Attempt) -> Result<Option<Redeemed>, Error> {
        let Self { batch, open, item, .. } = self;
        let find =
            batch.services.redeem.find(&open.pool_id, &attempt.request, &item.code, item.expected);
        Ok(find.await?.filter(|found| found.redemption.stands_for(attempt.number)))
    }

    /// Asks what the card is worth. No account is locked meanwhile, and nobody asks on when the client goes away.
    async fn inquire(&self) -> Result<Option<Worth>, Error> {
        let Services { providers, inquiry, .. } = &self.batch.services;
        let provider = Box::pin(providers.of_pool(&self.pool)).await?;
        let worth = tokio::select! {
            worth = inquiry.ask(
                &provider, &self.open.pool_id, self.pool.currency, &self.item.code,
            ) => worth?,
            () = self.client_gone.cancelled() => return Err(Error::Internal("the client has gone")),
        };
        if let Some(worth) = &worth {
            let wanted = merged(&self.open.selection.selector, &self.item, None).country_code;
            check_fit(worth, self.pool.currency, wanted.as_deref())?;
        }
        Ok(worth)
    }

    /// The result of the item when the provider says that it will not do. The card may be spent because
    /// the item was sent twice, and the first one was begun; or because of another item.
    async fn refused(&self, attempt: &Attempt, error: Error) -> Result<Redeemed, Error> {
        if let Some(found) = self.find(attempt).await? {
            return Ok(found);
        }
        if !matches!(error, Error::CardNotRedeemable { .. }) {
            return Err(error);
        }
        let Self { batch, open, item, .. } = self;
        let in_use = batch.services.redeem.in_use(&open.pool_id, &item.code, &open.by).await?;
        Err(in_use.unwrap_or(error))
    }

    fn acquire_command(&self, caller: &Caller, worth: Option<&Worth>) -> AcquireCommand {
        AcquireCommand {
            // A new request each time: the item's own name stands for its redemption.
            request_id: RequestId::random(),
            principal: self.open.by.principal.clone(),
            pool_id: self.open.pool_id.clone(),
            holder: self.open.holder.clone(),
            ttl: None,
            wait: self.open.item_timeout,
            selector: merged(&self.open.selection.selector, &self.item, worth),
            expected: self
                .item
                .expected
                .or(worth.map(|worth| worth.amount))
                .or(self.item.selection.expected)
                .or(self.open.selection.expected),
            min_headroom: None,
            priority: self.item.priority,
            not_before: None,
            caller: caller.clone(),
        }
    }

    /// Locks an account for the item, unless the client goes away first.
    async fn acquire(&self, caller: &Caller, worth: Option<&Worth>) -> Result<LeaseRef, Error> {
        let command = self.acquire_command(caller, worth);
        tokio::select! {
            acquired = self.batch.services.acquire.acquire(command) => {
                let account = acquired?.account;
                Ok(LeaseRef {
                    pool_id: account.pool_id,
                    account_id: account.account_id,
                    token: account.token,
                })
            }
            // Nothing was begun, and nobody would hear of it: the item waits for the next opening.
            () = self.client_gone.cancelled() => Err(Error::Internal("the client has gone")),
        }
    }

    fn card(&self, caller: &Caller, attempt: &Attempt, worth: Option<&Worth>) -> Card {
        let request = (attempt.request.request_id.clone(), attempt.number);
        let (code, by) = (self.item.code.clone(), Arc::clone(&self.open.by));
        let card = Card::new(request, code, self.item.expected, by, caller.clone());
        Card { learned: worth.map(|worth| worth.amount), ..card }
    }

    /// Redeems under the lease, which ends with the redemption, or at once when none was begun.
    async fn redeem(&self, lease: LeaseRef, card: Card) -> Result<Redeemed, Error> {
        let command = RedeemCommand { lease, release_on_completion: true, card };
        let Services { redeem, leases, .. } = &self.batch.services;
        redeem_under(redeem, leases, &command, (&self.client_gone, &self.batch.closing)).await
    }
}

/// The batch's selector, with the item's own in place of it field by field. The account must be of the
/// card's country, where neither of the two says which.
fn merged(batch: &Selector, item: &BatchItem, worth: Option<&Worth>) -> Selector {
    let own = &item.selection.selector;
    let country_code = own.country_code.clone().or_else(|| batch.country_code.clone());
    let card_country = worth.and_then(|worth| worth.country_code.clone());
    Selector {
        account_id: own.account_id.clone().or_else(|| batch.account_id.clone()),
        plan_id: own.plan_id.clone().or_else(|| batch.plan_id.clone()),
        card_country: card_country.filter(|_| country_code.is_none()),
        country_code,
        min_headroom_minor: own.min_headroom_minor.or(batch.min_headroom_minor),
        labels: if own.labels.is_empty() { batch.labels.clone() } else { own.labels.clone() },
        exclude: if own.exclude.is_empty() { batch.exclude.clone() } else { own.exclude.clone() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F: Future>(_: fn(A) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand items may wait for a slow provider, each in a task like this: see
    /// `docs/adr/0029-waiting-calls-use-little-memory.md`.
    #[test]
    fn an_item_that_waits_is_small() {
        let bytes = size_of::<Item>() + size(Item::run);
        assert!(bytes <= 1536, "{bytes} bytes");
    }
}
