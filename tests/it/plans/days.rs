//! Days of a plan, and the pause between two redemptions: an account is deferred until its time has come,
//! by the database's clock and no other. Then it is picked without anything else happening.

use std::time::Duration;

use holdfast::rpc::pb::{self, AccountStatus, AccountStatus::*, plan::Denominations};
use sqlx::{Connection as _, PgConnection};

use crate::support::{
    fleet::{Able, Fleet, Setup},
    plans::{CARD, expecting, minor, psql, retry_after, why},
    wait::eventually,
    world::{Clients, World, eur, lease, seconds},
};

const LIMIT: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn days(plan: &mut pb::Plan, amounts: &[i64]) {
    plan.day_amounts = amounts.iter().map(|amount| eur(*amount)).collect();
}

/// Where an account is in its plan.
async fn stands(clients: &mut Clients, account_id: &str) -> (AccountStatus, i32, i64, i64) {
    let account = clients.account(account_id).await;
    let credited = minor(account.day_credited.as_ref());
    (account.status(), account.plan_day, credited, minor(account.balance.as_ref()))
}

fn on_plan(plan_id: &str) -> impl FnOnce(&mut pb::Account) {
    let plan_id = plan_id.to_owned();
    move |account| account.plan_id = plan_id
}

#[tokio::test]
async fn a_day_that_is_done_makes_the_account_wait_until_the_next_one_is_due() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut db = world.sql().await;
    clients.create_plan_with("plan", 3 * CARD, |plan| days(plan, &[CARD, 2 * CARD])).await;
    clients.create_account("a", on_plan("plan")).await;
    let done = clients.fill(&world.code("1")).await;
    assert_eq!(stands(&mut clients, "a").await, (Waiting, 2, 0, CARD));
    let due = clients.account("a").await.available_time.unwrap();
    let finished = done.finish_time.unwrap();
    assert_eq!((due.seconds - finished.seconds, due.nanos), (86_400, finished.nanos));
    clients.passed_over(CARD, &[("next_day", 1)]).await;

    psql(&mut db, "UPDATE accounts SET day_due_at = now()").await;
    let held = clients.acquire_for(CARD).await.unwrap();
    clients.passed_over(CARD, &[("locked", 1)]).await;
    clients.release(&held).await.unwrap();
    assert_eq!(stands(&mut clients, "a").await, (Waiting, 2, 0, CARD), "nothing was redeemed");
    clients.fill(&world.code("2")).await;
    assert_eq!(stands(&mut clients, "a").await, (Processing, 2, CARD, 2 * CARD));
    clients.fill(&world.code("3")).await;
    assert_eq!(stands(&mut clients, "a").await, (Completed, 2, 2 * CARD, 3 * CARD));
    clients.passed_over(CARD, &[("completed", 1)]).await;
}

#[tokio::test]
async fn under_a_lease_that_stays_the_next_day_is_not_begun_before_its_time_either() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut db = world.sql().await;
    clients.create_plan_with("plan", 3 * CARD, |plan| days(plan, &[CARD, 2 * CARD])).await;
    clients.create_account("a", on_plan("plan")).await;
    let held = clients.acquire_for(CARD).await.unwrap();
    clients.redeem(&held, &world.code("1"), |_| {}).await.unwrap();
    let error = clients.redeem(&held, &world.code("2"), |_| {}).await.unwrap_err();
    assert_eq!(why(&error), ("ACCOUNT_NOT_READY".to_owned(), "next_day".to_owned()));
    let after = retry_after(&error);
    assert!(after <= DAY && after > DAY - Duration::from_secs(30), "{after:?}");

    psql(&mut db, "UPDATE accounts SET day_due_at = now() + interval '300 ms'").await;
    eventually(LIMIT, "the next day is begun under the lease", async || {
        let redeemed = clients.redeem(&held, &world.code("2"), |_| {}).await;
        redeemed.map_err(|error| assert_eq!(why(&error).1, "next_day")).ok()
    })
    .await;
    clients.release(&held).await.unwrap();
    assert_eq!(stands(&mut clients, "a").await, (Processing, 2, CARD, 2 * CARD));
}

