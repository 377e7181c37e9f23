//! `Redeem`: recorded, then sent, then settled.
//!
//! From the moment that it is recorded a redemption runs in a task that no caller who goes away
//! stops. No connection to the database is held while the provider is asked.

mod refusal;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::refusal::refused;
use super::{
    Error,
    clock::Deadline,
    pools::{Pools, check_currencies},
    settle::Settler,
};
use crate::{
    admission::{self, Caller},
    domain::{
        id::{PoolId, RedemptionId, RequestId},
        lease::LeaseRef,
        money::{Currency, Money},
        redemption::{
            Ask, Capabilities, CardCode, Failure, RedemptionState, Step, Verdict, reason,
        },
    },
    failpoints::{self, Guard},
    provider::{Call, Doubt, Provider},
    secret::SecretKey,
    store::{
        Store, StoreError,
        begin::{BeginRefusal, Begun, NewRedemption, SendLimits},
        outcome::Next,
        redemption::{Living, Redemption},
    },
};

/// How often a request that never left is sent again before the redemption fails.
const MAX_UNREACHABLE: i32 = 4;
/// How often a begin whose obstacle has gone is tried again.
const MAX_BEGINS: u32 = 5;
/// Until the reconciler's first check of a redemption that is left in doubt.
const FIRST_CHECK: Duration = Duration::from_millis(500);
/// How often a redemption that another server sends is read, while a caller waits for it.
const JOIN_POLL: Duration = Duration::from_millis(100);
/// The longest back-off beside what a provider asks for that is at work on a redemption.
const MAX_POLL_BACKOFF: Duration = Duration::from_secs(1);
/// What the provider is called in a code's fingerprint. One provider serves an installation.
pub(super) const PROVIDER_NAME: &str = "default";

/// How long redemptions may be sent, and who takes over then.
#[derive(Clone, Copy, Debug)]
pub struct RedeemLimits {
    /// How long a redemption may be sent, sent again and polled before it is left in doubt.
    pub send_window: Duration,
    /// How long after it was recorded the provider may begin.
    pub not_after: Duration,
    /// The longest that one call to the provider takes.
    pub call_timeout: Duration,
    /// What the provider can do for a redemption in doubt.
    pub provider: Capabilities,
}

impl RedeemLimits {
    fn send(&self) -> SendLimits {
        SendLimits { not_after: self.not_after, take_over: self.take_over() }
    }

    /// When nobody who is alive can still be at work on it: the last call has ended, and what it told
    /// has been recorded.
    fn take_over(&self) -> Duration {
        self.send_window + self.call_timeout + self.recording()
    }

    /// How long recording what a call told may take: as long as the call, and a second at least.
    fn recording(&self) -> Duration {
        self.call_timeout.max(Duration::from_secs(1))
    }

    /// How long the reconciler may begin calls about a redemption that it has claimed, and how long its claim
    /// lasts. That is two calls (the second begins in that time) and a record.
    pub(super) fn hold(&self) -> (Duration, Duration) {
        let act = self.call_timeout * 2;
        (act, act + self.call_timeout + self.recording())
    }
}

/// How a server that stops has to do with what is under way.
#[derive(Clone, Debug)]
pub struct Stopping {
    /// What it waits for.
    pub tasks: TaskTracker,
    /// Cancelled when it stops: what only waits for others ends then.
    pub closing: CancellationToken,
}

/// A card to redeem.
#[derive(Clone, Debug)]
pub struct RedeemCommand {
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// The lease on the account.
    pub lease: LeaseRef,
    /// The card.
    pub code: CardCode,
    /// What it should be worth.
    pub expected: Option<Money>,
    /// What the provider tells that it is worth, where nothing is expected: then this is, but it is no
    /// part of the request.
    pub learned: Option<Money>,
    /// Ends the lease when the outcome is known.
    pub release_on_completion: bool,
    /// Who asks: nothing is begun for one whose deadline has passed.
    pub caller: Caller,
}

