//! `BatchRedeem`: results, items that are refused, and how many are under way at once.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use holdfast::{
    rpc::pb::{self, batch_redeem_response::Message as Told},
    simulator::faults::Faults,
};
use tonic::Code;

use crate::support::{
    batch::{Session, begun, credited, item, opening, refusal, run, said_item, said_open},
    wait::eventually,
    world::{POOL, World, bad_fields, eur, lease, metadata, reason, seconds},
};

fn dollars(amount_minor: i64) -> pb::Money {
    pb::Money { amount_minor, currency_code: "USD".to_owned() }
}

/// Every request for a redemption takes this long at the provider.
fn slow(latency: &str) -> Faults {
    Faults { latency: latency.parse().unwrap(), ..Faults::default() }
}

#[tokio::test]
async fn batch_redeem_gives_every_item_one_result_and_the_counts_add_up() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(4).await;
    let items: Vec<_> =
        (0..30).map(|n| item(&format!("i-{n}"), &world.code(&format!("{n}")))).collect();

    let ended = run(&mut clients, opening("b"), &items).await.unwrap();
    let results = ended.by_item();
    assert_eq!(results.len(), 30);
    for sent in &items {
        let result = results[&sent.item_id];
        let redemption = credited(result);
        assert_eq!(redemption.request_id, format!("batch:b:{}", sent.item_id));
        assert_eq!(redemption.amount, Some(eur(1000)));
        assert_eq!(redemption.code_last4, sent.code[sent.code.len() - 4..]);
        assert!(!result.replayed);
        assert_eq!(clients.redemption(&redemption.redemption_id).await, *redemption);
    }
    for n in 0..4 {
        let account = clients.account(&format!("a-{n:03}")).await;
        assert!(account.lease.is_none(), "given back: {account:?}");
    }
}

