//! The reconciler: settles redemptions whose outcome is not known.
//!
//! It takes recovery actions, which [`Capabilities`] chooses. First the provider is asked what became of the
//! redemption. Not being found is not proof that nothing happened. So the same bytes are sent again while the provider
//! counts a key once. After that the key is cancelled, or what was done is taken back. What the provider cannot do is
//! left out. Checks go on while they can find out more; then a person has to review. Age alone never makes a failure.
//!
//! The rows have when their check is due, so any server may check them.

pub mod takeover;

use std::{sync::Arc, time::Duration};

use rand::RngExt as _;
use time::OffsetDateTime;
use tokio::{
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{
        id::PoolId,
        money::Money,
        redemption::{
            Action, Ask, Capabilities, Doubtful, DueCheck, Failure, Known, LookUp, Next,
            RedeemLimits, Redemption, Step, Told, reason,
        },
    },
    provider::{Call, Doubt},
    secret::SecretKeys,
    service::{
        Error,
        clock::Deadline,
        poll::PollWindow,
        pools::Pools,
        providers::Providers,
        redeem::{code_context, rfc3339, send::keep_task, settle::Settler},
    },
    store::Store,
};

/// Who settles, in the accounts' events.
const ACTOR: &str = "reconciler";
/// The most redemptions that are taken at once.
const BATCH: usize = 32;
/// The most that are checked at once.
const AT_ONCE: usize = 128;

/// The reconciler of one server.
#[derive(Clone)]
pub struct Reconciler {
    store: Store,
    pools: Pools,
    providers: Providers,
    secret: SecretKeys,
    settler: Settler,
    /// One permit for each check at a time.
    checking: Arc<Semaphore>,
}

impl Reconciler {
    /// Settles what is in doubt in `store` by asking `providers`.
    pub fn new(
        store: Store,
        pools: Pools,
        providers: Providers,
        secret: SecretKeys,
        settler: Settler,
    ) -> Self {
        let checking = Arc::new(Semaphore::new(AT_ONCE));
        Self { store, pools, providers, secret, settler, checking }
    }

    /// Polls every `interval`, until `stop`.
    pub async fn run(self, interval: Duration, stop: CancellationToken) {
        let this = Arc::new(self);
        let mut window = PollWindow::default();
        let mut pause = Duration::ZERO;
        while stop.run_until_cancelled(sleep(pause)).await.is_some() {
            let poll = window.begin();
            let due = this.store.pools_with_due_checks(poll.within).await;
            let mut complete = due.is_ok();
            let due = match due {
                Ok(due) => {
                    pause = poll.pause(interval);
                    due
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot read which pools have redemptions to check; trying those that are cached");
                    pause = interval;
                    this.pools.cached_ids()
                }
            };
            for pool_id in due {
                complete &= this.check_pool(&pool_id, poll.within, &stop).await;
                if stop.is_cancelled() {
                    return;
                }
            }
            window.end(&poll, complete);
        }
    }

    /// Checks what became due in a pool `within` this time, or at any time. False when some of it is left over.
    async fn check_pool(
        self: &Arc<Self>,
        pool_id: &PoolId,
        within: Option<Duration>,
        stop: &CancellationToken,
    ) -> bool {
        loop {
            match self.check_some(pool_id, within).await {
                Claimed::Batch if !stop.is_cancelled() => {}
                Claimed::Batch | Claimed::NotAll => return false,
                Claimed::All => return true,
            }
        }
    }