impl RedeemCommand {
    fn expected_or_learned(&self) -> Option<Money> {
        self.expected.or(self.learned)
    }
}

/// A redemption as far as it is known.
#[derive(Clone, Debug)]
pub struct Redeemed {
    /// The redemption.
    pub redemption: Redemption,
    /// Whether an earlier call began it.
    pub replayed: bool,
}

/// The redeeming of cards. Cheap to clone.
#[derive(Clone)]
pub struct Redeem(Arc<Inner>);

struct Inner {
    store: Store,
    pools: Pools,
    provider: Provider,
    secret: Arc<SecretKey>,
    settler: Settler,
    limits: RedeemLimits,
    stopping: Stopping,
    /// The redemptions that this server is at work on, for callers who join.
    sends: Mutex<HashMap<RedemptionId, watch::Receiver<()>>>,
}

impl Redeem {
    /// Redeems over `provider`.
    pub fn new(
        store: Store,
        pools: Pools,
        provider: Provider,
        secret: Arc<SecretKey>,
        settler: Settler,
        limits: RedeemLimits,
        stopping: Stopping,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            pools,
            provider,
            secret,
            settler,
            limits,
            stopping,
            sends: Mutex::default(),
        }))
    }

    /// Redeems a card and waits until its outcome is known, or in doubt. The work goes on when the
    /// caller does not.
    pub async fn redeem(&self, command: RedeemCommand) -> Result<Redeemed, Error> {
        let inner = Arc::clone(&self.0);
        let work = self.0.stopping.tasks.spawn(async move { inner.run(command).await });
        work.await.unwrap_or(Err(Error::Internal("the redemption's task ended early")))
    }

    /// The same, for a caller whose own task goes on when others leave: it needs no second one.
    pub(super) async fn redeem_in_this_task(
        &self,
        command: RedeemCommand,
    ) -> Result<Redeemed, Error> {
        self.0.run(command).await
    }

    /// The redemption that stands for a request, once it is no longer being sent; `None` when the
    /// request was never begun.
    pub async fn find(
        &self,
        pool_id: &PoolId,
        request_id: &RequestId,
        code: &CardCode,
        expected: Option<Money>,
    ) -> Result<Option<Redeemed>, Error> {
        let found = self.0.store.get_redemption_by_request(pool_id, request_id).await?;
        let Some((redemption, fingerprint)) = found else { return Ok(None) };
        let same_code = fingerprint == self.0.secret.fingerprint(PROVIDER_NAME, code);
        check_same_request(&redemption, same_code, expected)?;
        Ok(Some(Redeemed { redemption: self.0.join(redemption).await?, replayed: true }))
    }

    /// Why the code cannot be redeemed in the pool, if it is being redeemed there, or was.
    pub async fn in_use(&self, pool_id: &PoolId, code: &CardCode) -> Result<Option<Error>, Error> {
        let fingerprint = self.0.secret.fingerprint(PROVIDER_NAME, code);
        let living = self.0.store.get_living_redemption(pool_id, &fingerprint).await?;
        Ok(living.map(|Living { redemption_id, request_id, state }| Error::CodeInUse {
            redemption_id,
            request_id,
            state,
        }))
    }
}

/// A request that was seen before must ask for the same.
fn check_same_request(
    redemption: &Redemption,
    same_code: bool,
    expected: Option<Money>,
) -> Result<(), Error> {
    let mut differ = Vec::new();
    if !same_code && failpoints::holds(Guard::SameRequest) {
        differ.push("code");
    }
    if redemption.requested_minor() != expected.map(|money| money.amount_minor) {
        differ.push("expected");
    }
    if differ.is_empty() {
        Ok(())
    } else {
        Err(Error::RequestIdReused { request_id: redemption.request_id.clone(), differ })
    }
}

/// What binds a code's ciphertext to its redemption.
pub(super) fn code_context(pool_id: &PoolId, id: RedemptionId) -> Vec<u8> {
    format!("{pool_id}/{id}").into_bytes()
}

