//! What servers deliver of subscriptions: who does, how far, and what was not taken.
//!
//! All of it may be repeated: a claim that was given is missed and asked for again, progress is the same twice, and a
//! delivery is kept once under its name.

use std::time::Duration;

use super::{
    Store, StoreError,
    account::read_account_id,
    duration, interval,
    subscription::{read_delivery_id, read_id, read_states},
};
use crate::domain::{
    id::{AccountId, PoolId, RedemptionId, SubscriptionId},
    redemption::RedemptionState,
    subscription::DeliveryId,
};
use sqlx::postgres::types::PgInterval;

/// A server that has not beaten for so long delivers nothing any more. It beats every 750 ms.
const SILENCE: Duration = Duration::from_secs(3);
/// Dead letters are counted up to here.
const MAX_COUNTED: i64 = 10_000;

/// Which subscription, and which claim of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// Its pool.
    pub pool_id: PoolId,
    /// The subscription.
    pub subscription_id: SubscriptionId,
    /// Rises with every claim and change.
    pub number: i64,
}

/// A subscription that this server delivers from now on.
#[derive(Debug)]
pub struct Claimed {
    /// The claim.
    pub claim: Claim,
    /// Where to.
    pub url: String,
    /// Only outcomes of these states; all when empty.
    pub states: Vec<RedemptionState>,
    /// What it signs with, encrypted.
    pub secret: Vec<u8>,
    /// The secret before, and for how long it signs too.
    pub secret_before: Option<(Vec<u8>, Duration)>,
    /// From where on.
    pub cursor: String,
    /// How its receiver does.
    pub receiver: ReceiverState,
}

/// How a receiver does that takes nothing; of one that takes what is sent nothing is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiverState {
    /// How many tries in a row have failed.
    pub failures: u32,
    /// For how long they do.
    pub failing_for: Option<Duration>,
    /// When the next one is.
    pub next_try_in: Option<Duration>,
    /// What was wrong.
    pub last_error: String,
    /// Nothing is to be sent any more.
    pub is_paused: bool,
}

/// A delivery that is due to be tried again.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    /// Its name.
    pub delivery_id: DeliveryId,
    /// The redemption.
    pub redemption_id: RedemptionId,
    /// Its account.
    pub account_id: AccountId,
    /// How often it was tried.
    pub attempts: u32,
    /// For how long; `None` when it was not.
    pub tried_for: Option<Duration>,
}

/// When a delivery is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextTry {
    /// After this time.
    In(Duration),
    /// Never: it is a dead letter.
    Never,
}

impl NextTry {
    /// Until the next try, and until it is given up.
    fn columns(self) -> (Option<PgInterval>, Option<PgInterval>) {
        match self {
            Self::In(pause) => (Some(interval(pause)), None),
            Self::Never => (None, Some(interval(Duration::ZERO))),
        }
    }
}

impl Store {
    /// Subscriptions that no server delivers, at most `limit`.
    pub async fn free_subscriptions(&self, limit: i64) -> Result<Vec<Claim>, StoreError> {
        let rows = sqlx::query_file!(
            "src/store/sql/subscription/list_free_subscriptions.sql",
            interval(SILENCE),
            limit,
        );
        let rows = rows.fetch_all(&self.db).await?.into_iter();
        rows.map(|row| claim(&row.pool_id, &row.subscription_id, row.claim)).collect()
    }

    /// Claims a subscription; `None` when another server was first.
    pub async fn claim_subscription(&self, free: &Claim) -> Result<Option<Claimed>, StoreError> {
        let row = sqlx::query_file!(
            "src/store/sql/subscription/claim_subscription.sql",
            free.pool_id.as_str(),
            free.subscription_id.as_str(),
            free.number,
            self.server_id,
        )
        .fetch_optional(&self.db)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let left = row.secret_before_left.as_ref().map(duration);
        Ok(Some(Claimed {
            claim: Claim { number: row.claim, ..free.clone() },
            url: row.url,
            states: read_states(&row.states)?,
            secret: row.secret,
            secret_before: row.secret_before.zip(left),
            cursor: row.cursor,
            receiver: ReceiverState {
                failures: u32::try_from(row.failures).unwrap_or(0),
                failing_for: row.failing_for.as_ref().map(duration),
                next_try_in: row.next_try_in.as_ref().map(duration),
                last_error: row.last_error,
                is_paused: false,
            },
        }))
    }

    /// What this server delivers still, each with whether it has deliveries that are tried again.
    pub async fn claims(&self) -> Result<Vec<(Claim, bool)>, StoreError> {
        let rows = sqlx::query_file!("src/store/sql/subscription/list_claims.sql", self.server_id);
        let rows = rows.fetch_all(&self.db).await?.into_iter();
        rows.map(|row| Ok((claim(&row.pool_id, &row.subscription_id, row.claim)?, row.has_living)))
            .collect()
    }

    /// Lets other servers deliver what this one does.
    pub async fn release_claims(&self) -> Result<(), StoreError> {
        sqlx::query_file!("src/store/sql/subscription/release_claims.sql", self.server_id)
            .execute(&self.db)
            .await?;
        Ok(())
    }

