//! Fairness: first come, first served, and a caller for whom nothing fits delays nobody. A batch does not
//! take a pool away from single callers.

use std::time::Duration;

use holdfast::rpc::pb;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::PgConnection;
use tokio::{sync::oneshot, task::JoinHandle};
use tonic::Status;

use crate::support::{
    batch::{self, item, opening},
    plans::{CARD, expecting, psql},
    world::{Clients, World, bad_fields, eur, lease, metadata, reason, seconds},
};

const LIMIT: Duration = Duration::from_secs(20);

/// Somebody who waits, by the place of arrival.
fn wait(
    clients: &Clients,
    selector: pb::AccountSelector,
    wait_seconds: f64,
) -> JoinHandle<Result<pb::LeaseRef, Status>> {
    let mut clients = clients.clone();
    tokio::spawn(async move {
        let acquired = clients
            .acquire(|request| {
                request.holder = uuid::Uuid::now_v7().to_string();
                request.selector = Some(selector);
                request.wait_timeout = seconds(wait_seconds);
            })
            .await;
        Ok(lease(&acquired?))
    })
}

async fn served(waiter: JoinHandle<Result<pb::LeaseRef, Status>>) -> pb::LeaseRef {
    tokio::time::timeout(LIMIT, waiter).await.expect("to be served").unwrap().unwrap()
}

#[tokio::test]
async fn those_who_wait_are_served_in_the_order_in_which_they_came() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let mut held = clients.acquire_for(CARD).await.unwrap();
    let mut waiters = Vec::new();
    for n in 0..12 {
        // The amounts differ, and every account takes each.
        waiters.push(wait(&clients, expecting(100 + n % 5), 60.0));
        clients.until_waiting(waiters.len()).await;
    }
    for (place, waiter) in waiters.into_iter().enumerate() {
        clients.release(&held).await.unwrap();
        held = served(waiter).await;
        let token = i64::try_from(place).unwrap() + 2;
        assert_eq!(held.fencing_token, token, "nobody came between");
    }
}

#[tokio::test]
async fn those_of_a_higher_priority_are_served_first_and_of_the_same_who_came_first() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let mut held = clients.acquire_for(CARD).await.unwrap();
    let mut waiters = Vec::new();
    for priority in [0, 3, 9, 3, 0] {
        let mut caller = clients.clone();
        waiters.push(tokio::spawn(async move {
            let acquired = caller.acquire(|request| {
                request.holder = uuid::Uuid::now_v7().to_string();
                request.wait_timeout = seconds(60.0);
                request.priority = priority;
            });
            Ok::<_, Status>(lease(&acquired.await?))
        }));
        clients.until_waiting(waiters.len()).await;
    }
    let mut tokens = Vec::new();
    let mut waiters: Vec<_> = waiters.into_iter().map(Some).collect();
    for number in [2, 1, 3, 0, 4] {
        clients.release(&held).await.unwrap();
        held = served(waiters[number].take().unwrap()).await;
        tokens.push(held.fencing_token);
    }
    assert_eq!(tokens, [2, 3, 4, 5, 6], "nobody came between");
    for priority in [-1, 10] {
        let refused = clients.acquire(|request| request.priority = priority).await.unwrap_err();
        assert_eq!(bad_fields(&refused), ["priority"]);
    }
}