    /// Begins to check a batch of them.
    async fn check_some(self: &Arc<Self>, pool_id: &PoolId, within: Option<Duration>) -> Claimed {
        // Nobody else checks them meanwhile.
        let Ok(pool) = self.pools.settings(pool_id).await else { return Claimed::NotAll };
        if !self.providers.may_be_asked(&pool) {
            // Checks that tell nothing would only be counted.
            return Claimed::NotAll;
        }
        let hold = self.providers.longest_hold(&pool.provider_id);
        let claimed_until = Deadline::after(hold);
        // A record that waits for a row that somebody else holds delays its own check, and no other.
        let free = BATCH.min(self.checking.available_permits());
        if free == 0 {
            return Claimed::NotAll;
        }
        let limit = i64::try_from(free).unwrap_or(i64::MAX);
        let claimed = match self.store.claim_checks(pool_id, within, limit, hold).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::warn!(%pool_id, %error, "redemptions in doubt could not be taken; trying again");
                return Claimed::NotAll;
            }
        };
        let count = claimed.rows.len();
        for due in claimed.rows {
            let check = Check { due, lead_time: hold, claimed_until };
            // There is one: nobody else takes any.
            let permit = Arc::clone(&self.checking).try_acquire_owned();
            let this = Arc::clone(self);
            tokio::spawn(async move {
                let _permit = permit;
                // When the hold is over another server checks, whatever has become of this check.
                let checked = timeout(hold, this.check(&check)).await;
                if let Ok(Err(error)) = checked {
                    tracing::error!(
                        pool_id = %check.due.redemption.pool_id,
                        redemption_id = %check.due.redemption.redemption_id, %error,
                        "a redemption in doubt could not be checked; trying again"
                    );
                }
            });
        }
        match count {
            _ if !claimed.may_be_more => Claimed::All,
            // As many as are taken at once, or one was left out just now.
            _ if count < free || count == BATCH => Claimed::Batch,
            _ => Claimed::NotAll,
        }
    }

    async fn check(&self, check: &Check) -> Result<(), Error> {
        let DueCheck { redemption, code_ciphertext, not_after, .. } = &check.due;
        let provider = self.providers.pinned(redemption).await?;
        if provider.limits().hold() > check.lead_time {
            // Claimed for less time than its calls may take, before its profile was loaded.
            return Ok(());
        }
        let Some(mut ask) = self.ask(redemption, code_ciphertext, *not_after).await? else {
            return Err(self.unreadable(&check.due).await);
        };
        let mut doubtful = check.doubtful(provider.limits());
        ask.known.age = doubtful.age;
        ask.known.since_sent_again = check.since_sent_again();
        let capabilities = provider.limits().provider;
        let mut action = capabilities.first_action(&doubtful);
        let mut calls = 0;
        let mut found_missing = false;
        while let Some(call) = call_of(action) {
            // A server that stood still for longer than its hold leaves the redemption to the next.
            let is_late = check.claimed_until.left() < provider.limits().last_call();
            if is_late || !self.may_act(check, action).await? {
                return Ok(());
            }
            let patience = check.claimed_until.left().saturating_sub(provider.limits().last_call());
            let step = match call {
                Call::Send => provider.send_again(&ask, patience).await,
                _ => provider.ask(call, Doubt::InDoubt, &ask, patience).await,
            };
            calls += 1;
            if matches!(call, Call::LookUp | Call::Find) {
                found_missing = step == Step::NotFound;
            }
            if let Step::LookUp { task: Some(task), .. } = &step
                && !doubtful.has_task
            {
                ask.known.task = keep_task(&self.store, redemption, task).await?;
                doubtful.has_task = ask.known.task.is_some();
                if capabilities.looks_up == Some(LookUp::ByTask) && doubtful.has_task {
                    action = Action::LookUp;
                    continue;
                }
            }
            action = match told(&step) {
                Some(told) => capabilities.next_action(action, told, &doubtful),
                None => Action::Wait,
            };
            match action {
                Action::Wait => {
                    let odd_checks = doubtful.odd_after(told(&step), found_missing);
                    let found = Found { is_missing: found_missing, odd_checks };
                    return self.record(check, &capabilities, calls, step, found).await;
                }
                Action::Review => return self.review(check, calls, answer_of(step).0).await,
                _ => {}
            }
        }
        // What it answered to the send is all that a person has to go by.
        let last = redemption.last_answer.as_deref().map(|last| format!("{last}; "));
        let answer = format!("{}the provider cannot be asked about it", last.unwrap_or_default());
        self.review(check, calls, answer).await
    }

    /// Notes an action that changes something before it is taken. False: it is not to be.
    async fn may_act(&self, check: &Check, action: Action) -> Result<bool, Error> {
        let Redemption { pool_id, redemption_id, .. } = &check.due.redemption;
        if !matches!(action, Action::LookUp | Action::Find) {
            tracing::info!(%pool_id, %redemption_id, ?action, "a redemption in doubt: a recovery action is taken");
        }
        if action != Action::SendAgain {
            return Ok(true);
        }
        Ok(self.store.note_send(pool_id, *redemption_id, check.due.checks).await?)
    }

    async fn record(
        &self,
        check: &Check,
        capabilities: &Capabilities,
        calls: i32,
        step: Step,
        found: Found,
    ) -> Result<(), Error> {
        let redemption = &check.due.redemption;
        if let Step::Settle(verdict) = step {
            self.settler.conclude(redemption, verdict, calls, ACTOR).await?;
            return Ok(());
        }
        let (answer, after) = answer_of(step);
        // A provider that asks to wait for longer does not know how long it takes at the most. One that
        // keeps asking for little is asked ever more rarely all the same.
        let longest = capabilities.max_processing / 2;
        let after = backoff(check.due.checks, longest).max(after.unwrap_or_default()).min(longest);
        let Found { is_missing: not_found, odd_checks } = found;
        let next = Next::Check { after, not_found, odd_checks, checks: check.due.checks };
        self.settler.defer(redemption, answer, calls, next).await?;
        Ok(())
    }

    /// Everything that can be asked has been.
    async fn review(&self, check: &Check, calls: i32, answer: String) -> Result<(), Error> {
        let failure = Failure {
            reason: reason::UNRESOLVED.to_owned(),
            message: format!("the provider does not tell the outcome; at the last: {answer}"),
            code_spent: false,
        };
        let next = Next::Review { failure, amount: None, provider_ref: None };
        self.settler.defer(&check.due.redemption, answer, calls, next).await?;
        Ok(())
    }

    /// The very bytes that were sent at first. `None`: the stored code cannot be decrypted.
    async fn ask(
        &self,
        redemption: &Redemption,
        code_ciphertext: &[u8],
        not_after: OffsetDateTime,
    ) -> Result<Option<Ask>, Error> {
        let context = code_context(&redemption.pool_id, redemption.redemption_id);
        if self.secret.lacks_key_of(code_ciphertext) {
            return Err(Error::Internal("a code's secret key is not in this server's key file"));
        }
        let Ok((code, account)) = self.secret.decrypt_with(&context, code_ciphertext) else {
            return Ok(None);
        };
        let currency = self.pools.settings(&redemption.pool_id).await?.currency;
        Ok(Some(Ask {
            redemption_id: redemption.redemption_id,
            code,
            account_id: redemption.account_id.clone(),
            expected: redemption
                .expected_minor
                .map(|amount_minor| Money { amount_minor, currency }),
            currency,
            not_after: rfc3339(not_after)?,
            account,
            known: Known {
                task: redemption.provider_task.clone(),
                ..Known::at_first(redemption.created_at)
            },
        }))
    }

    /// A code that cannot be read cannot be sent again, and asking on would never end: a person has
    /// to review it.
    async fn unreadable(&self, due: &DueCheck) -> Error {
        let failure = Failure {
            reason: reason::UNRESOLVED.to_owned(),
            message: "the stored code cannot be decrypted".to_owned(),
            code_spent: false,
        };
        let next = Next::Review { failure, amount: None, provider_ref: None };
        let answer = "the stored code cannot be decrypted".to_owned();
        match self.settler.defer(&due.redemption, answer, 0, next).await {
            Ok(_) => Error::Internal("a stored code cannot be decrypted"),
            Err(error) => error,
        }
    }
}

