//! `CorrectBalance`: a person gives an account the balance that it has at the provider.

use holdfast::{
    domain::access::Role,
    rpc::pb::{self, AccountStatus},
    simulator::faults::Fault,
};
use tonic::Status;

use crate::{
    redeem::review::left_in_doubt,
    support::{
        program,
        world::{Clients, POOL, World, bad_fields, eur, lease, reason},
    },
};

fn correction(account_id: &str, from: i64, to: i64) -> pb::CorrectBalanceRequest {
    pb::CorrectBalanceRequest {
        pool_id: POOL.into(),
        account_id: account_id.into(),
        balance: Some(eur(to)),
        expected_balance: Some(eur(from)),
        reason: "it was emptied at a till".into(),
        corrected_by: "anna".into(),
        evidence: "picture 7".into(),
    }
}

async fn correct(
    clients: &mut Clients,
    request: pb::CorrectBalanceRequest,
) -> Result<pb::Account, Status> {
    Ok(clients.accounts.correct_balance(request).await?.into_inner().account.unwrap())
}

/// The events of an account, the newest first: reason, actor, status and balance after it.
async fn history(
    clients: &mut Clients,
    account_id: &str,
) -> Vec<(String, String, AccountStatus, i64)> {
    let request = pb::ListAccountEventsRequest {
        pool_id: POOL.into(),
        account_id: account_id.into(),
        ..Default::default()
    };
    let page = clients.accounts.list_account_events(request).await.unwrap().into_inner();
    let told = |event: pb::AccountEvent| {
        let (status, balance) = (event.to_status(), event.balance.unwrap().amount_minor);
        (event.reason, event.actor, status, balance)
    };
    page.account_events.into_iter().map(told).collect()
}

#[tokio::test]
async fn a_corrected_balance_opens_a_completed_account_and_completes_an_open_one() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("small", 1000).await;
    let small = |account: &mut pb::Account| {
        account.plan_id = "small".into();
        account.balance = Some(eur(1000));
    };
    clients.create_account("a", small).await;
    assert_eq!(clients.account("a").await.status(), AccountStatus::Completed);

    let open = correct(&mut clients, correction("a", 1000, 400)).await.unwrap();
    assert_eq!((open.status(), open.balance), (AccountStatus::Processing, Some(eur(400))));
    // It is picked again, and a lease that is out goes on.
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let full = correct(&mut clients, correction("a", 400, 1000)).await.unwrap();
    assert_eq!((full.status(), full.balance), (AccountStatus::Locking, Some(eur(1000))));
    let released = clients.release(&held).await.unwrap();
    assert_eq!(released.status(), AccountStatus::Completed);

    let history = history(&mut clients, "a").await;
    let corrected: Vec<_> =
        history.iter().filter(|(reason, ..)| reason == "balance_corrected").collect();
    let event = |status, balance| ("balance_corrected".into(), "anna".into(), status, balance);
    assert_eq!(
        corrected,
        [&event(AccountStatus::Locking, 1000), &event(AccountStatus::Processing, 400)]
    );
}

#[tokio::test]
async fn a_correction_that_is_sent_again_is_recorded_once_and_one_of_what_has_changed_is_refused() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |account| account.balance = Some(eur(500))).await;
    for _ in 0..2 {
        let account = correct(&mut clients, correction("a", 500, 200)).await.unwrap();
        assert_eq!(account.balance, Some(eur(200)));
    }
    assert_eq!(history(&mut clients, "a").await.len(), 2, "created, and corrected once");

    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    clients.redeem(&held, &world.code("card"), |_| {}).await.unwrap();
    let filled = clients.account("a").await.balance;
    for (from, to) in [(500, 200), (200, 0)] {
        let error = correct(&mut clients, correction("a", from, to)).await.unwrap_err();
        assert_eq!(reason(&error), "BALANCE_CHANGED");
    }
    assert_eq!(clients.account("a").await.balance, filled, "what was redeemed since is not lost");
}

#[tokio::test]
async fn a_balance_is_not_corrected_while_a_redemption_is_open() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |account| account.balance = Some(eur(500))).await;
    let code = world.code("doubt");
    let (_held, open) = left_in_doubt(&world, &mut clients, &code, Fault::ErrorAfterApply).await;
    let error = correct(&mut clients, correction("a", 500, 200)).await.unwrap_err();
    assert_eq!(reason(&error), "REDEMPTION_OPEN");
    assert!(error.message().contains(&open.redemption_id), "{error:?}");
    assert_eq!(clients.account("a").await.balance, Some(eur(500)));
}

