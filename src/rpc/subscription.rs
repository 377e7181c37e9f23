//! `SubscriptionService`: outcomes that are sent to a URL, over gRPC.

use std::time::Duration;

use tonic::{Request, Response, Status};

use super::{
    convert::{Fields, timestamp},
    layers::authority_of,
    mask::Mask,
    page::page,
    pb,
    redemption::message::state_message,
    status::status,
};
use crate::{
    domain::{
        id::{PoolId, SubscriptionId},
        outcomes::Position,
        redemption::RedemptionState,
        subscription::{
            Delivery, DeliveryId, MAX_OVERLAP, NotTaken, OVERLAP, Subscription, SubscriptionChange,
            Terms,
        },
    },
    service::{Error, subscriptions::Subscriptions, watching::After},
};

/// The fields that an update may name.
const CHANGEABLE: [&str; 4] = ["url", "allow_plain", "states", "paused"];
/// What stands for the oldest outcome.
const OLDEST: &str = "oldest";
/// How many deliveries one call names at the most.
const MAX_NAMED: usize = 1000;
/// How many states a filter names at the most.
const MAX_STATES: usize = 16;

/// Serves `SubscriptionService`.
#[derive(Clone, Debug)]
pub struct SubscriptionRpc {
    subscriptions: Subscriptions,
}

impl SubscriptionRpc {
    /// Over the subscriptions.
    pub fn new(subscriptions: Subscriptions) -> Self {
        Self { subscriptions }
    }
}

#[tonic::async_trait]
impl pb::subscription_service_server::SubscriptionService for SubscriptionRpc {
    async fn create_subscription(
        &self,
        request: Request<pb::CreateSubscriptionRequest>,
    ) -> Result<Response<pb::CreateSubscriptionResponse>, Status> {
        let by = authority_of(&request);
        let (pool_id, id, terms, after) = read_new(request.into_inner()).map_err(|e| status(&e))?;
        let made = self.subscriptions.create(&pool_id, &id, &terms, after, &by).await;
        let (subscription, secret) = made.map_err(|e| status(&e))?;
        Ok(Response::new(pb::CreateSubscriptionResponse {
            subscription: Some(message(&subscription)),
            secret: secret.expose().to_string(),
        }))
    }

    async fn get_subscription(
        &self,
        request: Request<pb::GetSubscriptionRequest>,
    ) -> Result<Response<pb::GetSubscriptionResponse>, Status> {
        let request = request.into_inner();
        let (pool_id, id) =
            read_names(&request.pool_id, &request.subscription_id).map_err(|e| status(&e))?;
        let found = self.subscriptions.get(&pool_id, &id).await.map_err(|e| status(&e))?;
        let (subscription, NotTaken { retrying, dead }) = found;
        let subscription = pb::Subscription { retrying, dead, ..message(&subscription) };
        Ok(Response::new(pb::GetSubscriptionResponse { subscription: Some(subscription) }))
    }

    async fn list_subscriptions(
        &self,
        request: Request<pb::ListSubscriptionsRequest>,
    ) -> Result<Response<pb::ListSubscriptionsResponse>, Status> {
        let (pool_id, after, limit) = read_list(request.into_inner()).map_err(|e| status(&e))?;
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let found =
            self.subscriptions.list(&pool_id, &after, limit).await.map_err(|e| status(&e))?;
        let (subscriptions, next_page_token) =
            page(&found, |subscription| subscription.subscription_id.to_string(), message);
        Ok(Response::new(pb::ListSubscriptionsResponse { subscriptions, next_page_token }))
    }

    async fn update_subscription(
        &self,
        request: Request<pb::UpdateSubscriptionRequest>,
    ) -> Result<Response<pb::UpdateSubscriptionResponse>, Status> {
        let by = authority_of(&request);
        let (pool_id, id, change) = read_change(request.into_inner()).map_err(|e| status(&e))?;
        let changed = self.subscriptions.update(&pool_id, &id, change, &by).await;
        let subscription = Some(message(&changed.map_err(|e| status(&e))?));
        Ok(Response::new(pb::UpdateSubscriptionResponse { subscription }))
    }

