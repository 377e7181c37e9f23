//! What is played. Each ends well as things are, and answers with what was broken where the checks
//! after every test could not see it.

use std::time::Duration;

use holdfast::{
    rpc::pb::{self, RedemptionState},
    simulator::{
        faults::{Fault, Faults},
        ledger,
    },
};

use super::{POOL, Stage};
use crate::support::{
    checks::Broken,
    plans::psql,
    proxy::{
        http::{Fault::SpeakBefore, request, unasked},
        postgres::{self, statement},
    },
    wait::eventually,
    world::{Clients, INVALID_ACCOUNT, lease, reason, seconds},
};

pub(super) const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn broken(what: &str) -> Vec<Broken> {
    vec![what.to_owned()]
}

pub(super) fn unless(holds: bool, what: &str) -> Vec<Broken> {
    if holds { Vec::new() } else { broken(what) }
}

/// One server, and one account.
pub(super) async fn begin(stage: &mut Stage, crash_points: &'static str) -> Clients {
    stage.start_server(crash_points).await;
    let mut clients = stage.fleet.clients(0);
    clients.create_pool(POOL).await;
    clients.create_account("a", |_| {}).await;
    clients
}

pub(super) async fn an_account_is_created_twice(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    // By its whole key it is another after sixteen leases.
    for _ in 0..16 {
        let used = acquire(&mut clients, 10.0).await;
        clients.release(&used).await.unwrap();
    }
    let account =
        pb::Account { pool_id: POOL.into(), account_id: "a".into(), ..Default::default() };
    let request = pb::CreateAccountRequest { account: Some(account) };
    let again = clients.accounts.create_account(request).await;
    unless(again.is_err(), "an account was created twice")
}

pub(super) async fn an_account_cannot_be_written(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    clients.create_account("b", |_| {}).await;
    let refuse = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'not this one'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON accounts FOR EACH ROW
         WHEN (NEW.account_id = 'a') EXECUTE FUNCTION refuse();";
    psql(&mut stage.sql().await, refuse).await;
    let acquired = clients.acquire(|_| {}).await;
    if let Ok(acquired) = &acquired {
        clients.release(&lease(acquired)).await.unwrap();
    }
    unless(acquired.is_ok(), "an account beside a bad one was not leased")
}

pub(super) async fn acquire(clients: &mut Clients, for_seconds: f64) -> pb::LeaseRef {
    lease(&clients.acquire(|r| r.lease_duration = seconds(for_seconds)).await.unwrap())
}

pub(super) async fn redeem(
    clients: &mut Clients,
    lease: &pb::LeaseRef,
    request_id: &str,
    code: &str,
) -> Result<pb::Redemption, tonic::Status> {
    let redeemed = clients
        .redeem(lease, code, |request| {
            request.request_id = request_id.to_owned();
            request.release_on_completion = true;
        })
        .await?;
    Ok(redeemed.redemption.unwrap())
}

/// A lease that has run out, and the one that came after it.
async fn stale_and_living(clients: &mut Clients) -> (pb::LeaseRef, pb::LeaseRef) {
    let stale = acquire(clients, 1.0).await;
    let next = clients.acquire(|r| r.wait_timeout = seconds(10.0)).await.unwrap();
    (stale, lease(&next))
}

pub(super) async fn a_stale_holder_redeems(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let (stale, _) = stale_and_living(&mut clients).await;
    let began = redeem(&mut clients, &stale, "stale", &stage.fleet.code("STALE")).await;
    unless(began.is_err(), "a stale holder began a redemption")
}

pub(super) async fn a_stale_holder_releases(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let (stale, living) = stale_and_living(&mut clients).await;
    let _ = clients.release(&stale).await;
    let renewed = clients.renew(&living, Duration::from_secs(60)).await;
    unless(renewed.is_ok(), "a stale holder ended the lease of another")
}

pub(super) async fn a_stale_holder_renews(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let (stale, _) = stale_and_living(&mut clients).await;
    let before = clients.account("a").await.lease.unwrap().expire_time;
    let _ = clients.renew(&stale, Duration::from_secs(600)).await;
    let after = clients.account("a").await.lease.unwrap().expire_time;
    unless(before == after, "a stale holder renewed the lease of another")
}

