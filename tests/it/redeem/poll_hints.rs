//! Poll hints: a provider that always asks to be asked again at once is asked ever more rarely.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use holdfast::{
    domain::{id::PoolId, money::Currency, redemption::CardCode},
    provider::{Provider, classify::MIN_AFTER},
    rpc::pb::RedemptionState,
    secret::SecretKeys,
    service::batch::inquiry::{Inquiry, InquiryLimits},
};
use tokio_util::sync::CancellationToken;

use super::limited;
use crate::{
    provider::client::{args, serve},
    support::{
        wait::eventually,
        world::{World, lease},
    },
};

/// How it says that it is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    /// 202, `poll_after_ms: 0`.
    Processing,
    /// 503, `executed: false`, `retry_after_ms: 0`.
    Busy,
    /// 429, `executed: false`, `Retry-After: 0`.
    TooMany,
    /// 409, `Retry-After: 0`.
    InProgress,
}

struct Rude {
    says: Says,
    /// From when on it tells that the redemption failed.
    ends: AtomicBool,
    /// When it was asked, by key.
    calls: Mutex<HashMap<String, Vec<Instant>>>,
}

impl Rude {
    fn answer(&self, key: &str) -> Response {
        self.calls.lock().unwrap().entry(key.to_owned()).or_default().push(Instant::now());
        if self.ends.load(Ordering::SeqCst) {
            let failure = r#""state":"failed","failure":{"code":"NO","code_spent":false}"#;
            return format!("{{\"key\":\"{key}\",{failure}}}").into_response();
        }
        let at_once = [(header::RETRY_AFTER, "0")];
        match self.says {
            Says::Processing => {
                let body = r#"{"state":"processing","poll_after_ms":0}"#;
                (StatusCode::ACCEPTED, at_once, body).into_response()
            }
            Says::Busy => {
                let body = r#"{"executed":false,"retry_after_ms":0}"#;
                (StatusCode::SERVICE_UNAVAILABLE, at_once, body).into_response()
            }
            Says::TooMany => {
                (StatusCode::TOO_MANY_REQUESTS, at_once, r#"{"executed":false}"#).into_response()
            }
            Says::InProgress => (StatusCode::CONFLICT, at_once, "").into_response(),
        }
    }

    fn calls(&self) -> Vec<Instant> {
        self.calls.lock().unwrap().values().flatten().copied().collect()
    }
}

async fn post_one(State(rude): State<Arc<Rude>>, headers: HeaderMap) -> Response {
    rude.answer(headers["idempotency-key"].to_str().unwrap())
}

/// The one call that comes when nothing else is to come.
async fn cancel_one(State(rude): State<Arc<Rude>>, Path(key): Path<String>) -> Response {
    let answer = rude.answer(&key);
    rude.calls.lock().unwrap().get_mut(&key).unwrap().pop();
    answer
}

async fn about_one(State(rude): State<Arc<Rude>>, Path(key): Path<String>) -> Response {
    rude.answer(&key)
}

#[tokio::test]
async fn a_provider_that_asks_to_be_asked_at_once_is_asked_ever_more_rarely() {
    for says in [Says::Processing, Says::Busy, Says::TooMany, Says::InProgress] {
        let rude = Arc::new(Rude { says, ends: AtomicBool::new(false), calls: Mutex::default() });
        let app = Router::new()
            .route("/redemptions", post(post_one))
            .route("/redemptions/{key}", get(about_one))
            .route("/redemptions/{key}/cancel", post(cancel_one))
            .with_state(Arc::clone(&rude));
        let url = serve(app).await;
        let world = World::with(|args| args.provider.url = url, 1).await;
        let mut clients = world.clients(0).await;
        clients.create_account("a", |_| {}).await;
        let held = lease(&clients.acquire(|_| {}).await.unwrap());
        let redeemed = clients.redeem(&held, &world.code("asked"), |_| {}).await.unwrap();
        let redemption = redeemed.redemption.unwrap();
        // Over the send window of 4 s: 0.1, 0.2, 0.4, 0.8 s, then a second at the most.
        let sent = rude.calls();
        assert!(sent.len() <= 10, "{says:?}: {} calls in one send window", sent.len());
        if redemption.state() == RedemptionState::InDoubt {
            // Then it is the reconciler's to ask.
            eventually(Duration::from_secs(30), "it was looked up three times more", async || {
                (rude.calls().len() >= sent.len() + 3).then_some(())
            })
            .await;
        }
        rude.ends.store(true, Ordering::SeqCst);
        eventually(Duration::from_secs(30), "it is settled", async || {
            let state = clients.redemption(&redemption.redemption_id).await.state();
            (state == RedemptionState::Failed).then_some(())
        })
        .await;
        // Each call comes after the answer to the one before, and a pause.
        let calls = rude.calls();
        for two in calls.windows(2) {
            assert!(two[1] - two[0] >= MIN_AFTER, "{says:?}: {:?}", two[1] - two[0]);
        }
        clients.release(&held).await.unwrap();
    }
}

#[tokio::test]
async fn a_card_is_not_asked_about_again_at_once_whatever_the_provider_says() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let busy = move || {
        noted.lock().unwrap().push(Instant::now());
        async {
            let body = r#"{"retry_after_ms": 0}"#;
            (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, "0")], body)
        }
    };
    let url = serve(Router::new().route("/cards/inquire", post(busy))).await;
    let folder = tempfile::tempdir().unwrap();
    let _ = SecretKeys::create_beside(folder.path()).unwrap();
    let secret = SecretKeys::from_file(&folder.path().join(holdfast::secret::FILE_NAME)).unwrap();
    let limits = InquiryLimits { concurrency: 1, remember: Duration::ZERO };
    let provider = Provider::built_in(&args(&url)).unwrap();
    let inquiry = Inquiry::new(secret, limits, CancellationToken::new());
    let pool = PoolId::parse("p").unwrap();
    let provider = limited(&provider, &pool);
    let (eur, code) = (Currency::parse("EUR").unwrap(), CardCode::parse("ASKED-1234").unwrap());
    inquiry.ask(&provider, &pool, eur, &code).await.unwrap_err();
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 6, "as often as any card is asked about");
    for two in asked.windows(2) {
        assert!(two[1] - two[0] >= MIN_AFTER, "{:?}", two[1] - two[0]);
    }
    assert!(asked[5] - asked[0] >= MIN_AFTER * 10, "the pauses grow");
}