    async fn rotate_subscription_secret(
        &self,
        request: Request<pb::RotateSubscriptionSecretRequest>,
    ) -> Result<Response<pb::RotateSubscriptionSecretResponse>, Status> {
        let by = authority_of(&request);
        let (pool_id, id, overlap) = read_rotation(request.into_inner()).map_err(|e| status(&e))?;
        let changed = self.subscriptions.rotate(&pool_id, &id, overlap, &by).await;
        let (subscription, secret) = changed.map_err(|e| status(&e))?;
        Ok(Response::new(pb::RotateSubscriptionSecretResponse {
            subscription: Some(message(&subscription)),
            secret: secret.expose().to_string(),
        }))
    }

    async fn delete_subscription(
        &self,
        request: Request<pb::DeleteSubscriptionRequest>,
    ) -> Result<Response<pb::DeleteSubscriptionResponse>, Status> {
        let by = authority_of(&request);
        let request = request.into_inner();
        let (pool_id, id) =
            read_names(&request.pool_id, &request.subscription_id).map_err(|e| status(&e))?;
        self.subscriptions.delete(&pool_id, &id, &by).await.map_err(|e| status(&e))?;
        Ok(Response::new(pb::DeleteSubscriptionResponse {}))
    }

    async fn list_deliveries(
        &self,
        request: Request<pb::ListDeliveriesRequest>,
    ) -> Result<Response<pb::ListDeliveriesResponse>, Status> {
        let DeliveriesAsked { pool_id, subscription_id: id, is_dead, after, limit } =
            read_deliveries(request.into_inner()).map_err(|e| status(&e))?;
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let found = self.subscriptions.deliveries(&pool_id, &id, is_dead, &after, limit).await;
        let found = found.map_err(|e| status(&e))?;
        let (deliveries, next_page_token) =
            page(&found, |delivery| delivery.delivery_id.to_string(), delivery_message);
        Ok(Response::new(pb::ListDeliveriesResponse { deliveries, next_page_token }))
    }

    async fn retry_deliveries(
        &self,
        request: Request<pb::RetryDeliveriesRequest>,
    ) -> Result<Response<pb::RetryDeliveriesResponse>, Status> {
        let by = authority_of(&request);
        let (pool_id, id, deliveries) = read_retry(request.into_inner()).map_err(|e| status(&e))?;
        let retried = self.subscriptions.retry(&pool_id, &id, &deliveries, &by).await;
        let retried = retried.map_err(|e| status(&e))?;
        Ok(Response::new(pb::RetryDeliveriesResponse { retried }))
    }
}

/// The pool, the subscription's name and terms, and from where on.
pub(super) fn read_new(
    request: pb::CreateSubscriptionRequest,
) -> Result<(PoolId, SubscriptionId, Terms, After), Error> {
    let mut fields = Fields::default();
    let given = fields.required("subscription", request.subscription);
    let read = given.and_then(|given| {
        let (pool_id, id) = read_own_names(&mut fields, &given);
        if given.url.is_empty() {
            fields.refuse("subscription.url", "must be set");
        }
        let states = read_states(&mut fields, &given.states);
        let after = read_after(&mut fields, pool_id.as_ref(), &request.after);
        let terms =
            Terms { allow_plain: given.allow_plain(), paused: false, states, url: given.url };
        if given.paused == Some(true) {
            fields.refuse("subscription.paused", "must not be set of a new subscription");
        }
        Some((pool_id?, id?, terms, after?))
    });
    fields.finish(read)
}

fn read_own_names(
    fields: &mut Fields,
    given: &pb::Subscription,
) -> (Option<PoolId>, Option<SubscriptionId>) {
    let pool_id = fields.id("subscription.pool_id", &given.pool_id, PoolId::parse);
    let id =
        fields.id("subscription.subscription_id", &given.subscription_id, SubscriptionId::parse);
    (pool_id, id)
}

