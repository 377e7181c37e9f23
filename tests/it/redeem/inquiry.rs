//! Cards without an amount: the provider's answer about them chooses the account, or refuses them before
//! one is locked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Json, Router, routing::post};
use holdfast::{rpc::pb, simulator::faults::Faults};
use tokio::sync::Semaphore;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::{
    provider::client::serve,
    support::{
        batch::{Session, credited, item, opening, refusal, run},
        wait::eventually,
        world::{Clients, World, eur, lease, metadata, reason, seconds},
    },
};

fn failing() -> Faults {
    Faults { inquire_error: 100.0, ..Faults::default() }
}

/// Items that find no account are not waited for.
pub(crate) fn impatient() -> pb::BatchOpen {
    pb::BatchOpen { item_timeout: seconds(1.0), ..opening("b") }
}

pub(crate) fn from_country(country: &str) -> Option<pb::AccountSelector> {
    Some(pb::AccountSelector { country_code: country.into(), ..Default::default() })
}

/// How often the account was locked.
pub(crate) async fn locks(clients: &mut Clients, account_id: &str) -> usize {
    let events = clients.events(account_id).await;
    events.iter().filter(|event| event.reason == "acquired").count()
}

/// A provider that is asked about cards and nothing else, and holds each question until it may go on.
#[derive(Clone)]
struct Held {
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

/// A question that the provider is at work on.
struct Inside(Arc<AtomicUsize>);

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Held {
    /// The provider, and where it is.
    async fn start() -> (Self, String) {
        let held = Self {
            inside: Arc::default(),
            most: Arc::default(),
            asked: Arc::default(),
            gate: Arc::new(Semaphore::new(0)),
        };
        let provider = held.clone();
        let inquire = move || {
            let held = provider.clone();
            async move {
                held.asked.fetch_add(1, Ordering::SeqCst);
                let now = held.inside.fetch_add(1, Ordering::SeqCst) + 1;
                let _inside = Inside(held.inside);
                held.most.fetch_max(now, Ordering::SeqCst);
                held.gate.acquire().await.unwrap().forget();
                Json(serde_json::json!({
                    "amount_minor": 1000, "currency_code": "EUR", "redeemable": true,
                }))
            }
        };
        let url = serve(Router::new().route("/cards/inquire", post(inquire))).await;
        (held, url)
    }

    async fn hold(&self, count: usize) {
        eventually(Duration::from_secs(10), "questions are at the provider", async || {
            (self.inside.load(Ordering::SeqCst) == count).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_learned_amount_picks_the_account_that_wants_it() {
    let cards = [("much", "2500,EUR,DE,fresh"), ("little", "1000,EUR,DE,fresh")];
    let world = World::with_cards(&cards, |_| {}, 1).await;
    let mut clients = world.clients(0).await;
    clients.create_plan("small", 2000).await;
    clients.create_plan("large", 5000).await;
    // The one that would be first, if nobody knew what the card is worth.
    clients.create_account("small", |account| account.plan_id = "small".into()).await;
    clients.create_account("large", |account| account.plan_id = "large".into()).await;

    let mut session = Session::open(&mut clients, opening("b")).await.unwrap();
    for (name, amount, account_id) in [("much", 2500, "large"), ("little", 1000, "large")] {
        session.send(item(name, &world.code(name))).await;
        let result = session.result().await;
        let redemption = credited(&result);
        assert_eq!(redemption.account_id, account_id, "{name}: begun before untouched");
        assert_eq!(
            (redemption.expected.clone(), redemption.amount.clone()),
            (Some(eur(amount)), Some(eur(amount)))
        );
        assert!(redemption.expected_learned && !redemption.amount_mismatch);
        let read = clients.redemption(&redemption.redemption_id).await;
        assert_eq!(read, *redemption);
    }
    session.finish().await.unwrap();
    assert_eq!(locks(&mut clients, "small").await, 0);

    // What nothing has room for is told as that.
    let world = World::with_cards(&[("huge", "9000,EUR,DE,fresh")], |_| {}, 1).await;
    let mut clients = world.clients(0).await;
    clients.create_plan("large", 5000).await;
    clients.create_account("large", |account| account.plan_id = "large".into()).await;
    let ended = run(&mut clients, impatient(), &[item("i", &world.code("huge"))]).await.unwrap();
    let error = refusal(&ended.results[0]);
    assert_eq!((&*reason(&error), &*metadata(&error, "too_full")), ("NO_ACCOUNT_AVAILABLE", "1"));
}

#[tokio::test]
async fn a_card_that_will_not_do_is_refused_before_anything_is_locked() {
    let cards = [
        ("dollars", "1000,USD,DE,fresh"),
        ("french", "1000,EUR,FR,fresh"),
        ("spent", "1000,EUR,DE,used"),
        ("empty", "0,EUR,DE,fresh"),
        ("good", "1000,EUR,DE,fresh"),
    ];
    let world = World::with_cards(&cards, |_| {}, 1).await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |account| account.country_code = "DE".into()).await;
    clients.create_account("b", |account| account.country_code = "FR".into()).await;
    let open = pb::BatchOpen { selector: from_country("DE"), ..opening("b") };
    let names = ["dollars", "french", "spent", "empty", "missing"];
    let items: Vec<_> = names.iter().map(|name| item(name, &world.code(name))).collect();
    let ended = run(&mut clients, open.clone(), &items).await.unwrap();
    let results = ended.by_item();
    assert_eq!(ended.summary.rejected, 5);
    for (name, why, known) in [
        ("dollars", "CURRENCY_MISMATCH", [("card_currency", "USD"), ("pool_currency", "EUR")]),
        ("french", "COUNTRY_MISMATCH", [("card_country", "FR"), ("selector_country", "DE")]),
        ("spent", "CARD_NOT_REDEEMABLE", [("known", "true"); 2]),
        ("empty", "CARD_NOT_REDEEMABLE", [("known", "true"); 2]),
        ("missing", "CARD_NOT_REDEEMABLE", [("known", "false"); 2]),
    ] {
        let error = refusal(results[name]);
        assert_eq!((error.code(), &*reason(&error)), (Code::FailedPrecondition, why), "{name}");
        for (key, value) in known {
            assert_eq!(metadata(&error, key), value, "{name}");
        }
        assert!(!format!("{error:?}").contains(&world.code(name)), "{error:?}");
    }
    for account_id in ["a", "b"] {
        assert_eq!(locks(&mut clients, account_id).await, 0, "{account_id}");
    }

    // An item's own selector counts, and a good card of the batch is not held up by the bad ones.
    let french = pb::BatchItem { selector: from_country("FR"), ..items[1].clone() };
    let good = item("good", &world.code("good"));
    let again = run(&mut clients, open, &[french, good]).await.unwrap();
    let results = again.by_item();
    assert_eq!(credited(results["french"]).account_id, "b");
    assert_eq!(credited(results["good"]).account_id, "a");
}

#[tokio::test]
async fn where_nobody_asked_for_a_country_the_cards_own_is_kept_to() {
    let cards = ["one", "two", "three"].map(|name| (name, "1000,EUR,FR,fresh"));
    let world = World::with_cards(&cards, |_| {}, 1).await;
    let mut clients = world.clients(0).await;
    clients.create_account("german", |account| account.country_code = "DE".into()).await;
    let ended = run(&mut clients, impatient(), &[item("one", &world.code("one"))]).await.unwrap();
    let error = refusal(&ended.results[0]);
    assert_eq!(reason(&error), "NO_ACCOUNT_AVAILABLE");
    assert_eq!([metadata(&error, "not_selected"), metadata(&error, "free")], ["1", "0"]);

    clients.create_account("french", |account| account.country_code = "FR".into()).await;
    let ended = run(&mut clients, impatient(), &[item("two", &world.code("two"))]).await.unwrap();
    assert_eq!(credited(&ended.results[0]).account_id, "french");

    // One whose country nobody has written down may be of any.
    let held = clients
        .acquire(|request| {
            request.selector = from_country("FR");
        })
        .await
        .unwrap();
    clients.create_account("nowhere", |_| {}).await;
    let ended =
        run(&mut clients, impatient(), &[item("three", &world.code("three"))]).await.unwrap();
    assert_eq!(credited(&ended.results[0]).account_id, "nowhere");
    clients.release(&lease(&held)).await.unwrap();
    assert_eq!(locks(&mut clients, "german").await, 0);
}

#[tokio::test]
async fn a_card_is_asked_about_once_in_a_while() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let code = world.code("card");
    // Nothing is free, so none is begun; the first two ask at the same time.
    world.set_faults(Faults { inquire_latency: "300ms".parse().unwrap(), ..Faults::default() });
    let items = [item("i", &code), item("j", &code.to_lowercase())];
    let ended = run(&mut clients, impatient(), &items).await.unwrap();
    assert_eq!(ended.summary.rejected, 2);
    let ended =
        run(&mut clients, impatient(), &[item("k", &code.replace('-', " "))]).await.unwrap();
    assert_eq!(reason(&refusal(&ended.results[0])), "NO_ACCOUNT_AVAILABLE");
    assert_eq!(world.inquiries(), 1);
    let other = run(&mut clients, impatient(), &[item("l", &world.code("other"))]).await.unwrap();
    assert_eq!((other.summary.rejected, world.inquiries()), (1, 2));

    let url = format!("http://{}/metrics", world.server(0).admin_addr());
    let metrics = reqwest::get(&url).await.unwrap().text().await.unwrap();
    for metric in
        ["holdfast_inquiries_total{outcome=\"redeemable\"} ", "holdfast_inquiry_cache_hits_total "]
    {
        assert!(metrics.lines().any(|line| line.starts_with(metric)), "{metric}");
    }
}

#[tokio::test]
async fn an_answer_is_not_kept_where_that_is_not_wanted_nor_for_longer() {
    for (keep, asked) in [(Duration::ZERO, 3), (Duration::from_millis(1), 3)] {
        let world = World::with(|args| args.inquiry_cache = keep, 1).await;
        let mut clients = world.clients(0).await;
        let code = world.code("card");
        for n in 0..3 {
            let item = item(&format!("i-{n}"), &code);
            let ended = run(&mut clients, impatient(), &[item]).await.unwrap();
            assert_eq!(ended.summary.rejected, 1);
        }
        assert_eq!(world.inquiries(), asked, "kept for {keep:?}");
    }
}

#[tokio::test]
async fn no_more_cards_are_asked_about_at_once_than_the_setting_says() {
    let (held, url) = Held::start().await;
    let change = |args: &mut holdfast::config::ServeArgs| {
        args.provider.url = url;
        args.inquiry_concurrency = 3;
    };
    let world = World::with(change, 1).await;
    let mut clients = world.clients(0).await;
    let items: Vec<_> =
        (0..12).map(|n| item(&format!("i-{n}"), &world.code(&format!("{n}")))).collect();
    let (ended, ()) = tokio::join!(run(&mut clients, impatient(), &items), async {
        held.hold(3).await;
        held.gate.add_permits(items.len());
    });
    assert_eq!(ended.unwrap().summary.rejected, 12, "there are no accounts");
    assert_eq!(held.most.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_callers_slow_cards_do_not_stand_before_anothers() {
    let (held, url) = Held::start().await;
    let change = |args: &mut holdfast::config::ServeArgs| {
        args.provider.url = url;
        args.inquiry_concurrency = 4;
    };
    let world = World::with(change, 1).await;
    let (mut slow, mut other) = (world.clients(0).await, world.clients(0).await);
    let open = pb::BatchOpen { max_in_flight: 100, ..opening("slow") };
    let crowd = Session::open(&mut slow, open).await.unwrap();
    for n in 0..60 {
        crowd.send(item(&format!("s-{n}"), &world.code(&format!("s{n}")))).await;
    }
    held.hold(4).await;
    let mut session = Session::open(&mut other, impatient()).await.unwrap();
    session.send(item("one", &world.code("one"))).await;
    // Nobody has more than four in the provider: of the next two that are free, the other has one.
    let asked =
        eventually(Duration::from_secs(10), "the other's card is asked about", async || {
            held.gate.add_permits(1);
            tokio::time::timeout(Duration::from_millis(200), session.result()).await.ok()
        });
    refusal(&asked.await);
    let answered = held.most.load(Ordering::SeqCst);
    assert_eq!(answered, 4);
    assert!(held.asked.load(Ordering::SeqCst) < 20, "and not after all sixty");
}

#[tokio::test]
async fn a_caller_has_the_provider_asked_no_more_often_than_it_may() {
    let world = World::with(|args| args.limits.max_inquiries_per_second = 10, 1).await;
    let mut clients = world.clients(0).await;
    let items: Vec<_> =
        (0..30).map(|n| item(&format!("i-{n}"), &world.code(&format!("{n}")))).collect();
    let begun = std::time::Instant::now();
    run(&mut clients, impatient(), &items).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(1900), "thirty, ten of them at once");
    assert_eq!(world.inquiries(), 30);
}

#[tokio::test]
async fn a_provider_that_stumbles_is_asked_again() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    world.set_faults(failing());
    let items = [item("i", &world.code("card"))];
    let (ended, ()) = tokio::join!(run(&mut clients, opening("b"), &items), async {
        eventually(Duration::from_secs(10), "it is asked again", async || {
            (world.inquiries() >= 2).then_some(())
        })
        .await;
        world.set_faults(Faults::default());
    });
    let ended = ended.unwrap();
    assert_eq!(credited(&ended.results[0]).expected, Some(eur(1000)));
    assert_eq!(locks(&mut clients, "a-000").await, 1);
}

#[tokio::test]
async fn an_item_whose_card_cannot_be_asked_about_is_not_begun_and_may_be_sent_again() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    world.set_faults(failing());
    // One that says its amount needs no question.
    let sure = pb::BatchItem { expected: Some(eur(1000)), ..item("j", &world.code("sure")) };
    let items = [item("i", &world.code("card")), sure];
    let ended = run(&mut clients, opening("b"), &items).await.unwrap();
    let results = ended.by_item();
    credited(results["j"]);
    let error = refusal(results["i"]);
    assert_eq!((error.code(), &*reason(&error)), (Code::Unavailable, "INQUIRY_FAILED"));
    assert!(error.get_error_details().retry_info().unwrap().retry_delay.is_some(), "{error:?}");
    assert!(error.message().contains("HTTP 500"), "{error:?}");
    assert_eq!(world.inquiries(), 6);
    assert_eq!(locks(&mut clients, "a-000").await, 1, "by the other");

    world.set_faults(Faults::default());
    let again = run(&mut clients, opening("b"), &items).await.unwrap();
    let results = again.by_item();
    credited(results["i"]);
    assert!(!results["i"].replayed && results["j"].replayed);
}

#[tokio::test]
async fn a_provider_that_cannot_be_asked_is_not() {
    let world = World::with(|args| args.provider.inquires = false, 1).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let ended = run(&mut clients, opening("b"), &[item("i", &world.code("card"))]).await.unwrap();
    let redemption = credited(&ended.results[0]);
    assert!(redemption.expected.is_none() && !redemption.expected_learned, "{redemption:?}");
    assert_eq!(redemption.amount, Some(eur(1000)));
    assert_eq!(world.inquiries(), 0);
}

#[tokio::test]
async fn nobody_asks_on_for_a_client_that_has_gone_or_a_server_that_stops() {
    let (held, url) = Held::start().await;
    let mut world = World::with(|args| args.provider.url = url, 1).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let session = Session::open(&mut clients, opening("gone")).await.unwrap();
    session.send(item("i", &world.code("gone"))).await;
    held.hold(1).await;
    drop(session);
    held.hold(0).await;

    let mut session = Session::open(&mut clients, opening("stops")).await.unwrap();
    session.send(item("i", &world.code("stops"))).await;
    held.hold(1).await;
    let server = world.take_server(0);
    server.stopper().cancel();
    let error = refusal(&session.result().await);
    assert_eq!((error.code(), &*reason(&error)), (Code::Unavailable, "SHUTTING_DOWN"));
    held.hold(0).await;
    assert_eq!(reason(&session.finish().await.err().unwrap()), "SHUTTING_DOWN");
    server.stopped().await.unwrap();
    world.start_server().await;
    assert_eq!(locks(&mut world.clients(0).await, "a-000").await, 0);
}
