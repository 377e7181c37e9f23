//! What is asked of the service, and what is refused.

use holdfast::rpc::pb;
use tonic::Code;

use super::{ID, receiver::Receiver, subscribe, update};
use crate::support::world::{POOL, World, bad_fields, check_names, reason};

fn new(url: &str) -> pb::CreateSubscriptionRequest {
    let subscription = pb::Subscription {
        pool_id: POOL.to_owned(),
        subscription_id: ID.to_owned(),
        url: url.to_owned(),
        ..Default::default()
    };
    pb::CreateSubscriptionRequest { subscription: Some(subscription), after: String::new() }
}

#[tokio::test]
async fn urls_that_are_not_safe_are_refused() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let long = format!("https://a.example/{}", "x".repeat(2048));
    for url in [
        "",
        "a.example",
        "ftp://a.example/",
        "http://a.example/x",
        "https://u:p@a.example/",
        "https://a.example/?token=x",
        "https://a.example/#x",
        "https://a.example:0/",
        "https://A.example/",
        &long,
    ] {
        let refused = clients.subscriptions.create_subscription(new(url)).await.unwrap_err();
        assert_eq!(bad_fields(&refused), ["subscription.url"], "{url}");
    }
    let mut plain = new("http://a.example/x");
    plain.subscription.as_mut().unwrap().allow_plain = Some(true);
    clients.subscriptions.create_subscription(plain).await.unwrap();
    let request = pb::UpdateSubscriptionRequest {
        subscription: Some(pb::Subscription {
            allow_plain: Some(false),
            ..new("").subscription.unwrap()
        }),
        update_mask: None,
    };
    let refused = clients.subscriptions.update_subscription(request).await.unwrap_err();
    assert_eq!(bad_fields(&refused), ["subscription.url"]);
}

#[tokio::test]
async fn every_bad_field_is_named_and_what_is_not_there_is_not_found() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut bad = new("");
    bad.after = "x".to_owned();
    let given = bad.subscription.as_mut().unwrap();
    given.subscription_id = " ".to_owned();
    given.states = vec![pb::RedemptionState::InDoubt.into(), 99];
    let refused = clients.subscriptions.create_subscription(bad).await.unwrap_err();
    let mut fields = bad_fields(&refused);
    fields.sort_unstable();
    assert_eq!(
        fields,
        ["after", "subscription.states", "subscription.subscription_id", "subscription.url"]
    );
    let (pool_id, subscription_id) = (POOL.to_owned(), "none".to_owned());
    let request = pb::GetSubscriptionRequest { pool_id, subscription_id };
    let refused = clients.subscriptions.get_subscription(request).await.unwrap_err();
    check_names(&refused, Code::NotFound, "SUBSCRIPTION_NOT_FOUND", "subscription", "none");
    let request = pb::RetryDeliveriesRequest {
        pool_id: POOL.to_owned(),
        subscription_id: ID.to_owned(),
        delivery_ids: vec!["x".to_owned()],
    };
    let refused = clients.subscriptions.retry_deliveries(request).await.unwrap_err();
    assert_eq!(bad_fields(&refused), ["delivery_ids[0]"]);
}

#[tokio::test]
async fn a_pool_has_a_bounded_number_of_subscriptions_each_of_its_own_name() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let receiver = Receiver::start().await;
    let secret = subscribe(&mut clients, &receiver).await;
    assert!(secret.starts_with("whsec_") && secret.len() == 50, "{}", secret.len());
    let again = clients.subscriptions.create_subscription(new(&receiver.url())).await.unwrap_err();
    check_names(&again, Code::AlreadyExists, "SUBSCRIPTION_ALREADY_EXISTS", "subscription", ID);
    for number in 1..=20 {
        let mut one = new(&receiver.url());
        one.subscription.as_mut().unwrap().subscription_id = format!("s-{number:02}");
        let made = clients.subscriptions.create_subscription(one).await;
        match number {
            20 => assert_eq!(reason(&made.unwrap_err()), "TOO_MANY_SUBSCRIPTIONS"),
            _ => drop(made.unwrap()),
        }
    }
    let request = pb::ListSubscriptionsRequest {
        pool_id: POOL.to_owned(),
        page_size: 15,
        page_token: String::new(),
    };
    let page =
        clients.subscriptions.list_subscriptions(request.clone()).await.unwrap().into_inner();
    assert_eq!((page.subscriptions.len(), &*page.subscriptions[0].subscription_id), (15, ID));
    let request = pb::ListSubscriptionsRequest { page_token: page.next_page_token, ..request };
    let page = clients.subscriptions.list_subscriptions(request).await.unwrap().into_inner();
    assert_eq!((page.subscriptions.len(), &*page.next_page_token), (5, ""));
    update(&mut clients, |it| it.paused = Some(true)).await;
    let request =
        pb::DeleteSubscriptionRequest { pool_id: POOL.to_owned(), subscription_id: ID.to_owned() };
    clients.subscriptions.delete_subscription(request.clone()).await.unwrap();
    let gone = clients.subscriptions.delete_subscription(request).await.unwrap_err();
    assert_eq!(reason(&gone), "SUBSCRIPTION_NOT_FOUND");
}