#[tokio::test]
async fn no_account_is_locked_before_the_time_that_is_asked_for_by_the_databases_clock() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let mut db = world.sql().await;
    let mut ahead = async |seconds: f64| {
        let at = sqlx::query_as(
            "SELECT floor(t)::bigint, ((t - floor(t)) * 1e9)::int
             FROM (SELECT extract(epoch FROM now()) + $1 AS t) x",
        );
        let (seconds, nanos): (i64, i32) = at.bind(seconds).fetch_one(&mut db).await.unwrap();
        prost_types::Timestamp { seconds, nanos }
    };
    let at = ahead(1.5).await;
    // It needs no time to wait for an account.
    let acquired = clients.acquire(|request| request.not_before = Some(at)).await.unwrap();
    let acquire_time = acquired.lease.as_ref().unwrap().acquire_time.unwrap();
    let key = |time: prost_types::Timestamp| (time.seconds, time.nanos);
    assert!(key(acquire_time) >= key(at), "{acquire_time:?} is before {at:?}");
    clients.release(&lease(&acquired)).await.unwrap();
    // One that has passed is no time to wait for.
    let passed = ahead(-3600.0).await;
    let acquired = clients.acquire(|request| request.not_before = Some(passed)).await.unwrap();
    clients.release(&lease(&acquired)).await.unwrap();
    let late = ahead(601.0).await;
    let refused = clients.acquire(|request| request.not_before = Some(late)).await.unwrap_err();
    assert_eq!(bad_fields(&refused), ["not_before"]);
    // Items of a batch have a time of their own.
    let (soon, late) = (ahead(1.5).await, ahead(86_401.0).await);
    let card = |name: &str, not_before| pb::BatchItem {
        expected: Some(eur(CARD)),
        not_before: Some(not_before),
        ..item(name, &world.code(name))
    };
    let items = [card("soon", soon), card("late", late)];
    let ended = batch::run(&mut clients, opening("b"), &items).await.unwrap();
    let ended = ended.by_item();
    let begun = batch::begun(ended["soon"]).unwrap().create_time.unwrap();
    assert!(key(begun) >= key(soon), "{begun:?} is before {soon:?}");
    assert_eq!(bad_fields(&batch::refusal(ended["late"])), ["item.not_before"]);
}

#[tokio::test]
async fn one_behind_more_callers_than_a_statement_serves_is_told_when_its_time_is_over() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    clients.acquire_for(CARD).await.unwrap();
    let crowd: Vec<_> = (0..300).map(|_| wait(&clients, expecting(CARD), 60.0)).collect();
    clients.until_waiting(crowd.len()).await;
    let last = wait(&clients, expecting(CARD), 0.0);
    let refused = tokio::time::timeout(LIMIT, last).await.expect("to be told").unwrap();
    assert_eq!(reason(&refused.unwrap_err()), "NO_ACCOUNT_AVAILABLE");
    crowd.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn a_caller_for_whom_no_account_fits_delays_nobody_and_keeps_its_position() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    for (plan_id, target) in [("small", CARD), ("great", 9 * CARD)] {
        clients.create_plan(plan_id, target).await;
        clients.create_account(plan_id, |account| account.plan_id = plan_id.to_owned()).await;
    }
    let only = |account_id: &str| pb::AccountSelector {
        account_id: account_id.to_owned(),
        ..Default::default()
    };
    let small = wait(&clients, only("small"), 0.0).await.unwrap().unwrap();
    let great = wait(&clients, only("great"), 0.0).await.unwrap().unwrap();
    let mut waiters = Vec::new();
    // Nobody has a place for the first. The second needs the great one; the others take either.
    for amount in [99 * CARD, 5 * CARD, CARD / 2, CARD / 4] {
        waiters.push(wait(&clients, expecting(amount), 60.0));
        clients.until_waiting(waiters.len()).await;
    }
    let [hopeless, needs_great, third, fourth] = waiters.try_into().unwrap();
    clients.release(&small).await.unwrap();
    let small = served(third).await;
    assert_eq!(small.account_id, "small", "who came before has no use for it");
    clients.release(&great).await.unwrap();
    let great = served(needs_great).await;
    assert_eq!(great.account_id, "great", "who came after has to leave it to whom it fits");
    assert!(!fourth.is_finished());
    clients.release(&small).await.unwrap();
    assert_eq!(served(fourth).await.account_id, "small");
    assert!(!hopeless.is_finished());
    hopeless.abort();
    clients.release(&great).await.unwrap();
}

/// An account as the test knows it, and a caller: what each is, and asks for.
struct Free {
    account_id: String,
    processing: bool,
    headroom: i64,
    german: bool,
}