/// A time as the provider gets it.
pub(super) fn rfc3339(at: OffsetDateTime) -> Result<String, Error> {
    at.format(&Rfc3339).map_err(|_| Error::Internal("a time past the year 9999"))
}

impl Inner {
    async fn run(&self, command: RedeemCommand) -> Result<Redeemed, Error> {
        // From before it is recorded: the server that takes over counts from then.
        let window = Deadline::after(self.limits.send_window);
        if command.caller.is_over() {
            admission::note_dropped("redeem");
            return Err(StoreError::DeadlinePassed.into());
        }
        let pool = self.pools.settings(&command.lease.pool_id).await?;
        check_currencies(&pool, [("expected", command.expected_or_learned())])?;
        let new = self.record_of(&command);
        let id = new.redemption_id;
        // What it takes is given back before the provider is waited for.
        let began = Box::pin(self.begin(new, &command)).await?;
        // What is waited for from here on is the provider.
        command.caller.step_aside();
        match began {
            Began::Now(redemption, not_after) => {
                let ask = ask(&command, id, pool.currency, not_after)?;
                let redemption = self.fly(&ask, &redemption, window).await?;
                Ok(Redeemed { redemption, replayed: false })
            }
            Began::Before(redemption) => {
                let redemption = Box::pin(self.join(*redemption)).await?;
                Ok(Redeemed { redemption, replayed: true })
            }
        }
    }

    fn record_of(&self, command: &RedeemCommand) -> NewRedemption {
        let redemption_id = RedemptionId::new();
        let context = code_context(&command.lease.pool_id, redemption_id);
        NewRedemption {
            redemption_id,
            lease: command.lease.clone(),
            request_id: command.request_id.clone(),
            release_on_completion: command.release_on_completion,
            code_fingerprint: self.secret.fingerprint(PROVIDER_NAME, &command.code),
            code_ciphertext: self.secret.encrypt(&context, &command.code),
            code_last4: command.code.last4().to_owned(),
            expected_minor: command.expected_or_learned().map(|money| money.amount_minor),
            expected_learned: command.expected.is_none() && command.learned.is_some(),
        }
    }

    /// Records the redemption, or finds the one that stands for the request already.
    async fn begin(&self, new: NewRedemption, command: &RedeemCommand) -> Result<Began, Error> {
        let id = new.redemption_id;
        let pool_id = &command.lease.pool_id;
        for _ in 0..MAX_BEGINS {
            match self.store.begin_for(&command.caller, new.clone(), self.limits.send()).await? {
                Begun::Recorded { redemption, not_after } => {
                    return Ok(Began::Now(redemption, not_after));
                }
                Begun::SameRequest { redemption_id, same_code } => {
                    let redemption = Box::pin(self.read(pool_id, redemption_id)).await?;
                    if redemption_id == id {
                        // Recorded by a statement whose reply was lost: it is this call's to send.
                        let not_after = redemption.created_at + self.limits.not_after;
                        return Ok(Began::Now(Box::new(redemption), not_after));
                    }
                    check_same_request(&redemption, same_code, command.expected)?;
                    return Ok(Began::Before(Box::new(redemption)));
                }
                Begun::Refused(BeginRefusal::TryAgain) => sleep(JOIN_POLL / 10).await,
                Begun::Refused(refusal) => return Err(refused(refusal, command)),
                Begun::Unreadable(error) => return Err(error.into()),
            }
        }
        Err(StoreError::Overloaded.into())
    }

