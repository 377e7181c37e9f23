//! The filters of lists: each lets through what it says, on one page and on several, and nothing else.

use holdfast::{
    domain::access::Role,
    rpc::pb::{self, RedemptionState},
    simulator::faults::Fault,
};

use crate::support::{
    program,
    world::{Clients, POOL, World, bad_fields, lease},
};

/// Two holders, an account of each that is still theirs, and three redemptions: two were credited, one failed.
async fn two_holders() -> (World, Clients, Vec<pb::Redemption>) {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(3).await;
    world.fault(&world.code("three"), &[Fault::LimitReached]);
    let mut redeemed = Vec::new();
    for (holder, cards) in [("anna", &["one", "two"][..]), ("ben", &["three"])] {
        let held = lease(&clients.acquire(|r| r.holder = holder.into()).await.unwrap());
        for card in cards {
            let code = world.code(card);
            let reply = clients.redeem(&held, &code, |r| r.request_id = (*card).into()).await;
            redeemed.push(reply.unwrap().redemption.unwrap());
        }
    }
    assert_eq!(redeemed[2].state(), RedemptionState::Failed);
    (world, clients, redeemed)
}

/// The request ids of a list, newest first, from pages of one redemption.
async fn redemptions(
    clients: &mut Clients,
    change: impl FnOnce(&mut pb::ListRedemptionsRequest),
) -> Vec<String> {
    let mut request =
        pb::ListRedemptionsRequest { pool_id: POOL.into(), page_size: 1, ..Default::default() };
    change(&mut request);
    let mut found = Vec::new();
    loop {
        let page = clients.redemptions.list_redemptions(request.clone()).await.unwrap();
        let page = page.into_inner();
        found.extend(page.redemptions.into_iter().map(|it| it.request_id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return found;
        }
    }
}

#[tokio::test]
async fn redemptions_are_listed_by_request_reason_holder_and_last_characters() {
    let (world, mut clients, redeemed) = two_holders().await;
    assert_eq!(redemptions(&mut clients, |_| {}).await, ["three", "two", "one"]);
    for id in ["one", "two", "three"] {
        assert_eq!(redemptions(&mut clients, |r| r.request_id = id.into()).await, [id]);
    }
    // Neither a beginning of an id nor a longer one is the id.
    for none in ["on", "onee", "none"] {
        let found = redemptions(&mut clients, |r| r.request_id = none.into()).await;
        assert!(found.is_empty(), "{none}: {found:?}");
    }
    let why = redeemed[2].failure.clone().unwrap().reason;
    assert_eq!(redemptions(&mut clients, |r| r.failure_reason = why.clone()).await, ["three"]);
    assert!(redemptions(&mut clients, |r| r.failure_reason = "NONE".into()).await.is_empty());
    assert_eq!(redemptions(&mut clients, |r| r.holder = "anna".into()).await, ["two", "one"]);
    assert_eq!(redemptions(&mut clients, |r| r.holder = "ben".into()).await, ["three"]);
    let last4 = redeemed[0].code_last4.clone();
    let same = redeemed.iter().filter(|it| it.code_last4 == last4).count();
    let found = redemptions(&mut clients, |r| r.code_last4 = last4.clone()).await;
    assert!(found.contains(&"one".to_owned()) && found.len() == same, "{found:?}");
    let both = redemptions(&mut clients, |r| {
        r.holder = "anna".into();
        r.failure_reason = why.clone();
    });
    assert!(both.await.is_empty());
    let wrong = pb::ListRedemptionsRequest {
        pool_id: POOL.into(),
        request_id: "one".into(),
        batch_id: "one".into(),
        holder: "\0".into(),
        failure_reason: "x".repeat(257),
        code_last4: "12345".into(),
        ..Default::default()
    };
    let error = clients.redemptions.list_redemptions(wrong).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["failure_reason", "holder", "code_last4", "request_id"]);

    let list = ["redemption", "list", "--pool", POOL, "--format", "csv", "--holder", "ben"];
    let shown = program::run(&world, &[&list[..], &["--reason", &why]].concat()).await;
    assert_eq!((shown.code, shown.stdout.lines().count()), (Some(0), 2), "{shown:?}");
    let shown =
        program::run(&world, &[&list[..], &["--until", "2000-01-01T00:00:00Z"]].concat()).await;
    assert_eq!((shown.code, shown.stdout.lines().count()), (Some(0), 1), "{shown:?}");
}

