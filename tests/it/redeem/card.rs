//! `RedeemCard`: a card, its account and its redemption in one call.

use std::time::Duration;

use holdfast::{
    rpc::pb::{self, AccountStatus, RedemptionState},
    simulator::faults::{Fault, Faults},
};
use tokio::{task::JoinSet, time::timeout};
use tonic::{Code, Status};

use crate::support::{
    wait::eventually,
    world::{Clients, POOL, World, bad_fields, eur, lease, metadata, reason, seconds},
};

const LIMIT: Duration = Duration::from_secs(20);

pub(super) fn card(request_id: &str, code: &str) -> pb::RedeemCardRequest {
    pb::RedeemCardRequest {
        priority: 0,
        request_id: request_id.to_owned(),
        pool_id: POOL.to_owned(),
        holder: "till".to_owned(),
        code: code.to_owned(),
        expected: Some(eur(1000)),
        selector: None,
        wait_timeout: seconds(10.0),
    }
}

pub(super) async fn redeem_card(
    clients: &mut Clients,
    request: pb::RedeemCardRequest,
) -> Result<pb::RedeemCardResponse, Status> {
    let reply = clients.redemptions.redeem_card(request).await?.into_inner();
    clients.journal().redemption(reply.redemption.as_ref().unwrap());
    Ok(reply)
}

async fn statuses(clients: &mut Clients, count: usize) -> Vec<AccountStatus> {
    let mut statuses = Vec::new();
    for number in 0..count {
        statuses.push(clients.status_of(&format!("a-{number:03}")).await);
    }
    statuses
}

#[tokio::test]
async fn redeem_card_picks_an_account_redeems_into_it_and_gives_it_back() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let code = world.code("one");
    let first = redeem_card(&mut clients, card("r", &code)).await.unwrap();
    let redemption = first.redemption.unwrap();
    assert_eq!((redemption.state(), first.replayed), (RedemptionState::Succeeded, false));
    assert_eq!((&*redemption.request_id, &*redemption.account_id), ("r", "a-000"));
    let account = clients.account("a-000").await;
    assert_eq!((account.status(), account.balance), (AccountStatus::Processing, Some(eur(1000))));
    assert_eq!(account.lease, None);
    // The same request is the same redemption, also by Redeem, and also while no account is free.
    let again = redeem_card(&mut clients, card("r", &code)).await.unwrap();
    assert_eq!((again.redemption.as_ref(), again.replayed), (Some(&redemption), true));
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let now = pb::RedeemCardRequest { wait_timeout: None, ..card("r", &code) };
    let again = redeem_card(&mut clients, now).await.unwrap();
    assert_eq!(again.redemption.as_ref(), Some(&redemption));
    let named = |request: &mut pb::RedeemRequest| {
        request.request_id = "r".to_owned();
        request.expected = Some(eur(1000));
    };
    let again = clients.redeem(&held, &code, named).await.unwrap();
    assert_eq!((again.redemption, again.replayed), (Some(redemption), true));
    // Another card under its name is refused, and another name for its card.
    clients.release(&held).await.unwrap();
    let other = redeem_card(&mut clients, card("r", &world.code("other"))).await.unwrap_err();
    assert_eq!((&*reason(&other), &*metadata(&other, "fields")), ("REQUEST_ID_REUSED", "code"));
    let other = redeem_card(&mut clients, card("s", &code)).await.unwrap_err();
    assert_eq!(reason(&other), "CODE_IN_USE");
    assert_eq!(
        statuses(&mut clients, 1).await,
        [AccountStatus::Processing],
        "nothing stays locked"
    );
}

#[tokio::test]
async fn cards_that_come_together_get_an_account_each_over_two_servers() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(3).await;
    let there = world.clients(1).await;
    let mut redeeming = JoinSet::new();
    for number in 0..24 {
        let request = pb::RedeemCardRequest {
            wait_timeout: seconds(60.0),
            ..card(&format!("r-{number}"), &world.code(&format!("card-{number}")))
        };
        // At both servers: one of the two begins it.
        for mut clients in [clients.clone(), there.clone()] {
            let request = request.clone();
            redeeming.spawn(async move { redeem_card(&mut clients, request).await });
        }
    }
    let told = redeeming.join_all().await;
    let began = told.iter().filter(|told| !told.as_ref().unwrap().replayed).count();
    assert_eq!(began, 24);
    for told in &told {
        let redemption = told.as_ref().unwrap().redemption.as_ref().unwrap();
        assert_eq!(redemption.state(), RedemptionState::Succeeded, "{redemption:?}");
    }
    let balance = async |clients: &mut Clients, id: &str| {
        clients.account(id).await.balance.unwrap().amount_minor
    };
    let mut sum = 0;
    for id in ["a-000", "a-001", "a-002"] {
        sum += balance(&mut clients, id).await;
    }
    assert_eq!(sum, 24_000);
}

