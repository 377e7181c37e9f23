//! Statements that meet: rows that other programs hold, evidence that comes twice, servers that take over
//! from each other.

use std::time::Duration;

use futures_util::FutureExt as _;
use holdfast::{
    domain::{
        id::{AccountId, FencingToken, PoolId, RedemptionId},
        lease::LeaseRef,
        money::{Currency, Money},
        principal::Authority,
        redemption::Failure,
    },
    rpc::pb::{self, AccountStatus, RedemptionState},
    simulator::faults::{Fault, Faults},
    store::{
        Store,
        lease::LeaseAnswer,
        outcome::{Outcome, Settled, Settlement},
    },
};
use sqlx::Connection as _;
use tokio::task::JoinSet;

use crate::support::{
    wait::eventually,
    world::{POOL, World, eur, lease, metadata, reason},
};

#[tokio::test]
async fn a_row_that_another_transaction_holds_does_not_delay_its_neighbours() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(6).await;
    let mut leases = Vec::new();
    for _ in 0..6 {
        leases.push(lease(&clients.acquire(|_| {}).await.unwrap()));
    }
    // A person with psql, who forgot to commit.
    let mut other_program = world.sql().await;
    let mut transaction = other_program.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM accounts WHERE account_id = $1 FOR UPDATE")
        .bind(&leases[0].account_id)
        .execute(&mut *transaction)
        .await
        .unwrap();
    let mut releases = JoinSet::new();
    for lease in leases.clone() {
        let mut clients = clients.clone();
        releases.spawn(async move { (lease.account_id.clone(), clients.release(&lease).await) });
    }
    let mut refused = Vec::new();
    while let Some(released) = releases.join_next().await {
        let (account_id, released) = released.unwrap();
        match released {
            Ok(account) => assert_eq!(account.status(), AccountStatus::Waiting),
            Err(error) => refused.push((account_id, reason(&error))),
        }
    }
    let held = (leases[0].account_id.clone(), "DATABASE_UNAVAILABLE".to_owned());
    assert_eq!(refused, [held], "the one that is held, and no other");
    transaction.rollback().await.unwrap();
    clients.release(&leases[0]).await.unwrap();
}

#[tokio::test]
async fn a_release_whose_reply_was_lost_may_be_repeated_even_when_the_account_is_taken_again() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let first = lease(&clients.acquire(|_| {}).await.unwrap());
    clients.release(&first).await.unwrap();
    let second = lease(&clients.acquire(|_| {}).await.unwrap());
    let repeated = clients.release(&first).await.unwrap();
    assert_eq!(
        repeated.lease.unwrap().r#ref.unwrap(),
        second,
        "and it does not touch the new lease"
    );
    let error = clients.renew(&first, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(metadata(&error, "cause"), "released");
}

/// Two servers that change the same accounts at once would otherwise each wait for a row of the other's.
#[tokio::test]
async fn one_statement_releases_accounts_in_the_order_of_their_keys() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    // So many that each is looked up by its key: of few Postgres reads all, in their order.
    clients.create_accounts(3000).await;
    let mut db = world.sql().await;
    sqlx::raw_sql("ANALYZE accounts").execute(&mut db).await.unwrap();
    let mut leases = Vec::new();
    for _ in 0..9 {
        let held = lease(&clients.acquire(|_| {}).await.unwrap());
        leases.push(LeaseRef {
            pool_id: PoolId::parse(POOL).unwrap(),
            account_id: AccountId::parse(&held.account_id).unwrap(),
            token: FencingToken(held.fencing_token),
        });
    }
    leases.sort_by(|one, other| other.account_id.cmp(&one.account_id));
    let (held_up, rest) = leases.split_first().unwrap();
    let mut other_program = world.sql().await;
    let mut transaction = other_program.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM accounts WHERE account_id = $1 FOR UPDATE")
        .bind(held_up.account_id.as_str())
        .execute(&mut *transaction)
        .await
        .unwrap();

    let store = world.store();
    let waiting = tokio::spawn({
        let (store, held_up) = (store.clone(), held_up.clone());
        async move { store.release(&held_up, Authority::default()).await }
    });
    eventually(Duration::from_secs(10), "a release that waits for the other program", async || {
        let waits = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock'
                AND query LIKE '-- Waits until nobody holds an account%'";
        let waits: i64 = sqlx::query_scalar(waits).fetch_one(&mut db).await.unwrap();
        (waits == 1).then_some(())
    })
    .await;
    let release = |lease| Box::pin(store.release(lease, Authority::default()));
    let mut queued: Vec<_> = rest.iter().map(release).collect();
    for release in &mut queued {
        assert!(release.now_or_never().is_none(), "it is queued");
    }
    for release in queued {
        assert!(matches!(release.await.unwrap(), LeaseAnswer::Done(_)), "nothing holds it up");
    }
    transaction.rollback().await.unwrap();
    assert!(matches!(waiting.await.unwrap().unwrap(), LeaseAnswer::Done(_)));

    let in_order = "SELECT account_id, xmin::text FROM account_events
        WHERE reason = 'released' AND account_id <> $1 ORDER BY ctid";
    let changed: Vec<(String, String)> = sqlx::query_as(in_order)
        .bind(held_up.account_id.as_str())
        .fetch_all(&mut db)
        .await
        .unwrap();
    assert_eq!(changed.len(), rest.len());
    assert!(changed.windows(2).all(|two| two[0].1 == two[1].1), "by one statement: {changed:?}");
    assert!(changed.windows(2).all(|two| two[0].0 < two[1].0), "{changed:?}");
}

