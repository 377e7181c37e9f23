//! The adapter of the docs, as a process: through kills of it and lost answers no card is credited twice, and each is
//! settled or a person's.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use holdfast::{provider::profile::BUILT_IN, rpc::pb};
use sqlx::Row as _;
use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tonic::Status;

use super::apply;
use crate::support::{
    checks,
    wait::eventually,
    world::{Clients, World, eur, lease, reason, seconds},
};

const CARDS: usize = 16;
const POOL: &str = "adapted";
/// How long the gateway takes for a card: long enough to be killed in.
const AT_WORK: Duration = Duration::from_millis(400);

/// A provider that speaks XML, and its ledger.
#[derive(Default)]
struct Gateway {
    /// The cards that were credited, each with the references that did it.
    credited: Mutex<HashMap<String, Vec<String>>>,
    begun: AtomicUsize,
    /// Cards that it is at work on for somebody.
    at_work: AtomicUsize,
    lost: AtomicUsize,
}

/// The attribute of an element.
fn attribute(xml: &str, name: &str) -> Option<String> {
    let rest = xml.split(&format!(" {name}=\"")).nth(1)?;
    rest.split('"').next().map(str::to_owned)
}

fn ok(reference: &str) -> String {
    format!("<answer status=\"ok\" id=\"X-{reference}\" minor=\"1000\" currency=\"EUR\"/>")
}

async fn answer(State(gateway): State<Arc<Gateway>>, body: Bytes) -> (StatusCode, String) {
    let xml = String::from_utf8(body.to_vec()).unwrap();
    let reference = attribute(&xml, "reference").unwrap();
    if xml.starts_with("<find") {
        let credited = gateway.credited.lock().unwrap();
        let is_known = credited.values().flatten().any(|other| *other == reference);
        let unknown = "<answer status=\"unknown\"/>".to_owned();
        return (StatusCode::OK, if is_known { ok(&reference) } else { unknown });
    }
    assert!(xml.starts_with("<redeem"), "{xml}");
    let card = attribute(&xml, "card").unwrap();
    if card.contains("spent") {
        let refused = "<answer status=\"refused\" reason=\"CODE_SPENT\" spent=\"yes\"/>";
        return (StatusCode::OK, refused.to_owned());
    }
    let number = gateway.begun.fetch_add(1, Ordering::SeqCst);
    // It goes on when who asked is killed.
    let credit = Arc::clone(&gateway);
    let credited = tokio::spawn(async move {
        credit.at_work.fetch_add(1, Ordering::SeqCst);
        sleep(AT_WORK).await;
        let answer = ok(&reference);
        credit.credited.lock().unwrap().entry(card).or_default().push(reference);
        credit.at_work.fetch_sub(1, Ordering::SeqCst);
        answer
    });
    let answer = credited.await.unwrap();
    if number % 4 == 1 {
        gateway.lost.fetch_add(1, Ordering::SeqCst);
        return (StatusCode::BAD_GATEWAY, "<html>".to_owned());
    }
    (StatusCode::OK, answer)
}

/// Python, installed as `.ci/run` does where it is missing.
fn python() -> &'static str {
    let is_there = || {
        let version = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
        version.is_ok_and(|status| status.success())
    };
    if !is_there() {
        let setup = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/setup.sh");
        let _ = Command::new(setup).arg("python").status();
    }
    assert!(is_there(), "python3 is needed for this test: `scripts/setup.sh python` installs it");
    "python3"
}

/// The adapter, killed when it is dropped.
struct Adapter {
    child: tokio::process::Child,
    port: u16,
}

impl Adapter {
    async fn start(port: u16, store: &Path, gateway: &str) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/adapter.py");
        let child = tokio::process::Command::new(python())
            .args([script, &format!("127.0.0.1:{port}")])
            .arg(store)
            .arg(gateway)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut it = Self { child, port };
        eventually(Duration::from_secs(20), "the adapter answers", async || {
            assert_eq!(it.child.try_wait().unwrap(), None, "the adapter ended");
            TcpStream::connect(("127.0.0.1", it.port)).await.ok()
        })
        .await;
        it
    }

    async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// The built-in profile under another id, for what the adapter can do.