#[tokio::test]
async fn a_day_ends_when_its_amount_is_there_or_no_card_fits_what_it_still_takes() {
    let range = |min, max: Option<i64>| {
        Denominations::AmountRange(pb::AmountRange { min: Some(eur(min)), max: max.map(eur) })
    };
    let multiples = || Denominations::MultiplesOf(eur(CARD));
    let fixed = |amounts: &[i64]| {
        let amounts = amounts.iter().map(|amount| eur(*amount)).collect();
        Denominations::FixedAmounts(pb::FixedAmounts { amounts })
    };
    // The target, the first of two days and its tolerance, what the plan takes; and where one card leaves
    // the account.
    let (ended, goes_on) = ((Waiting, 2, 0, CARD), (Processing, 1, CARD, CARD));
    let cases = [
        ("exact", 9000, CARD, 0, None, ended),
        ("one is left", 9000, CARD + 1, 0, None, goes_on),
        ("less than the least is left", 9000, CARD + 99, 0, Some(range(100, None)), ended),
        ("the least is left", 9000, CARD + 100, 0, Some(range(100, None)), goes_on),
        ("half a multiple is left", 9000, CARD + 500, 0, Some(multiples()), ended),
        ("the tolerance takes one more", 9000, CARD + 500, 500, Some(multiples()), goes_on),
        ("the tolerance is too small", 9000, CARD + 500, 499, Some(multiples()), ended),
        ("less than the fixed ones", 9000, CARD + 900, 0, Some(fixed(&[CARD, 1500])), ended),
        ("a fixed one fits", 9000, CARD + 500, 0, Some(fixed(&[500, CARD])), goes_on),
        // 1000 would leave 4100, which 1000 and 1700 cannot fill; 1700 leaves 3400.
        ("the greater one fits", 6100, 2600, 100, Some(fixed(&[CARD, 1700])), goes_on),
        ("the lesser one leaves too much", 6100, 2600, 99, Some(fixed(&[CARD, 1700])), ended),
        // 2000 are left in all: nothing but two of the greatest.
        ("a range leaves too much", 3000, 1900, 0, Some(range(700, Some(CARD))), ended),
        ("the greatest fits", 3000, 2000, 0, Some(range(700, Some(CARD))), goes_on),
    ];
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    for (name, target, first, tolerance, denominations, after) in cases {
        let plan_id = name.replace(' ', "-");
        clients
            .create_plan_with(&plan_id, target, |plan| {
                days(plan, &[first, 400]);
                plan.day_tolerance = Some(eur(tolerance));
                plan.denominations = denominations;
            })
            .await;
        clients.create_account(&plan_id, on_plan(&plan_id)).await;
        let held = clients
            .acquire(|r| {
                let account_id = plan_id.clone();
                r.selector = Some(pb::AccountSelector { account_id, ..expecting(CARD) });
            })
            .await
            .unwrap();
        let code = world.code(&plan_id);
        clients.redeem(&lease(&held), &code, |r| r.release_on_completion = true).await.unwrap();
        assert_eq!(stands(&mut clients, &plan_id).await, after, "{name}");
    }
}

#[tokio::test]
async fn more_than_the_day_takes_is_refused_but_on_the_last_day() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut db = world.sql().await;
    clients
        .create_plan_with("plan", 9 * CARD, |plan| {
            days(plan, &[CARD + 500, CARD]);
            plan.day_tolerance = Some(eur(500));
        })
        .await;
    clients.create_account("a", on_plan("plan")).await;
    clients.passed_over(2 * CARD + 1, &[("day_full", 1)]).await;
    let held = clients.acquire_for(2 * CARD).await.unwrap();
    clients.release(&held).await.unwrap();
    clients.fill(&world.code("1")).await;
    clients.passed_over(CARD + 1, &[("day_full", 1)]).await;
    clients.fill(&world.code("2")).await;
    assert_eq!(stands(&mut clients, "a").await, (Waiting, 2, 0, 2 * CARD));
    psql(&mut db, "UPDATE accounts SET day_due_at = now()").await;
    let held = clients.acquire_for(7 * CARD).await.unwrap();
    clients.release(&held).await.unwrap();
    clients.passed_over(7 * CARD + 1, &[("too_full", 1)]).await;
}

