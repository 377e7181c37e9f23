//! The provider's client, against servers that behave, misbehave, or are not there.

// clippy lets a test unwrap, but not the functions that tests share.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::world::provider_args;
use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
    routing::{any, get},
};
use holdfast::{
    config::ProviderArgs,
    domain::{
        id::{AccountId, RedemptionId},
        money::{Currency, Money},
        redemption::{AccountFacts, Ask, CardCode, Known, Step, reason},
    },
    provider::{
        Answer, Call, CallError, Doubt, Provider, classify, client::MAX_BODY_BYTES,
        profile::Profile,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const CODE: &str = "SECRET-9876-5432";

pub(crate) fn args(url: &str) -> ProviderArgs {
    ProviderArgs {
        timeout: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(10),
        send_window: Duration::from_secs(30),
        not_after: Duration::from_secs(900),
        ..provider_args(url.to_owned())
    }
}

pub(crate) fn client(url: &str) -> Provider {
    Provider::built_in(&args(url)).unwrap()
}

pub(crate) fn ask(code: &str, account: &str) -> Ask {
    let currency = Currency::parse("EUR").unwrap();
    Ask {
        redemption_id: RedemptionId::new(),
        code: CardCode::parse(code).unwrap(),
        account_id: AccountId::parse(account).unwrap(),
        expected: Some(Money { amount_minor: 1000, currency }),
        currency,
        not_after: "2099-01-01T00:00:00Z".to_owned(),
        account: AccountFacts::default(),
        known: Known::at_first(time::OffsetDateTime::now_utc()),
    }
}

/// The calls that tests make, without what follows from their answers.
pub(crate) trait Calls {
    async fn send(&self, ask: &Ask) -> Answer;
    async fn look_up(&self, ask: &Ask) -> Answer;
    async fn cancel(&self, ask: &Ask) -> Answer;
}

impl Calls for Provider {
    async fn send(&self, ask: &Ask) -> Answer {
        self.call(Call::Send, Doubt::FirstSend, ask).await
    }

    async fn look_up(&self, ask: &Ask) -> Answer {
        self.call(Call::LookUp, Doubt::InDoubt, ask).await
    }

    async fn cancel(&self, ask: &Ask) -> Answer {
        self.call(Call::Cancel, Doubt::InDoubt, ask).await
    }
}

/// What the answer to a first send calls for.
pub(crate) fn first(ask: &Ask, answer: &Answer) -> Step {
    classify(Profile::built_in(), &BTreeMap::new(), ask, Call::Send, Doubt::FirstSend, answer)
}

/// Waits until `check` gives something, and fails when it has not after a long time.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    mut check: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not come true in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Serves `app` on a free port; gives its URL.
pub(crate) async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

/// A server that reads a request, writes `answer` and closes, and counts its connections.
async fn serve_bytes(answer: &'static str) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = connections.clone();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            counter.fetch_add(1, Ordering::SeqCst);
            let mut request = vec![0; 64 * 1024];
            let _ = tcp.read(&mut request).await;
            let _ = tcp.write_all(answer.as_bytes()).await;
        }
    });
    (url, connections)
}

/// A port that nobody listens on.
pub(crate) async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[track_caller]
fn assert_no_code(text: &str) {
    let text: String = text.to_uppercase().chars().filter(|c| c.is_alphanumeric()).collect();
    assert!(!text.contains("SECRET98765432"), "{text}");
}

#[tokio::test]
async fn a_refused_connection_was_never_sent() {
    let provider = client(&format!("http://127.0.0.1:{}", closed_port().await));
    let ask = ask(CODE, "acc");
    let answer = provider.send(&ask).await;
    assert!(matches!(answer, Answer::NeverSent(_)), "{answer:?}");
    match first(&ask, &answer) {
        Step::SendAgain { failure, .. } => assert_eq!(failure.reason, reason::PROVIDER_UNREACHABLE),
        other => panic!("{other:?}"),
    }
    assert_no_code(&format!("{answer:?}"));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_was_never_sent() {
    let answer = client("http://provider.invalid").send(&ask(CODE, "acc")).await;
    assert!(matches!(answer, Answer::NeverSent(_)), "{answer:?}");
}

#[tokio::test]
async fn tls_that_fails_or_hangs_was_never_sent() {
    let (url, _) = serve_bytes("this is not TLS").await;
    let answer = client(&url.replace("http", "https")).send(&ask(CODE, "acc")).await;
    assert!(matches!(answer, Answer::NeverSent(_)), "{answer:?}");

    // The kernel accepts, and nobody ever answers the handshake.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut args = args(&format!("https://{}", silent.local_addr().unwrap()));
    args.connect_timeout = Duration::from_millis(100);
    let answer = Provider::built_in(&args).unwrap().send(&ask(CODE, "acc")).await;
    assert!(matches!(answer, Answer::NeverSent(_)), "{answer:?}");
}

#[tokio::test]
async fn a_slow_provider_is_in_doubt() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut args = args(&format!("http://{}", silent.local_addr().unwrap()));
    args.timeout = Duration::from_millis(100);
    let provider = Provider::built_in(&args).unwrap();
    let ask = ask(CODE, "acc");
    let answer = provider.send(&ask).await;
    assert!(matches!(answer, Answer::Lost(_)), "{answer:?}");
    assert!(matches!(first(&ask, &answer), Step::InDoubt { .. }));
    assert_no_code(&format!("{answer:?}"));
}

