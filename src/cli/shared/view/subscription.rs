//! Subscriptions, and deliveries that were not taken.

use serde_json::Value;

use super::{name, text, time};
use crate::rpc::pb;

/// A subscription's columns.
pub(crate) const SUBSCRIPTION: &[&str] = &[
    "pool_id",
    "subscription_id",
    "url",
    "allow_plain",
    "states",
    "paused",
    "failing_since",
    "next_try_time",
    "last_error",
    "previous_secret_expire_time",
    "created_by",
    "create_time",
    "update_time",
];
/// Those that tell most.
pub(crate) const SUBSCRIPTION_AT_A_GLANCE: &[&str] =
    &["subscription_id", "url", "paused", "failing_since", "last_error"];
/// Those of one that is shown.
pub(crate) const SUBSCRIPTION_SHOWN: &[&str] = &[
    "pool_id",
    "subscription_id",
    "url",
    "allow_plain",
    "states",
    "paused",
    "failing_since",
    "next_try_time",
    "last_error",
    "previous_secret_expire_time",
    "created_by",
    "create_time",
    "update_time",
    "retrying",
    "dead",
];

/// A subscription's row.
pub(crate) fn subscription(subscription: &pb::Subscription) -> Vec<Value> {
    let states: Vec<_> = subscription.states().map(|state| state.as_str_name()).collect();
    vec![
        text(&subscription.pool_id),
        text(&subscription.subscription_id),
        text(&subscription.url),
        subscription.allow_plain().into(),
        text(&states.join(" ").replace("REDEMPTION_STATE_", "")),
        subscription.paused().into(),
        time(subscription.failing_since.as_ref()),
        time(subscription.next_try_time.as_ref()),
        text(&subscription.last_error),
        time(subscription.previous_secret_expire_time.as_ref()),
        text(&subscription.created_by),
        time(subscription.create_time.as_ref()),
        time(subscription.update_time.as_ref()),
    ]
}

/// The row of one that is shown.
pub(crate) fn subscription_shown(shown: &pb::Subscription) -> Vec<Value> {
    let mut row = subscription(shown);
    row.extend([shown.retrying.into(), shown.dead.into()]);
    row
}

/// A delivery's columns.
pub(crate) const DELIVERY: &[&str] = &[
    "delivery_id",
    "redemption_id",
    "account_id",
    "state",
    "attempts",
    "last_error",
    "create_time",
    "last_try_time",
    "next_try_time",
    "dead_time",
];
/// Those that tell most.
pub(crate) const DELIVERY_AT_A_GLANCE: &[&str] =
    &["delivery_id", "redemption_id", "state", "attempts", "next_try_time", "last_error"];

/// A delivery's row.
pub(crate) fn delivery(delivery: &pb::Delivery) -> Vec<Value> {
    vec![
        text(&delivery.delivery_id),
        text(&delivery.redemption_id),
        text(&delivery.account_id),
        name(delivery.state().as_str_name(), "DELIVERY_STATE_"),
        delivery.attempts.into(),
        text(&delivery.last_error),
        time(delivery.create_time.as_ref()),
        time(delivery.last_try_time.as_ref()),
        time(delivery.next_try_time.as_ref()),
        time(delivery.dead_time.as_ref()),
    ]
}
