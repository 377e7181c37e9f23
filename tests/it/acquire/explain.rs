//! `ExplainAcquire`: the verdict on each account, in the order in which accounts would be picked. It
//! locks none.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast::{
    domain::{choice::Criteria, id::PoolId, selector::Selector},
    rpc::pb::{self, AcquireVerdict as Verdict, plan::Denominations},
    store::ready_set::{Asked, Explanation},
};
use sqlx::PgConnection;

use crate::support::{
    plans::{CARD, counts, expecting, minor, psql},
    wait::eventually,
    world::{Clients, POOL, World, eur, lease, metadata, reason},
};

fn denominations(min: i64, step: Option<i64>) -> Option<Denominations> {
    Some(match step {
        Some(step) => Denominations::MultiplesOf(eur(step)),
        None => Denominations::AmountRange(pb::AmountRange { min: Some(eur(min)), max: None }),
    })
}

/// A world with an account for each verdict, named like it, for a card of [`CARD`] that asks for the label
/// `group: x`. Two fit.
async fn world_of_all_verdicts() -> (World, Clients) {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("any", 9000).await;
    clients.create_plan_with("step", 7000, |p| p.denominations = denominations(1, Some(700))).await;
    clients.create_plan_with("least", 9000, |p| p.denominations = denominations(800, None)).await;
    clients.create_plan_with("daily", 9000, |p| p.day_amounts = vec![eur(900), eur(900)]).await;
    let accounts = [
        ("fits", "any", 0),
        ("fits-too", "any", 500),
        ("completed", "any", 9000),
        ("inactive", "any", 0),
        ("paused", "any", 0),
        ("draining", "any", 0),
        ("too-full", "any", 8001),
        ("denomination", "step", 0),
        ("remainder", "least", 7500),
        ("day-full", "daily", 0),
        ("on-hold", "any", 0),
        ("next-day", "daily", 0),
        ("cooling-down", "any", 0),
        ("locked", "any", 0),
        ("not-selected", "any", 0),
    ];
    for (account_id, plan_id, balance) in accounts {
        clients
            .create_account(account_id, |account| {
                account.plan_id = plan_id.to_owned();
                account.balance = Some(eur(balance));
                if account_id != "not-selected" {
                    account.labels = [("group".to_owned(), "x".to_owned())].into();
                }
            })
            .await;
    }
    for set in [
        "login_status = 'INACTIVE' WHERE account_id = 'inactive'",
        "paused = true WHERE account_id = 'paused'",
        "draining = true WHERE account_id = 'draining'",
        "plan_day = 2, day_due_at = now() + interval '1 hour' WHERE account_id = 'next-day'",
        "cooldown_until = now() + interval '1 hour' WHERE account_id = 'cooling-down'",
        "hold_until = now() + interval '1 hour', hold_cause = 'THROTTLED' WHERE account_id = 'on-hold'",
    ] {
        psql(&mut world.sql().await, &format!("UPDATE accounts SET {set}")).await;
    }
    let only = pb::AccountSelector { account_id: "locked".to_owned(), ..expecting(CARD) };
    clients.acquire(|request| request.selector = Some(only)).await.unwrap();
    (world, clients)
}

fn of_the_group() -> pb::AccountSelector {
    pb::AccountSelector { labels: [("group".to_owned(), "x".to_owned())].into(), ..expecting(CARD) }
}

/// `NOT_SELECTED` as `not-selected`.
fn named(verdict: Verdict) -> String {
    let name = verdict.as_str_name().trim_start_matches("ACQUIRE_VERDICT_");
    name.to_lowercase().replace('_', "-")
}

/// Everything of every account and its row that a statement could have left a trace in.
async fn traces(db: &mut PgConnection) -> Vec<(String, String, i64)> {
    let traces = "SELECT a.account_id, concat_ws(' ', a.xmin, a.xmax, a.ctid, a), (
             SELECT count(*) FROM account_events e WHERE e.account_id = a.account_id)
         FROM accounts a ORDER BY 1";
    sqlx::query_as(traces).fetch_all(db).await.unwrap()
}

#[tokio::test]
async fn each_account_is_told_with_the_first_cause_that_holds() {
    let (world, mut clients) = world_of_all_verdicts().await;
    let mut db = world.sql().await;
    let before = traces(&mut db).await;
    let explained = clients.explain(of_the_group()).await;
    assert_eq!(traces(&mut db).await, before, "nothing is locked or changed");
    for considered in &explained.considered_accounts {
        let account = considered.account.as_ref().unwrap();
        let verdict = named(considered.verdict());
        assert!(account.account_id.starts_with(&verdict), "{} {verdict}", account.account_id);
    }
    assert_eq!(explained.considered_accounts.len(), 15);
    let mut told = BTreeMap::new();
    for count in &explained.verdict_counts {
        told.insert(named(count.verdict()), count.accounts);
    }
    assert_eq!(told.len(), 14, "every verdict: {told:?}");
    for (verdict, accounts) in told {
        assert_eq!(accounts, if verdict == "fits" { 2 } else { 1 }, "{verdict}");
    }
    let headroom = |account_id: &str| {
        let one = explained
            .considered_accounts
            .iter()
            .find(|one| one.account.as_ref().unwrap().account_id == account_id)
            .unwrap();
        (minor(one.headroom.as_ref()), minor(one.day_headroom.as_ref()))
    };
    assert_eq!(headroom("fits-too"), (8500, 8500));
    assert_eq!(headroom("day-full"), (9000, 900));
    assert_eq!(headroom("next-day"), (9000, 9000), "the last day takes what is left");
    assert!(!explained.pool_closed);
}

