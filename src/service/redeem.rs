//! `Redeem`: recorded, then sent, then settled.
//!
//! From the moment that it is recorded a redemption runs in a task that no caller who goes away
//! stops. No connection to the database is held while the provider is asked.

mod command;
mod join;
mod offer;
mod refusal;
pub(in crate::service) mod send;
pub mod settle;
mod window;

use std::{sync::Arc, time::Duration};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::command::{Card, RedeemCommand, Redeemed};
pub(super) use self::refusal::code_in_use;
use self::{command::Drawn, join::Sends, refusal::refused, settle::Settler};
use super::{
    Error,
    account_values::{NoValues, account_values},
    clock::Deadline,
    keys,
    pools::{Pools, check_currencies},
    providers::{LimitedProvider, Providers, SendPermit, brake_outcome, fingerprint_name, free},
};
use crate::{
    admission,
    domain::{
        id::{PoolId, ProviderId, RedemptionId},
        lease::LeaseRef,
        money::{Currency, Money},
        principal::{Authority, RequestKey},
        redemption::{
            AccountFacts, Ask, BeginRefusal, Begun, CardCode, Known, NewRedemption, RedeemLimits,
            Redemption, RedemptionState,
        },
        secret_key::Fingerprints,
    },
    failpoints::{self, Guard},
    secret::SecretKeys,
    store::Store,
};

/// How many ids are drawn for one whose key no other redemption has.
const MAX_KEYS: u32 = 10;
/// How often a begin whose obstacle has gone is tried again.
const MAX_BEGINS: u32 = 5;
/// The pause before that.
const RETRY: Duration = Duration::from_millis(10);
/// How a server that stops has to do with what is under way.
#[derive(Clone, Debug)]
pub struct Stopping {
    /// What it waits for.
    pub tasks: TaskTracker,
    /// Cancelled when it stops: what only waits for others ends then.
    pub closing: CancellationToken,
}

/// The redeeming of cards. Cheap to clone.
#[derive(Clone)]
pub struct Redeem(Arc<Inner>);

struct Inner {
    store: Store,
    pools: Pools,
    providers: Providers,
    secret: SecretKeys,
    settler: Settler,
    stopping: Stopping,
    /// The redemptions that this server is at work on, for callers who join.
    sends: Sends,
}

