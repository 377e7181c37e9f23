//! What is played about the compare-and-swap: accounts that change between a decision and its statement, replies that
//! are lost, and rows that are held. As in [`super::scenarios`].

use std::{pin::pin, time::Duration};

use futures_util::future::{Either, select};
use holdfast::rpc::pb;
use sqlx::Connection as _;
use tonic::Status;

use super::{
    Stage,
    scenarios::{LIMIT, acquire, begin, broken, redeem, unless},
};
use crate::support::{
    checks::Broken,
    plans::psql,
    proxy::postgres::{Fault, statement},
    wait::eventually,
    world::{Clients, reason},
};

/// A person changes an account of which the server remembers what it was; then its holder releases it, before the
/// server has read the change.
pub(super) async fn a_person_changes_a_leased_account(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let held = acquire(&mut clients, 60.0).await;
    // It reads what others changed some times a second. A reading that is on its way ends before the change.
    let reads = statement("-- What servers that keep a pool's accounts").always();
    let refused = stage.proxy.fault(reads, Fault::Refuse("55000"));
    refused.wait(1).await;
    psql(&mut stage.sql().await, "UPDATE accounts SET country_code = 'DE'").await;
    let account = clients.release(&held).await.unwrap();
    unless(account.country_code == "DE", "a person's change was overwritten")
}

/// As after a restore that lost commits, and others since: the same version, made by another change.
pub(super) async fn the_database_is_restored(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let held = acquire(&mut clients, 60.0).await;
    let restore = "ALTER TABLE accounts DISABLE TRIGGER USER;
                   UPDATE accounts SET country_code = 'DE', change_id = gen_random_uuid();
                   ALTER TABLE accounts ENABLE TRIGGER USER;";
    psql(&mut stage.sql().await, restore).await;
    let account = clients.release(&held).await.unwrap();
    unless(account.country_code == "DE", "a restored account was overwritten")
}

/// The server has chosen an account, and remembers the pool as it was.
pub(super) async fn a_pool_is_paused_after_the_choice(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let first = acquire(&mut clients, 60.0).await;
    clients.release(&first).await.unwrap();
    let on_its_way = Fault::DelayRequest(Duration::from_secs(2));
    let on_its_way = stage.proxy.fault(statement("-- Apply:"), on_its_way);
    let call = tokio::spawn(async move { clients.acquire(|_| {}).await });
    eventually(LIMIT, "the statement is on its way", async || {
        (on_its_way.matched() == 1).then_some(())
    })
    .await;
    psql(&mut stage.sql().await, "UPDATE pools SET paused = true").await;
    let acquired = call.await.unwrap();
    unless(acquired.is_err(), "a paused pool gave out a lease")
}

/// Nobody is told: what the last event says is checked afterwards.
pub(super) async fn a_person_changes_a_free_account(stage: &mut Stage) -> Vec<Broken> {
    begin(stage, "").await;
    psql(&mut stage.sql().await, "UPDATE accounts SET status = 'PROCESSING'").await;
    Vec::new()
}

pub(super) async fn the_reply_to_a_renewal_is_lost(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let held = acquire(&mut clients, 60.0).await;
    let lost = stage.proxy.fault(statement("-- Apply:"), Fault::CutReply);
    clients.renew(&held, Duration::from_secs(90)).await.unwrap();
    assert_eq!(lost.times(), 1);
    let renewals = events(&mut clients, "a", "renewed").await;
    unless(renewals == 1, "one call renewed a lease twice")
}

pub(super) async fn the_reply_to_an_acquisition_is_lost(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    clients.create_account("b", |_| {}).await;
    let lost = stage.proxy.fault(statement("-- Apply:"), Fault::CutReply);
    let broken = one_lease(&mut clients).await;
    assert_eq!(lost.times(), 1);
    broken
}

pub(super) async fn an_acquisition_fails_after_its_commit(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "acquire.after=error").await;
    clients.create_account("b", |_| {}).await;
    one_lease(&mut clients).await
}

/// Acquires one of two accounts.
async fn one_lease(clients: &mut Clients) -> Vec<Broken> {
    clients.acquire(|request| request.request_id = "once".to_owned()).await.unwrap();
    let leases = events(clients, "a", "acquired").await + events(clients, "b", "acquired").await;
    unless(leases == 1, "a request has two leases")
}