#[tokio::test]
async fn an_acquisition_that_finds_nothing_counts_as_the_explanation_does() {
    let (_world, mut clients) = world_of_all_verdicts().await;
    for _ in 0..2 {
        clients.acquire(|request| request.selector = Some(of_the_group())).await.unwrap();
    }
    let error = clients.acquire(|r| r.selector = Some(of_the_group())).await.unwrap_err();
    let explained = clients.explain(of_the_group()).await;
    let mut expected: Vec<_> = explained
        .verdict_counts
        .iter()
        .map(|count| (named(count.verdict()).replace('-', "_"), count.accounts))
        .collect();
    expected.sort();
    assert_eq!(counts(&error), expected);
    assert_eq!(expected.iter().find(|(key, _)| key == "locked").unwrap().1, 3);
    assert_eq!(
        (metadata(&error, "position"), metadata(&error, "waiting")),
        ("1".to_owned(), "1".to_owned())
    );
    assert_eq!(metadata(&error, "free"), "0", "also what is 0 is told");
}

/// Accounts of several plans and of none, in all states that decide the order.
async fn world_of_many() -> (World, Clients) {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    for (plan_id, target) in [("low", 4000), ("high", 9000)] {
        clients.create_plan(plan_id, target).await;
    }
    let insert =
        "INSERT INTO accounts (pool_id, account_id, status, plan_id, balance_minor, country_code,
             idle_since, day_due_at, labels)
         SELECT 'pool', format('%s-%s', lpad((n * 7 % 60)::text, 2, '0'), n),
             CASE n % 3 WHEN 0 THEN 'PROCESSING' ELSE 'WAITING' END,
             CASE n % 4 WHEN 0 THEN NULL WHEN 1 THEN 'low' ELSE 'high' END,
             n % 5 * 700, CASE n % 2 WHEN 0 THEN 'DE' END,
             now() - n % 2 * interval '1 hour',
             CASE WHEN n % 4 > 0 AND n % 7 = 0 THEN now() + interval '100 ms' END,
             CASE n % 6 WHEN 0 THEN '{\"group\": \"x\"}'::jsonb ELSE '{}' END
         FROM generate_series(1, 60) n";
    psql(&mut world.sql().await, insert).await;
    // What was not due when it was made is due now, and may not have been unparked.
    crate::support::wait::eventually(
        std::time::Duration::from_secs(5),
        "all are due",
        async || {
            let due = "SELECT NOT EXISTS (SELECT FROM accounts WHERE usable_at > now())";
            let due: bool =
                sqlx::query_scalar(due).fetch_one(&mut world.sql().await).await.unwrap();
            due.then_some(())
        },
    )
    .await;
    (world, clients)
}