#[tokio::test]
async fn a_connection_that_closes_is_in_doubt_and_nothing_is_sent_twice() {
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", "HTTP/9 nonsense\r\n\r\n"]
    {
        let (url, connections) = serve_bytes(answer).await;
        let got = client(&url).send(&ask(CODE, "acc")).await;
        assert!(matches!(got, Answer::Lost(_)), "{answer:?}: {got:?}");
        assert_eq!(connections.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn an_oversized_body_is_in_doubt_whatever_it_says() {
    let sized = vec![b' '; MAX_BODY_BYTES + 1];
    let streamed = || {
        let chunks = (0..100).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 4096])));
        Body::from_stream(futures_util::stream::iter(chunks))
    };
    let largest = vec![b' '; MAX_BODY_BYTES];
    let app = Router::new()
        .route("/sized/redemptions", any(move || async move { sized }))
        .route("/streamed/redemptions", any(move || async move { streamed() }))
        .route("/largest/redemptions", any(move || async move { largest }));
    let url = serve(app).await;
    for path in ["sized", "streamed"] {
        let ask = ask(CODE, "acc");
        let answer = client(&format!("{url}/{path}")).send(&ask).await;
        assert!(matches!(&answer, Answer::Lost(why) if why.contains("longer")), "{answer:?}");
        assert!(matches!(first(&ask, &answer), Step::InDoubt { .. }));
    }
    let answer = client(&format!("{url}/largest")).send(&ask(CODE, "acc")).await;
    assert!(matches!(&answer, Answer::Http(http) if http.body.len() == MAX_BODY_BYTES));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let hits = Arc::new(AtomicUsize::new(0));
    let counter = hits.clone();
    let app = Router::new()
        .route(
            "/redemptions",
            any(|| async { (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, "/elsewhere")]) }),
        )
        .route(
            "/elsewhere",
            any(move || async move {
                counter.fetch_add(1, Ordering::SeqCst);
            }),
        );
    let ask = ask(CODE, "acc");
    let answer = client(&serve(app).await).send(&ask).await;
    assert!(matches!(&answer, Answer::Http(http) if http.status == 307), "{answer:?}");
    assert!(matches!(first(&ask, &answer), Step::InDoubt { .. }));
    assert_eq!(hits.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_code_that_is_echoed_is_in_no_text() {
    for status in [200, 402, 409, 422, 500, 503] {
        let echo = move |body: Bytes| async move {
            let text = String::from_utf8(body.to_vec()).unwrap();
            let told = serde_json::json!({"error": text, "message": text, "state": text});
            (StatusCode::from_u16(status).unwrap(), told.to_string())
        };
        let app = Router::new().route("/redemptions", any(echo));
        let url = serve(app).await;
        let ask = ask(CODE, "acc");
        let answer = client(&url).send(&ask).await;
        let step = first(&ask, &answer);
        assert_no_code(&format!("{ask:?} {answer:?} {step:?}"));
    }
}

#[tokio::test]
async fn the_token_key_and_wait_go_over_the_wire() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    crate::support::secrets::write_secret(&file, "s3cret\n");
    let app = Router::new().route(
        "/base/redemptions",
        any(|headers: HeaderMap| async move {
            let shown = |name: &str| headers[name].to_str().unwrap().to_owned();
            let seen = format!(
                "{}|{}|{}",
                shown("authorization"),
                shown("idempotency-key"),
                shown("content-type")
            );
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "7")], seen)
        }),
    );
    let mut args = args(&format!("{}/base/", serve(app).await));
    args.token_file = Some(file);
    let ask = ask(CODE, "acc");
    match Provider::built_in(&args).unwrap().send(&ask).await {
        Answer::Http(http) => {
            let wanted = format!("Bearer s3cret|{}|application/json", ask.redemption_id);
            assert_eq!(String::from_utf8(http.body.to_vec()).unwrap(), wanted);
            assert_eq!(http.retry_after, Some(Duration::from_secs(7)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_question_without_a_fitting_answer_is_an_error_without_the_code() {
    let app = Router::new().route("/cards/inquire", any(|body: Bytes| async move { body }));
    let error = client(&serve(app).await)
        .inquire(&CardCode::parse(CODE).unwrap(), Currency::NONE)
        .await
        .card
        .unwrap_err();
    assert!(matches!(&error, CallError::Malformed(why) if why.contains("does not have here")));
    assert_no_code(&format!("{error} {error:?}"));

    let app = Router::new().route("/redemptions", get(|| async { StatusCode::FORBIDDEN }));
    let euro = Currency::parse("EUR").unwrap();
    let error = client(&serve(app).await).list(("a", "b"), Some("c"), euro).await.unwrap_err();
    assert_eq!(error, CallError::Status(403));
}

#[test]
fn settings_that_cannot_work_are_refused_at_the_start() {
    for url in ["", "localhost", "ftp://x", "http://u:p@x", "http://x/?a", "http://x/#a"] {
        assert!(Provider::built_in(&args(url)).is_err(), "{url}");
    }
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty");
    crate::support::secrets::write_secret(&empty, "\n");
    for file in [empty.as_path(), Path::new("/no/such/file")] {
        let mut args = args("http://x");
        args.token_file = Some(file.to_owned());
        assert!(Provider::built_in(&args).is_err(), "{}", file.display());
    }
}