#[tokio::test]
async fn batch_redeem_sends_results_and_progress_while_items_still_come() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let mut session = Session::open(&mut clients, opening("b")).await.unwrap();
    for n in 0..3 {
        session.send(item(&format!("i-{n}"), &world.code(&format!("card-{n}")))).await;
        assert_eq!(session.result().await.item_id, format!("i-{n}"));
    }
    loop {
        match session.next().await.unwrap() {
            Some(Told::Progress(told)) if told.received == 3 => {
                assert_eq!((told.succeeded, told.in_flight), (3, 0));
                break;
            }
            Some(Told::Progress(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(session.finish().await.unwrap().summary.succeeded, 3);
}

#[tokio::test]
async fn batch_redeem_gives_a_malformed_item_its_own_error_and_goes_on() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let code = world.code("good");
    let cases: Vec<(pb::BatchItem, Vec<&str>)> = vec![
        (item("no code", ""), vec!["item.code"]),
        (item("control", "HF\u{7}CODE"), vec!["item.code"]),
        (item("short", "abc"), vec!["item.code"]),
        (item("", &code), vec!["item.item_id"]),
        (item("nul\0", &code), vec!["item.item_id"]),
        (item(&"x".repeat(129), &code), vec!["item.item_id"]),
        (
            pb::BatchItem { expected: Some(eur(-1)), ..item("negative", &code) },
            vec!["item.expected.amount_minor"],
        ),
        (
            pb::BatchItem { expected: Some(dollars(5)), ..item("dollars", &code) },
            vec!["item.expected.currency_code"],
        ),
        (
            pb::BatchItem {
                expected: Some(dollars(5)),
                selector: Some(pb::AccountSelector {
                    min_headroom: Some(dollars(5)),
                    ..Default::default()
                }),
                ..item("twice dollars", &code)
            },
            vec!["item.expected.currency_code", "item.selector.min_headroom.currency_code"],
        ),
        (
            pb::BatchItem {
                priority: 0,
                not_before: None,
                item_id: " ".into(),
                code: "\n".into(),
                expected: Some(pb::Money { amount_minor: i64::MAX, currency_code: "eur".into() }),
                selector: Some(pb::AccountSelector {
                    country_code: "de".into(),
                    ..Default::default()
                }),
            },
            vec![
                "item.item_id",
                "item.code",
                "item.expected.amount_minor",
                "item.expected.currency_code",
                "item.selector.country_code",
            ],
        ),
    ];
    let mut items: Vec<_> = cases.iter().map(|(item, _)| item.clone()).collect();
    items.push(item("good", &code));

    let ended = run(&mut clients, opening("b"), &items).await.unwrap();
    let results = ended.by_item();
    for (item, fields) in &cases {
        assert_eq!(bad_fields(&refusal(results[&item.item_id])), *fields, "{item:?}");
    }
    credited(results["good"]);
    assert_eq!(ended.summary.rejected, i64::try_from(cases.len()).unwrap());
}

#[tokio::test]
async fn batch_redeem_is_opened_by_its_first_message_and_only_by_that() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let code = world.code("card");
    for first in [said_item(item("i", &code)), pb::BatchRedeemRequest { message: None }] {
        let error = Session::begin(&mut clients, first).await.err().unwrap();
        assert_eq!(bad_fields(&error), ["open"]);
    }
    let empty = tokio_stream::iter(Vec::<pb::BatchRedeemRequest>::new());
    let error = clients.redemptions.batch_redeem(empty).await.err().unwrap();
    assert_eq!(bad_fields(&error), ["open"]);

    let mut session = Session::open(&mut clients, opening("b")).await.unwrap();
    session.items.send(said_open(opening("b"))).await.unwrap();
    assert_eq!(bad_fields(&refusal(&session.result().await)), ["open"]);
    session.items.send(pb::BatchRedeemRequest { message: None }).await.unwrap();
    assert_eq!(bad_fields(&refusal(&session.result().await)), ["item"]);
    session.send(item("i", &code)).await;
    credited(&session.result().await);
    let summary = session.finish().await.unwrap().summary;
    assert_eq!((summary.received, summary.succeeded, summary.rejected), (3, 1, 2));
}

#[tokio::test]
async fn batch_redeem_refuses_names_that_do_not_exist() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let with = |change: fn(&mut pb::BatchOpen)| {
        let mut open = opening("b");
        change(&mut open);
        open
    };
    let cases = [
        (with(|open| open.pool_id = "nowhere".into()), Code::NotFound, "POOL_NOT_FOUND"),
        (
            with(|open| {
                open.selector =
                    Some(pb::AccountSelector { plan_id: "none".into(), ..Default::default() });
            }),
            Code::NotFound,
            "PLAN_NOT_FOUND",
        ),
    ];
    for (open, code, why) in cases {
        let error = Session::open(&mut clients, open).await.err().unwrap();
        assert_eq!((error.code(), &*reason(&error)), (code, why));
    }
    let mut open = opening("b");
    open.selector =
        Some(pb::AccountSelector { min_headroom: Some(dollars(1)), ..Default::default() });
    let error = Session::open(&mut clients, open).await.err().unwrap();
    assert_eq!(bad_fields(&error), ["open.selector.min_headroom.currency_code"]);

    let paused = pb::Pool { pool_id: POOL.into(), paused: Some(true), ..Default::default() };
    let request = pb::UpdatePoolRequest { pool: Some(paused), update_mask: None };
    clients.pools.update_pool(request).await.unwrap();
    let error = Session::open(&mut clients, opening("b")).await.err().unwrap();
    assert_eq!((error.code(), &*reason(&error)), (Code::FailedPrecondition, "POOL_PAUSED"));
}

#[tokio::test]
async fn code_in_use_refuses_one_of_two_items_with_one_code() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let code = world.code("twice");
    let items = [item("first", &code), item("second", &code.to_lowercase())];
    let ended = run(&mut clients, opening("b"), &items).await.unwrap();
    let (won, lost): (Vec<_>, Vec<_>) =
        ended.results.iter().partition(|result| begun(result).is_some());
    let [won] = won[..] else { panic!("{:?}", ended.results) };
    let [lost] = lost[..] else { panic!("{:?}", ended.results) };
    let error = refusal(lost);
    assert_eq!((error.code(), &*reason(&error)), (Code::FailedPrecondition, "CODE_IN_USE"));
    assert_eq!(metadata(&error, "redemption_id"), credited(won).redemption_id);
}

