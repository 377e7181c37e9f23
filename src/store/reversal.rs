//! Reversals: recorded before the provider is asked, deferred while the outcome is not known, closed once.
//!
//! One that succeeded is closed by the statement that takes the amount off its account (`sql/account/apply.sql`).

use std::{collections::HashMap, time::Duration};

use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store, StoreError,
    apply::{Applied, Asked, RecordedOutcome},
    audit::{self, Written},
    interval,
    patience::read_patiently,
    points::at_points,
    redemption_row::read_resolution,
};
use crate::{
    domain::{
        account::{Account, AccountEvent, Refusal},
        id::{PoolId, RedemptionId},
        principal::{Authority, Principal},
        redemption::{
            DueReversal, NewReversal, Redemption, RedemptionState, Resolution, Reversal,
            ReversalState,
        },
    },
    failpoints::Step,
};

/// The most reversals that are taken at once.
const BATCH: i64 = 32;

/// A reversal that succeeded, to be recorded.
#[derive(Clone, Debug)]
pub struct TakenBack {
    /// Who found out, or asked for it.
    pub actor: String,
    /// What was answered.
    pub answer: Option<String>,
    /// Calls to the provider since the last record.
    pub attempts: i32,
    /// A person's word, where it is that.
    pub resolution: Option<Resolution>,
    /// Who calls, where a person does.
    pub by: Option<Authority>,
}

/// What became of [`TakenBack`].
#[derive(Clone, Debug)]
pub enum Reversed {
    /// It is recorded. The account after it.
    Recorded(Box<Account>),
    /// It was recorded before, or there is nothing to take back.
    Already,
    /// The account has less than was taken back: nothing is recorded.
    BalanceTooLow,
}

/// Doubt about a reversal, to be recorded.
#[derive(Clone, Debug)]
pub struct ReversalDeferral {
    /// Until the next check. `None`: a person reviews it.
    pub after: Option<Duration>,
    /// What was answered.
    pub answer: String,
    /// Calls to the provider since the last record.
    pub attempts: i32,
    /// Checks up to this one; when there were more, another server checks.
    pub checks: i32,
}

/// The row of a reversal, with the columns of its own that a statement answers.
macro_rules! reversal_row {
    ($name:ident { $($own:ident: $type:ty),* }) => {
        struct $name {
            redemption_id: Uuid,
            number: i32,
            state: String,
            reversed_by: String,
            principal: String,
            reason: String,
            evidence: Option<String>,
            resolved_by: Option<String>,
            resolved_principal: Option<String>,
            resolution_reason: Option<String>,
            resolution_evidence: Option<String>,
            attempts: i32,
            last_answer: Option<String>,
            next_check_at: Option<OffsetDateTime>,
            created_at: OffsetDateTime,
            finished_at: Option<OffsetDateTime>,
            $($own: $type,)*
        }

        impl $name {
            fn reversal(self) -> Result<Reversal, StoreError> {
                Ok(Reversal {
                    redemption_id: RedemptionId(self.redemption_id),
                    number: self.number,
                    state: ReversalState::parse(&self.state)
                        .ok_or(StoreError::Unreadable("reversals.state"))?,
                    request: Resolution {
                        resolved_by: self.reversed_by,
                        principal: Principal::named(&self.principal),
                        reason: self.reason,
                        evidence: self.evidence,
                    },
                    resolution: read_resolution(
                        self.resolved_by,
                        self.resolved_principal,
                        self.resolution_reason,
                        self.resolution_evidence,
                    ),
                    attempts: self.attempts,
                    last_answer: self.last_answer,
                    next_check_at: self.next_check_at,
                    created_at: self.created_at,
                    finished_at: self.finished_at,
                })
            }
        }
    };
}
reversal_row!(ReversalRow {});
reversal_row!(ClaimedRow { checks: i32, updated_at: OffsetDateTime });

impl Store {
    /// Records a reversal. False: the redemption is no success, or has another living one.
    pub async fn begin_reversal(
        &self,
        redemption: &Redemption,
        new: &NewReversal,
        words: &Resolution,
        by: &Authority,
    ) -> Result<bool, StoreError> {
        let record = sqlx::query_file_scalar!(
            "src/store/sql/reversal/begin_reversal.sql",
            redemption.pool_id.as_str(),
            redemption.redemption_id.0,
            new.number,
            new.state.as_str(),
            words.resolved_by,
            words.reason,
            words.evidence.as_deref(),
            new.take_over.map(interval) as _,
            by.principal.name(),
            by.peer(),
            redemption.superseded,
        );
        let begun =
            at_points(Step::BeginReversal, record.fetch_optional(&self.db)).await?.is_some();
        if begun {
            audit::log_written(
                by,
                &Written {
                    action: "ReverseRedemption",
                    pool_id: redemption.pool_id.as_str(),
                    subject: &redemption.redemption_id.to_string(),
                    before: None,
                    after: Some(json!({ "reversal": new.number, "state": new.state.as_str() })),
                    reason: &words.reason,
                },
            );
        }
        Ok(begun)
    }

    /// The newest reversal of a redemption, if it has any.
    pub async fn newest_reversal(
        &self,
        pool_id: &PoolId,
        redemption_id: RedemptionId,
    ) -> Result<Option<Reversal>, StoreError> {
        let read = || {
            sqlx::query_file_as!(
                ReversalRow,
                "src/store/sql/reversal/newest_reversals.sql",
                pool_id.as_str(),
                &[redemption_id.0],
            )
            .fetch_optional(&self.db)
        };
        read_patiently(read).await?.map(ReversalRow::reversal).transpose()
    }

