//! Cards without an amount, asked about or sent more than once: what was learned is no part of the
//! request.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::IntoResponse as _,
    routing::post,
};
use holdfast::{
    domain::{id::PoolId, money::Currency, redemption::CardCode},
    provider::Provider,
    rpc::pb,
    secret::SecretKeys,
    service::{
        Error,
        batch::inquiry::{Inquiry, InquiryLimits},
    },
    simulator::faults::{Fault, Faults},
};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::limited;
use crate::{
    provider::client::{args, closed_port, serve},
    redeem::inquiry::locks,
    support::{
        batch::{Session, begun, credited, item, opening, refusal, run},
        world::{World, eur, metadata, reason},
    },
};

fn pool() -> PoolId {
    PoolId::parse("pool").unwrap()
}

#[tokio::test]
async fn the_same_item_again_is_a_replay_also_after_a_restart() {
    let mut world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let items = [item("i", &world.code("card"))];
    let first = run(&mut clients, opening("b"), &items).await.unwrap();
    let known = credited(&first.results[0]).clone();
    assert_eq!(known.expected, Some(eur(1000)));

    let server = world.take_server(0);
    world.start_server().await;
    server.stop().await.unwrap();
    let mut clients = world.clients(0).await;
    let again = run(&mut clients, opening("b"), &items).await.unwrap();
    assert_eq!(begun(&again.results[0]), Some(&known));
    assert!(again.results[0].replayed);
    assert_eq!(world.inquiries(), 1, "what was begun is not asked about");

    // Naming an amount is another request, and so is naming one and then none.
    let named =
        |name: &str| pb::BatchItem { expected: Some(eur(1000)), ..item(name, &world.code(name)) };
    let other = pb::BatchItem { expected: Some(eur(1000)), ..items[0].clone() };
    let ended = run(&mut clients, opening("b"), &[other, named("named")]).await.unwrap();
    let results = ended.by_item();
    credited(results["named"]);
    let unnamed = item("named", &world.code("named"));
    let ended = run(&mut clients, opening("b"), &[unnamed]).await.unwrap();
    for result in [results["i"], &ended.results[0]] {
        let error = refusal(result);
        assert_eq!((error.code(), &*reason(&error)), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
        assert_eq!(metadata(&error, "fields"), "expected");
    }
}

#[tokio::test]
async fn an_item_that_is_sent_twice_in_one_opening_is_begun_once() {
    for keep in [Duration::ZERO, Duration::from_secs(30)] {
        let world = World::with(|args| args.inquiry_cache = keep, 1).await;
        let mut clients = world.clients(0).await;
        clients.create_accounts(2).await;
        world.set_faults(Faults { latency: "200ms".parse().unwrap(), ..Faults::default() });
        let twice = item("i", &world.code("card"));
        let mut session = Session::open(&mut clients, opening("b")).await.unwrap();
        // Two at the same time, and one when the card is known to be spent.
        session.send(twice.clone()).await;
        session.send(twice.clone()).await;
        let mut results = vec![session.result().await, session.result().await];
        session.send(twice).await;
        results.push(session.result().await);
        session.finish().await.unwrap();
        let known = credited(&results[0]);
        assert!(results.iter().all(|result| credited(result) == known), "{results:?}");
        assert_eq!(results.iter().filter(|result| !result.replayed).count(), 1, "kept {keep:?}");
    }
}

#[tokio::test]
async fn a_card_that_another_item_redeemed_is_reported_as_that_and_locks_nothing() {
    let world = World::with(|args| args.inquiry_cache = Duration::ZERO, 1).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let code = world.code("card");
    let first = run(&mut clients, opening("b"), &[item("i", &code)]).await.unwrap();
    let spent = credited(&first.results[0]);
    let second = run(&mut clients, opening("b"), &[item("j", &code)]).await.unwrap();
    let error = refusal(&second.results[0]);
    assert_eq!((error.code(), &*reason(&error)), (Code::FailedPrecondition, "CODE_IN_USE"));
    assert_eq!(metadata(&error, "redemption_id"), spent.redemption_id);
    assert_eq!(metadata(&error, "request_id"), "batch:b:i");
    assert_eq!(metadata(&error, "state"), "SUCCEEDED");
    assert_eq!(locks(&mut clients, "a-000").await, 1);
}

#[tokio::test]
async fn a_card_whose_value_changed_since_it_was_asked_about_is_marked() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let items = [item("i", &world.code("card"))];
    world.fault(&items[0].code, &[Fault::WrongAmount]);
    let ended = run(&mut clients, opening("b"), &items).await.unwrap();
    let redemption = credited(&ended.results[0]);
    assert!(redemption.amount_mismatch && redemption.expected_learned, "{redemption:?}");
    assert_ne!(redemption.amount, redemption.expected);
    let again = run(&mut clients, opening("b"), &items).await.unwrap();
    assert_eq!(begun(&again.results[0]), Some(redemption));
}