    /// How many dead letters there are of what this server delivers; not counted any further where there are too many.
    pub async fn count_dead_deliveries(&self) -> Result<i64, StoreError> {
        let count = sqlx::query_file_scalar!(
            "src/store/sql/subscription/count_dead_deliveries.sql",
            self.server_id,
            MAX_COUNTED,
        );
        Ok(count.fetch_one(&self.rest).await?)
    }

    /// Notes how far a subscription was delivered, and how its receiver does. Answers whether the claim still holds.
    pub async fn note_progress(
        &self,
        claim: &Claim,
        cursor: &str,
        receiver: &ReceiverState,
    ) -> Result<bool, StoreError> {
        let noted = sqlx::query_file_scalar!(
            "src/store/sql/subscription/note_progress.sql",
            claim.pool_id.as_str(),
            claim.subscription_id.as_str(),
            claim.number,
            cursor,
            i32::try_from(receiver.failures).unwrap_or(i32::MAX),
            receiver.failing_for.map(interval),
            receiver.next_try_in.map(interval),
            receiver.last_error,
            receiver.is_paused,
        );
        Ok(noted.fetch_optional(&self.db).await?.is_some())
    }

    /// Keeps a delivery that was not taken.
    pub async fn keep_delivery(
        &self,
        claim: &Claim,
        delivery: &DueDelivery,
        why: &str,
        next: NextTry,
    ) -> Result<(), StoreError> {
        let (pause, dead) = next.columns();
        sqlx::query_file!(
            "src/store/sql/subscription/keep_delivery.sql",
            claim.pool_id.as_str(),
            claim.subscription_id.as_str(),
            claim.number,
            delivery.delivery_id.as_str(),
            delivery.redemption_id.0,
            delivery.account_id.as_str(),
            i32::try_from(delivery.attempts).unwrap_or(i32::MAX),
            why,
            pause,
            dead,
        )
        .fetch_optional(&self.db)
        .await?;
        Ok(())
    }

    /// Keeps a delivery behind one of its account that is tried again, and answers whether there is one.
    pub async fn hold_delivery(
        &self,
        claim: &Claim,
        delivery_id: &DeliveryId,
        redemption_id: RedemptionId,
        account_id: &AccountId,
    ) -> Result<bool, StoreError> {
        let held = sqlx::query_file_scalar!(
            "src/store/sql/subscription/hold_delivery.sql",
            claim.pool_id.as_str(),
            claim.subscription_id.as_str(),
            claim.number,
            delivery_id.as_str(),
            redemption_id.0,
            account_id.as_str(),
        );
        Ok(held.fetch_one(&self.db).await?)
    }

    /// Whether a subscription has deliveries that are tried again.
    pub async fn has_living_deliveries(&self, claim: &Claim) -> Result<bool, StoreError> {
        let has_living = sqlx::query_file_scalar!(
            "src/store/sql/subscription/has_living_deliveries.sql",
            claim.pool_id.as_str(),
            claim.subscription_id.as_str(),
        );
        Ok(has_living.fetch_one(&self.db).await?)
    }

    /// Deliveries that are due to be tried again, at most `limit`.
    pub async fn due_deliveries(
        &self,
        claim: &Claim,
        limit: i64,
    ) -> Result<Vec<DueDelivery>, StoreError> {
        let rows = sqlx::query_file!(
            "src/store/sql/subscription/due_deliveries.sql",
            claim.pool_id.as_str(),
            claim.subscription_id.as_str(),
            limit,
        );
        let rows = rows.fetch_all(&self.db).await?.into_iter();
        rows.map(|row| {
            Ok(DueDelivery {
                delivery_id: read_delivery_id(&row.delivery_id)?,
                redemption_id: RedemptionId(row.redemption_id),
                account_id: read_account_id(&row.account_id)?,
                attempts: u32::try_from(row.attempts).unwrap_or(0),
                tried_for: row.tried_for.as_ref().map(duration),
            })
        })
        .collect()
    }

    /// Notes that a delivery was tried again and not taken.
    pub async fn fail_delivery(
        &self,
        claim: &Claim,
        delivery_id: &DeliveryId,
        why: &str,
        next: NextTry,
    ) -> Result<(), StoreError> {
        let (pause, dead) = next.columns();
        sqlx::query_file!(
            "src/store/sql/subscription/fail_delivery.sql",
            claim.pool_id.as_str(),
            claim.subscription_id.as_str(),
            claim.number,
            delivery_id.as_str(),
            why,
            pause,
            dead,
        )
        .fetch_optional(&self.db)
        .await?;
        Ok(())
    }

    /// Removes a delivery that was taken at last.
    pub async fn end_delivery(
        &self,
        claim: &Claim,
        delivery_id: &DeliveryId,
    ) -> Result<(), StoreError> {
        sqlx::query_file!(
            "src/store/sql/subscription/end_delivery.sql",
            claim.pool_id.as_str(),
            claim.subscription_id.as_str(),
            delivery_id.as_str(),
        )
        .execute(&self.db)
        .await?;
        Ok(())
    }
}

fn claim(pool_id: &str, subscription_id: &str, number: i64) -> Result<Claim, StoreError> {
    Ok(Claim {
        pool_id: PoolId::parse(pool_id)
            .map_err(|_| StoreError::Unreadable("subscriptions.pool_id"))?,
        subscription_id: read_id(subscription_id)?,
        number,
    })
}