#[tokio::test]
async fn of_many_accounts_that_come_free_at_once_each_caller_gets_the_best_that_is_left() {
    const TARGET: i64 = 10_000;
    let mut dice = StdRng::seed_from_u64(4);
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut db = world.sql().await;
    clients.create_plan("plan", TARGET).await;
    let mut free = Vec::new();
    for n in 0..24 {
        let one = Free {
            account_id: format!("a-{n:02}"),
            processing: dice.random_bool(0.5),
            // No two alike, so that nothing but the rule decides.
            headroom: 200 * dice.random_range(1..40) + n,
            german: dice.random_bool(0.5),
        };
        let insert = format!(
            "INSERT INTO accounts (pool_id, account_id, status, plan_id, balance_minor, country_code,
                 hold_until, hold_cause)
             VALUES ('pool', '{}', '{}', 'plan', {}, {}, now() + interval '1 hour', 'THROTTLED')",
            one.account_id,
            if one.processing { "PROCESSING" } else { "WAITING" },
            TARGET - one.headroom,
            if one.german { "'DE'" } else { "'FR'" },
        );
        psql(&mut db, &insert).await;
        free.push(one);
    }
    let mut waiters = Vec::new();
    for _ in 0..30 {
        let (amount, german) = (dice.random_range(1..9000), dice.random_bool(0.2));
        let country_code = if german { "DE" } else { "" }.to_owned();
        let selector = pb::AccountSelector { country_code, ..expecting(amount) };
        waiters.push((amount, german, wait(&clients, selector, 60.0)));
        clients.until_waiting(waiters.len()).await;
    }
    psql(&mut db, "UPDATE accounts SET hold_until = NULL, hold_cause = NULL").await;

    let mut leases = Vec::new();
    for (place, (amount, german, waiter)) in waiters.into_iter().enumerate() {
        let best = free
            .iter()
            .enumerate()
            .filter(|(_, one)| one.headroom >= amount && (one.german || !german))
            .min_by_key(|(_, one)| (!one.processing, one.headroom));
        let Some((best, _)) = best else {
            assert!(!waiter.is_finished(), "{place}: nothing is left for {amount}");
            waiter.abort();
            continue;
        };
        let best = free.remove(best);
        let got = served(waiter).await;
        assert_eq!(got.account_id, best.account_id, "{place}: {amount}, german: {german}");
        leases.push(got);
    }
    assert!(leases.len() > 10, "most are served");
    for held in leases {
        clients.release(&held).await.unwrap();
    }
}

#[tokio::test]
async fn a_caller_whose_wait_ends_is_told_its_position() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = clients.acquire_for(CARD).await.unwrap();
    let mut waiters = Vec::new();
    for (amount, patience) in [(CARD, 60.0), (CARD, 8.0), (1, 60.0), (2, 2.0), (CARD, 60.0)] {
        waiters.push(wait(&clients, expecting(amount), patience));
        clients.until_waiting(waiters.len()).await;
    }
    let [first, second, third, fourth, fifth] = waiters.try_into().unwrap();
    let place = |error: &Status| {
        assert_eq!(reason(error), "NO_ACCOUNT_AVAILABLE");
        (metadata(error, "position"), metadata(error, "waiting"))
    };
    let [position, waiting] = [("4", "5"), ("2", "4")];
    let error = fourth.await.unwrap().unwrap_err();
    assert_eq!(place(&error), (position.0.to_owned(), position.1.to_owned()));
    let error = second.await.unwrap().unwrap_err();
    assert_eq!(place(&error), (waiting.0.to_owned(), waiting.1.to_owned()));
    assert!(error.message().contains("position 2 of 4"), "{error}");
    clients.release(&held).await.unwrap();
    for waiter in [first, third, fifth] {
        let held = served(waiter).await;
        clients.release(&held).await.unwrap();
    }
}

const LEASES_OF_THE_BATCH: &str = "SELECT count(*) FROM account_events
     WHERE reason = 'acquired' AND actor = 'batcher' AND happened_at <= $1";