    /// The newest reversal of each of some redemptions that have one.
    pub async fn newest_reversals(
        &self,
        pool_id: &PoolId,
        ids: &[Uuid],
    ) -> Result<HashMap<RedemptionId, Reversal>, StoreError> {
        let rows = sqlx::query_file_as!(
            ReversalRow,
            "src/store/sql/reversal/newest_reversals.sql",
            pool_id.as_str(),
            ids,
        );
        let rows = rows.fetch_all(&self.rest).await?.into_iter();
        rows.map(|row| Ok((RedemptionId(row.redemption_id), row.reversal()?))).collect()
    }

    /// Reversals whose check is due, of all pools: each the pool, the redemption and the reversal's number.
    pub async fn due_reversals(&self) -> Result<Vec<(PoolId, RedemptionId, i32)>, StoreError> {
        let rows = sqlx::query_file!("src/store/sql/reversal/list_due_reversals.sql", BATCH)
            .fetch_all(&self.db)
            .await?;
        let read = |pool_id: &str| {
            PoolId::parse(pool_id).map_err(|_| StoreError::Unreadable("reversals.pool_id"))
        };
        rows.into_iter()
            .map(|row| Ok((read(&row.pool_id)?, RedemptionId(row.redemption_id), row.number)))
            .collect()
    }

    /// Takes a reversal to check, for as long as `hold`. `None`: it is not due any more.
    pub async fn claim_reversal(
        &self,
        (pool_id, redemption_id, number): &(PoolId, RedemptionId, i32),
        hold: Duration,
    ) -> Result<Option<DueReversal>, StoreError> {
        let claim = sqlx::query_file_as!(
            ClaimedRow,
            "src/store/sql/reversal/claim_reversal.sql",
            pool_id.as_str(),
            redemption_id.0,
            number,
            interval(hold) as _,
        );
        let claimed = at_points(Step::Claim, claim.fetch_optional(&self.db)).await?;
        let Some(row) = claimed else { return Ok(None) };
        let (checks, age) = (row.checks, row.updated_at - row.created_at);
        let (pool_id, age) = (pool_id.clone(), age.try_into().unwrap_or_default());
        Ok(Some(DueReversal { pool_id, reversal: row.reversal()?, checks, age }))
    }

    /// Records that the outcome of a reversal is not known yet, or is a person's to find. False: it is known, or
    /// another server checks it.
    pub async fn defer_reversal(
        &self,
        pool_id: &PoolId,
        (redemption_id, number): (RedemptionId, i32),
        deferral: &ReversalDeferral,
    ) -> Result<bool, StoreError> {
        let state = match deferral.after {
            Some(_) => ReversalState::InDoubt,
            None => ReversalState::NeedsReview,
        };
        let defer = sqlx::query_file_scalar!(
            "src/store/sql/reversal/defer_reversal.sql",
            pool_id.as_str(),
            redemption_id.0,
            number,
            state.as_str(),
            deferral.answer,
            deferral.after.map(interval) as _,
            deferral.attempts,
            deferral.checks,
        );
        Ok(at_points(Step::Defer, defer.fetch_optional(&self.db)).await?.is_some())
    }

    /// Records that a reversal had no effect. False: it is not in the state that was seen.
    pub async fn fail_reversal(
        &self,
        pool_id: &PoolId,
        reversal: &Reversal,
        answer: Option<&str>,
        word: Option<(&Resolution, &Authority)>,
    ) -> Result<bool, StoreError> {
        let fail = sqlx::query_file_scalar!(
            "src/store/sql/reversal/fail_reversal.sql",
            pool_id.as_str(),
            reversal.redemption_id.0,
            reversal.number,
            reversal.state.as_str(),
            answer,
            word.map(|(words, _)| words.resolved_by.as_str()),
            word.map(|(words, _)| words.reason.as_str()),
            word.and_then(|(words, _)| words.evidence.as_deref()),
            word.map(|(_, by)| by.principal.name()),
            word.map(|(_, by)| by.peer()),
        );
        let failed = fail.fetch_optional(&self.db).await?.is_some();
        if let (true, Some((words, by))) = (failed, word) {
            let (number, was) = (reversal.number, reversal.state.as_str());
            audit::log_written(
                by,
                &Written {
                    action: "ReverseRedemption",
                    pool_id: pool_id.as_str(),
                    subject: &reversal.redemption_id.to_string(),
                    before: Some(json!({ "reversal": number, "state": was })),
                    after: Some(json!({ "reversal": number, "state": "FAILED" })),
                    reason: &words.reason,
                },
            );
        }
        Ok(failed)
    }

    /// Records that a redemption was taken back, and takes its amount off the account, under any lease.
    pub async fn take_back(
        &self,
        redemption: &Redemption,
        taken: &TakenBack,
    ) -> Result<Reversed, StoreError> {
        let Some(amount) = redemption.amount else { return Ok(Reversed::Already) };
        let event = AccountEvent::Reverse {
            amount_minor: amount.amount_minor,
            begun_on: redemption.begun_on.clone(),
            actor: taken.actor.clone(),
            by: taken.by.clone(),
        };
        let outcome = RecordedOutcome {
            redemption_id: redemption.redemption_id,
            known_state: Some(RedemptionState::Succeeded),
            state: RedemptionState::Succeeded,
            amount: None,
            provider_ref: None,
            failure: None,
            attempts: taken.attempts,
            last_answer: taken.answer.clone(),
            resolution: taken.resolution.clone(),
        };
        let asked = Asked::new(redemption.account_id.clone(), event).with_outcome(outcome);
        match self.apply.call(&redemption.pool_id, asked).await? {
            Applied::Done(done) => Ok(Reversed::Recorded(Box::new(done.account))),
            Applied::Refused(Refusal::BalanceTooLow, _) => Ok(Reversed::BalanceTooLow),
            Applied::Unreadable(error) => Err(error),
            _ => Ok(Reversed::Already),
        }
    }
}
