//! Subscriptions, as people make and change them.

use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store, StoreError,
    account::read_account_id,
    audit::{self, Written},
    interval,
    page::read_page,
    redemption_row::read_state,
};
use crate::domain::{
    id::{PoolId, RedemptionId, SubscriptionId},
    page::Page,
    principal::Authority,
    redemption::RedemptionState,
    subscription::{Delivery, DeliveryId, MAX_SUBSCRIPTIONS, NotTaken, Subscription, Terms},
};

pub(super) struct SubscriptionRow {
    subscription_id: String,
    url: String,
    allow_plain: bool,
    states: Vec<String>,
    paused: bool,
    created_by: String,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
    secret_before_end: Option<OffsetDateTime>,
    failing_since: Option<OffsetDateTime>,
    next_try_at: Option<OffsetDateTime>,
    last_error: String,
}

/// The subscription of a statement's row.
macro_rules! subscription_row {
    ($row:ident) => {
        SubscriptionRow {
            subscription_id: $row.subscription_id,
            url: $row.url,
            allow_plain: $row.allow_plain,
            states: $row.states,
            paused: $row.paused,
            created_by: $row.created_by,
            created_at: $row.created_at,
            updated_at: $row.updated_at,
            secret_before_end: $row.secret_before_end,
            failing_since: $row.failing_since,
            next_try_at: $row.next_try_at,
            last_error: $row.last_error,
        }
    };
}

impl SubscriptionRow {
    fn read(self, pool_id: &PoolId) -> Result<Subscription, StoreError> {
        Ok(Subscription {
            pool_id: pool_id.clone(),
            subscription_id: read_id(&self.subscription_id)?,
            terms: Terms {
                url: self.url,
                allow_plain: self.allow_plain,
                states: read_states(&self.states)?,
                paused: self.paused,
            },
            created_by: self.created_by,
            created_at: self.created_at,
            updated_at: self.updated_at,
            secret_before_end: self.secret_before_end,
            failing_since: self.failing_since,
            next_try_at: self.next_try_at,
            last_error: self.last_error,
        })
    }
}

pub(super) fn read_id(text: &str) -> Result<SubscriptionId, StoreError> {
    SubscriptionId::parse(text).map_err(|_| StoreError::Unreadable("subscriptions.subscription_id"))
}

pub(super) fn read_states(states: &[String]) -> Result<Vec<RedemptionState>, StoreError> {
    states.iter().map(|state| read_state(state)).collect()
}

pub(super) fn read_delivery_id(text: &str) -> Result<DeliveryId, StoreError> {
    DeliveryId::parse(text).map_err(|_| StoreError::Unreadable("deliveries.delivery_id"))
}

fn column(states: &[RedemptionState]) -> Vec<String> {
    states.iter().map(|state| state.as_str().to_owned()).collect()
}

struct DeliveryRow {
    delivery_id: String,
    redemption_id: Uuid,
    account_id: String,
    attempts: i32,
    last_error: String,
    created_at: OffsetDateTime,
    last_try_at: Option<OffsetDateTime>,
    next_try_at: Option<OffsetDateTime>,
    dead_at: Option<OffsetDateTime>,
}

impl DeliveryRow {
    fn read(self) -> Result<Delivery, StoreError> {
        Ok(Delivery {
            delivery_id: read_delivery_id(&self.delivery_id)?,
            redemption_id: RedemptionId(self.redemption_id),
            account_id: read_account_id(&self.account_id)?,
            attempts: self.attempts,
            last_error: self.last_error,
            created_at: self.created_at,
            last_try_at: self.last_try_at,
            next_try_at: self.next_try_at,
            dead_at: self.dead_at,
        })
    }
}

impl Store {
    /// Makes a subscription; `None` when one has its id, there is no such pool, or it has as many as it may. When the reply to
    /// it was lost its secret is unknown to the one who asked, who gives it another.
    pub async fn insert_subscription(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
        terms: &Terms,
        (secret, cursor): (&[u8], &str),
        by: &Authority,
    ) -> Result<Option<Subscription>, StoreError> {
        let made = sqlx::query_file!(
            "src/store/sql/subscription/insert_subscription.sql",
            pool_id.as_str(),
            id.as_str(),
            terms.url,
            terms.allow_plain,
            &column(&terms.states),
            secret,
            cursor,
            by.principal.name(),
            by.peer(),
            i64::from(MAX_SUBSCRIPTIONS),
        )
        .fetch_optional(&self.db)
        .await?;
        let Some(row) = made else { return Ok(None) };
        let after = json!({ "url": row.url, "states": row.states });
        log(by, "CreateSubscription", pool_id, id, (None, Some(after)));
        subscription_row!(row).read(pool_id).map(Some)
    }

    /// Reads a subscription.
    pub async fn get_subscription(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
    ) -> Result<Option<Subscription>, StoreError> {
        let row = sqlx::query_file_as!(
            SubscriptionRow,
            "src/store/sql/subscription/get_subscription.sql",
            pool_id.as_str(),
            id.as_str(),
        );
        row.fetch_optional(&self.rest).await?.map(|row| row.read(pool_id)).transpose()
    }