#[tokio::test]
async fn an_item_that_fits_nowhere_is_told_why() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 1500).await;
    clients.create_account("a", |account| account.plan_id = "plan".into()).await;
    let too_much = pb::BatchItem { expected: Some(eur(1501)), ..item("i", &world.code("much")) };
    let fitting = pb::BatchItem { expected: Some(eur(1500)), ..item("j", &world.code("fits")) };
    let open = pb::BatchOpen { item_timeout: seconds(1.0), ..opening("b") };
    let ended = run(&mut clients, open, &[too_much, fitting]).await.unwrap();
    let results = ended.by_item();
    let error = refusal(results["i"]);
    assert_eq!((error.code(), &*reason(&error)), (Code::ResourceExhausted, "NO_ACCOUNT_AVAILABLE"));
    assert_eq!(metadata(&error, "too_full"), "1");
    assert!(credited(results["j"]).amount_mismatch, "1000 came where 1500 were expected");
}

#[tokio::test]
async fn an_account_is_picked_by_the_batch_and_by_the_item() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    for (id, country, tint) in
        [("de-red", "DE", "red"), ("de-blue", "DE", "blue"), ("fr-red", "FR", "red")]
    {
        clients
            .create_account(id, |account| {
                account.country_code = country.into();
                account.labels = [("tint".into(), tint.into())].into();
            })
            .await;
    }
    let tint = |tint: &str| HashMap::from([("tint".to_owned(), tint.to_owned())]);
    let open = pb::BatchOpen {
        selector: Some(pb::AccountSelector {
            country_code: "DE".into(),
            labels: tint("red"),
            ..Default::default()
        }),
        max_in_flight: 1,
        item_timeout: seconds(1.0),
        ..opening("b")
    };
    let none = pb::AccountSelector::default();
    let cases = [
        (None, Some("de-red")),
        (Some(pb::AccountSelector { country_code: "FR".into(), ..none.clone() }), Some("fr-red")),
        (Some(pb::AccountSelector { labels: tint("blue"), ..none.clone() }), Some("de-blue")),
        (
            Some(pb::AccountSelector {
                exclude_account_ids: vec!["de-red".into()],
                ..none.clone()
            }),
            None,
        ),
        (Some(pb::AccountSelector { account_id: "fr-red".into(), ..none }), None),
    ];
    let mut session = Session::open(&mut clients, open).await.unwrap();
    for (n, (selector, expected)) in cases.into_iter().enumerate() {
        let code = world.code(&format!("pick-{n}"));
        // With its amount: the card's own country is not asked for.
        let worth = Some(eur(1000));
        session
            .send(pb::BatchItem { selector, expected: worth, ..item(&format!("i-{n}"), &code) })
            .await;
        let result = session.result().await;
        match expected {
            Some(account_id) => assert_eq!(credited(&result).account_id, account_id, "{n}"),
            None => assert_eq!(reason(&refusal(&result)), "NO_ACCOUNT_AVAILABLE", "{n}"),
        }
    }
    session.finish().await.unwrap();
}

#[tokio::test]
async fn batch_redeem_has_no_more_items_under_way_than_the_client_allows() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(8).await;
    world.set_faults(slow("300ms"));
    let items: Vec<_> =
        (0..10).map(|n| item(&format!("i-{n}"), &world.code(&format!("{n}")))).collect();
    let open = pb::BatchOpen { max_in_flight: 2, ..opening("b") };
    let batch = run(&mut clients, open, &items);
    tokio::pin!(batch);
    let mut db = world.sql().await;
    let mut most = 0;
    let ended = loop {
        let submitted =
            sqlx::query_scalar("SELECT count(*) FROM redemptions WHERE state = 'SUBMITTED'");
        tokio::select! {
            ended = &mut batch => break ended.unwrap(),
            count = submitted.fetch_one(&mut db) => most = most.max(count.unwrap()),
        }
    };
    assert_eq!(most, 2_i64, "at once");
    assert_eq!((ended.by_item().len(), ended.summary.succeeded), (10, 10));
}

