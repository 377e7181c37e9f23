//! Settling: records what is known, or not known, of a redemption's outcome. It is the same for a redemption that
//! is under way, for the reconciler, and for a person.

use std::{fmt, time::Duration};

use crate::{
    domain::{
        account::Account,
        id::{PoolId, RedemptionId},
        money::Money,
        pool::{AmountMismatch, Pool},
        principal::Authority,
        redemption::{
            Deferral, Failure, LateCredit, Next, Outcome, Redemption, RedemptionState, Resolution,
            Settled, Settlement, Verdict, reason,
        },
    },
    failpoints::{self, Guard},
    service::{Error, days::advance_days, pools::Pools},
    store::{Store, StoreError},
};

/// How long to wait before a record is tried again while there is no database. A record is tried
/// until it is written: nothing else has what it holds.
const RETRY: Duration = Duration::from_millis(250);

/// Records outcomes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Settler {
    store: Store,
    pools: Pools,
}

impl Settler {
    /// Records in `store`.
    pub fn new(store: Store, pools: Pools) -> Self {
        Self { store, pools }
    }

    /// Records what is known for certain, and answers with the redemption as it then is.
    pub async fn conclude(
        &self,
        redemption: &Redemption,
        verdict: Verdict,
        attempts: i32,
        actor: &str,
    ) -> Result<Redemption, Error> {
        let pool = self.pool(&redemption.pool_id).await?;
        let verdict = apply_policy(verdict, redemption, &pool);
        self.record(redemption, verdict, attempts, actor).await
    }

    /// The same while the sender may still be at work on it. It records an outcome, and leaves what is a person's
    /// until the sender's time is over. True when it was an outcome.
    pub async fn conclude_early(
        &self,
        redemption: &Redemption,
        verdict: Verdict,
        actor: &str,
    ) -> Result<bool, Error> {
        let pool = self.pool(&redemption.pool_id).await?;
        let verdict = apply_policy(verdict, redemption, &pool);
        if matches!(verdict, Verdict::NeedsReview { .. }) {
            return Ok(false);
        }
        self.record(redemption, verdict, 1, actor).await?;
        Ok(true)
    }

    async fn record(
        &self,
        redemption: &Redemption,
        verdict: Verdict,
        attempts: i32,
        actor: &str,
    ) -> Result<Redemption, Error> {
        let (outcome, hold) = match verdict {
            Verdict::Succeeded { amount, provider_ref } => {
                (Outcome::Succeeded { amount, provider_ref: Some(provider_ref) }, None)
            }
            Verdict::Failed { failure, hold } => (Outcome::Failed(failure), hold),
            Verdict::NeedsReview { failure, amount, provider_ref } => {
                let answer = format!("{}: {}", failure.reason, failure.message);
                let evidence = answer.clone();
                let next = Next::Review { failure, amount, provider_ref: Some(provider_ref) };
                let redemption = self.defer(redemption, answer, attempts, next).await?;
                if !redemption.state.is_open() {
                    log_contradiction(&redemption, &evidence, actor);
                }
                return Ok(redemption);
            }
        };
        let settlement = Settlement {
            redemption: redemption.clone(),
            outcome,
            attempts,
            actor: actor.to_owned(),
            resolution: None,
            by: None,
            hold,
            inferred: false,
        };
        Ok(self.settle(&redemption.pool_id, settlement).await?.1)
    }

    /// Records that nothing which this server sent was executed. When somebody else has taken the
    /// redemption over meanwhile that is no outcome, and the redemption is answered as it is.
    pub async fn fail_unsent(
        &self,
        redemption: &Redemption,
        failure: Failure,
        attempts: i32,
        actor: &str,
    ) -> Result<Redemption, Error> {
        let settlement = Settlement {
            redemption: redemption.clone(),
            outcome: Outcome::Failed(failure),
            attempts,
            actor: actor.to_owned(),
            resolution: None,
            by: None,
            hold: None,
            inferred: failpoints::holds(Guard::InferredIsNotProof),
        };
        Ok(self.settle(&redemption.pool_id, settlement).await?.1)
    }

    /// Records that the outcome is not known, and answers with the redemption as it then is: settled,
    /// when somebody else found out meanwhile.
    pub async fn defer(
        &self,
        redemption: &Redemption,
        answer: String,
        attempts: i32,
        next: Next,
    ) -> Result<Redemption, Error> {
        let deferral = Deferral { redemption_id: redemption.redemption_id, answer, attempts, next };
        let deferred = loop {
            match self.store.defer(&redemption.pool_id, deferral.clone()).await {
                Err(StoreError::Unavailable(_) | StoreError::Overloaded) => {
                    tokio::time::sleep(RETRY).await;
                }
                answered => break answered?,
            }
        };
        match deferred {
            Some(redemption) => {
                log_doubt(&redemption);
                Ok(redemption)
            }
            None => self.read(&redemption.pool_id, redemption.redemption_id).await,
        }
    }