    /// Counts the deliveries of a subscription that were not taken.
    pub async fn count_deliveries(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
    ) -> Result<NotTaken, StoreError> {
        let count = sqlx::query_file_as!(
            NotTaken,
            "src/store/sql/subscription/count_deliveries.sql",
            pool_id.as_str(),
            id.as_str(),
        );
        Ok(count.fetch_one(&self.rest).await?)
    }

    /// Lists the subscriptions of a pool after `after` (exclusive), at most `limit`.
    pub async fn list_subscriptions(
        &self,
        pool_id: &PoolId,
        after: &str,
        limit: i64,
    ) -> Result<Page<Subscription>, StoreError> {
        let rows = sqlx::query_file_as!(
            SubscriptionRow,
            "src/store/sql/subscription/list_subscriptions.sql",
            pool_id.as_str(),
            after,
            limit,
        );
        // A pool has few: the limit bounds a page well enough.
        read_page(rows.fetch_all(&self.rest).await?, limit, |_| false, |row| row.read(pool_id))
    }

    /// Gives a subscription other terms; `None` when it is not as it was read. When the reply was lost, it is read and changed
    /// again.
    pub async fn update_subscription(
        &self,
        now: &Subscription,
        terms: &Terms,
        by: &Authority,
    ) -> Result<Option<Subscription>, StoreError> {
        let (pool_id, id) = (&now.pool_id, &now.subscription_id);
        let changed = sqlx::query_file!(
            "src/store/sql/subscription/update_subscription.sql",
            pool_id.as_str(),
            id.as_str(),
            terms.url,
            terms.allow_plain,
            &column(&terms.states),
            terms.paused,
            by.principal.name(),
            now.updated_at,
            by.peer(),
        )
        .fetch_optional(&self.db)
        .await?;
        let Some(row) = changed else { return Ok(None) };
        log(by, "UpdateSubscription", pool_id, id, (row.before, row.after));
        subscription_row!(row).read(pool_id).map(Some)
    }

    /// Gives a subscription another secret; `None` when there is none. Not repeated: each makes the one before the last sign no
    /// more.
    pub async fn rotate_subscription_secret(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
        secret: &[u8],
        overlap: Duration,
        by: &Authority,
    ) -> Result<Option<Subscription>, StoreError> {
        let changed = sqlx::query_file!(
            "src/store/sql/subscription/rotate_subscription_secret.sql",
            pool_id.as_str(),
            id.as_str(),
            secret,
            interval(overlap),
            by.principal.name(),
            by.peer(),
        )
        .fetch_optional(&self.db)
        .await?;
        let Some(row) = changed else { return Ok(None) };
        log(by, "RotateSubscriptionSecret", pool_id, id, (None, Some(json!({}))));
        subscription_row!(row).read(pool_id).map(Some)
    }

    /// Deletes a subscription, and answers whether there was one. May be repeated.
    pub async fn delete_subscription(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
        by: &Authority,
    ) -> Result<bool, StoreError> {
        let deleted = sqlx::query_file_scalar!(
            "src/store/sql/subscription/delete_subscription.sql",
            pool_id.as_str(),
            id.as_str(),
            by.principal.name(),
            by.peer(),
        );
        let answer = deleted.fetch_optional(&self.db).await;
        audit::deleted(by, "DeleteSubscription", [pool_id.as_str(), id.as_str()], answer)
    }

    /// Lists the deliveries of a subscription that were not taken, after `after` (exclusive), at most `limit`.
    pub async fn list_deliveries(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
        is_dead: Option<bool>,
        after: &str,
        limit: i64,
    ) -> Result<Page<Delivery>, StoreError> {
        let rows = sqlx::query_file_as!(
            DeliveryRow,
            "src/store/sql/subscription/list_deliveries.sql",
            pool_id.as_str(),
            id.as_str(),
            after,
            is_dead,
            limit,
        );
        // Its texts are short.
        read_page(rows.fetch_all(&self.rest).await?, limit, |_| false, DeliveryRow::read)
    }

    /// Lets deliveries be tried now: these, or all dead letters. Answers how many. May be repeated.
    pub async fn retry_deliveries(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
        deliveries: Option<&[DeliveryId]>,
        by: &Authority,
    ) -> Result<i64, StoreError> {
        let named = deliveries.map(|ids| ids.iter().map(DeliveryId::to_string).collect::<Vec<_>>());
        let row = sqlx::query_file!(
            "src/store/sql/subscription/retry_deliveries.sql",
            pool_id.as_str(),
            id.as_str(),
            named.as_deref(),
            by.principal.name(),
            by.peer(),
        )
        .fetch_one(&self.db)
        .await?;
        log(by, "RetryDeliveries", pool_id, id, (None, row.after));
        Ok(row.retried)
    }
}

type Values = (Option<serde_json::Value>, Option<serde_json::Value>);

fn log(
    by: &Authority,
    action: &str,
    pool_id: &PoolId,
    id: &SubscriptionId,
    (before, after): Values,
) {
    let (pool_id, subject) = (pool_id.as_str(), id.as_str());
    audit::log_written(by, &Written { action, pool_id, subject, before, after, reason: "" });
}