async fn settlement(store: &Store, id: &str, outcome: Outcome, inferred: bool) -> Settlement {
    let (pool_id, id) = (PoolId::parse(POOL).unwrap(), RedemptionId::parse(id).unwrap());
    Settlement {
        redemption: store.get_redemption(&pool_id, id).await.unwrap().unwrap(),
        outcome,
        attempts: 1,
        actor: "test".to_owned(),
        resolution: None,
        by: None,
        hold: None,
        inferred,
    }
}

fn unreachable() -> Outcome {
    Outcome::Failed(Failure {
        reason: "PROVIDER_UNREACHABLE".to_owned(),
        message: String::new(),
        code_spent: false,
    })
}

#[tokio::test]
async fn what_only_one_server_could_know_does_not_hold_once_another_has_taken_over() {
    // The reconciler is slow, so that the redemption stays in doubt while this looks.
    let world = World::with(|args| args.reconcile_interval = Duration::from_secs(3), 1).await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let code = world.code("taken-over");
    world.fault(&code, &[Fault::ApplyThenDrop]);
    let reply = clients.redeem(&held, &code, |_| {}).await.unwrap();
    let id = reply.redemption.unwrap().redemption_id;
    // The first server wakes up, and nothing that it sent since was executed.
    let pool_id = PoolId::parse(POOL).unwrap();
    let store = world.store();
    let stale = settlement(&store, &id, unreachable(), true).await;
    let settled = store.settle(&pool_id, stale).await.unwrap();
    assert!(matches!(settled, Settled::Already), "{settled:?}");
    let redemption = eventually(Duration::from_secs(20), "the evidence counts", async || {
        let redemption = clients.redemption(&id).await;
        redemption.finish_time.is_some().then_some(redemption)
    })
    .await;
    assert_eq!(redemption.state(), RedemptionState::Succeeded);
}

#[tokio::test]
async fn of_two_outcomes_that_come_at_once_one_is_recorded_whole() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(8).await;
    let store = world.store();
    let pool_id = PoolId::parse(POOL).unwrap();
    // Looked at by a person: nothing else settles it.
    let mut db = world.sql().await;
    for n in 0..8 {
        let held = lease(&clients.acquire(|_| {}).await.unwrap());
        let code = world.code(&format!("both-{n}"));
        world.fault(&code, &[Fault::ApplyThenDrop]);
        let reply = clients.redeem(&held, &code, |_| {}).await.unwrap();
        let id = reply.redemption.unwrap().redemption_id;
        let credited = Outcome::Succeeded {
            amount: Money { amount_minor: 1000, currency: Currency::parse("EUR").unwrap() },
            provider_ref: None,
        };
        let settlement = settlement(&store, &id, credited, false).await;
        let (first, second) = tokio::join!(
            store.settle(&pool_id, settlement.clone()),
            store.settle(&pool_id, settlement),
        );
        let recorded = [first.unwrap(), second.unwrap()]
            .iter()
            .filter(|settled| matches!(settled, Settled::Recorded { .. }))
            .count();
        assert!(recorded <= 1, "recorded {recorded} times");
        let row: (String, i64, String) = sqlx::query_as(
            "SELECT r.state, a.balance_minor, a.resume_status FROM redemptions r
             JOIN accounts a USING (pool_id, account_id) WHERE r.redemption_id = $1",
        )
        .bind(RedemptionId::parse(&id).unwrap().0)
        .fetch_one(&mut db)
        .await
        .unwrap();
        assert_eq!(row, ("SUCCEEDED".to_owned(), 1000, "PROCESSING".to_owned()));
        assert_eq!(clients.account(&held.account_id).await.balance, Some(eur(1000)));
    }
}

#[tokio::test]
async fn a_row_that_another_transaction_holds_does_not_delay_the_reconciler() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let rules = Faults::of_card(&world.code(""), &[Fault::ApplyThenDrop, Fault::ApplyThenDrop]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let mut doubtful = Vec::new();
    for name in ["held", "free"] {
        let lease = lease(&clients.acquire(|_| {}).await.unwrap());
        let redeemed = clients.redeem(&lease, &world.code(name), |_| {}).await.unwrap();
        let redemption = redeemed.redemption.unwrap();
        assert_eq!(redemption.state(), RedemptionState::InDoubt);
        doubtful.push(redemption);
    }
    let mut other_program = world.sql().await;
    let mut transaction = other_program.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM accounts WHERE account_id = $1 FOR UPDATE")
        .bind(&doubtful[0].account_id)
        .execute(&mut *transaction)
        .await
        .unwrap();
    world.set_faults(Faults::default());
    // Again and again: also when the held one is looked at in the same round.
    eventually(Duration::from_secs(20), "the other one is settled", async || {
        let free = clients.redemption(&doubtful[1].redemption_id).await;
        (free.state() == RedemptionState::Succeeded).then_some(())
    })
    .await;
    // And new doubt is settled while the held one still waits for its row.
    clients.release(&doubtful_lease(&doubtful[1])).await.unwrap();
    let rules = Faults::of_card(&world.code("new"), &[Fault::ApplyThenDrop]);
    world.set_faults(Faults { rules, ..Faults::default() });
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let new = clients.redeem(&held, &world.code("new"), |_| {}).await.unwrap();
    let id = new.redemption.unwrap().redemption_id;
    eventually(Duration::from_secs(20), "the new one is settled", async || {
        let new = clients.redemption(&id).await;
        (new.state() == RedemptionState::Succeeded).then_some(())
    })
    .await;
    transaction.rollback().await.unwrap();
}

fn doubtful_lease(redemption: &pb::Redemption) -> pb::LeaseRef {
    pb::LeaseRef {
        pool_id: redemption.pool_id.clone(),
        account_id: redemption.account_id.clone(),
        fencing_token: redemption.fencing_token,
    }
}