#[tokio::test]
async fn a_card_that_no_account_takes_is_refused_with_the_reason_and_leaves_nothing_behind() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 1500).await;
    clients.create_account("a-000", |account| account.plan_id = "plan".into()).await;
    let much = pb::RedeemCardRequest {
        expected: Some(eur(1501)),
        wait_timeout: None,
        ..card("much", &world.code("much"))
    };
    let refused = redeem_card(&mut clients, much).await.unwrap_err();
    assert_eq!(
        (refused.code(), &*reason(&refused)),
        (Code::ResourceExhausted, "NO_ACCOUNT_AVAILABLE")
    );
    assert_eq!(metadata(&refused, "too_full"), "1");
    let wrong = pb::RedeemCardRequest {
        holder: String::new(),
        code: "x".to_owned(),
        selector: Some(pb::AccountSelector { expected: Some(eur(1)), ..Default::default() }),
        wait_timeout: seconds(601.0),
        ..card("", "")
    };
    let refused = redeem_card(&mut clients, wrong).await.unwrap_err();
    let fields = ["request_id", "holder", "code", "selector.expected", "wait_timeout"];
    assert_eq!(bad_fields(&refused), fields);
    let dollars = pb::Money { amount_minor: 1000, currency_code: "USD".to_owned() };
    let dollars =
        pb::RedeemCardRequest { expected: Some(dollars), ..card("usd", &world.code("usd")) };
    let refused = redeem_card(&mut clients, dollars).await.unwrap_err();
    assert_eq!(bad_fields(&refused), ["expected.currency_code"]);
    assert_eq!(clients.status_of("a-000").await, AccountStatus::Waiting);
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_lease_and_what_was_begun_is_finished() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    // How many wait is told by the pool's name, in a process that all tests share.
    let pool_id = "card-of-one-who-leaves";
    clients.create_pool(pool_id).await;
    clients.create_account("a", |account| account.pool_id = pool_id.to_owned()).await;
    let account = async |clients: &mut Clients| {
        let request =
            pb::GetAccountRequest { pool_id: pool_id.to_owned(), account_id: "a".to_owned() };
        clients.accounts.get_account(request).await.unwrap().into_inner().account.unwrap()
    };
    let code = world.code("gone");
    let redeem = |request_id: &str| {
        let mut clients = clients.clone();
        let request =
            pb::RedeemCardRequest { pool_id: pool_id.to_owned(), ..card(request_id, &code) };
        tokio::spawn(async move { redeem_card(&mut clients, request).await })
    };
    // While it waits for an account.
    let mut first = clients.clone();
    let held = first.acquire(|request| request.pool_id = pool_id.to_owned()).await.unwrap();
    let waiting = redeem("gone");
    world.callers_wait(0, pool_id, 1).await;
    waiting.abort();
    world.callers_wait(0, pool_id, 0).await;
    first.release(&lease(&held)).await.unwrap();
    assert_eq!(account(&mut first).await.status(), AccountStatus::Waiting);
    // While the provider works.
    world.set_faults(Faults { latency: "600ms".parse().unwrap(), ..Faults::default() });
    let sent = redeem("sent");
    eventually(LIMIT, "it is sent", async || {
        (!account(&mut first).await.open_redemption_id.is_empty()).then_some(())
    })
    .await;
    sent.abort();
    let account = eventually(LIMIT, "it is finished", async || {
        let account = account(&mut first).await;
        (account.status() == AccountStatus::Processing).then_some(account)
    })
    .await;
    assert_eq!(account.balance, Some(eur(1000)));
}

#[tokio::test]
async fn a_retry_is_told_what_was_begun_while_no_account_is_free() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let code = world.code("doubtful");
    let rules = Faults::of_card(&code, &[Fault::ErrorAfterApply]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let first = redeem_card(&mut clients, card("r", &code)).await.unwrap().redemption.unwrap();
    assert_eq!(first.state(), RedemptionState::InDoubt);
    // Its account is the only one, and stays locked.
    let patient = pb::RedeemCardRequest { wait_timeout: seconds(600.0), ..card("r", &code) };
    let again = timeout(LIMIT, redeem_card(&mut clients, patient)).await;
    let again = again.expect("it waits for an account").unwrap();
    assert_eq!(again.redemption.unwrap().redemption_id, first.redemption_id);
    assert!(again.replayed);
    world.set_faults(Faults::default());
}
