//! Corrections: a person's word about a redemption takes the place of another, which is kept.

use time::OffsetDateTime;

use crate::{
    domain::{
        account::{AccountEvent, Refusal, Restatement},
        id::{PoolId, RedemptionId},
        principal::{Authority, Principal, RequestKey},
        redemption::{Living, Outcome, Redemption, Resolution, SupersededResolution},
    },
    store::{
        Store, StoreError,
        apply::{Applied, Asked, RecordedOutcome},
        patience::read_patiently,
        redemption_row::{read_amount, read_request_id, read_resolution, read_state},
    },
};

/// What became of a correction.
#[derive(Clone, Debug)]
pub enum Corrected {
    /// It is recorded.
    Recorded,
    /// The account or the redemption has changed since it was read: nothing is recorded.
    Changed,
    /// The account has this much, less than is to be taken off: nothing is recorded.
    BalanceTooLow(i64),
    /// Another redemption has the code by now: nothing is recorded.
    CodeInUse,
}

struct SupersededRow {
    number: i32,
    state: String,
    amount_minor: Option<i64>,
    amount_currency: Option<String>,
    code_spent: Option<bool>,
    resolved_by: String,
    resolved_principal: String,
    reason: String,
    evidence: Option<String>,
    finished_at: OffsetDateTime,
    superseded_at: OffsetDateTime,
}

impl SupersededRow {
    fn read(self) -> Result<SupersededResolution, StoreError> {
        let resolution = read_resolution(
            Some(self.resolved_by),
            Some(self.resolved_principal),
            Some(self.reason),
            self.evidence,
        );
        Ok(SupersededResolution {
            number: self.number,
            state: read_state(&self.state)?,
            amount: read_amount(self.amount_minor, self.amount_currency.as_deref())?,
            code_spent: self.code_spent.unwrap_or(false),
            resolution: resolution.ok_or(StoreError::Unreadable("superseded_resolutions"))?,
            finished_at: self.finished_at,
            superseded_at: self.superseded_at,
        })
    }
}

impl Store {
    /// Records another word about a redemption, and what that makes of its account's balance. `seen` is the version of
    /// the account, which was read before the redemption.
    pub async fn correct_resolution(
        &self,
        redemption: &Redemption,
        seen: i64,
        outcome: &Outcome,
        resolution: &Resolution,
        by: &Authority,
    ) -> Result<Corrected, StoreError> {
        let credited = outcome.amount().map_or(0, |amount| amount.amount_minor);
        let restatement = Restatement {
            seen,
            difference_minor: credited - redemption.credited_minor(),
            begun_on: redemption.begun_on.clone(),
            actor: resolution.resolved_by.clone(),
        };
        let recorded = RecordedOutcome {
            redemption_id: redemption.redemption_id,
            known_state: Some(redemption.state),
            state: outcome.state(),
            amount: outcome.amount(),
            provider_ref: outcome.provider_ref(),
            failure: outcome.failure().cloned(),
            attempts: 0,
            last_answer: None,
            resolution: Some(resolution.clone()),
        };
        let event = AccountEvent::Restate(restatement, by.clone());
        let asked = Asked::new(redemption.account_id.clone(), event).with_outcome(recorded);
        match self.apply.call(&redemption.pool_id, asked).await {
            Ok(Applied::Done(_)) => Ok(Corrected::Recorded),
            Ok(Applied::Refused(Refusal::BalanceTooLow, account)) => {
                Ok(Corrected::BalanceTooLow(account.balance_minor))
            }
            Ok(Applied::Unreadable(error)) => Err(error),
            Ok(_) => Ok(Corrected::Changed),
            Err(StoreError::CodeRedeemedAgain) => Ok(Corrected::CodeInUse),
            Err(error) => Err(error),
        }
    }

    /// The words about a redemption that others took the place of, in their order.
    pub async fn superseded_resolutions(
        &self,
        pool_id: &PoolId,
        redemption_id: RedemptionId,
    ) -> Result<Vec<SupersededResolution>, StoreError> {
        let read = || {
            sqlx::query_file_as!(
                SupersededRow,
                "src/store/sql/redemption/list_superseded_resolutions.sql",
                pool_id.as_str(),
                redemption_id.0,
            )
            .fetch_all(&self.db)
        };
        read_patiently(read).await?.into_iter().map(SupersededRow::read).collect()
    }

    /// The other redemption that has the code of this one, if any has.
    pub async fn code_holder(&self, redemption: &Redemption) -> Result<Option<Living>, StoreError> {
        let found = sqlx::query_file!(
            "src/store/sql/redemption/get_code_holder.sql",
            redemption.pool_id.as_str(),
            redemption.redemption_id.0,
        )
        .fetch_optional(&self.db)
        .await?;
        let Some(row) = found else { return Ok(None) };
        let principal = Principal::named(&row.principal);
        Ok(Some(Living {
            redemption_id: RedemptionId(row.redemption_id),
            request: RequestKey::new(principal, read_request_id(&row.request_id)?),
            state: read_state(&row.state)?,
        }))
    }
}
