//! `RedeemCard`: a card, an account that is picked for it, and its redemption, in one call. Items of batches share how
//! a card is redeemed under a lease that is its own.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Error,
    acquire::{Acquire, AcquireCommand, AtOnce},
    pools::{Pools, check_currencies},
    redeem::{Card, Redeem, RedeemCommand, Redeemed, Stopping},
    release::Leases,
};
use crate::{
    admission::{Caller, origin},
    domain::{
        id::{Holder, PoolId, RequestId},
        lease::LeaseRef,
        money::Money,
        principal::{Authority, RequestKey},
        redemption::CardCode,
        selector::Selector,
    },
};

/// How often a card whose account turned out not to be for it gets another.
pub(super) const MAX_LEASES: u32 = 3;

/// A card to redeem into an account that is picked for it.
#[derive(Clone, Debug)]
pub struct CardCommand {
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// The pool of the account.
    pub pool_id: PoolId,
    /// Who asks, by its own word.
    pub holder: Holder,
    /// The card.
    pub code: CardCode,
    /// What it should be worth.
    pub expected: Option<Money>,
    /// Which accounts may be picked.
    pub selector: Selector,
    /// In which currency the selector's headroom was given.
    pub min_headroom: Option<Money>,
    /// How long to wait for an account to be free.
    pub wait: Duration,
    /// A higher one is served first.
    pub priority: u8,
    /// Who calls, and what of others it may read.
    pub by: Arc<Authority>,
    /// The call: nothing is begun for one whose deadline has passed.
    pub caller: Caller,
}

/// The redeeming of cards in one call. Cheap to clone.
#[derive(Clone)]
pub struct Cards(Arc<Inner>);