/// What was taken of the redemptions of a pool that are due.
enum Claimed {
    /// All of them.
    All,
    /// As many as are taken at once: there may be more.
    Batch,
    /// Not all, and no more can be taken now.
    NotAll,
}

/// What a check found, beside its last answer.
struct Found {
    /// It did not find the key, whatever was done about it then.
    is_missing: bool,
    /// How many odd answers count from now on.
    odd_checks: i32,
}

/// A redemption that this server checks.
struct Check {
    due: DueCheck,
    /// How long what is decided now may take to be done.
    lead_time: Duration,
    /// By the program's own clock: after this somebody else may check it.
    claimed_until: Deadline,
}

impl Check {
    fn since_sent_again(&self) -> Option<Duration> {
        let sent_again_at = self.due.sent_again_at?;
        Some((self.due.db_now - sent_again_at).try_into().unwrap_or_default())
    }

    fn doubtful(&self, limits: &RedeemLimits) -> Doubtful {
        let age = self.due.db_now - self.due.redemption.created_at;
        let age: Duration = age.try_into().unwrap_or_default();
        Doubtful {
            age,
            since_last_send: self
                .since_sent_again()
                .unwrap_or(age.saturating_sub(limits.send_window)),
            lead_time: self.lead_time,
            not_found: self.due.not_found_checks + 1,
            odd: self.due.odd_checks + 1,
            has_task: self.due.redemption.provider_task.is_some(),
            not_after_passed: self.due.db_now >= self.due.not_after,
        }
    }
}

/// The call that a recovery action makes, if it makes one.
fn call_of(action: Action) -> Option<Call> {
    match action {
        Action::LookUp => Some(Call::LookUp),
        Action::Find => Some(Call::Find),
        Action::SendAgain => Some(Call::Send),
        Action::Cancel => Some(Call::Cancel),
        Action::Reverse => Some(Call::Reverse),
        Action::Wait | Action::Review => None,
    }
}

/// What a step that settles nothing tells of a redemption. `None`: it settles it.
fn told(step: &Step) -> Option<Told> {
    match step {
        Step::Settle(_) => None,
        Step::NotFound => Some(Told::NotFound),
        Step::LookUp { .. } => Some(Told::AtWork),
        Step::InDoubt { is_answer: true, .. } => Some(Told::Odd),
        Step::SendAgain { .. }
        | Step::Busy { .. }
        | Step::Unproven { .. }
        | Step::InDoubt { is_answer: false, .. } => Some(Told::Nothing),
    }
}

/// What was answered, for people, and when the provider wants to be asked again.
fn answer_of(step: Step) -> (String, Option<Duration>) {
    match step {
        Step::SendAgain { failure, after } => (failure.message, after),
        Step::LookUp { after, answer, .. } | Step::Busy { after, answer } => (answer, after),
        Step::NotFound => ("the provider does not find it".to_owned(), None),
        Step::Unproven { answer } | Step::InDoubt { answer, .. } => (answer, None),
        Step::Settle(_) => ("the outcome is known".to_owned(), None),
    }
}

/// 500 ms after the first check, then 1 s, 2 s … at most a minute, or `longest`; of each, a random part
/// is left out.
pub(super) fn backoff(checks: i32, longest: Duration) -> Duration {
    let doublings = u32::try_from(checks - 1).unwrap_or(0).min(10);
    let most = Duration::from_millis(500)
        .saturating_mul(1 << doublings)
        .min(Duration::from_secs(60))
        .min(longest);
    most.mul_f64(rand::rng().random_range(0.5..1.0))
}