#[tokio::test]
async fn a_client_that_sends_faster_than_it_is_served_is_held_back() {
    const ITEMS: usize = 50_000;
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("only", |_| {}).await;
    // Nothing is free, so the first item is under way until the account is given back.
    let held = clients.acquire(|_| {}).await.unwrap();
    let open = pb::BatchOpen { max_in_flight: 1, item_timeout: seconds(600.0), ..opening("b") };
    let mut session = Session::open(&mut clients, open).await.unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let codes: Vec<_> = (0..ITEMS).map(|n| world.code(&format!("{n:0>100}"))).collect();
    let sending = tokio::spawn({
        let (items, sent) = (session.items.clone(), Arc::clone(&sent));
        async move {
            for (n, code) in codes.iter().enumerate() {
                if items.send(said_item(item(&format!("{n:0>128}"), code))).await.is_err() {
                    return;
                }
                sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let mut before = 0;
    let stuck = eventually(Duration::from_secs(30), "the sender is held back", async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = sent.load(Ordering::Relaxed);
        let stuck = now > 0 && now == before;
        before = now;
        stuck.then_some(now)
    })
    .await;
    assert!(stuck < ITEMS, "all of {ITEMS} items were swallowed");
    let told = match session.next().await.unwrap() {
        Some(Told::Progress(told)) => told,
        other => panic!("{other:?}"),
    };
    assert_eq!((told.received, told.in_flight), (1, 1), "no more is read than is under way");

    clients.release(&lease(&held)).await.unwrap();
    for n in 0..3 {
        let result = session.result().await;
        assert_eq!(result.item_id, format!("{n:0>128}"));
        credited(&result);
    }
    drop(session);
    sending.abort();
}

/// HTTP/2 libraries close a connection on which too many small frames wait to be read.
#[tokio::test]
async fn a_client_that_sends_items_faster_than_they_are_taken_keeps_its_connection() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    // Without accounts a batch takes as many items as may be under way, and then none.
    let sent = Arc::new(AtomicUsize::new(0));
    let (counted, code) = (Arc::clone(&sent), world.code("faster"));
    let items = stream::iter(0..).then(move |n| {
        counted.fetch_add(1, Ordering::Relaxed);
        let message = said_item(item(&format!("{n}"), &format!("{code}-{n}")));
        // One that is there at once is sent in a frame with the one before.
        async {
            tokio::task::yield_now().await;
            message
        }
    });
    let messages = stream::iter([said_open(opening("faster"))]).chain(items);
    let replies = clients.redemptions.batch_redeem(messages).await.unwrap();
    // What was sent on a connection before a call has come before it.
    let (mut seen, mut quiet) = (0, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    while quiet < 10 {
        clients.pools.get_pool(pb::GetPoolRequest { pool_id: POOL.to_owned() }).await.unwrap();
        let now = sent.load(Ordering::Relaxed);
        quiet = if now == seen { quiet + 1 } else { 0 };
        seen = now;
        assert!(Instant::now() < deadline, "{seen} items were sent, and no end");
    }
    assert!(seen > 500, "{seen} items fill what may wait");
    drop(replies);
}

#[tokio::test]
async fn a_batch_says_that_it_lives_as_often_as_the_setting_says() {
    let world = World::with(|args| args.stream_heartbeat = Duration::from_secs(1), 1).await;
    let mut clients = world.clients(0).await;
    let mut session = Session::open(&mut clients, opening("lively")).await.unwrap();
    for _ in 0..3 {
        let next = tokio::time::timeout(Duration::from_secs(8), session.next()).await;
        let told = next.expect("long before the ten seconds of the default").unwrap();
        assert!(matches!(told, Some(Told::Progress(_))), "{told:?}");
    }
}

#[tokio::test]
async fn batch_redeem_that_only_waits_tells_its_progress_every_ten_seconds() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let open = pb::BatchOpen { item_timeout: seconds(60.0), ..opening("quiet") };
    let mut session = Session::open(&mut clients, open).await.unwrap();
    session.send(item("waits", &world.code("waits"))).await;
    let mut told = Vec::new();
    while told.len() < 3 {
        let next = tokio::time::timeout(Duration::from_secs(20), session.next()).await;
        match next.expect("a sign of life").unwrap() {
            Some(Told::Progress(progress)) => told.push(progress),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(told[1], told[2], "though nothing has changed");
}