fn profile(port: u16) -> String {
    let mut text = BUILT_IN.replacen("id = \"holdfast\"", "id = \"adapter\"", 1);
    for (old, new) in [
        ("50080", &*port.to_string()),
        ("timeout = \"10s\"", "timeout = \"2s\""),
        ("visibility = \"5s\"", "visibility = \"200ms\""),
        ("max_processing = \"2m\"", "max_processing = \"6s\""),
        ("send_window = \"30s\"", "send_window = \"3s\""),
    ] {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    text
}

async fn create_pool(clients: &mut Clients) {
    let pool = pb::Pool {
        pool_id: POOL.to_owned(),
        provider_id: "adapter".to_owned(),
        currency_code: "EUR".to_owned(),
        ..Default::default()
    };
    clients.pools.create_pool(pb::CreatePoolRequest { pool: Some(pool) }).await.unwrap();
    for number in 0..CARDS + 1 {
        let account = pb::Account {
            pool_id: POOL.to_owned(),
            account_id: format!("account-{number}"),
            ..Default::default()
        };
        let request = pb::CreateAccountRequest { account: Some(account) };
        clients.accounts.create_account(request).await.unwrap();
    }
}

/// Redeems a card into any account. While the adapter is down nothing is begun, and it is tried again.
async fn redeem(mut clients: Clients, code: String) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < deadline, "the card was not redeemed in time");
        let acquired = clients.acquire(|request| {
            request.pool_id = POOL.to_owned();
            request.wait_timeout = seconds(60.0);
        });
        if let Some(acquired) = unless_unavailable(acquired.await) {
            let lease = lease(&acquired);
            let redeemed = clients.redeem(&lease, &code, |request| {
                request.expected = Some(eur(1000));
                request.release_on_completion = true;
            });
            if unless_unavailable(redeemed.await).is_some() {
                return;
            }
            clients.release(&lease).await.unwrap();
        }
        // As the refusal asks for.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn unless_unavailable<T>(answered: Result<T, Status>) -> Option<T> {
    match answered {
        Err(refused) if reason(&refused) == "PROVIDER_UNAVAILABLE" => None,
        answered => Some(answered.unwrap()),
    }
}

#[test]
fn the_adapter_of_the_docs_is_fifty_lines_of_code() {
    let script = include_str!("../../../docs/examples/adapter.py");
    let mut is_in_docstring = false;
    let is_code = |line: &&str| {
        let line = line.trim();
        let marks = line.matches("\"\"\"").count();
        let is_text = is_in_docstring || marks > 0;
        is_in_docstring ^= marks == 1;
        !is_text && !line.is_empty() && !line.starts_with('#')
    };
    let lines = script.lines().filter(is_code).count();
    assert!((40..=50).contains(&lines), "{lines} lines");
}

#[tokio::test]
async fn the_adapter_of_the_docs_credits_nothing_twice_through_kills_and_lost_answers() {
    let world = World::start().await;
    let gateway = Arc::new(Gateway::default());
    let app = Router::new().route("/gateway", post(answer)).with_state(Arc::clone(&gateway));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/gateway", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    let folder = tempfile::tempdir().unwrap();
    let store: PathBuf = folder.path().join("adapter.db");
    let port = crate::provider::client::closed_port().await;
    let mut adapter = Adapter::start(port, &store, &url).await;

    let mut clients = world.clients(0).await;
    apply(&mut clients, &profile(port)).await.unwrap();
    create_pool(&mut clients).await;
    let mut redeeming = tokio::task::JoinSet::new();
    redeeming.spawn(redeem(clients.clone(), world.code("spent")));
    for number in 0..CARDS {
        redeeming.spawn(redeem(clients.clone(), world.code(&format!("adapted {number}"))));
        if number % 6 == 5 {
            // Killed while the gateway is at work for it, and started again with what is on disk.
            eventually(Duration::from_secs(60), "a card is at the gateway", async || {
                (gateway.at_work.load(Ordering::SeqCst) > 0).then_some(())
            })
            .await;
            adapter.kill().await;
            adapter = Adapter::start(port, &store, &url).await;
        }
    }
    while let Some(done) = redeeming.join_next().await {
        done.unwrap();
    }
    let mut db = world.sql().await;
    eventually(Duration::from_secs(90), "all is settled or a person's", async || {
        (checks::open_redemptions(&mut db).await == 0).then_some(())
    })
    .await;
    adapter.kill().await;
    server.abort();
    assert!(gateway.lost.load(Ordering::SeqCst) > 0, "no answer was lost");

    let credited = gateway.credited.lock().unwrap().clone();
    assert!(credited.values().all(|by| by.len() == 1), "twice: {credited:?}");
    let by: HashMap<&str, ()> = credited.values().flatten().map(|it| (it.as_str(), ())).collect();
    let rows = sqlx::query(
        "SELECT redemption_id::text AS id, state, provider_ref, failure_reason FROM redemptions",
    );
    let rows = rows.fetch_all(&mut db).await.unwrap();
    assert_eq!(rows.len(), CARDS + 1);
    let mut succeeded = 0;
    for row in rows {
        let (id, state): (String, String) = (row.get("id"), row.get("state"));
        match &*state {
            "SUCCEEDED" => {
                succeeded += 1;
                assert!(by.contains_key(&*id), "{id} is not credited there");
                assert_eq!(row.get::<String, _>("provider_ref"), format!("X-{id}"));
            }
            "FAILED" => {
                assert!(!by.contains_key(&*id), "{id} is credited there");
                let reason: String = row.get("failure_reason");
                // Or the adapter was down for all tries to send it, or got it when its time was over.
                let reasons = ["CODE_SPENT", "PROVIDER_UNREACHABLE", "CANCELLED"];
                assert!(reasons.contains(&&*reason), "{reason}");
            }
            "NEEDS_REVIEW" => {}
            other => panic!("{id} is {other}"),
        }
    }
    // How many of them depends on when the kills struck.
    assert!(succeeded > 0, "none succeeded");
}