    /// Records a person's word, who saw the redemption as it is given. The flag says whether it was this
    /// call that settled it; one that is open still has changed since.
    pub async fn resolve(
        &self,
        redemption: &Redemption,
        outcome: Outcome,
        resolution: Resolution,
        by: Authority,
    ) -> Result<(bool, Redemption), Error> {
        let settlement = Settlement {
            redemption: redemption.clone(),
            outcome,
            attempts: 0,
            actor: resolution.resolved_by.clone(),
            resolution: Some(resolution),
            by: Some(by),
            hold: None,
            inferred: false,
        };
        self.settle(&redemption.pool_id, settlement).await
    }

    async fn settle(
        &self,
        pool_id: &PoolId,
        settlement: Settlement,
    ) -> Result<(bool, Redemption), Error> {
        let settled = loop {
            match self.store.settle(pool_id, settlement.clone()).await {
                Err(StoreError::Unavailable(_) | StoreError::Overloaded) => {
                    tokio::time::sleep(RETRY).await;
                }
                answered => break answered?,
            }
        };
        match settled {
            Settled::Recorded { redemption, account } => {
                log_settled(&redemption, &account);
                Ok((true, *redemption))
            }
            Settled::Already => Ok((false, self.reconsider(pool_id, &settlement).await?)),
        }
    }

    /// Compares a redemption that was settled before with what is known now. The provider's word that it credited
    /// the card overturns a failure, whose account gets what was credited. Anything else that does not agree is
    /// for a person.
    async fn reconsider(
        &self,
        pool_id: &PoolId,
        settlement: &Settlement,
    ) -> Result<Redemption, Error> {
        let redemption = self.read(pool_id, settlement.redemption.redemption_id).await?;
        // What a person saw has changed: nobody has resolved yet what it is now.
        let has_changed = settlement.resolution.is_some() && redemption.state.is_open();
        if has_changed || settlement.inferred || !contradicts(&redemption, &settlement.outcome) {
            return Ok(redemption);
        }
        let is_evidence = settlement.resolution.is_none();
        if let (Outcome::Succeeded { amount, provider_ref }, RedemptionState::Failed, true) =
            (&settlement.outcome, redemption.state, is_evidence)
        {
            let fact = (*amount, provider_ref.as_deref());
            match self.credit_late(&redemption, fact, settlement).await? {
                LateCredit::Recorded => {
                    let redemption =
                        self.read(pool_id, settlement.redemption.redemption_id).await?;
                    log_late_credit(&redemption, settlement);
                    self.end_day(&redemption, &settlement.actor).await;
                    // It is fuller, or on another day, and stands elsewhere.
                    return Ok(redemption);
                }
                LateCredit::NotFailed => {
                    return self.read(pool_id, settlement.redemption.redemption_id).await;
                }
                LateCredit::CodeRedeemedAgain => {}
            }
        }
        log_contradiction(&redemption, &settlement.outcome, &settlement.actor);
        Ok(redemption)
    }

    /// A late credit may have filled the day of its account. Where somebody else has the account now the
    /// sweeper ends it, later.
    async fn end_day(&self, redemption: &Redemption, actor: &str) {
        let Redemption { pool_id, account_id, .. } = redemption;
        if let Ok(Some(account)) = self.store.get_account(pool_id, account_id).await
            && let Some(plan_id) = &account.plan_id
        {
            advance_days(&self.store, pool_id, plan_id, actor).await;
        }
    }

    async fn credit_late(
        &self,
        redemption: &Redemption,
        fact: (Money, Option<&str>),
        settlement: &Settlement,
    ) -> Result<LateCredit, Error> {
        let Settlement { attempts, actor, .. } = settlement;
        loop {
            match self.store.credit_late(redemption, fact, *attempts, actor).await {
                Err(StoreError::Unavailable(_) | StoreError::Overloaded) => {
                    tokio::time::sleep(RETRY).await;
                }
                answered => return Ok(answered?),
            }
        }
    }