async fn events(clients: &mut Clients, account_id: &str, reason: &str) -> usize {
    let events = clients.events(account_id).await;
    events.iter().filter(|event| event.reason == reason).count()
}

/// Two leases end, and a person holds the row of one.
pub(super) async fn a_person_holds_an_account_s_row(stage: &mut Stage) -> Vec<Broken> {
    let release = async |mut clients: Clients, held: pb::LeaseRef, _: String| {
        clients.release(&held).await.map(drop)
    };
    Box::pin(a_person_holds_a_row(stage, release)).await
}

/// The same of two redemptions that begin.
pub(super) async fn a_person_holds_the_row_of_a_begin(stage: &mut Stage) -> Vec<Broken> {
    let begin = async |mut clients: Clients, held: pb::LeaseRef, code: String| {
        let request_id = held.account_id.clone();
        redeem(&mut clients, &held, &request_id, &code).await.map(drop)
    };
    Box::pin(a_person_holds_a_row(stage, begin)).await
}

/// Asks the same under two leases, first under the one whose row a person holds. That fails when it has waited for as
/// long as a lock is waited for. The other is answered before.
async fn a_person_holds_a_row(
    stage: &mut Stage,
    ask: impl AsyncFn(Clients, pb::LeaseRef, String) -> Result<(), Status>,
) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    clients.create_account("b", |_| {}).await;
    let (first, second) = (acquire(&mut clients, 60.0).await, acquire(&mut clients, 60.0).await);
    let mut person = stage.sql().await;
    let mut holds = person.begin().await.unwrap();
    sqlx::query("SELECT FROM accounts WHERE account_id = $1 FOR UPDATE")
        .bind(&first.account_id)
        .execute(&mut *holds)
        .await
        .unwrap();
    let waiting = pin!(ask(clients.clone(), first, stage.fleet.code("first")));
    let other = pin!(async {
        a_row_is_waited_for(stage).await;
        ask(clients.clone(), second, stage.fleet.code("second")).await
    });
    match select(waiting, other).await {
        Either::Left((_, other)) => {
            holds.rollback().await.unwrap();
            let _ = other.await;
            broken("a row that a person holds held up another")
        }
        Either::Right((answered, waiting)) => {
            answered.unwrap();
            holds.rollback().await.unwrap();
            waiting.await.unwrap();
            Vec::new()
        }
    }
}

async fn a_row_is_waited_for(stage: &Stage) {
    let mut db = stage.sql().await;
    eventually(LIMIT, "a statement waits for a row", async || {
        let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity
                     WHERE datname = current_database() AND wait_event_type = 'Lock')";
        sqlx::query_scalar::<_, bool>(waits).fetch_one(&mut db).await.unwrap().then_some(())
    })
    .await;
}

/// The server has refused a call because of the pause, which is over.
pub(super) async fn a_paused_pool_goes_on(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let held = acquire(&mut clients, 60.0).await;
    goes_on_after_a_pause(stage, &mut clients, &held).await
}

/// The same at a server that does not remember the account.
pub(super) async fn a_paused_pool_goes_on_at_another_server(stage: &mut Stage) -> Vec<Broken> {
    let mut clients = begin(stage, "").await;
    let held = acquire(&mut clients, 60.0).await;
    let other = stage.start_server("").await;
    let mut clients = stage.fleet.clients(other);
    goes_on_after_a_pause(stage, &mut clients, &held).await
}

async fn goes_on_after_a_pause(
    stage: &mut Stage,
    clients: &mut Clients,
    held: &pb::LeaseRef,
) -> Vec<Broken> {
    let mut db = stage.sql().await;
    // Now and then the server has read the pool anew just before it is asked, as it does five times a second.
    for round in 0..6 {
        psql(&mut db, "UPDATE pools SET paused = true").await;
        let code = stage.fleet.code(&format!("after-{round}"));
        let named = |request: &mut pb::RedeemRequest| request.request_id = format!("after-{round}");
        let refused = clients.redeem(held, &code, named).await.unwrap_err();
        assert_eq!(reason(&refused), "POOL_PAUSED");
        psql(&mut db, "UPDATE pools SET paused = false").await;
        if clients.redeem(held, &code, named).await.is_err() {
            return broken("a pool that goes on was refused");
        }
    }
    Vec::new()
}