/// A zone that changes its clocks within the interval, wherever in the year it begins.
const ZONE: &str = "America/New_York";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_are_elapsed_time_whatever_zone_the_database_and_the_host_are_in() {
    let able = Able { deduplicates: true, looks_up: true, cancels: true };
    let mut fleet = Fleet::start(Setup { able, serve: Vec::new(), provider: Vec::new() }).await;
    let mut db = PgConnection::connect(&fleet.db_url).await.unwrap();
    let name: String =
        sqlx::query_scalar("SELECT current_database()").fetch_one(&mut db).await.unwrap();
    psql(&mut db, &format!("ALTER DATABASE {name} SET timezone = '{ZONE}'")).await;
    fleet.start_server(&[("TZ", ZONE), ("PGTZ", ZONE)]).await;
    let mut clients = fleet.clients(0);
    clients.create_pool(crate::support::world::POOL).await;
    for plan_id in ["hours", "a-persons-days"] {
        clients
            .create_plan_with(plan_id, 3 * CARD, |plan| {
                days(plan, &[CARD, 2 * CARD]);
                plan.day_interval = seconds(200.0 * 86_400.0);
                plan.redemption_interval = seconds(201.0 * 86_400.0);
            })
            .await;
        clients.create_account(plan_id, on_plan(plan_id)).await;
    }
    psql(
        &mut db,
        "UPDATE plans SET day_interval = interval '200 days',
             redemption_interval = interval '6 months 21 days'
         WHERE plan_id = 'a-persons-days'",
    )
    .await;
    for n in 0..2 {
        clients.fill(&fleet.code(&n.to_string())).await;
    }
    let apart: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT a.account_id,
             (extract(epoch FROM a.day_due_at - r.finished_at) * 1000000)::bigint,
             (extract(epoch FROM a.cooldown_until - r.finished_at) * 1000000)::bigint
         FROM accounts a JOIN redemptions r USING (pool_id, account_id) ORDER BY 1 DESC",
    )
    .fetch_all(&mut db)
    .await
    .unwrap();
    let day = 86_400 * 1_000_000;
    assert_eq!(apart[0], ("hours".to_owned(), 200 * day, 201 * day));
    // Months are not elapsed time; where a person writes them, they are counted in UTC at least.
    assert_eq!((&*apart[1].0, apart[1].1), ("a-persons-days", 200 * day));
    assert_eq!(apart[1].2 % day, 0, "{apart:?}");
}

#[tokio::test]
async fn only_the_databases_clock_makes_a_day_due_however_it_is_set() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut db = world.sql().await;
    clients.create_plan_with("plan", 3 * CARD, |plan| days(plan, &[CARD, 2 * CARD])).await;
    clients.create_account("a", on_plan("plan")).await;
    clients.fill(&world.code("1")).await;
    // All that is stored, as it looks when the clock is set forward, or back, by so much.
    let set_clock = |by: &str| {
        format!(
            "UPDATE accounts SET
                 created_at = created_at - interval '{by}', idle_since = idle_since - interval '{by}',
                 lease_acquired_at = lease_acquired_at - interval '{by}',
                 lease_expires_at = lease_expires_at - interval '{by}',
                 day_due_at = day_due_at - interval '{by}'"
        )
    };
    for by in ["23 hours", "-48 hours", "48 hours"] {
        psql(&mut db, &set_clock(by)).await;
        clients.passed_over(CARD, &[("next_day", 1)]).await;
    }
    let mut waiter = clients.clone();
    let waiting = tokio::spawn(async move {
        waiter
            .acquire(|r| (r.selector, r.wait_timeout) = (Some(expecting(CARD)), seconds(30.0)))
            .await
    });
    clients.until_waiting(1).await;
    psql(&mut db, &set_clock("1 hour")).await;
    let acquired = tokio::time::timeout(LIMIT, waiting).await.expect("it is due").unwrap();
    assert_eq!(acquired.unwrap().account.unwrap().plan_day, 2);
}

#[tokio::test]
async fn between_two_redemptions_an_account_cools_down_whatever_became_of_the_first() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut db = world.sql().await;
    clients
        .create_plan_with("plan", 9 * CARD, |plan| plan.redemption_interval = seconds(3600.0))
        .await;
    clients.create_account("a", on_plan("plan")).await;
    let first = clients.fill(&world.code("1")).await;
    let account = clients.account("a").await;
    let (ready, finished) = (account.available_time.unwrap(), first.finish_time.unwrap());
    assert_eq!((ready.seconds - finished.seconds, ready.nanos), (3600, finished.nanos));
    assert_eq!(account.status(), Processing, "it cools down, and that is no status");
    clients.passed_over(CARD, &[("cooling_down", 1)]).await;

    psql(&mut db, "UPDATE accounts SET cooldown_until = now()").await;
    let held = clients.acquire_for(CARD).await.unwrap();
    // The same card once more: it fails, and that was a redemption all the same.
    let used = clients
        .redeem(&held, &world.code("other"), |r| r.expected = Some(eur(CARD)))
        .await
        .unwrap();
    assert_eq!(used.redemption.unwrap().state(), pb::RedemptionState::Succeeded);
    let error = clients.redeem(&held, &world.code("2"), |_| {}).await.unwrap_err();
    assert_eq!(why(&error), ("ACCOUNT_NOT_READY".to_owned(), "cooldown".to_owned()));
    let after = retry_after(&error).as_secs();
    assert!((3570..=3600).contains(&after), "{after}");
    psql(&mut db, "UPDATE accounts SET cooldown_until = now() - interval '1 us'").await;
    clients.redeem(&held, &world.code("2"), |r| r.release_on_completion = true).await.unwrap();
    clients.passed_over(CARD, &[("cooling_down", 1)]).await;
}