impl Redeem {
    /// Redeems over `providers`.
    pub fn new(
        store: Store,
        pools: Pools,
        providers: Providers,
        secret: SecretKeys,
        settler: Settler,
        stopping: Stopping,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            pools,
            providers,
            secret,
            settler,
            stopping,
            sends: Sends::default(),
        }))
    }

    /// Redeems a card and waits until its outcome is known, or in doubt. The work goes on when the
    /// caller does not.
    pub async fn redeem(&self, command: RedeemCommand) -> Result<Redeemed, Error> {
        let inner = Arc::clone(&self.0);
        let work = self.0.stopping.tasks.spawn(async move { inner.run(&command).await });
        work.await.unwrap_or(Err(Error::Internal("the redemption's task ended early")))
    }

    /// The same, for a caller whose own task goes on when others leave: it needs no second one.
    pub(super) async fn redeem_in_this_task(
        &self,
        command: &RedeemCommand,
    ) -> Result<Redeemed, Error> {
        self.0.run(command).await
    }

    /// Polls a redemption that this server sends at once, where it waits to poll. False: this server does not send it.
    pub(super) fn poll_now(&self, redemption_id: RedemptionId) -> bool {
        self.0.poll_now(redemption_id)
    }

    /// The redemption that stands for a request, once it is no longer being sent; `None` when the
    /// request was never begun. Of several attempts it is the newest.
    pub async fn find(
        &self,
        pool_id: &PoolId,
        request: &RequestKey,
        code: &CardCode,
        expected: Option<Money>,
    ) -> Result<Option<Redeemed>, Error> {
        self.0.find(pool_id, request, code, expected).await
    }

    /// Why the code cannot be redeemed in the pool, if it is being redeemed there, or was.
    pub async fn in_use(
        &self,
        pool_id: &PoolId,
        code: &CardCode,
        by: &Authority,
    ) -> Result<Option<Error>, Error> {
        let pool = self.0.pools.settings(pool_id).await?;
        let fingerprints = self.0.secret.fingerprints(fingerprint_name(&pool.provider_id), code);
        let living = self.0.store.get_living_redemption(&pool.pool_id, &fingerprints).await?;
        Ok(living.map(|living| code_in_use(living, by)))
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
    async fn run(&self, command: &RedeemCommand) -> Result<Redeemed, Error> {
        if command.card.caller.is_over() {
            admission::note_dropped("redeem");
            return Err(Error::DeadlinePassed);
        }
        let provider = self.provider_for(&command.lease.pool_id, &command.card);
        let (currency, provider) = match Box::pin(provider).await {
            Err(error @ Error::ProviderUnavailable { .. }) => {
                return Box::pin(self.begun_before(command)).await?.ok_or(error);
            }
            found => found?,
        };
        match Box::pin(self.admitted(&provider, command)).await? {
            // In a box: what only waits for its permit needs no room for it.
            Admitted::Now(permit) => {
                Box::pin(self.begin_and_send(command, currency, &provider, permit)).await
            }
            Admitted::Before(redeemed) => Ok(*redeemed),
        }
    }

    /// The pool's currency and its provider.
    async fn provider_for(
        &self,
        pool_id: &PoolId,
        card: &Card,
    ) -> Result<(Currency, LimitedProvider), Error> {
        let pool = self.pools.settings(pool_id).await?;
        check_currencies(&pool, [("expected", card.expected_or_learned())])?;
        Ok((pool.currency, self.providers.of_pool(&pool).await?))
    }

    /// Records what may be sent, sends it, and waits for its outcome.
    async fn begin_and_send(
        &self,
        command: &RedeemCommand,
        currency: Currency,
        provider: &LimitedProvider,
        permit: SendPermit,
    ) -> Result<Redeemed, Error> {
        // From before it is recorded: the server that takes over counts from then.
        let window = Deadline::after(provider.limits().send_window);
        let recorded = async {
            let facts = self.account_facts(&command.lease, provider).await?;
            let RedeemCommand { lease, release_on_completion: release, card } = command;
            let new = self.record_of(card, &lease.pool_id, *release, &facts, provider).await?;
            Ok::<_, Error>((self.begin(new, &facts, command, provider).await?, facts))
        };
        // What it takes is given back before the provider is waited for.
        let (began, facts) = match Box::pin(recorded).await {
            Ok(began) => began,
            Err(error) => {
                free(permit.brake);
                return Err(error);
            }
        };
        let sending = Sending { currency, provider, permit, facts, window };
        self.send_begun(began, &command.card, sending).await
    }

    /// Sends what was begun, and waits for its outcome; joins what was begun before.
    async fn send_begun(
        &self,
        began: Began,
        card: &Card,
        Sending { currency, provider, permit, facts, window }: Sending<'_>,
    ) -> Result<Redeemed, Error> {
        let SendPermit { call: permit, brake } = permit;
        // What is waited for from here on is the provider.
        card.caller.step_aside();
        // What was found may have been recorded long before this window began.
        let window = match (&began, card.drawn) {
            (Began::Found(..), Some(drawn)) => drawn.window.min(window),
            _ => window,
        };
        match began {
            Began::Now(redemption, not_after) | Began::Found(redemption, not_after) => {
                let ask = ask(card, &redemption, currency, facts, not_after)?;
                let redemption =
                    Box::pin(self.send_and_settle(provider, permit, ask, &redemption, window))
                        .await?;
                if let Some(brake) = brake {
                    let outcome = brake_outcome(&brake, &redemption);
                    brake.conclude(outcome);
                }
                Ok(Redeemed { redemption: Box::new(redemption), replayed: false })
            }
            Began::Before(redemption) => {
                drop(permit);
                free(brake);
                let redemption = Box::pin(self.join(*redemption)).await?;
                Ok(Redeemed { redemption: Box::new(redemption), replayed: true })
            }
        }
    }

    /// Waits until the redemption may be sent. What was begun before is told also while the provider wants no calls.
    async fn admitted(
        &self,
        provider: &LimitedProvider,
        command: &RedeemCommand,
    ) -> Result<Admitted, Error> {
        if let Some(admitted) = Box::pin(self.admitted_at_once(provider, command)).await? {
            return Ok(admitted);
        }
        // Others may work meanwhile.
        command.card.caller.step_aside();
        let permit = Box::pin(provider.admit(provider.limits().send_window)).await?;
        if command.card.caller.is_over() {
            free(permit.brake);
            admission::note_dropped("redeem");
            return Err(Error::DeadlinePassed);
        }
        Ok(Admitted::Now(permit))
    }

    /// The same without waiting. `None`: it may be sent before its window ends.
    async fn admitted_at_once(
        &self,
        provider: &LimitedProvider,
        command: &RedeemCommand,
    ) -> Result<Option<Admitted>, Error> {
        let held = match provider.admit(Duration::ZERO).await {
            Ok(permit) => return Ok(Some(Admitted::Now(permit))),
            Err(held @ (Error::ProviderUnavailable { .. } | Error::ShuttingDown)) => held,
            Err(error) => return Err(error),
        };
        if let Some(found) = self.begun_before(command).await? {
            return Ok(Some(Admitted::Before(Box::new(found))));
        }
        match held {
            Error::ProviderUnavailable { retry_after: Some(after), .. }
                if after <= provider.limits().send_window =>
            {
                Ok(None)
            }
            held => Err(held),
        }
    }

    async fn begun_before(&self, command: &RedeemCommand) -> Result<Option<Redeemed>, Error> {
        let RedeemCommand { lease, card, .. } = command;
        let found = self.find(&lease.pool_id, &card.request(), &card.code, card.expected).await?;
        Ok(found.filter(|found| found.redemption.stands_for(card.attempt)))
    }

    async fn find(
        &self,
        pool_id: &PoolId,
        request: &RequestKey,
        code: &CardCode,
        expected: Option<Money>,
    ) -> Result<Option<Redeemed>, Error> {
        let found = self.store.get_redemption_by_request(pool_id, request).await?;
        let Some((redemption, key, fingerprint)) = found else { return Ok(None) };
        let name = fingerprint_name(&redemption.profile.provider_id);
        let same_code = self.secret.fingerprints(name, code).is_of(key, &fingerprint);
        check_same_request(&redemption, same_code, expected)?;
        let redemption = Box::new(self.join(redemption).await?);
        Ok(Some(Redeemed { redemption, replayed: true }))
    }

    /// The redemption as it is to be recorded. Its key is no other redemption's.
    async fn record_of(
        &self,
        card: &Card,
        pool_id: &PoolId,
        release_on_completion: bool,
        facts: &AccountFacts,
        provider: &LimitedProvider,
    ) -> Result<NewRedemption, Error> {
        let redemption_id = match card.drawn {
            Some(drawn) => drawn.redemption_id,
            None => self.new_id(provider).await?,
        };
        let provider_id = &provider.version().provider_id;
        let (code_fingerprint, code_ciphertext) =
            self.sealed(&card.code, (pool_id, redemption_id), provider_id, facts);
        Ok(NewRedemption {
            redemption_id,
            request: card.request(),
            attempt: card.attempt,
            release_on_completion,
            code_fingerprint,
            code_ciphertext,
            code_last4: card.code.last4().to_owned(),
            expected_minor: card.expected_or_learned().map(|money| money.amount_minor),
            expected_learned: card.expected.is_none() && card.learned.is_some(),
            profile: provider.version().clone(),
        })
    }

    /// A code's fingerprints, and the code encrypted, by the keys of now.
    fn sealed(
        &self,
        code: &CardCode,
        (pool_id, redemption_id): (&PoolId, RedemptionId),
        provider_id: &ProviderId,
        facts: &AccountFacts,
    ) -> (Fingerprints, Vec<u8>) {
        // Of one time: the current key is the same for both.
        let keys = self.secret.now();
        let context = code_context(pool_id, redemption_id);
        let fingerprints = keys.fingerprints(fingerprint_name(provider_id), code);
        (fingerprints, keys.encrypt_with(&context, code, facts))
    }

    /// What of the account the provider's profile names, beside its id.
    async fn account_facts(
        &self,
        lease: &LeaseRef,
        provider: &LimitedProvider,
    ) -> Result<AccountFacts, Error> {
        if !provider.profile().names_account_facts() {
            return Ok(AccountFacts::default());
        }
        let LeaseRef { pool_id, account_id, .. } = lease;
        match account_values(&self.store, &self.secret, pool_id, account_id).await {
            Ok(facts) => Ok(facts),
            Err(NoValues::Store(error)) => Err(error.into()),
            Err(NoValues::NoAccount) => {
                Err(Error::AccountNotFound(pool_id.clone(), account_id.clone()))
            }
            Err(NoValues::Undecryptable) => {
                Err(Error::Internal("an account's stored credentials cannot be decrypted"))
            }
        }
    }

    /// A new id. One of which the provider's key has only a part is drawn until no other redemption has that key.
    async fn new_id(&self, provider: &LimitedProvider) -> Result<RedemptionId, Error> {
        let kind = provider.profile().identity.key;
        for _ in 0..MAX_KEYS {
            let id = RedemptionId::new();
            if kind.is_whole()
                || self.store.reserve_key(&provider.version().provider_id, &kind.of(id), id).await?
            {
                return Ok(id);
            }
        }
        Err(Error::Internal("no free key was found for the provider"))
    }

    /// Records the redemption, or finds the one that stands for the request already.
    async fn begin(
        &self,
        mut new: NewRedemption,
        facts: &AccountFacts,
        command: &RedeemCommand,
        provider: &LimitedProvider,
    ) -> Result<Began, Error> {
        let id = new.redemption_id;
        let limits = provider.limits();
        let RedeemCommand { lease, card, .. } = command;
        for _ in 0..MAX_BEGINS {
            match self.store.begin_for(&card.caller, lease, new.clone(), limits.send()).await? {
                Begun::Refused(BeginRefusal::TryAgain) => sleep(RETRY).await,
                Begun::Refused(BeginRefusal::OldKeys) => {
                    // One who was refused for the same reason may have read them already.
                    if self.secret.now().current() == new.code_fingerprint.current {
                        Box::pin(keys::catch_up(&self.store, &self.secret)).await?;
                    }
                    let provider_id = &provider.version().provider_id;
                    (new.code_fingerprint, new.code_ciphertext) =
                        self.sealed(&card.code, (&lease.pool_id, id), provider_id, facts);
                }
                begun => match self.began(begun, &lease.pool_id, card, (id, limits)).await? {
                    Ok(began) => return Ok(began),
                    Err(refusal) => return Err(refused(refusal, command)),
                },
            }
        }
        Err(Error::Overloaded)
    }

    /// What was begun for a request by its redemption of this id; the refusal where nothing was.
    async fn began(
        &self,
        begun: Begun,
        pool_id: &PoolId,
        card: &Card,
        (id, limits): (RedemptionId, &RedeemLimits),
    ) -> Result<Result<Began, BeginRefusal>, Error> {
        Ok(Ok(match begun {
            Begun::Recorded { redemption, not_after } => Began::Now(redemption, not_after),
            Begun::SameRequest { redemption_id, same_code } => {
                let redemption = Box::new(Box::pin(self.read(pool_id, redemption_id)).await?);
                if redemption_id == id {
                    // Recorded by a statement whose reply was lost.
                    return Ok(Ok(own(redemption, card, limits)));
                }
                check_same_request(&redemption, same_code, card.expected)?;
                Began::Before(redemption)
            }
            // An earlier attempt, which failed, was credited after all.
            Begun::Refused(BeginRefusal::CodeInUse { redemption_id, request, .. })
                if request == card.request() =>
            {
                Began::Before(Box::new(self.read(pool_id, redemption_id).await?))
            }
            Begun::Refused(refusal) => return Ok(Err(refusal)),
        }))
    }
}