    async fn read(&self, pool_id: &PoolId, id: RedemptionId) -> Result<Redemption, Error> {
        loop {
            match self.store.get_redemption(pool_id, id).await {
                Err(StoreError::Unavailable(_)) => tokio::time::sleep(RETRY).await,
                Ok(Some(redemption)) => return Ok(redemption),
                Ok(None) => {
                    return Err(Error::RedemptionNotFound(pool_id.clone(), id.to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn pool(&self, pool_id: &PoolId) -> Result<Pool, Error> {
        loop {
            match self.pools.settings(pool_id).await {
                Err(Error::DatabaseUnavailable(_)) => {
                    tokio::time::sleep(RETRY).await;
                }
                answered => return answered,
            }
        }
    }
}

/// A success with another amount than the expected one is for a person to review, in a pool that
/// wants that.
fn apply_policy(verdict: Verdict, redemption: &Redemption, pool: &Pool) -> Verdict {
    match (verdict, redemption.expected_minor) {
        (Verdict::Succeeded { amount, provider_ref }, Some(expected))
            if amount.amount_minor != expected
                && pool.amount_mismatch == AmountMismatch::NeedsReview =>
        {
            let message = format!("expected {expected} {}, credited {amount}", pool.currency);
            let failure =
                Failure { reason: reason::AMOUNT_MISMATCH.to_owned(), message, code_spent: true };
            Verdict::NeedsReview { failure, amount: Some(amount), provider_ref }
        }
        (verdict, _) => verdict,
    }
}

/// Whether a settled redemption is something else than what is known now.
fn contradicts(redemption: &Redemption, outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Succeeded { amount, .. } => {
            redemption.state != RedemptionState::Succeeded || redemption.amount != Some(*amount)
        }
        Outcome::Failed(_) => redemption.state != RedemptionState::Failed,
    }
}

fn log_contradiction(redemption: &Redemption, evidence: &dyn fmt::Debug, from: &str) {
    metrics::counter!("holdfast_contradictions_total").increment(1);
    tracing::error!(
        pool_id = %redemption.pool_id,
        redemption_id = %redemption.redemption_id,
        recorded = redemption.state.as_str(),
        ?evidence,
        from,
        "the new outcome contradicts what was recorded before: a person must review it"
    );
}

fn log_late_credit(redemption: &Redemption, settlement: &Settlement) {
    metrics::counter!("holdfast_late_credits_total").increment(1);
    tracing::error!(
        pool_id = %redemption.pool_id,
        account_id = %redemption.account_id,
        redemption_id = %redemption.redemption_id,
        amount_minor = redemption.amount.map(|amount| amount.amount_minor),
        from = settlement.actor,
        "the provider credited what was recorded as failed: recorded, and added to the account"
    );
}

fn log_settled(redemption: &Redemption, account: &Account) {
    metrics::counter!("holdfast_redemptions_total", "state" => redemption.state.as_str())
        .increment(1);
    let Redemption { pool_id, account_id, redemption_id, .. } = redemption;
    let account_status = account.status.as_str();
    let resume_status = account.resume.map(|resume| resume.status().as_str());
    let balance_minor = account.balance_minor;
    let fencing_token = redemption.token.0;
    match (redemption.state, &redemption.failure) {
        (RedemptionState::Succeeded, _) => tracing::info!(
            %pool_id, %account_id, %redemption_id, fencing_token, account_status, resume_status,
            balance_minor,
            amount_minor = redemption.amount.map(|amount| amount.amount_minor),
            amount_mismatch = redemption.has_amount_mismatch(),
            "redeemed"
        ),
        (_, failure) => tracing::warn!(
            %pool_id, %account_id, %redemption_id, fencing_token, account_status, balance_minor,
            error = failure.as_ref().map(|failure| failure.reason.as_str()),
            code_spent = failure.as_ref().map(|failure| failure.code_spent),
            "failed and restored: the account has, or goes back to, the status it had before"
        ),
    }
}

fn log_doubt(redemption: &Redemption) {
    metrics::counter!("holdfast_redemptions_deferred_total", "state" => redemption.state.as_str())
        .increment(1);
    let Redemption { pool_id, account_id, redemption_id, .. } = redemption;
    let (fencing_token, answer) = (redemption.token.0, redemption.last_answer.as_deref());
    if redemption.state == RedemptionState::NeedsReview {
        tracing::error!(
            %pool_id, %account_id, %redemption_id, fencing_token, answer,
            "needs review: the account stays locked until a person resolves the redemption"
        );
    } else {
        tracing::warn!(
            %pool_id, %account_id, %redemption_id, fencing_token, answer,
            "in doubt: the account stays locked until the outcome is known"
        );
    }
}
