//! `ReverseRedemption`: recorded, then asked for, then taken off the account.
//!
//! From the moment that it is recorded a reversal goes on whether or not the caller waits, and whatever becomes of the
//! server: [`background::reversals`](super::background::reversals) finishes it. No connection to the database is held
//! while the provider is asked.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::{
    Error,
    account_values::{NoValues, account_values},
    clock::Deadline,
    pools::Pools,
    providers::{LimitedProvider, Providers},
    words::{check_words, words_of},
};
use crate::{
    domain::{
        id::{PoolId, RedemptionId},
        money::Money,
        pool::Pool,
        principal::Authority,
        redemption::{
            AccountFacts, CannotReverse, NewReversal, Past, Redemption, Resolution, Reversal,
            ReversalAnswer, ReversalRefusal, ReversalRequest, ReversalState, ReversalStep,
        },
    },
    failpoints::{self, Guard},
    provider::Call,
    secret::SecretKeys,
    store::{
        Store, StoreError,
        reversal::{ReversalDeferral, Reversed, TakenBack},
    },
};

/// How long to wait before a record is tried again while there is no database: nothing else has what it holds.
const RETRY: Duration = Duration::from_millis(250);
/// Until the first check of a reversal whose outcome was not told.
const FIRST_CHECK: Duration = Duration::from_millis(500);
/// How often a request is compared anew with a redemption that has changed meanwhile.
const MAX_COMPARISONS: u32 = 5;

/// What a person wants to become of a success.
#[derive(Clone, Debug)]
pub struct ReverseCommand {
    /// The redemption's pool.
    pub pool_id: PoolId,
    /// The redemption.
    pub redemption_id: RedemptionId,
    /// Whether the provider is asked, or what it did is told.
    pub request: ReversalRequest,
    /// Who wants it, why, and by what evidence.
    pub words: Resolution,
    /// Who calls.
    pub by: Authority,
}

/// A redemption, and its newest reversal.
pub type WithReversal = (Redemption, Option<Reversal>);

/// The taking back of successes. Cheap to clone.
#[derive(Clone)]
pub struct Reversals(Arc<Inner>);

struct Inner {
    store: Store,
    pools: Pools,
    providers: Providers,
    secret: SecretKeys,
    tasks: TaskTracker,
}

impl Reversals {
    /// Takes back what is recorded in `store` by asking `providers`. A server that stops waits for `tasks`.
    pub fn new(
        store: Store,
        pools: Pools,
        providers: Providers,
        secret: SecretKeys,
        tasks: TaskTracker,
    ) -> Self {
        Self(Arc::new(Inner { store, pools, providers, secret, tasks }))
    }

    /// Reads the newest reversal of a redemption, if it can have one.
    pub async fn with_reversal(&self, redemption: Redemption) -> Result<WithReversal, Error> {
        let newest = match redemption.finished_at {
            Some(_) => {
                let id = redemption.redemption_id;
                self.0.store.newest_reversal(&redemption.pool_id, id).await?
            }
            None => None,
        };
        Ok((redemption, newest))
    }

    /// Takes a success back, or records a person's word about that. A caller that goes away does not stop it.
    pub async fn reverse(&self, command: ReverseCommand) -> Result<(Pool, WithReversal), Error> {
        let (this, pool_id) = (self.clone(), command.pool_id.clone());
        let done = self.0.tasks.spawn(async move { this.run(&command).await }).await;
        let read = done.map_err(|_| Error::Internal("a reversal's task ended early"))??;
        Ok((self.0.pools.settings(&pool_id).await?, read))
    }