async fn the_lease_runs_out(clients: &mut Clients) {
    eventually(LIMIT, "the lease runs out", async || {
        let lease = clients.account("a").await.lease?;
        lease.remaining.is_none_or(|left| left == prost_types::Duration::default()).then_some(())
    })
    .await;
}

pub(super) async fn a_holder_renews_too_late(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let held = acquire(&mut clients, 1.0).await;
    the_lease_runs_out(&mut clients).await;
    let renewed = clients.renew(&held, Duration::from_secs(60)).await;
    unless(renewed.is_err(), "a lease was renewed after its time")
}

pub(super) async fn a_holder_redeems_too_late(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let held = acquire(&mut clients, 1.0).await;
    the_lease_runs_out(&mut clients).await;
    let _ = redeem(&mut clients, &held, "late", &stage.fleet.code("LATE")).await;
    Vec::new()
}

pub(super) async fn a_paused_pool_is_asked(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let held = acquire(&mut clients, 60.0).await;
    let code = stage.fleet.code("PAUSED");
    // Decided before the pause, and written after it.
    let on_its_way = postgres::Fault::DelayRequest(Duration::from_secs(2));
    let on_its_way = stage.proxy.fault(statement("-- Begin:"), on_its_way);
    let call = tokio::spawn(async move { redeem(&mut clients, &held, "paused", &code).await });
    eventually(LIMIT, "the statement is on its way", async || {
        (on_its_way.matched() == 1).then_some(())
    })
    .await;
    let mut db = stage.sql().await;
    sqlx::query("UPDATE pools SET paused = true").execute(&mut db).await.unwrap();
    let began = call.await.unwrap();
    sqlx::query("UPDATE pools SET paused = false").execute(&mut db).await.unwrap();
    unless(began.is_err(), "a paused pool began a redemption")
}

/// The sweeper looks ten times a second.
pub(super) async fn a_lease_is_kept(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let held = acquire(&mut clients, 60.0).await;
    // Another's lease, which runs out: when it has ended, the sweeper has looked.
    clients.create_account("b", |_| {}).await;
    acquire(&mut clients, 1.0).await;
    eventually(LIMIT, "the other lease ends", async || {
        (clients.account("b").await.status() == pb::AccountStatus::Waiting).then_some(())
    })
    .await;
    let renewed = clients.renew(&held, Duration::from_secs(60)).await;
    unless(renewed.is_ok(), "a lease ended before its time")
}

pub(super) async fn a_redemption_outlasts_its_lease(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let code = stage.fleet.code("LONG");
    let rules = Faults::of_card(&code, &[Fault::Stall]);
    let lookup_error = 100.0;
    stage.fleet.set_faults(&Faults { rules, lookup_error, ..Faults::default() }).await;
    let held = acquire(&mut clients, 1.0).await;
    // Answered as in doubt when the provider has not answered.
    redeem(&mut clients, &held, "long", &code).await.unwrap();
    clients.create_account("b", |_| {}).await;
    acquire_b(&mut clients).await;
    eventually(LIMIT, "another lease ends, so the sweeper has looked", async || {
        (clients.account("b").await.status() == pb::AccountStatus::Waiting).then_some(())
    })
    .await;
    let account = clients.account("a").await;
    let is_locked = account.status() == pb::AccountStatus::Locking;
    if !is_locked {
        // Otherwise it could not be settled.
        let lock = "UPDATE accounts SET status = 'LOCKING', lease_request_id = 'again',
                        lease_expires_at = now() + interval '1 hour'
                    WHERE open_redemption_id IS NOT NULL";
        psql(&mut stage.sql().await, lock).await;
    }
    unless(is_locked, "an account with an open redemption is free")
}

async fn acquire_b(clients: &mut Clients) {
    let selector = pb::AccountSelector { account_id: "b".to_owned(), ..Default::default() };
    let request = |request: &mut pb::AcquireAccountRequest| {
        request.selector = Some(selector);
        request.lease_duration = seconds(1.0);
    };
    clients.acquire(request).await.unwrap();
}

pub(super) async fn an_inactive_account_is_asked_for(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let mut db = stage.sql().await;
    let aside = "UPDATE accounts SET login_status = 'INACTIVE'";
    sqlx::query(aside).execute(&mut db).await.unwrap();
    let acquired = clients.acquire(|_| {}).await;
    unless(acquired.is_err(), "an account that is set aside was leased")
}