fn read_after(fields: &mut Fields, pool_id: Option<&PoolId>, after: &str) -> Option<After> {
    match (after, pool_id) {
        ("", _) => Some(After::Now),
        (OLDEST, _) => Some(After::Nothing),
        // The cursor cannot be compared with it.
        (_, None) => None,
        (cursor, Some(pool_id)) => match Position::of_cursor(pool_id, cursor) {
            Ok(position) => Some(After::Position(Box::new(position))),
            Err(_) => {
                let rule = "must be empty, \"oldest\", or a cursor of this pool that WatchRedemptions told";
                fields.refuse("after", rule);
                None
            }
        },
    }
}

fn read_states(fields: &mut Fields, given: &[i32]) -> Vec<RedemptionState> {
    const FIELD: &str = "subscription.states";
    if given.len() > MAX_STATES {
        fields.refuse(FIELD, format!("must be at most {MAX_STATES}"));
        return Vec::new();
    }
    let mut states = Vec::new();
    for state in given {
        let read = fields.choice(FIELD, *state, |state| match state {
            pb::RedemptionState::Succeeded => Some(RedemptionState::Succeeded),
            pb::RedemptionState::Failed => Some(RedemptionState::Failed),
            _ => None,
        });
        match read {
            Some(state) if !states.contains(&state) => states.push(state),
            Some(_) => {}
            None => fields.refuse(FIELD, "may be SUCCEEDED and FAILED: others are no outcomes"),
        }
    }
    states
}

/// The pool, the subscription, and what to change of it.
pub(super) fn read_change(
    request: pb::UpdateSubscriptionRequest,
) -> Result<(PoolId, SubscriptionId, SubscriptionChange), Error> {
    let mut fields = Fields::default();
    let mask = Mask::read(&mut fields, request.update_mask, &CHANGEABLE);
    let given = fields.required("subscription", request.subscription);
    let read = given.and_then(|given| {
        let (pool_id, id) = read_own_names(&mut fields, &given);
        let states = read_states(&mut fields, &given.states);
        let has_states = mask.names("states") || (!states.is_empty() && mask.allows("states"));
        if mask.names("url") && given.url.is_empty() {
            fields.refuse("subscription.url", "must be set");
        }
        let change = SubscriptionChange {
            allow_plain: mask.flag("allow_plain", given.allow_plain),
            paused: mask.flag("paused", given.paused),
            states: has_states.then_some(states),
            url: Some(given.url).filter(|url| !url.is_empty() && mask.allows("url")),
        };
        Some((pool_id?, id?, change))
    });
    fields.finish(read)
}

pub(super) fn read_names(
    pool_id: &str,
    subscription_id: &str,
) -> Result<(PoolId, SubscriptionId), Error> {
    let mut fields = Fields::default();
    let names = names(&mut fields, pool_id, subscription_id);
    fields.finish(names)
}

fn names(fields: &mut Fields, pool_id: &str, id: &str) -> Option<(PoolId, SubscriptionId)> {
    let pool_id = fields.id("pool_id", pool_id, PoolId::parse);
    let id = fields.id("subscription_id", id, SubscriptionId::parse);
    pool_id.zip(id)
}

/// The pool, after which of its subscriptions, and how many.
pub(super) fn read_list(
    request: pb::ListSubscriptionsRequest,
) -> Result<(PoolId, Option<SubscriptionId>, i64), Error> {
    let mut fields = Fields::default();
    let pool_id = fields.id("pool_id", &request.pool_id, PoolId::parse);
    let limit = fields.page_size(request.page_size);
    let after = fields.page_token(&request.page_token, |key| SubscriptionId::parse(key).ok());
    fields.finish(pool_id.map(|pool_id| (pool_id, after, limit)))
}