struct Inner {
    pools: Pools,
    acquire: Acquire,
    redeem: Redeem,
    leases: Leases,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Cards {
    /// Cards over the services of leases and redemptions.
    pub fn new(
        pools: Pools,
        acquire: Acquire,
        redeem: Redeem,
        leases: Leases,
        Stopping { tasks, closing }: Stopping,
    ) -> Self {
        Self(Arc::new(Inner { pools, acquire, redeem, leases, tasks, closing }))
    }

    /// Redeems a card into an account that is picked for it. What was begun goes on when the caller does not wait; an
    /// account that was leased for it is free again.
    pub async fn redeem(&self, command: CardCommand) -> Result<Redeemed, Error> {
        let caller_gone = CancellationToken::new();
        let _guard = caller_gone.clone().drop_guard();
        let inner = Arc::clone(&self.0);
        let work = async move { inner.run(&command, &caller_gone).await };
        let work = self.0.tasks.spawn(origin::scope(origin::current(), work));
        work.await.unwrap_or(Err(Error::Internal("the card's task ended early")))
    }
}

impl Inner {
    async fn run(
        &self,
        command: &CardCommand,
        caller_gone: &CancellationToken,
    ) -> Result<Redeemed, Error> {
        let pool = self.pools.settings(&command.pool_id).await?;
        check_currencies(
            &pool,
            [("expected", command.expected), ("selector.min_headroom", command.min_headroom)],
        )?;
        let until = Instant::now() + command.wait;
        let mut card = card(command);
        let asked = acquire_command(command, Instant::now());
        let at_once = redeem_at_once(&self.redeem, &self.acquire, asked, &mut card).await;
        let refusal = match at_once {
            Ok(Some(redeemed)) => return Ok(redeemed),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        // It may have been sent before, and was begun then.
        if let Some(found) = self.find(command).await? {
            return Ok(found);
        }
        if let Some(error) = refusal {
            return Err(error);
        }
        let mut account = self.account(command, until, caller_gone).await;
        let mut leases = 1;
        loop {
            let lease = match account {
                // Another call may have begun it meanwhile.
                Err(error) if is_before_any_account(&error) => {
                    return self.find(command).await?.ok_or(error);
                }
                account => account?,
            };
            let asked = RedeemCommand { lease, release_on_completion: true, card: card.clone() };
            let stop = (caller_gone, &self.closing);
            let outcome = redeem_under(&self.redeem, &self.leases, &asked, stop).await;
            match &outcome {
                Err(error) if wants_another_account(error) && leases < MAX_LEASES => leases += 1,
                _ => return outcome,
            }
            account = self.account(command, until, caller_gone).await;
        }
    }

    /// Leases an account, unless the caller goes away first.
    async fn account(
        &self,
        command: &CardCommand,
        until: Instant,
        caller_gone: &CancellationToken,
    ) -> Result<LeaseRef, Error> {
        let acquire = self.acquire.acquire(acquire_command(command, until));
        let acquired = caller_gone.run_until_cancelled(acquire).await;
        let account = acquired.ok_or(Error::Internal("the client has gone"))??.account;
        Ok(LeaseRef {
            pool_id: account.pool_id,
            account_id: account.account_id,
            token: account.token,
        })
    }

    /// What an earlier call began for the request.
    async fn find(&self, command: &CardCommand) -> Result<Option<Redeemed>, Error> {
        let CardCommand { pool_id, code, expected, by, request_id, .. } = command;
        let request = RequestKey::new(by.principal.clone(), request_id.clone());
        self.redeem.find(pool_id, &request, code, *expected).await
    }
}

fn acquire_command(command: &CardCommand, until: Instant) -> AcquireCommand {
    AcquireCommand {
        // A new request each time: the card's own names its redemption.
        request_id: RequestId::random(),
        principal: command.by.principal.clone(),
        pool_id: command.pool_id.clone(),
        holder: command.holder.clone(),
        ttl: None,
        wait: until.saturating_duration_since(Instant::now()),
        selector: command.selector.clone(),
        expected: command.expected,
        min_headroom: command.min_headroom,
        priority: command.priority,
        not_before: None,
        caller: command.caller.clone(),
    }
}

fn card(command: &CardCommand) -> Card {
    let CardCommand { request_id, code, expected, by, caller, .. } = command.clone();
    Card::new((request_id, 1), code, expected, by, caller)
}

/// Redeems a card into an account that is free now: its lease and its redemption begin in one change. `None`: nothing was
/// begun, and an account is to be leased first. Ends when the outcome is known, whether or not the caller has gone.
pub(super) async fn redeem_at_once(
    redeem: &Redeem,
    acquire: &Acquire,
    asked: AcquireCommand,
    card: &mut Card,
) -> Result<Option<Redeemed>, Error> {
    let pool_id = asked.pool_id.clone();
    // A permit of the provider's that is not used may be one that others wait for.
    if acquire.is_short(&pool_id) {
        return Ok(None);
    }
    let Some(offer) = Box::pin(redeem.offer(&pool_id, card)).await? else { return Ok(None) };
    let begun = Box::pin(acquire.begin_at_once(asked, offer.to_begin())).await;
    let (begun, is_certain, refusal) = match begun {
        AtOnce::Begun(begun) => (Some(*begun), true, None),
        AtOnce::NotNow => (None, true, None),
        AtOnce::Refused(error) => (None, true, Some(error)),
        AtOnce::Unknown(error) => (None, false, error),
    };
    let redeemed = Box::pin(redeem.redeem_offered(offer, begun, &pool_id, card)).await?;
    if redeemed.is_some() {
        return Ok(redeemed);
    }
    if is_certain {
        // It is begun as if it had not been offered.
        card.drawn = None;
    } else if let Some(found) = Box::pin(redeem.resume_offered(&pool_id, card)).await? {
        return Ok(Some(found));
    }
    refusal.map_or(Ok(None), Err)
}

/// Redeems a card under a lease that was acquired for it, unless the caller has gone or the server is closing. The lease ends
/// with the redemption, or at once when none was begun under it.
pub(super) async fn redeem_under(
    redeem: &Redeem,
    leases: &Leases,
    command: &RedeemCommand,
    (caller_gone, closing): (&CancellationToken, &CancellationToken),
) -> Result<Redeemed, Error> {
    let outcome = match () {
        () if caller_gone.is_cancelled() => Err(Error::Internal("the client has gone")),
        () if closing.is_cancelled() => Err(Error::ShuttingDown),
        () => redeem.redeem_in_this_task(command).await,
    };
    let lease = &command.lease;
    let is_unused = outcome.as_ref().map_or(true, |redeemed| {
        redeemed.redemption.token != lease.token
            || redeemed.redemption.account_id != lease.account_id
    });
    if is_unused {
        let released = leases.release(lease.clone(), Authority::clone(&command.card.by));
        if let Err(error) = Box::pin(released).await {
            tracing::debug!(%error, "a card's unused lease was gone already");
        }
    }
    outcome
}

/// Whether a card was refused before any account was leased for it. The request may have been begun before.
pub(super) fn is_before_any_account(error: &Error) -> bool {
    matches!(
        error,
        Error::NoAccountAvailable { .. }
            | Error::PoolPaused(_)
            | Error::PoolDraining(_)
            | Error::ProviderUnavailable { .. }
    )
}

/// Whether the account that was picked is not what it was: its lease ran out, its plan was changed, it was paused.
pub(super) fn wants_another_account(error: &Error) -> bool {
    matches!(
        error,
        Error::LeaseLost { .. }
            | Error::AmountDoesNotFit { .. }
            | Error::AccountNotReady { .. }
            | Error::AccountPaused(..)
    )
}