/// The server stands still with the answer in its hands; another looks it up; the first goes on. The lease goes on,
/// too: a settlement needs one.
pub(super) async fn an_answer_comes_after_it_was_looked_up(stage: &mut Stage) -> Vec<Broken> {
    let mut first = begin(stage, "settle.before=stop").await;
    let held = acquire(&mut first, 60.0).await;
    let code = stage.fleet.code("TWICE");
    let call = async move {
        first.redeem(&held, &code, |request| request.request_id = "twice".to_owned()).await
    };
    let first_call = tokio::spawn(call);
    stands_still(stage).await;
    another_settles(stage, "twice").await;
    stage.fleet.servers[0].go_on();
    // Its caller is answered when it has done what it had to do.
    let _ = first_call.await;
    Vec::new()
}

pub(super) async fn stands_still(stage: &mut Stage) {
    eventually(LIMIT, "the server stands still", async || {
        stage.fleet.first_is_gone().then_some(())
    })
    .await;
}

async fn another_settles(stage: &mut Stage, request_id: &str) {
    let place = stage.start_server("").await;
    let mut clients = stage.fleet.clients(place);
    eventually(LIMIT, "another settles it", async || {
        let found = find(&mut clients, request_id).await?;
        (found.state() == RedemptionState::Succeeded).then_some(())
    })
    .await;
}

async fn find(clients: &mut Clients, request_id: &str) -> Option<pb::Redemption> {
    let request = pb::GetRedemptionRequest {
        pool_id: POOL.to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    };
    clients.redemptions.get_redemption(request).await.ok()?.into_inner().redemption
}

pub(super) async fn a_card_is_redeemed(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let held = acquire(&mut clients, 60.0).await;
    let redeemed = redeem(&mut clients, &held, "card", &stage.fleet.code("CARD")).await.unwrap();
    unless(redeemed.state() == RedemptionState::Succeeded, "a good card was not redeemed")
}

pub(super) async fn a_code_is_used_twice(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let code = stage.fleet.code("ONCE");
    let held = acquire(&mut clients, 60.0).await;
    redeem(&mut clients, &held, "first", &code).await.unwrap();
    let held = acquire(&mut clients, 60.0).await;
    let again = redeem(&mut clients, &held, "second", &code).await;
    unless(again.is_err_and(|e| reason(&e) == "CODE_IN_USE"), "a living code was begun twice")
}

pub(super) async fn a_request_is_used_twice(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let held = acquire(&mut clients, 60.0).await;
    let first = redeem(&mut clients, &held, "same", &stage.fleet.code("ONE")).await.unwrap();
    let held = acquire(&mut clients, 60.0).await;
    match redeem(&mut clients, &held, "same", &stage.fleet.code("TWO")).await {
        Err(error) => unless(reason(&error) == "REQUEST_ID_REUSED", "a request was refused oddly"),
        Ok(second) if second.redemption_id == first.redemption_id => {
            broken("another card was answered with the first")
        }
        Ok(_) => broken("a request was begun twice"),
    }
}

pub(super) async fn an_answer_is_lost(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let code = stage.fleet.code("LOST");
    let rules = Faults::of_card(&code, &[Fault::ApplyThenDrop]);
    stage.fleet.set_faults(&Faults { rules, ..Faults::default() }).await;
    let held = acquire(&mut clients, 60.0).await;
    redeem(&mut clients, &held, "lost", &code).await.unwrap();
    eventually(LIMIT, "it is settled, or a person's", async || {
        let found = find(&mut clients, "lost").await?;
        let open = [RedemptionState::Submitted, RedemptionState::InDoubt];
        (!open.contains(&found.state())).then_some(())
    })
    .await;
    Vec::new()
}