/// The pool, the subscription, and for how long the secret before signs too.
pub(super) fn read_rotation(
    request: pb::RotateSubscriptionSecretRequest,
) -> Result<(PoolId, SubscriptionId, Duration), Error> {
    let mut fields = Fields::default();
    let names = names(&mut fields, &request.pool_id, &request.subscription_id);
    let overlap = fields.duration("overlap", request.overlap, Duration::ZERO, MAX_OVERLAP);
    let overlap = overlap.unwrap_or(OVERLAP);
    fields.finish(names.map(|(pool_id, id)| (pool_id, id, overlap)))
}

/// Which deliveries to list.
pub(super) struct DeliveriesAsked {
    pub(super) pool_id: PoolId,
    subscription_id: SubscriptionId,
    is_dead: Option<bool>,
    after: Option<DeliveryId>,
    pub(super) limit: i64,
}

pub(super) fn read_deliveries(
    request: pb::ListDeliveriesRequest,
) -> Result<DeliveriesAsked, Error> {
    let mut fields = Fields::default();
    let names = names(&mut fields, &request.pool_id, &request.subscription_id);
    let is_dead = fields.choice("state", request.state, |state| match state {
        pb::DeliveryState::Unspecified => None,
        pb::DeliveryState::Retrying => Some(false),
        pb::DeliveryState::Dead => Some(true),
    });
    let limit = fields.page_size(request.page_size);
    let after = fields.page_token(&request.page_token, |key| DeliveryId::parse(key).ok());
    let asked = |(pool_id, subscription_id)| DeliveriesAsked {
        pool_id,
        subscription_id,
        is_dead,
        after,
        limit,
    };
    fields.finish(names.map(asked))
}

/// The pool, the subscription, and which deliveries; none named: all dead letters.
pub(super) fn read_retry(
    request: pb::RetryDeliveriesRequest,
) -> Result<(PoolId, SubscriptionId, Vec<DeliveryId>), Error> {
    let mut fields = Fields::default();
    let names = names(&mut fields, &request.pool_id, &request.subscription_id);
    if request.delivery_ids.len() > MAX_NAMED {
        fields.refuse("delivery_ids", format!("must be at most {MAX_NAMED}"));
    }
    let named = request.delivery_ids.iter().take(MAX_NAMED).enumerate();
    let deliveries = named
        .filter_map(|(n, text)| fields.id(&format!("delivery_ids[{n}]"), text, DeliveryId::parse))
        .collect();
    fields.finish(names.map(|(pool_id, id)| (pool_id, id, deliveries)))
}

fn message(subscription: &Subscription) -> pb::Subscription {
    let Terms { url, allow_plain, states, paused } = &subscription.terms;
    pb::Subscription {
        pool_id: subscription.pool_id.to_string(),
        subscription_id: subscription.subscription_id.to_string(),
        url: url.clone(),
        allow_plain: Some(*allow_plain),
        states: states.iter().map(|state| state_message(*state)).collect(),
        paused: Some(*paused),
        create_time: Some(timestamp(subscription.created_at)),
        update_time: Some(timestamp(subscription.updated_at)),
        created_by: subscription.created_by.clone(),
        previous_secret_expire_time: subscription.secret_before_end.map(timestamp),
        failing_since: subscription.failing_since.map(timestamp),
        next_try_time: subscription.next_try_at.map(timestamp),
        last_error: subscription.last_error.clone(),
        retrying: 0,
        dead: 0,
    }
}

fn delivery_message(delivery: &Delivery) -> pb::Delivery {
    let state = match delivery.dead_at {
        Some(_) => pb::DeliveryState::Dead,
        None => pb::DeliveryState::Retrying,
    };
    pb::Delivery {
        delivery_id: delivery.delivery_id.to_string(),
        redemption_id: delivery.redemption_id.to_string(),
        account_id: delivery.account_id.to_string(),
        state: state.into(),
        attempts: delivery.attempts,
        last_error: delivery.last_error.clone(),
        create_time: Some(timestamp(delivery.created_at)),
        last_try_time: delivery.last_try_at.map(timestamp),
        next_try_time: delivery.next_try_at.map(timestamp),
        dead_time: delivery.dead_at.map(timestamp),
    }
}