    /// Asks the provider until the outcome is known, or the time to ask is over. Thousands may wait for
    /// an answer here, so what comes after it is in boxes.
    async fn fly(
        &self,
        ask: &Ask,
        redemption: &Redemption,
        window: Deadline,
    ) -> Result<Redemption, Error> {
        let _send = self.announce(ask.redemption_id);
        let holder = redemption.holder.as_str();
        let mut attempts = 1;
        let mut call = Call::Send;
        let mut step = if !window.has_passed() || !failpoints::holds(Guard::LateIsNotSent) {
            self.send(ask).await
        } else {
            attempts = 0;
            Step::InDoubt { answer: "the server stood still before it could be sent".to_owned() }
        };
        loop {
            match step {
                Step::Settle(verdict) => {
                    let conclude = self.settler.conclude(redemption, verdict, attempts, holder);
                    return Box::pin(conclude).await;
                }
                Step::SendAgain { failure, after } => {
                    let pause = pause(after, attempts);
                    let unreachable = failure.reason == reason::PROVIDER_UNREACHABLE;
                    let has_ended = unreachable && attempts >= MAX_UNREACHABLE;
                    if has_ended || !window.pause(pause).await {
                        let settled =
                            self.settler.fail_unsent(redemption, failure, attempts, holder);
                        return Box::pin(settled).await;
                    }
                    step = self.send(ask).await;
                }
                // Busy, as far as can be told: what it counts once may be sent again.
                Step::Busy { after, answer }
                    if call == Call::Send && self.limits.provider.deduplicates =>
                {
                    let pause = pause(after, attempts);
                    if window.pause(pause).await {
                        let answer = self.provider.send_again(ask).await;
                        step = self.provider.judge(ask, Call::Send, Doubt::InDoubt, &answer);
                    } else if !window.has_passed() && self.limits.provider.cancels {
                        (step, call) = (Box::pin(self.call_off(ask, answer)).await, Call::Cancel);
                    } else {
                        // By now somebody else may be at work on it.
                        step = Step::InDoubt { answer };
                        continue;
                    }
                }
                Step::LookUp { after, answer } | Step::Busy { after, answer } => {
                    let pause = poll_pause(after, attempts);
                    if !self.limits.provider.looks_up || !window.pause(pause).await {
                        step = Step::InDoubt { answer };
                        continue;
                    }
                    (step, call) = (self.look_up(ask).await, Call::LookUp);
                }
                Step::Unproven { answer } => {
                    if window.has_passed() || !self.limits.provider.looks_up {
                        step = Step::InDoubt { answer };
                        continue;
                    }
                    (step, call) = (self.look_up(ask).await, Call::LookUp);
                }
                Step::NotFound => {
                    let answer = "the provider does not know the key that it answered to before";
                    step = Step::InDoubt { answer: answer.to_owned() };
                    continue;
                }
                Step::InDoubt { answer } => {
                    let next = Next::Check { after: FIRST_CHECK, not_found: false, checks: 0 };
                    return Box::pin(self.settler.defer(redemption, answer, attempts, next)).await;
                }
            }
            attempts += 1;
        }
    }

    async fn send(&self, ask: &Ask) -> Step {
        let answer = self.provider.send(ask).await;
        self.provider.judge(ask, Call::Send, Doubt::FirstSend, &answer)
    }

    async fn look_up(&self, ask: &Ask) -> Step {
        let answer = self.provider.look_up(ask.redemption_id).await;
        self.provider.judge(ask, Call::LookUp, Doubt::InDoubt, &answer)
    }

    /// The outcome of a redemption for which the provider was too busy until the time to send was over. Cancelled
    /// by its key it is as if it had never been sent.
    async fn call_off(&self, ask: &Ask, busy: String) -> Step {
        let answer = self.provider.cancel(ask.redemption_id).await;
        match self.provider.judge(ask, Call::Cancel, Doubt::InDoubt, &answer) {
            Step::Settle(Verdict::Failed(failure)) if failure.reason == reason::CANCELLED => {
                let reason = reason::PROVIDER_BUSY.to_owned();
                let message = format!("{busy}; then {}", failure.message);
                Step::Settle(Verdict::Failed(Failure { reason, message, code_spent: false }))
            }
            settle @ Step::Settle(_) => settle,
            _ => Step::InDoubt { answer: busy },
        }
    }