/// Whether a redemption may be sent.
enum Admitted {
    /// Now.
    Now(SendPermit),
    /// It was begun by an earlier call.
    Before(Box<Redeemed>),
}

enum Began {
    /// By this call: it is to be sent, and the provider is not to begin after the time.
    Now(Box<Redemption>, OffsetDateTime),
    /// The same, by a statement of this call's whose reply was lost.
    Found(Box<Redemption>, OffsetDateTime),
    /// By an earlier call.
    Before(Box<Redemption>),
}

/// The redemption that was recorded for this very card: it is this call's to send, while it may be sent. After that,
/// another server may have taken it over.
fn own(redemption: Box<Redemption>, card: &Card, limits: &RedeemLimits) -> Began {
    let is_over = card.drawn.is_some_and(|drawn| drawn.window.has_passed());
    if is_over || redemption.state != RedemptionState::Submitted {
        return Began::Before(redemption);
    }
    let not_after = redemption.created_at + limits.not_after;
    Began::Found(redemption, not_after)
}

/// What it takes to send a redemption.
struct Sending<'a> {
    currency: Currency,
    provider: &'a LimitedProvider,
    permit: SendPermit,
    facts: AccountFacts,
    /// From before it was recorded.
    window: Deadline,
}

fn ask(
    card: &Card,
    redemption: &Redemption,
    currency: Currency,
    account: AccountFacts,
    not_after: OffsetDateTime,
) -> Result<Box<Ask>, Error> {
    Ok(Box::new(Ask {
        redemption_id: redemption.redemption_id,
        code: card.code.clone(),
        account_id: redemption.account_id.clone(),
        expected: card.expected_or_learned(),
        currency,
        not_after: rfc3339(not_after)?,
        account,
        known: Known::at_first(redemption.created_at),
    }))
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
        assert!(bytes <= 512, "{bytes} bytes");
    }
}
