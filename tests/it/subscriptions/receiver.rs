//! A receiver over HTTP that answers as a test wants, and remembers what came.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};

use super::LIMIT;
use crate::support::wait::eventually;

/// A POST that came.
#[derive(Clone, Debug)]
pub(super) struct Got {
    pub(super) id: String,
    timestamp: String,
    signatures: String,
    raw: String,
    pub(super) body: Value,
    /// What was answered.
    pub(super) status: u16,
}

impl Got {
    pub(super) fn redemption_id(&self) -> String {
        self.body["data"]["redemption_id"].as_str().unwrap().to_owned()
    }

    pub(super) fn account_id(&self) -> &str {
        self.body["data"]["account_id"].as_str().unwrap()
    }

    /// Whether one of the signatures is by this secret, as a library of Standard Webhooks verifies it.
    pub(super) fn is_signed_by(&self, secret: &str) -> bool {
        let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{}.{}.{}", self.id, self.timestamp, self.raw).as_bytes());
        let expected = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
        self.signatures.split(' ').any(|signature| signature == expected)
    }
}

/// What to answer.
pub(super) enum Answer {
    Status(u16),
    /// With a header.
    With(u16, &'static str, String),
    /// With a body of so many bytes.
    Huge(u16, usize),
    /// Never.
    Silence,
}

type Decide = Box<dyn FnMut(&Got) -> Answer + Send>;

struct Shared {
    got: Mutex<Vec<Got>>,
    decide: Mutex<Decide>,
}

pub(super) struct Receiver {
    addr: SocketAddr,
    shared: Arc<Shared>,
    /// Its own: when it ends, all connections do.
    runtime: Option<Runtime>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end();
    }
}

impl Receiver {
    /// One that takes everything.
    pub(super) async fn start() -> Self {
        let shared = Arc::new(Shared {
            got: Mutex::default(),
            decide: Mutex::new(Box::new(|_| Answer::Status(204))),
        });
        let addr = "127.0.0.1:0".parse().unwrap();
        let (addr, runtime) = serve(addr, Arc::clone(&shared)).await.unwrap();
        Self { addr, shared, runtime: Some(runtime) }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/outcomes", self.addr)
    }

    /// From now on it answers so.
    pub(super) fn answer(&self, decide: impl FnMut(&Got) -> Answer + Send + 'static) {
        *self.shared.decide.lock().unwrap() = Box::new(decide);
    }

    /// Nobody listens any more, and connections end.
    pub(super) async fn go_away(&mut self) {
        self.end();
        eventually(LIMIT, "the receiver is away", async || {
            tokio::net::TcpStream::connect(self.addr).await.is_err().then_some(())
        })
        .await;
    }

    /// It listens again, at the same address.
    pub(super) async fn come_back(&mut self) {
        let serving = eventually(LIMIT, "the receiver's address is free", async || {
            serve(self.addr, Arc::clone(&self.shared)).await
        })
        .await;
        self.runtime = Some(serving.1);
    }

    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// All that came.
    pub(super) fn got(&self) -> Vec<Got> {
        self.shared.got.lock().unwrap().clone()
    }

    /// What it took.
    pub(super) fn taken(&self) -> Vec<Got> {
        self.got().into_iter().filter(|got| (200..300).contains(&got.status)).collect()
    }

    /// Waits until it took these redemptions' outcomes.
    pub(super) async fn takes(&self, redemptions: impl IntoIterator<Item = &String>) -> Vec<Got> {
        let wanted: HashSet<_> = redemptions.into_iter().cloned().collect();
        eventually(LIMIT, "every outcome is taken", async || {
            let taken = self.taken();
            let ids: HashSet<_> = taken.iter().map(Got::redemption_id).collect();
            wanted.is_subset(&ids).then_some(taken)
        })
        .await
    }

    /// Waits until so many POSTs came.
    pub(super) async fn gets(&self, count: usize) -> Vec<Got> {
        eventually(LIMIT, "POSTs come", async || {
            let got = self.got();
            (got.len() >= count).then_some(got)
        })
        .await
    }
}

/// Serves at an address, unless it is taken.
async fn serve(addr: SocketAddr, shared: Arc<Shared>) -> Option<(SocketAddr, Runtime)> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let bound = runtime.spawn(async move {
        let listener = TcpListener::bind(addr).await.ok()?;
        let addr = listener.local_addr().unwrap();
        let router = Router::new().fallback(receive).with_state(shared);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Some(addr)
    });
    match bound.await.unwrap() {
        Some(addr) => Some((addr, runtime)),
        None => {
            runtime.shutdown_background();
            None
        }
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    raw: String,
) -> Response<Body> {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "application/json");
    let mut got = Got {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp"),
        signatures: header("webhook-signature"),
        body: serde_json::from_str(&raw).unwrap(),
        raw,
        status: 0,
    };
    let answer = (*shared.decide.lock().unwrap())(&got);
    let mut response = Response::builder();
    let mut body = Body::empty();
    got.status = match &answer {
        Answer::Status(status) | Answer::With(status, ..) | Answer::Huge(status, _) => *status,
        Answer::Silence => 0,
    };
    let status = got.status;
    shared.got.lock().unwrap().push(got);
    match answer {
        Answer::Status(_) => {}
        Answer::With(_, name, value) => response = response.header(name, value),
        Answer::Huge(_, bytes) => body = Body::from(vec![b'x'; bytes]),
        Answer::Silence => std::future::pending().await,
    }
    response.status(status).body(body).unwrap()
}
