//! Answers that nobody asked for: a provider sends them on a connection that is used again, or anybody in
//! between could.

use axum::{
    Router,
    http::{StatusCode, header},
    routing::any,
};
use holdfast::{
    domain::redemption::Step,
    provider::{Answer, Provider},
    rpc::pb::{self, RedemptionState},
    simulator::{
        faults::{Fault, Faults},
        ledger,
    },
};

use crate::{
    provider::client::{Calls as _, args, ask, client, first, serve},
    support::{
        batch::{item, opening, run},
        proxy::{
            Proxy,
            http::{
                Fault::{DelayReply, SpeakBefore},
                Http, request, unasked,
            },
        },
        world::{World, eur, lease},
    },
};

/// How many cards are redeemed while the provider speaks unasked.
const CARDS: usize = 240;

#[tokio::test]
async fn a_refusal_that_names_nobody_is_not_believed_on_a_connection_that_is_used_again() {
    let mut proxy = None;
    let world = World::with(
        |args| {
            let simulator = args.provider.url.trim_start_matches("http://").parse().unwrap();
            args.provider.url = proxy.insert(Proxy::<Http>::before(simulator)).url();
        },
        1,
    )
    .await;
    let proxy = proxy.as_ref().unwrap();
    let mut clients = world.clients(0).await;
    clients.create_accounts(16).await;
    let answers = [
        unasked(402, r#"{"failure":{"code":"STALE","message":"to another","code_spent":true}}"#),
        unasked(410, "<html><body>Gone</body></html>"),
        unasked(410, r#"{"state":"cancelled"}"#),
        unasked(503, r#"{"executed":false}"#),
        unasked(200, r#"{"state":"failed","failure":{"code":"STALE","code_spent":false}}"#),
        unasked(
            402,
            r#"{"key":"0190163d-8694-739b-aea5-966c26f8ad90","state":"failed",
            "failure":{"code":"STALE","code_spent":false}}"#,
        ),
    ];
    for (round, answer) in answers.into_iter().enumerate() {
        // Every request that is not the first on its connection meets it.
        let when = request("POST", "/redemptions").always();
        let spoken = proxy.fault(when, SpeakBefore(answer.clone()));
        let items: Vec<_> = (0..CARDS / 6)
            .map(|n| pb::BatchItem {
                expected: Some(eur(1000)),
                ..item(&n.to_string(), &world.code(&format!("{round}-{n}")))
            })
            .collect();
        let open = pb::BatchOpen { max_in_flight: 8, ..opening(&format!("round-{round}")) };
        let ended = run(&mut clients, open, &items).await.unwrap();
        spoken.lift();
        assert!(spoken.times() > 0, "{answer}: nobody met it");
        // A card is in doubt at the most; the teardown compares every one with the provider's ledger.
        assert_eq!(ended.summary.failed, 0, "{answer}: {:?}", ended.results);
        assert_eq!(ended.summary.rejected, 0, "{answer}: {:?}", ended.results);
    }
}

/// What it costs when a refusal that names nobody is right: one look-up, at once.
#[tokio::test]
async fn a_refusal_without_a_key_on_a_connection_that_is_used_again_is_looked_up_at_once() {
    let mut proxy = None;
    let world = World::with(
        |args| {
            let simulator = args.provider.url.trim_start_matches("http://").parse().unwrap();
            args.provider.url = proxy.insert(Proxy::<Http>::before(simulator)).url();
            // Nobody else looks it up meanwhile.
            args.reconcile_interval = std::time::Duration::from_secs(3600);
        },
        1,
    )
    .await;
    let proxy = proxy.as_ref().unwrap();
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let code = world.code("warm");
    clients.redeem(&held, &code, |_| {}).await.unwrap();
    let refused = unasked(402, r#"{"failure":{"code":"MAYBE","code_spent":false}}"#);
    let spoken = proxy.fault(request("POST", "/redemptions"), SpeakBefore(refused));
    let looked_up = proxy.fault(request("GET", "/redemptions/"), DelayReply(Default::default()));
    let redeemed = clients.redeem(&held, &world.code("next"), |_| {}).await.unwrap();
    let redemption = redeemed.redemption.unwrap();
    assert_eq!(redemption.state(), RedemptionState::Succeeded, "{redemption:?}");
    assert_eq!((spoken.times(), looked_up.times(), redemption.attempts), (1, 1, 2));
    clients.release(&held).await.unwrap();
}

/// "Nothing was executed" may be to another request too: when time is up the key is cancelled, which is
/// proof.
#[tokio::test]
async fn a_provider_that_stays_busy_on_a_connection_that_is_used_again_has_the_key_cancelled() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    clients.redeem(&held, &world.code("warm"), |_| {}).await.unwrap();
    let code = world.code("busy");
    world.fault(&code, &[Fault::Busy; 50]);
    let redeemed = clients.redeem(&held, &code, |_| {}).await.unwrap().redemption.unwrap();
    assert_eq!(redeemed.state(), RedemptionState::Failed, "{redeemed:?}");
    let failure = redeemed.failure.unwrap();
    assert_eq!((&*failure.reason, failure.code_spent), ("PROVIDER_BUSY", false));
    assert!(failure.message.contains("cancelled at the provider"), "{}", failure.message);
    let rows = ledger::read(&world.ledger).unwrap();
    let last = rows.last().unwrap();
    assert_eq!((&*last.key, last.state), (&*redeemed.redemption_id, ledger::State::Cancelled));
    // So that the card can be redeemed under another request.
    world.set_faults(Faults::default());
    let again = clients.redeem(&held, &code, |r| r.request_id = "again".into()).await.unwrap();
    assert_eq!(again.redemption.unwrap().state(), RedemptionState::Succeeded);
    clients.release(&held).await.unwrap();
}

#[tokio::test]
async fn a_page_that_says_410_cancels_nothing() {
    for body in ["", "<!doctype html><title>410 Gone</title>", "{}"] {
        let gone =
            move || async move { (StatusCode::GONE, [(header::CONTENT_TYPE, "text/html")], body) };
        let provider = client(&serve(Router::new().route("/redemptions", any(gone))).await);
        let ask = ask("GONE-1234", "acc");
        let step = first(&ask, &provider.send(&ask).await);
        assert!(matches!(step, Step::InDoubt { .. }), "{body}: {step:?}");
    }
}

/// Where nothing could end a doubt soon, none is let arise: every send has a connection of its own.
#[tokio::test]
async fn a_provider_that_cannot_be_asked_again_gets_each_send_on_a_fresh_connection() {
    let refuses = || async {
        (StatusCode::PAYMENT_REQUIRED, r#"{"failure":{"code":"NO","code_spent":false}}"#)
    };
    let url = serve(Router::new().route("/redemptions", any(refuses))).await;
    for (deduplicates, looks_up, is_fresh) in
        [(true, true, false), (false, true, true), (true, false, true), (false, false, true)]
    {
        let mut args = args(&url);
        (args.deduplicates, args.looks_up) = (deduplicates, looks_up);
        let provider = Provider::built_in(&args).unwrap();
        for is_first in [true, false] {
            let ask = ask("PLAIN-1234", "acc");
            let answer = provider.send(&ask).await;
            let Answer::Http(http) = &answer else { panic!("{answer:?}") };
            assert_eq!(http.first_on_connection, is_first || is_fresh, "{deduplicates} {looks_up}");
            let is_settled = matches!(first(&ask, &answer), Step::Settle(_));
            assert_eq!(is_settled, http.first_on_connection);
        }
    }
}
