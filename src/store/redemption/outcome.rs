//! Outcomes of redemptions: settle when one is known, defer while it is not.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

pub use crate::domain::redemption::{Outcome, Settled, Settlement};
use crate::{
    domain::{
        account::{AccountEvent, Settle, SettleOutcome},
        id::{PoolId, RedemptionId},
        money::Money,
        redemption::{Deferral, LateCredit, Next, OVERTURNED, Redemption, RedemptionState},
    },
    failpoints::Step,
    store::{
        Store, StoreError,
        apply::{Applied, Asked, Done, RecordedOutcome, SettledColumns},
        interval,
        lane::{Batch, Ran, steps_of},
        pg::db::Db,
        points::at_all_points,
        redemption_row::{read_amount, redemption_row},
    },
};

redemption_row!(DeferredRow {});

impl Store {
    /// Records an outcome, credits the account and gives it back if that was asked for or is due. The account's own
    /// mark is guard enough: while it is there, no lease follows the one under which the redemption was begun.
    pub async fn settle(
        &self,
        pool_id: &PoolId,
        settlement: Settlement,
    ) -> Result<Settled, StoreError> {
        let applied = self.apply.call(pool_id, asked_to_settle(&settlement)).await?;
        self.settled(pool_id, settlement, applied).await
    }

    /// Records that the provider credited a redemption which was recorded as failed, and adds the amount to its
    /// account, under any lease.
    pub async fn credit_late(
        &self,
        redemption: &Redemption,
        (amount, provider_ref): (Money, Option<&str>),
        attempts: i32,
        actor: &str,
    ) -> Result<LateCredit, StoreError> {
        let event = AccountEvent::CreditLate {
            amount_minor: amount.amount_minor,
            begun_on: redemption.begun_on.clone(),
            actor: actor.to_owned(),
        };
        let reason = redemption.failure.as_ref().map(|failure| failure.reason.as_str());
        let outcome = RecordedOutcome {
            redemption_id: redemption.redemption_id,
            known_state: Some(RedemptionState::Failed),
            state: RedemptionState::Succeeded,
            amount: Some(amount),
            provider_ref: provider_ref.map(str::to_owned),
            failure: None,
            attempts,
            last_answer: Some(format!("{OVERTURNED}: {}", reason.unwrap_or_default())),
            resolution: None,
        };
        let asked = Asked::new(redemption.account_id.clone(), event).with_outcome(outcome);
        match self.apply.call(&redemption.pool_id, asked).await {
            Ok(Applied::Done(_)) => Ok(LateCredit::Recorded),
            Ok(Applied::Unreadable(error)) => Err(error),
            Ok(_) => Ok(LateCredit::NotFailed),
            Err(StoreError::CodeRedeemedAgain) => Ok(LateCredit::CodeRedeemedAgain),
            Err(error) => Err(error),
        }
    }

    async fn settled(
        &self,
        pool_id: &PoolId,
        Settlement { redemption, outcome, .. }: Settlement,
        applied: Applied,
    ) -> Result<Settled, StoreError> {
        let Done { account, settled } = match applied {
            Applied::Done(done) => *done,
            Applied::Unreadable(error) => return Err(error),
            _ => return Ok(Settled::Already),
        };
        let redemption = match settled {
            Some(settled) => as_settled(redemption, &outcome, settled)?,
            // By a statement whose reply was lost.
            None => match self.get_redemption(pool_id, redemption.redemption_id).await? {
                Some(redemption) => redemption,
                None => return Ok(Settled::Already),
            },
        };
        Ok(Settled::Recorded { redemption: Box::new(redemption), account: Box::new(account) })
    }

    /// Records that an outcome is not known yet; `None` when it is known, or is a person's to find.
    pub async fn defer(
        &self,
        pool_id: &PoolId,
        deferral: Deferral,
    ) -> Result<Option<Redemption>, StoreError> {
        self.defer.call(pool_id, deferral).await?.transpose()
    }
}

/// The inputs without those that name a redemption which an earlier one names. A statement changes a
/// row once, and which of two inputs it took could not be told. The later ones find it changed.
fn firsts<T>(inputs: &[T], id: impl Fn(&T) -> RedemptionId) -> impl Iterator<Item = &T> {
    let mut seen = HashSet::new();
    inputs.iter().filter(move |input| seen.insert(id(input)))
}