#[tokio::test]
async fn corrections_of_one_balance_at_once_are_recorded_once() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |account| account.balance = Some(eur(500))).await;
    let tries = (0..8).map(|n| {
        let mut clients = clients.clone();
        async move { correct(&mut clients, correction("a", 500, 100 + n)).await }
    });
    let answers = futures_util::future::join_all(tries).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(reason(error), "BALANCE_CHANGED");
    }
    assert_eq!(history(&mut clients, "a").await.len(), 2);
}

#[tokio::test]
async fn bad_corrections_are_refused_with_every_bad_field() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |account| account.balance = Some(eur(500))).await;
    let error = correct(&mut clients, pb::CorrectBalanceRequest::default()).await.unwrap_err();
    assert_eq!(
        bad_fields(&error),
        ["pool_id", "account_id", "balance", "expected_balance", "reason", "corrected_by"]
    );
    let same = correct(&mut clients, correction("a", 500, 500)).await.unwrap_err();
    assert_eq!(bad_fields(&same), ["balance"]);
    let below = correct(&mut clients, correction("a", 500, -1)).await.unwrap_err();
    assert_eq!(bad_fields(&below), ["balance.amount_minor"]);
    let dollars = pb::Money { amount_minor: 1, currency_code: "USD".into() };
    let other = pb::CorrectBalanceRequest { balance: Some(dollars), ..correction("a", 500, 1) };
    let error = correct(&mut clients, other).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["balance.currency_code"]);
    let none = correct(&mut clients, correction("none", 500, 1)).await.unwrap_err();
    assert_eq!(reason(&none), "ACCOUNT_NOT_FOUND");

    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let code = world.code("seen");
    clients.redeem(&held, &code, |_| {}).await.unwrap();
    let words = pb::CorrectBalanceRequest {
        reason: format!("the till showed {code}"),
        ..correction("a", 500, 1)
    };
    let error = correct(&mut clients, words).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["reason"]);
    assert!(!error.message().contains(&code));
}

#[tokio::test]
async fn a_correction_is_in_the_audit_trail_with_who_and_why() {
    let world = crate::access::world(1, |_| {}).await;
    let mut ops = world.clients_as(0, "token:ops", Role::Operator).await;
    ops.create_account("a", |account| account.balance = Some(eur(500))).await;
    correct(&mut ops, correction("a", 500, 200)).await.unwrap();
    let mut auditor = world.clients_as(0, "token:auditor", Role::Auditor).await;
    let request = pb::ListAuditEventsRequest { pool_id: POOL.into(), ..Default::default() };
    let events = auditor.access.list_audit_events(request).await.unwrap().into_inner().events;
    let event = events.iter().find(|event| event.action == "CorrectBalance").unwrap();
    assert_eq!((&*event.principal, &*event.subject), ("token:ops", "a"));
    assert_eq!(event.reason, "it was emptied at a till");
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    let before = serde_json::json!({ "balance_minor": 500, "status": "WAITING" });
    assert_eq!(read(&event.before), before);
    let after = serde_json::json!({
        "balance_minor": 200,
        "status": "WAITING",
        "corrected_by": "anna",
        "evidence": "picture 7",
    });
    assert_eq!(read(&event.after), after);
}

#[tokio::test]
async fn the_command_corrects_a_balance_and_prints_the_account() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |account| account.balance = Some(eur(500))).await;
    let arguments = [
        "account",
        "correct-balance",
        "a",
        "--pool",
        POOL,
        "--balance-minor",
        "200",
        "--expected-balance-minor",
        "500",
        "--reason",
        "emptied",
        "--evidence",
        "picture 7",
        "--by",
        "anna",
        "--format",
        "json",
    ];
    let corrected = program::run(&world, &arguments).await;
    assert_eq!(corrected.code, Some(0), "{corrected:?}");
    assert!(corrected.stdout.contains("\"balance_minor\":200"), "{corrected:?}");
    assert_eq!(clients.account("a").await.balance, Some(eur(200)));
    let mut stale = arguments;
    stale[6] = "100";
    let refused = program::run(&world, &stale).await;
    assert_ne!(refused.code, Some(0));
    assert!(refused.printed.contains("it has changed since it was compared"), "{refused:?}");
}