#[tokio::test]
async fn accounts_are_picked_in_the_order_that_is_explained() {
    let (_world, mut clients) = world_of_many().await;
    let plan =
        |plan_id: &str| pb::AccountSelector { plan_id: plan_id.to_owned(), ..Default::default() };
    let selectors = [
        ("any", pb::AccountSelector::default()),
        ("for an amount", expecting(1300)),
        ("for a great amount", expecting(6300)),
        ("of a plan", plan("low")),
        (
            "of a plan, for an amount",
            pb::AccountSelector { expected: Some(eur(2000)), ..plan("high") },
        ),
        (
            "with headroom",
            pb::AccountSelector { min_headroom: Some(eur(3000)), ..Default::default() },
        ),
        ("of a country", pb::AccountSelector { country_code: "DE".to_owned(), ..expecting(1) }),
        ("of a group", of_the_group()),
        ("one alone", pb::AccountSelector { account_id: "07-1".to_owned(), ..expecting(1) }),
    ];
    for (name, selector) in selectors {
        let explained = clients.explain(selector.clone()).await;
        let fits: Vec<_> = explained
            .considered_accounts
            .iter()
            .filter(|one| one.verdict() == Verdict::Fits)
            .map(|one| one.account.as_ref().unwrap().account_id.clone())
            .collect();
        assert!(!fits.is_empty(), "{name}");
        let first: Vec<_> = explained.considered_accounts[..fits.len()].iter().collect();
        assert!(first.iter().all(|one| one.verdict() == Verdict::Fits), "{name}: they come first");
        let mut leases = Vec::new();
        while let Ok(acquired) = clients.acquire(|r| r.selector = Some(selector.clone())).await {
            leases.push(lease(&acquired));
        }
        let picked: Vec<_> = leases.iter().map(|lease| lease.account_id.clone()).collect();
        assert_eq!(picked, fits, "{name}");
        for lease in leases {
            clients.release(&lease).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_and_a_page_counts_all() {
    let (_world, mut clients) = world_of_many().await;
    clients.update_pool(|pool| pool.paused = Some(true)).await;
    let mut explain = async |pool_id: &str, selector: pb::AccountSelector, page_size: i32| {
        let selector = Some(selector);
        let pool_id = pool_id.to_owned();
        let request = pb::ExplainAcquireRequest { pool_id, selector, page_size };
        clients.redemptions.explain_acquire(request).await.map(tonic::Response::into_inner)
    };
    let none = pb::AccountSelector::default;
    let error = explain("none", none(), 0).await.unwrap_err();
    assert_eq!(reason(&error), "POOL_NOT_FOUND");
    let plan = pb::AccountSelector { plan_id: "none".to_owned(), ..none() };
    let error = explain(POOL, plan, 0).await.unwrap_err();
    assert_eq!(reason(&error), "PLAN_NOT_FOUND");
    let account = pb::AccountSelector { account_id: "none".to_owned(), ..none() };
    let error = explain(POOL, account, 0).await.unwrap_err();
    assert_eq!(reason(&error), "ACCOUNT_NOT_FOUND");
    let page = explain(POOL, none(), 3).await.unwrap();
    assert_eq!(page.considered_accounts.len(), 3);
    assert_eq!(page.verdict_counts.iter().map(|count| count.accounts).sum::<i64>(), 60);
    assert!(page.pool_closed, "what fits is told all the same");
    let all = explain(POOL, none(), 1000).await.unwrap();
    assert_eq!(page.considered_accounts[..], all.considered_accounts[..3]);
}

/// More than three pages.
const MANY: i64 = 3_500;

/// How many there are of each verdict.
fn told(explained: &pb::ExplainAcquireResponse) -> BTreeMap<String, i64> {
    let counts = explained.verdict_counts.iter();
    counts.map(|count| (named(count.verdict()), count.accounts)).collect()
}

/// What an explanation reads it does not keep, and what it tells is what is told of accounts in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explaining_a_pool_that_nobody_acquires_from_loads_nothing_and_tells_the_same() {
    let (world, mut clients) = world_of_many().await;
    let mut db = world.sql().await;
    let more = format!(
        "INSERT INTO accounts (pool_id, account_id, balance_minor, login_status, paused, cooldown_until)
         SELECT '{POOL}', 'many-' || n, n % 7, CASE WHEN n % 5 = 0 THEN 'INACTIVE' ELSE 'ACTIVE' END,
             n % 3 = 0, CASE WHEN n % 4 = 0 THEN now() + interval '1 hour' END
         FROM generate_series(1, {MANY}) n"
    );
    psql(&mut db, &more).await;
    // A server that has not been asked for any account.
    let store = world.store();
    let ready = store.ready(&PoolId::parse(POOL).unwrap());
    let terms = ready.read_terms().await.unwrap().unwrap();
    let selector = Arc::new(Selector::default());
    let asked = |limit| Asked {
        criteria: Criteria { selector: Arc::clone(&selector), expected_minor: Some(CARD) },
        limit,
    };
    let tell = |(counts, considered): Explanation| {
        let first: Vec<_> = considered
            .iter()
            .map(|one| (one.account.account_id.to_string(), one.choice.as_str()))
            .collect();
        (counts, first)
    };
    let limits = [0, 1, 40, 2000];
    let mut of_rows = Vec::new();
    for limit in limits {
        let explanation = ready.read_explanation(asked(limit), Arc::clone(&terms), ()).await;
        of_rows.push(tell(explanation.unwrap()));
        assert_eq!((ready.accounts(), ready.is_whole()), (0, false), "nothing is kept");
    }
    assert!(ready.explain(asked(1), Arc::clone(&terms), ()).await.is_none(), "there are none");
    assert!(ready.follow_whole().await.unwrap().is_none());
    assert!(ready.follow().await.unwrap());
    assert!(ready.accounts() > usize::try_from(MANY).unwrap());
    for (limit, of_rows) in limits.into_iter().zip(of_rows) {
        let explanation = ready.explain(asked(limit), Arc::clone(&terms), ()).await;
        assert_eq!(tell(explanation.unwrap()), of_rows, "limit {limit}");
        assert_eq!(of_rows.1.len(), limit.min(ready.accounts()));
    }
    ready.leave().await;

    // The same by calls: the server has no task of a pool that was only explained.
    let tasks = world.tasks();
    let before = told(&clients.explain(expecting(CARD)).await);
    eventually(Duration::from_secs(10), "no task is left", async || {
        (world.tasks() <= tasks).then_some(())
    })
    .await;
    let held =
        lease(&clients.acquire(|request| request.selector = Some(expecting(CARD))).await.unwrap());
    clients.release(&held).await.unwrap();
    assert_eq!(told(&clients.explain(expecting(CARD)).await), before, "of those in memory");
}