    async fn run(&self, command: &ReverseCommand) -> Result<WithReversal, Error> {
        let (words, by) = (&command.words, &command.by);
        let mut seen = self.read(&command.pool_id, command.redemption_id).await?;
        check_words(&self.0.store, &self.0.secret, &seen.0, &words_of("reversed_by", words))
            .await?;
        for _ in 0..MAX_COMPARISONS {
            let (redemption, newest) = &seen;
            let provider = self.0.providers.pinned(redemption).await?;
            let means = provider.profile().reversal_means(redemption.provider_task.is_some());
            let step = command.request.step(redemption, newest.as_ref(), words, &means);
            let by_word = TakenBack {
                actor: words.resolved_by.clone(),
                answer: None,
                attempts: 0,
                resolution: Some(words.clone()),
                by: Some(by.clone()),
            };
            match (step.map_err(|why| refused(redemption, why))?, newest) {
                (ReversalStep::AsItIs, _) => return Ok(seen),
                (ReversalStep::Begin(number), _) => {
                    if self.begin(&provider, redemption, number, (words, by)).await? {
                        return self.read(&command.pool_id, command.redemption_id).await;
                    }
                }
                (ReversalStep::Note(number), _) => {
                    let state = ReversalState::NeedsReview;
                    let new = NewReversal { number, state, take_over: None };
                    if self.0.store.begin_reversal(redemption, &new, words, by).await? {
                        self.take_back_by_word(redemption, &by_word).await?;
                        return self.read(&command.pool_id, command.redemption_id).await;
                    }
                }
                (ReversalStep::Succeed, _) => {
                    self.take_back_by_word(redemption, &by_word).await?;
                    return self.read(&command.pool_id, command.redemption_id).await;
                }
                (ReversalStep::Fail, Some(open)) => {
                    let (pool_id, words) = (&redemption.pool_id, Some((words, by)));
                    if self.0.store.fail_reversal(pool_id, open, None, words).await? {
                        log_failed(redemption, open);
                        return self.read(&command.pool_id, command.redemption_id).await;
                    }
                }
                (ReversalStep::Fail, None) => {}
            }
            // More is known of it by now.
            seen = self.read(&command.pool_id, command.redemption_id).await?;
        }
        Err(Error::Overloaded)
    }

    /// Records a reversal, asks for it once, and records what that told. False: another one was recorded meanwhile.
    async fn begin(
        &self,
        provider: &LimitedProvider,
        redemption: &Redemption,
        number: i32,
        (words, by): (&Resolution, &Authority),
    ) -> Result<bool, Error> {
        self.check_balance(redemption).await?;
        let profile = &redemption.profile;
        let unusable = |why| Error::ProviderUnavailable {
            provider_id: profile.provider_id.clone(),
            why,
            retry_after: None,
        };
        if let Err(missing) = provider.secrets() {
            return Err(unusable(missing.join("; ")));
        }
        let past = self.past(redemption).await?.map_err(|why| unusable(why.to_string()))?;
        let limits = provider.limits();
        let take_over = Some(limits.take_over());
        let new = NewReversal { number, state: ReversalState::Requested, take_over };
        let window = Deadline::after(limits.send_window);
        let is_first = failpoints::holds(Guard::ReversalsAreRecordedFirst);
        if is_first && !self.0.store.begin_reversal(redemption, &new, words, by).await? {
            return Ok(false);
        }
        let answer = if !window.has_passed() || !failpoints::holds(Guard::LateIsNotSent) {
            provider.ask_past(Call::Reverse, &past, window.left()).await
        } else {
            // By now somebody else may be at work on it.
            ReversalAnswer::Unclear("the server stood still before it could be sent".to_owned())
        };
        if !is_first {
            self.0.store.begin_reversal(redemption, &new, words, by).await?;
        }
        let told = Told { number, checks: 0, attempts: 1, actor: &words.resolved_by, by: Some(by) };
        match answer {
            ReversalAnswer::NeverSent(why) => {
                let never = self.newest(redemption).await?.filter(|newest| {
                    newest.number == number && newest.state == ReversalState::Requested
                });
                let Some(never) = never else { return Ok(true) };
                let (pool_id, why) = (&redemption.pool_id, Some(why.as_str()));
                let fail = || self.0.store.fail_reversal(pool_id, &never, why, None);
                if until_written(fail).await? {
                    log_failed(redemption, &never);
                }
            }
            ReversalAnswer::Nothing(answer)
            | ReversalAnswer::Unclear(answer)
            | ReversalAnswer::Credited(answer) => {
                self.defer(redemption, &told, Some(FIRST_CHECK), answer).await?;
            }
            ReversalAnswer::Review(answer) => self.defer(redemption, &told, None, answer).await?,
            ReversalAnswer::Undone(answer) => self.take_back(redemption, &told, answer).await?,
        }
        Ok(true)
    }