#[tokio::test]
async fn an_account_is_picked_at_its_time_without_anything_else_happening() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients
        .create_plan_with("plan", 9 * CARD, |plan| plan.redemption_interval = seconds(0.6))
        .await;
    clients.create_account("a", on_plan("plan")).await;
    let first = clients.fill(&world.code("1")).await;
    let acquired = clients.acquire(|request| request.wait_timeout = seconds(10.0)).await.unwrap();
    let [finished, acquired] =
        [first.finish_time, acquired.lease.unwrap().acquire_time].map(|time| {
            let time = time.unwrap();
            i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
        });
    let waited = (acquired - finished) / 1_000_000;
    assert!((600..5000).contains(&waited), "{waited} ms");
}

#[tokio::test]
async fn acquire_takes_accounts_in_order_whose_time_has_come_and_changes_no_other() {
    const COUNT: i64 = 1_250;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut db = world.sql().await;
    clients.create_plan("plan", 10 * COUNT).await;
    // The fuller, the later is its time.
    let insert = format!(
        "INSERT INTO accounts (pool_id, account_id, status, login_status, plan_id, balance_minor,
             day_due_at, idle_since)
         SELECT 'pool', format('a-%s', lpad(n::text, 4, '0')), 'WAITING', 'ACTIVE', 'plan', n,
             now() + interval '500 ms' + n * interval '1 us', now() - interval '1 hour'
         FROM generate_series(1, {COUNT}) n"
    );
    psql(&mut db, &insert).await;
    let first = clients.acquire(|request| request.wait_timeout = seconds(10.0)).await.unwrap();
    clients.release(&lease(&first)).await.unwrap();
    let is_due = "SELECT bool_and(day_due_at <= now()) FROM accounts";
    eventually(LIMIT, "all are due", async || {
        let is_due: bool = sqlx::query_scalar(is_due).fetch_one(&mut db).await.unwrap();
        is_due.then_some(())
    })
    .await;
    for n in (COUNT - 4..=COUNT).rev() {
        let acquired = clients.acquire(|_| {}).await.unwrap();
        assert_eq!(acquired.account.unwrap().account_id, format!("a-{n:04}"), "the fullest first");
    }
    let touched: i64 =
        sqlx::query_scalar("SELECT count(*) FROM accounts WHERE version > 1 AND fencing_token = 0")
            .fetch_one(&mut db)
            .await
            .unwrap();
    assert_eq!(touched, 0, "that it is due is no change of an account");
    let told: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM account_events WHERE reason NOT IN ('created', 'acquired', 'released')",
    )
    .fetch_one(&mut db)
    .await
    .unwrap();
    assert_eq!(told, 0, "and leaves no event");
}

#[tokio::test]
async fn acquire_passes_over_an_account_whose_time_a_person_has_set() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let mut db = world.sql().await;
    clients.create_plan("plan", 9 * CARD).await;
    clients.create_account("a", on_plan("plan")).await;
    // What is set, and the cause for which the account is passed over then.
    let cases = [
        ("day_due_at = now() + interval '1 hour'", Some("next_day")),
        ("day_due_at = now() - interval '1 hour'", None),
        ("cooldown_until = now() + interval '1 hour'", Some("cooling_down")),
        ("day_due_at = NULL", Some("cooling_down")),
        ("hold_until = now() + interval '2 hours', hold_cause = 'THROTTLED'", Some("on_hold")),
        ("cooldown_until = NULL", Some("on_hold")),
        ("hold_until = now(), hold_cause = 'THROTTLED'", None),
        ("hold_until = NULL, hold_cause = NULL", None),
        ("login_status = 'INACTIVE', day_due_at = now() + interval '1 hour'", Some("inactive")),
        ("login_status = 'ACTIVE'", Some("next_day")),
        ("day_due_at = NULL", None),
    ];
    for (set, cause) in cases {
        psql(&mut db, &format!("UPDATE accounts SET {set}")).await;
        match (clients.acquire_for(CARD).await, cause) {
            (Ok(held), None) => drop(clients.release(&held).await.unwrap()),
            (Err(_), Some(cause)) => clients.passed_over(CARD, &[(cause, 1)]).await,
            (answer, _) => panic!("{set}: {answer:?}"),
        }
    }
}