/// How many leases the batch got until `lease` was acquired, or until now.
async fn batched(db: &mut PgConnection, lease: Option<&pb::Lease>) -> i64 {
    let at = match lease {
        Some(lease) => {
            let at = lease.acquire_time.unwrap();
            let nanos = i128::from(at.seconds) * 1_000_000_000 + i128::from(at.nanos);
            time::OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap()
        }
        None => sqlx::query_scalar("SELECT now()").fetch_one(&mut *db).await.unwrap(),
    };
    sqlx::query_scalar(LEASES_OF_THE_BATCH).bind(at).fetch_one(db).await.unwrap()
}

/// While a batch is under way on the first server, single callers acquire on the last one, one after
/// another. Answers how many leases the batch got while each of them waited.
async fn single_callers_beside_a_batch(
    accounts: usize,
    share_percent: i32,
    servers: usize,
    calls: usize,
) -> Vec<i64> {
    let world = World::with(|_| {}, servers).await;
    let (mut clients, mut batcher) = (world.clients(servers - 1).await, world.clients(0).await);
    let mut db = world.sql().await;
    clients.create_accounts(accounts).await;
    clients.update_pool(|pool| pool.holder_share_percent = share_percent).await;
    let codes = world.code("card");
    let (stop, mut stopped) = oneshot::channel::<()>();
    let batch = tokio::spawn(async move {
        let open = pb::BatchOpen { max_in_flight: 64, ..opening("batch") };
        let mut session = batch::Session::open(&mut batcher, open).await.unwrap();
        let mut results = 0;
        // So many more than are in flight at once that the queue is always full.
        for n in 0.. {
            let card = item(&format!("item-{n}"), &format!("{codes}-{n}"));
            session.send(pb::BatchItem { expected: Some(eur(CARD)), ..card }).await;
            if n >= 128 {
                batch::credited(&session.result().await);
                results += 1;
            }
            if stopped.try_recv().is_ok() {
                break;
            }
        }
        let ended = session.finish().await.unwrap();
        assert_eq!(ended.summary.succeeded, ended.summary.received, "{:?}", ended.summary);
        results
    });
    let mut waited = Vec::new();
    // Until it has had enough to be known for it, and has 64 items in the queue.
    crate::support::wait::eventually(LIMIT, "the batch is under way", async || {
        (batched(&mut db, None).await > 40).then_some(())
    })
    .await;
    for _ in 0..calls {
        let before = batched(&mut db, None).await;
        let acquired = clients
            .acquire(|request| {
                request.holder = "single".to_owned();
                request.selector = Some(expecting(CARD));
                request.wait_timeout = seconds(60.0);
            })
            .await
            .unwrap();
        waited.push(batched(&mut db, acquired.lease.as_ref()).await - before);
        clients.release(&lease(&acquired)).await.unwrap();
    }
    let _ = stop.send(());
    assert!(batch.await.unwrap() > 0, "the batch went on");
    waited
}

#[tokio::test]
async fn a_batch_leaves_their_share_to_single_callers() {
    for accounts in [1, 2, 8] {
        let waited = single_callers_beside_a_batch(accounts, 50, 1, 6).await;
        // The queue holds 64 of it.
        assert!(waited.iter().all(|leases| *leases <= 32), "{accounts} accounts: {waited:?}");
    }
}

#[tokio::test]
async fn with_all_of_the_share_a_batch_is_first_come_first_served_like_anybody() {
    let waited = single_callers_beside_a_batch(1, 100, 1, 3).await;
    // All that were in the queue come first: as many as are in flight at once, but for those whose
    // card is being redeemed or told.
    assert!(waited.iter().all(|leases| (40..=80).contains(leases)), "{waited:?}");
}

#[tokio::test]
async fn over_two_servers_nobody_starves() {
    // Servers do not talk: who waits on another one gets what is free when that one looks, which is soon,
    // and not bounded by turns. Each caller is served, or its own wait ends in an error.
    for accounts in [1, 8] {
        let waited = single_callers_beside_a_batch(accounts, 50, 2, 2).await;
        assert!(!waited.is_empty(), "{accounts} accounts: nobody was served");
    }
}