/// Three requests never leave, and before the fourth the server stands still. Another takes over and
/// sends; the first finds that the fourth does not leave either, and gives up.
pub(super) async fn a_server_gives_up_after_it_was_overtaken(stage: &mut Stage) -> Vec<Broken> {
    let points = "send.before=error@1,send.before=error@2,send.before=error@3,\
                  send.before=stop@4,send.before=error@4";
    let mut first = begin(stage, points).await;
    let code = stage.fleet.code("OVER");
    let rules = Faults::of_card(&code, &[Fault::ApplyThenDrop]);
    stage.fleet.set_faults(&Faults { rules, ..Faults::default() }).await;
    let held = acquire(&mut first, 60.0).await;
    let first_call = tokio::spawn(async move { redeem(&mut first, &held, "over", &code).await });
    stands_still(stage).await;
    stage.start_server("").await;
    let ledger = stage.fleet.ledger();
    eventually(LIMIT, "another sends it", async || {
        (!ledger::read(&ledger).unwrap().is_empty()).then_some(())
    })
    .await;
    stage.fleet.set_faults(&Faults { lookup_error: 100.0, ..Faults::default() }).await;
    stage.fleet.servers[0].go_on();
    let _ = first_call.await;
    Vec::new()
}

/// A connection is used again, and a refusal that names nobody comes on it as the next request leaves.
pub(super) async fn a_provider_speaks_unasked(stage: &mut Stage) -> Vec<Broken> {
    let proxy = stage.fleet.go_through_a_proxy();
    let refusal = unasked(402, r#"{"failure":{"code":"STALE","code_spent":false}}"#);
    let spoken = proxy.fault(request("POST", "/redemptions").always(), SpeakBefore(refusal));
    let mut clients = begin(stage, "").await;
    for card in ["first", "second"] {
        let held = acquire(&mut clients, 60.0).await;
        let code = stage.fleet.code(card);
        redeem(&mut clients, &held, card, &code).await.unwrap();
    }
    spoken.wait(1).await;
    Vec::new()
}

/// A person closes what a server that stands still has not sent. It is not to be sent after that.
pub(super) async fn a_server_stands_still_before_it_sends(stage: &mut Stage) -> Vec<Broken> {
    let mut first = begin(stage, "begin.after=stop").await;
    let code = stage.fleet.code("STILL");
    let held = acquire(&mut first, 60.0).await;
    let first_call = tokio::spawn(async move { redeem(&mut first, &held, "still", &code).await });
    stands_still(stage).await;
    let place = stage.start_server("").await;
    let mut clients = stage.fleet.clients(place);
    eventually(LIMIT, "it is a person's", async || {
        let found = find(&mut clients, "still").await?;
        (found.state() == RedemptionState::NeedsReview).then_some(())
    })
    .await;
    stage.fleet.servers[0].go_on();
    let _ = first_call.await;
    let sent = ledger::read(&stage.fleet.ledger()).unwrap();
    unless(sent.is_empty(), "a card was sent long after its redemption was begun")
}

pub(super) async fn a_provider_repeats_the_code(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    clients.create_account(INVALID_ACCOUNT, |_| {}).await;
    let selector =
        pb::AccountSelector { account_id: INVALID_ACCOUNT.to_owned(), ..Default::default() };
    let held = lease(&clients.acquire(|r| r.selector = Some(selector)).await.unwrap());
    let refused = redeem(&mut clients, &held, "told", &stage.fleet.code("TOLD")).await.unwrap();
    unless(refused.state() == RedemptionState::Failed, "a refused login was not told")
}

pub(super) async fn a_request_for_a_lease_is_repeated_too_late(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let ask = |request: &mut pb::AcquireAccountRequest| {
        request.request_id = "wish".to_owned();
        request.lease_duration = seconds(1.0);
        request.wait_timeout = seconds(5.0);
    };
    clients.acquire(ask).await.unwrap();
    // A person holds the row, so that nobody can end the lease.
    let mut person = stage.sql().await;
    psql(&mut person, "BEGIN; SELECT FROM accounts FOR UPDATE").await;
    the_lease_runs_out(&mut clients).await;
    let mut caller = clients.clone();
    let call = tokio::spawn(async move { caller.acquire(ask).await });
    eventually(LIMIT, "it waits, or has its answer", async || {
        (call.is_finished() || clients.waiting().await == 1).then_some(())
    })
    .await;
    psql(&mut person, "ROLLBACK").await;
    let again = call.await.unwrap().unwrap().lease.unwrap();
    let left = again.remaining.unwrap_or_default();
    unless(left.seconds > 0 || left.nanos > 0, "a lease was handed out after its time")
}