    /// Refuses what would leave the account with less than nothing.
    async fn check_balance(&self, redemption: &Redemption) -> Result<(), Error> {
        let Redemption { pool_id, account_id, redemption_id, .. } = redemption;
        let account = self.0.store.get_account(pool_id, account_id).await?;
        let account =
            account.ok_or_else(|| Error::AccountNotFound(pool_id.clone(), account_id.clone()))?;
        match redemption.amount {
            Some(amount) if account.balance_minor < amount.amount_minor => {
                Err(Error::BalanceTooLow {
                    redemption_id: *redemption_id,
                    account_id: account_id.clone(),
                    balance_minor: account.balance_minor,
                    amount,
                })
            }
            _ => Ok(()),
        }
    }

    /// The redemption as its provider is asked about it. The inner error is why that is not possible.
    pub(super) async fn past(
        &self,
        redemption: &Redemption,
    ) -> Result<Result<Past, NoValues>, Error> {
        let Redemption { pool_id, account_id, .. } = redemption;
        let Some(amount) = redemption.amount else {
            return Err(Error::Internal("a success has no amount"));
        };
        let values = account_values(&self.0.store, &self.0.secret, pool_id, account_id).await;
        let account: AccountFacts = match values {
            Ok(account) => account,
            Err(NoValues::Store(error)) => return Err(error.into()),
            Err(why) => return Ok(Err(why)),
        };
        let currency = amount.currency;
        Ok(Ok(Past {
            redemption_id: redemption.redemption_id,
            account_id: account_id.clone(),
            account,
            expected: redemption
                .expected_minor
                .map(|amount_minor| Money { amount_minor, currency }),
            amount,
            provider_ref: redemption.provider_ref.clone(),
            task: redemption.provider_task.clone(),
            recorded_at: redemption.created_at,
        }))
    }

    /// Records that it was taken back, by evidence. Where the account has less, a person has to see to that first.
    pub(super) async fn take_back(
        &self,
        redemption: &Redemption,
        told: &Told<'_>,
        answer: String,
    ) -> Result<(), Error> {
        let taken = TakenBack {
            actor: told.actor.to_owned(),
            answer: Some(answer.clone()),
            attempts: told.attempts,
            resolution: None,
            by: told.by.cloned(),
        };
        match until_written(|| self.0.store.take_back(redemption, &taken)).await? {
            Reversed::Recorded(account) => log_reversed(redemption, account.balance_minor, &taken),
            Reversed::Already => {}
            Reversed::BalanceTooLow => {
                let answer = format!("{answer}; but the account has less than its amount");
                self.defer(redemption, told, None, answer).await?;
            }
        }
        Ok(())
    }

    async fn take_back_by_word(
        &self,
        redemption: &Redemption,
        taken: &TakenBack,
    ) -> Result<(), Error> {
        match self.0.store.take_back(redemption, taken).await? {
            Reversed::Recorded(account) => log_reversed(redemption, account.balance_minor, taken),
            Reversed::Already => {}
            Reversed::BalanceTooLow => {
                // Somebody else may have taken it back meanwhile.
                let (now, _) = self.read(&redemption.pool_id, redemption.redemption_id).await?;
                if now.reversed_at.is_none() {
                    self.check_balance(redemption).await?;
                    // It has been filled since: the same word again is recorded.
                    return Err(Error::Overloaded);
                }
            }
        }
        Ok(())
    }