/// What an outcome is for its account, and what is recorded of it.
fn asked_to_settle(settlement: &Settlement) -> Asked {
    let redemption = &settlement.redemption;
    let outcome = match &settlement.outcome {
        Outcome::Succeeded { amount, .. } => {
            SettleOutcome::Succeeded { amount_minor: amount.amount_minor }
        }
        Outcome::Failed(_) => SettleOutcome::Failed { hold: settlement.hold },
    };
    let settle = Settle {
        redemption_id: redemption.redemption_id,
        outcome,
        release: redemption.release_on_completion,
        actor: settlement.actor.clone(),
        by: settlement.by.clone(),
    };
    let recorded = RecordedOutcome {
        redemption_id: redemption.redemption_id,
        known_state: settlement.known_state(),
        state: settlement.outcome.state(),
        amount: settlement.outcome.amount(),
        provider_ref: settlement.outcome.provider_ref(),
        failure: settlement.outcome.failure().cloned(),
        attempts: settlement.attempts,
        last_answer: None,
        resolution: settlement.resolution.clone(),
    };
    Asked::new(redemption.account_id.clone(), AccountEvent::Settle(settle)).with_outcome(recorded)
}

/// The redemption as it was settled.
fn as_settled(
    redemption: Redemption,
    outcome: &Outcome,
    now: SettledColumns,
) -> Result<Redemption, StoreError> {
    Ok(Redemption {
        state: outcome.state(),
        amount: read_amount(now.amount_minor, now.amount_currency.as_deref())?,
        provider_ref: now.provider_ref,
        failure: outcome.failure().cloned(),
        resolution: now.resolution,
        attempts: now.attempts,
        last_answer: now.last_answer,
        next_check_at: None,
        finished_at: Some(now.at),
        ..redemption
    })
}

/// The lane of deferrals. May be repeated: the same doubt twice is counted twice, and is no worse.
#[derive(Debug)]
pub(in crate::store) struct Defer {
    pub(in crate::store) db: Db,
}

impl Batch for Defer {
    type Input = Deferral;
    type Output = Option<Result<Redemption, StoreError>>;
    const NAME: &'static str = "defer";

    fn step(_: &Deferral) -> Option<Step> {
        Some(Step::Defer)
    }

    fn may_be_dropped(_: &Deferral) -> bool {
        false
    }

    async fn run(
        &self,
        pool_id: &PoolId,
        inputs: &[Deferral],
        _: bool,
    ) -> Result<Vec<Ran<Self::Output>>, sqlx::Error> {
        let first: Vec<_> = firsts(inputs, |deferral| deferral.redemption_id).collect();
        let rows = at_all_points(&steps_of::<Self>(inputs), self.update(pool_id, &first)).await?;
        let mut deferred: HashMap<Uuid, _> =
            rows.into_iter().map(|row| (row.redemption_id, row.redemption(pool_id))).collect();
        Ok(inputs.iter().map(|input| Ran::Done(deferred.remove(&input.redemption_id.0))).collect())
    }
}

impl Defer {
    async fn update(
        &self,
        pool_id: &PoolId,
        inputs: &[&Deferral],
    ) -> Result<Vec<DeferredRow>, sqlx::Error> {
        let text = |read: fn(&Next) -> Option<String>| -> Vec<Option<String>> {
            inputs.iter().map(|d| read(&d.next)).collect()
        };
        sqlx::query_file_as!(
            DeferredRow,
            "src/store/sql/redemption/defer.sql",
            pool_id.as_str(),
            &inputs.iter().map(|d| d.redemption_id.0).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.next.state().as_str().to_owned()).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.answer.clone()).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.next.after().map(interval)).collect::<Vec<_>>()
                as &[Option<sqlx::postgres::types::PgInterval>],
            &inputs.iter().map(|d| d.attempts).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.next.not_found()).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.next.amount().map(|m| m.amount_minor)).collect::<Vec<_>>()
                as &[Option<i64>],
            &text(|n| n.amount().map(|m| m.currency.to_string())) as &[Option<String>],
            &text(|n| n.provider_ref()) as &[Option<String>],
            &text(|n| n.failure().map(|f| f.reason.clone())) as &[Option<String>],
            &text(|n| n.failure().map(|f| f.message.clone())) as &[Option<String>],
            &inputs.iter().map(|d| d.next.failure().map(|f| f.code_spent)).collect::<Vec<_>>()
                as &[Option<bool>],
            &inputs.iter().map(|d| d.next.checks()).collect::<Vec<_>>(),
            &inputs.iter().map(|d| d.next.odd_checks()).collect::<Vec<_>>(),
        )
        .fetch_all(&self.db)
        .await
    }
}
