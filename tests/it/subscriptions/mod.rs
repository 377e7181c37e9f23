//! Subscriptions: every outcome is delivered at least once, signed, in each account's order.

mod command;
mod dead_letters;
mod delivering;
mod outages;
mod receiver;
mod requests;
mod secrets;

use std::{collections::HashMap, time::Duration};

use holdfast::rpc::pb;

use self::receiver::{Got, Receiver};
use crate::support::world::{Clients, POOL};

/// How long deliveries are waited for.
const LIMIT: Duration = Duration::from_secs(60);
const ID: &str = "ledger";

/// Subscribes a receiver, and answers the secret.
async fn subscribe(clients: &mut Clients, receiver: &Receiver) -> String {
    let subscription = pb::Subscription {
        pool_id: POOL.to_owned(),
        subscription_id: ID.to_owned(),
        url: receiver.url(),
        ..Default::default()
    };
    let request =
        pb::CreateSubscriptionRequest { subscription: Some(subscription), after: String::new() };
    let reply = clients.subscriptions.create_subscription(request).await.unwrap().into_inner();
    reply.secret
}

/// The subscription as it is.
async fn subscription(clients: &mut Clients) -> pb::Subscription {
    let request =
        pb::GetSubscriptionRequest { pool_id: POOL.to_owned(), subscription_id: ID.to_owned() };
    let reply = clients.subscriptions.get_subscription(request).await.unwrap();
    reply.into_inner().subscription.unwrap()
}

async fn update(
    clients: &mut Clients,
    change: impl FnOnce(&mut pb::Subscription),
) -> pb::Subscription {
    let mut subscription = pb::Subscription {
        pool_id: POOL.to_owned(),
        subscription_id: ID.to_owned(),
        ..Default::default()
    };
    change(&mut subscription);
    let request =
        pb::UpdateSubscriptionRequest { subscription: Some(subscription), update_mask: None };
    let reply = clients.subscriptions.update_subscription(request).await.unwrap();
    reply.into_inner().subscription.unwrap()
}

async fn deliveries(clients: &mut Clients) -> Vec<pb::Delivery> {
    let request = pb::ListDeliveriesRequest {
        pool_id: POOL.to_owned(),
        subscription_id: ID.to_owned(),
        page_size: 1000,
        ..Default::default()
    };
    clients.subscriptions.list_deliveries(request).await.unwrap().into_inner().deliveries
}

async fn retry(clients: &mut Clients, delivery_ids: Vec<String>) -> i64 {
    let request = pb::RetryDeliveriesRequest {
        pool_id: POOL.to_owned(),
        subscription_id: ID.to_owned(),
        delivery_ids,
    };
    clients.subscriptions.retry_deliveries(request).await.unwrap().into_inner().retried
}

/// Of each account the outcomes were taken for the first time in the order in which they were recorded.
fn check_order(taken: &[Got], redeemed: &HashMap<String, pb::Redemption>) {
    let mut newest: HashMap<&str, i64> = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    for got in taken.iter().filter(|got| seen.insert(got.id.clone())) {
        let one = &redeemed[&got.redemption_id()];
        let before = newest.insert(&one.account_id, one.fencing_token);
        assert!(before < Some(one.fencing_token), "{}: {before:?}, {got:?}", one.account_id);
    }
}