    /// Records that the outcome is not known yet, or, without a time, is a person's to find.
    pub(super) async fn defer(
        &self,
        redemption: &Redemption,
        told: &Told<'_>,
        after: Option<Duration>,
        answer: String,
    ) -> Result<(), Error> {
        let Redemption { pool_id, redemption_id, .. } = redemption;
        let deferral =
            ReversalDeferral { after, answer, attempts: told.attempts, checks: told.checks };
        let of = (*redemption_id, told.number);
        let deferred =
            until_written(|| self.0.store.defer_reversal(pool_id, of, &deferral)).await?;
        if deferred {
            log_doubt(redemption, &deferral);
        }
        Ok(())
    }

    async fn read(&self, pool_id: &PoolId, id: RedemptionId) -> Result<WithReversal, Error> {
        let found = self.0.store.get_redemption(pool_id, id).await?;
        let missing = || Error::RedemptionNotFound(pool_id.clone(), id.to_string());
        self.with_reversal(found.ok_or_else(missing)?).await
    }

    async fn newest(&self, redemption: &Redemption) -> Result<Option<Reversal>, Error> {
        let Redemption { pool_id, redemption_id, .. } = redemption;
        until_written(|| self.0.store.newest_reversal(pool_id, *redemption_id)).await
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(super) fn providers(&self) -> &Providers {
        &self.0.providers
    }
}

/// Who was told what about which reversal.
pub(super) struct Told<'a> {
    /// Which of the redemption's.
    pub(super) number: i32,
    /// Checks up to this one.
    pub(super) checks: i32,
    /// Calls to the provider since the last record.
    pub(super) attempts: i32,
    /// In the account's event.
    pub(super) actor: &'a str,
    /// Who calls, where a person does.
    pub(super) by: Option<&'a Authority>,
}

/// Tries until it is written, or refused for good: nothing else has what it holds.
async fn until_written<T, F: Future<Output = Result<T, StoreError>>>(
    write: impl Fn() -> F,
) -> Result<T, Error> {
    loop {
        match write().await {
            Err(StoreError::Unavailable(_) | StoreError::Overloaded) => sleep(RETRY).await,
            answered => return Ok(answered?),
        }
    }
}

fn refused(redemption: &Redemption, why: ReversalRefusal) -> Error {
    if let ReversalRefusal::Unsupported(CannotReverse::NoOp | CannotReverse::NeedsCode) = why {
        tracing::debug!(redemption_id = %redemption.redemption_id, profile = %redemption.profile, "no reversal can be asked for");
    }
    let profile = redemption.profile.clone();
    Error::ReversalRefused { redemption_id: redemption.redemption_id, why, profile }
}

fn count(state: ReversalState) {
    metrics::counter!("holdfast_reversals_total", "state" => state.as_str()).increment(1);
}

fn log_reversed(redemption: &Redemption, balance_minor: i64, taken: &TakenBack) {
    count(ReversalState::Succeeded);
    tracing::warn!(
        pool_id = %redemption.pool_id,
        account_id = %redemption.account_id,
        redemption_id = %redemption.redemption_id,
        amount_minor = redemption.amount.map(|amount| amount.amount_minor),
        balance_minor,
        by = taken.actor,
        "reversed: what was redeemed is taken off the account"
    );
}

fn log_failed(redemption: &Redemption, reversal: &Reversal) {
    count(ReversalState::Failed);
    tracing::warn!(
        pool_id = %redemption.pool_id,
        redemption_id = %redemption.redemption_id,
        number = reversal.number,
        "a reversal had no effect: the account keeps what was redeemed"
    );
}

fn log_doubt(redemption: &Redemption, deferral: &ReversalDeferral) {
    let Redemption { pool_id, redemption_id, .. } = redemption;
    let answer = &deferral.answer;
    if deferral.after.is_some() {
        count(ReversalState::InDoubt);
        tracing::warn!(%pool_id, %redemption_id, answer, "a reversal is in doubt");
    } else {
        count(ReversalState::NeedsReview);
        tracing::error!(
            %pool_id, %redemption_id, answer,
            "a reversal needs review: the account keeps the amount until a person says whether it was taken back"
        );
    }
}