#[tokio::test]
async fn accounts_are_listed_by_holder_and_by_the_time_of_their_last_change() {
    let (world, mut clients, redeemed) = two_holders().await;
    let reader = clients.clone();
    let list = async |change: &dyn Fn(&mut pb::ListAccountsRequest)| {
        let mut request = pb::ListAccountsRequest { pool_id: POOL.into(), ..Default::default() };
        change(&mut request);
        let page = reader.clone().accounts.list_accounts(request).await.unwrap().into_inner();
        page.accounts.into_iter().map(|it| it.account_id).collect::<Vec<_>>()
    };
    let bens = redeemed[2].account_id.clone();
    assert_eq!(list(&|r| r.holder = "ben".into()).await, [&*bens]);
    let changed = clients.account(&bens).await.update_time;
    assert_eq!(list(&|r| r.update_time_from = changed).await, [&*bens], "it changed last");
    assert_eq!(list(&|r| r.update_time_to = changed).await.len(), 2);
    let held = pb::LeaseRef {
        pool_id: POOL.into(),
        account_id: bens.clone(),
        fencing_token: redeemed[2].fencing_token,
    };
    clients.release(&held).await.unwrap();
    assert!(list(&|r| r.holder = "ben".into()).await.is_empty(), "the lease is over");
    let shown = program::run(
        &world,
        &["account", "list", "--pool", POOL, "--format", "csv", "--holder", "anna"],
    )
    .await;
    assert_eq!((shown.code, shown.stdout.lines().count()), (Some(0), 2), "{shown:?}");
}

#[tokio::test]
async fn events_of_an_account_are_listed_by_time_reason_redemption_and_actor() {
    let (world, clients, redeemed) = two_holders().await;
    let account_id = redeemed[0].account_id.clone();
    let list = async |change: &dyn Fn(&mut pb::ListAccountEventsRequest)| {
        let mut request = pb::ListAccountEventsRequest {
            pool_id: POOL.into(),
            account_id: account_id.clone(),
            ..Default::default()
        };
        change(&mut request);
        let page = clients.clone().accounts.list_account_events(request).await.unwrap();
        page.into_inner().account_events
    };
    let reasons = |events: &[pb::AccountEvent]| -> Vec<String> {
        events.iter().map(|event| event.reason.clone()).collect()
    };
    let all = list(&|_| {}).await;
    assert_eq!(
        reasons(&all),
        ["redeemed", "redeem_begun", "redeemed", "redeem_begun", "acquired", "created"]
    );
    let second = redeemed[1].redemption_id.clone();
    let of_second = list(&|r| r.redemption_id = second.clone()).await;
    assert_eq!(of_second, all[..2]);
    assert_eq!(list(&|r| r.reason = "redeemed".into()).await.len(), 2);
    assert_eq!(list(&|r| r.actor = "api".into()).await, all[5..]);
    let middle = all[3].event_time;
    assert_eq!(list(&|r| r.event_time_from = middle).await, all[..4]);
    assert_eq!(list(&|r| r.event_time_to = middle).await, all[4..]);
    let show = ["account", "show", &account_id, "--pool", POOL, "--format", "json"];
    let shown = program::run(&world, &[&show[..], &["--reason", "acquired"]].concat()).await;
    let told = |text: &str| shown.stdout.contains(&format!("\"reason\":\"{text}\""));
    assert!(told("acquired") && !told("redeemed"), "{shown:?}");
}

#[tokio::test]
async fn the_audit_trail_is_listed_by_action() {
    let world = crate::access::world(1, |_| {}).await;
    let mut ops = world.clients_as(0, "token:ops", Role::Admin).await;
    ops.create_account("a", |_| {}).await;
    ops.create_pool("other").await;
    let request =
        pb::ListAuditEventsRequest { action: "CreateAccount".into(), ..Default::default() };
    let events = ops.access.list_audit_events(request).await.unwrap().into_inner().events;
    let seen: Vec<_> = events.iter().map(|it| (&*it.action, &*it.subject)).collect();
    assert_eq!(seen, [("CreateAccount", "a")]);
    let arguments = ["audit-log", "--action", "CreateAccount", "--format", "csv"];
    let shown = program::run(&world, &arguments).await;
    assert_eq!((shown.code, shown.stdout.lines().count()), (Some(0), 2), "{shown:?}");
}