/// Asks about cards at `url`, for at most so long.
fn inquiry(url: &str, patience: Duration) -> Asking {
    let limits = InquiryLimits { concurrency: 4, remember: Duration::from_secs(30) };
    let secret = SecretKeys::ephemeral();
    let args = holdfast::config::ProviderArgs { send_window: patience, ..args(url) };
    Asking {
        provider: Provider::built_in(&args).unwrap(),
        inquiry: Inquiry::new(secret, limits, CancellationToken::new()),
    }
}

struct Asking {
    provider: Provider,
    inquiry: Inquiry,
}

impl Asking {
    async fn ask(
        &self,
        pool: &PoolId,
        code: &CardCode,
    ) -> Result<Option<holdfast::service::batch::inquiry::Worth>, Error> {
        let provider = limited(&self.provider, pool);
        self.inquiry.ask(&provider, pool, Currency::parse("EUR").unwrap(), code).await
    }
}

/// A provider that says no to so many questions, and counts them.
async fn refusing(
    times: usize,
    status: StatusCode,
    retry_after: &'static str,
) -> (String, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let inquire = move || async move {
        if counter.fetch_add(1, Ordering::SeqCst) < times {
            return (status, [(header::RETRY_AFTER, retry_after)]).into_response();
        }
        let card = serde_json::json!({
            "amount_minor": 700, "currency_code": "EUR", "country_code": "DE", "redeemable": true,
        });
        Json(card).into_response()
    };
    (serve(Router::new().route("/cards/inquire", post(inquire))).await, asked)
}

#[tokio::test]
async fn a_busy_provider_is_asked_again_when_it_says() {
    let code = CardCode::parse("INQU-IRED-0001").unwrap();
    let (url, asked) = refusing(1, StatusCode::TOO_MANY_REQUESTS, "1").await;
    let began = Instant::now();
    let worth = inquiry(&url, Duration::from_secs(20)).ask(&pool(), &code).await.unwrap().unwrap();
    assert_eq!((worth.amount.amount_minor, worth.country_code.as_deref()), (700, Some("DE")));
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(asked.load(Ordering::SeqCst), 2);

    // Not at all where that is too late; the caller is told when it may be.
    let (url, asked) = refusing(1, StatusCode::SERVICE_UNAVAILABLE, "3600").await;
    let inquiry = inquiry(&url, Duration::from_secs(20));
    match inquiry.ask(&pool(), &code).await {
        Err(Error::InquiryFailed { retry_after, .. }) => {
            assert_eq!(retry_after, Some(Duration::from_secs(3600)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(inquiry.ask(&pool(), &code).await.is_ok(), "a failure is not kept");
}

#[tokio::test]
async fn a_provider_that_refuses_the_question_is_not_asked_again_and_one_that_is_away_is() {
    let code = CardCode::parse("INQU-IRED-0002").unwrap();
    let (url, asked) = refusing(100, StatusCode::UNAUTHORIZED, "1").await;
    let refused = inquiry(&url, Duration::from_secs(20)).ask(&pool(), &code).await;
    assert!(matches!(refused, Err(Error::InquiryFailed { .. })), "{refused:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);

    let (url, asked) = refusing(100, StatusCode::BAD_GATEWAY, "1").await;
    let refused = inquiry(&url, Duration::from_millis(150)).ask(&pool(), &code).await;
    assert!(matches!(refused, Err(Error::InquiryFailed { .. })), "{refused:?}");
    let asked = asked.load(Ordering::SeqCst);
    assert!((1..=3).contains(&asked), "no longer than it may, but asked {asked} times");

    let url = format!("http://127.0.0.1:{}", closed_port().await);
    let began = Instant::now();
    let away = inquiry(&url, Duration::from_millis(300)).ask(&pool(), &code).await.unwrap_err();
    assert!(away.to_string().contains("could not be reached"), "{away}");
    assert!(began.elapsed() >= Duration::from_millis(50), "after one try: {:?}", began.elapsed());
}