    /// Lets callers join until the answer is dropped.
    fn announce(&self, id: RedemptionId) -> SendInProgress<'_> {
        let (finished, send) = watch::channel(());
        self.sends.lock().unwrap_or_else(PoisonError::into_inner).insert(id, send);
        SendInProgress { sends: &self.sends, id, _finished: finished }
    }

    /// Waits until the redemption is no longer being sent, here or by another server. A server that stops
    /// waits for what it sends itself, and no longer for what another sends. Then the answer is what is
    /// known of it.
    async fn join(&self, mut redemption: Redemption) -> Result<Redemption, Error> {
        let id = redemption.redemption_id;
        let deadline = Instant::now() + self.limits.take_over();
        if redemption.state == RedemptionState::Submitted {
            tracing::debug!(pool_id = %redemption.pool_id, redemption_id = %id, "joined");
        }
        while redemption.state == RedemptionState::Submitted && Instant::now() < deadline {
            let send = self.sends.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
            let read = match send {
                Some(mut finished) => {
                    // Ends with an error when the sender is dropped: then it has finished.
                    let _ = finished.changed().await;
                    Some(self.read(&redemption.pool_id, id).await)
                }
                None => {
                    let next = async {
                        sleep(JOIN_POLL).await;
                        self.read(&redemption.pool_id, id).await
                    };
                    self.stopping.closing.run_until_cancelled(next).await
                }
            };
            match read {
                Some(read) => redemption = read?,
                None => break,
            }
        }
        Ok(redemption)
    }

    /// Reads a redemption that is known to be there, waiting for the database if need be.
    async fn read(&self, pool_id: &PoolId, id: RedemptionId) -> Result<Redemption, Error> {
        let deadline = Instant::now() + self.limits.take_over();
        let found = loop {
            match self.store.get_redemption(pool_id, id).await {
                Err(StoreError::Unavailable(_)) if Instant::now() < deadline => {
                    sleep(JOIN_POLL).await;
                }
                answered => break answered?,
            }
        };
        found.ok_or_else(|| Error::RedemptionNotFound(pool_id.clone(), id.to_string()))
    }
}

enum Began {
    /// By this call: it is to be sent, and the provider is not to begin after the time.
    Now(Box<Redemption>, OffsetDateTime),
    /// By an earlier call.
    Before(Box<Redemption>),
}

/// A redemption that this server is at work on, until dropped.
struct SendInProgress<'a> {
    sends: &'a Mutex<HashMap<RedemptionId, watch::Receiver<()>>>,
    id: RedemptionId,
    _finished: watch::Sender<()>,
}

impl Drop for SendInProgress<'_> {
    fn drop(&mut self) {
        self.sends.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

fn ask(
    command: &RedeemCommand,
    redemption_id: RedemptionId,
    currency: Currency,
    not_after: OffsetDateTime,
) -> Result<Ask, Error> {
    Ok(Ask {
        redemption_id,
        code: command.code.clone(),
        account_id: command.lease.account_id.clone(),
        expected: command.expected_or_learned(),
        currency,
        not_after: rfc3339(not_after)?,
    })
}

/// How long to wait before something is sent again. What the provider asks for is the least, so that one
/// that always asks for little is asked ever more rarely all the same.
fn pause(asked: Option<Duration>, attempts: i32) -> Duration {
    backoff(attempts).max(asked.unwrap_or_default())
}

/// The same before an outcome is looked up. A provider that says when wants to be asked then: the
/// back-off beside that stays short, so that the outcome does not wait for it.
fn poll_pause(asked: Option<Duration>, attempts: i32) -> Duration {
    match asked {
        Some(asked) => asked.max(backoff(attempts).min(MAX_POLL_BACKOFF)),
        None => backoff(attempts),
    }
}

/// 100 ms, 200 ms, 400 ms … at most 5 s.
fn backoff(attempts: i32) -> Duration {
    let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(10);
    Duration::from_millis(100).saturating_mul(1 << doublings).min(Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, B, F: Future>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// As many of these may wait as there are callers: see
    /// `docs/adr/0029-waiting-calls-use-little-memory.md`.
    #[test]
    fn a_redemption_that_waits_is_small() {
        let bytes = size::<&'static Inner, _, _>(Inner::run);
        assert!(bytes <= 3072, "{bytes} bytes");
    }
}
