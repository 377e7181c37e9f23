//! A provider that takes as long as it is told to, and counts what it is asked; and the calls that it makes.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{Path, State},
    routing::{get, post},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::Sha256;
use time::OffsetDateTime;
use tokio::{
    net::TcpListener,
    sync::{OwnedRwLockWriteGuard, RwLock},
};

use crate::support::world::World;

/// Seconds after which the provider wants to be asked again.
pub(super) const WAIT: u64 = 240;

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Shop(Arc<Mutex<Book>>, Arc<RwLock<()>>);

#[derive(Default)]
struct Book {
    url: String,
    /// What was asked for: the accounts by their keys.
    sent: HashMap<String, String>,
    done: HashSet<String>,
    look_ups: HashMap<String, usize>,
    sends: HashMap<String, usize>,
}

impl Shop {
    pub(super) async fn open() -> Self {
        let shop = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        shop.0.lock().unwrap().url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/redeem", post(send))
            .route("/redeem/{key}", get(look_up))
            .with_state(shop.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        shop
    }

    /// Lets look-ups that come from now on wait with their answers, which are made before, until this is dropped.
    pub(super) async fn stall(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.1).write_owned().await
    }

    /// Ends all work that is under way.
    pub(super) fn finish(&self) {
        let mut book = self.0.lock().unwrap();
        book.done = book.sent.keys().cloned().collect();
    }

    pub(super) fn look_ups(&self, key: &str) -> usize {
        self.0.lock().unwrap().look_ups.get(key).copied().unwrap_or(0)
    }

    pub(super) fn sends(&self, key: &str) -> usize {
        self.0.lock().unwrap().sends.get(key).copied().unwrap_or(0)
    }

    /// The key of the only card that was sent for an account.
    pub(super) fn key_of(&self, account: &str) -> Option<String> {
        let book = self.0.lock().unwrap();
        book.sent.iter().find(|(_, sent)| *sent == account).map(|(key, _)| key.clone())
    }

    /// Its profile. `key` is the kind of its keys, and `send_window` how long it is asked by who sent.
    pub(super) fn profile(&self, id: &str, version: i32, key: &str, send_window: &str) -> String {
        let url = &self.0.lock().unwrap().url;
        // Long enough for answers that are stalled, where there is time for that.
        let timeout = if send_window == "9m" { "15s" } else { send_window };
        format!(
            r#"id = "{id}"
version = {version}
[http]
base = "{url}"
timeout = "{timeout}"
[auth]
kind = "none"
[identity]
key = {key}
dedup = "replay"
window = "24h"
[times]
visibility = "200ms"
max_processing = "10m"
send_window = "{send_window}"
[op.send]
method = "POST"
path = "/redeem"
body = {{ key = "{{{{ key }}}}", code = "{{{{ code }}}}", account = "{{{{ account.id }}}}" }}
as = "look_up"
[op.look_up]
path = "/redeem/{{{{ key }}}}"
take = {{ key = "/key", task = "/task", ref = "/id", amount = {{ at = "/amount", unit = "minor" }}, retry_after = {{ at = "/wait", unit = "seconds" }} }}
[[op.look_up.rule]]
when = {{ status = [200], eq = {{ "/state" = "done" }} }}
then = "succeeded"
[[op.look_up.rule]]
when = {{ status = [200], eq = {{ "/state" = "processing" }} }}
then = "processing"
[webhook]
path = "{id}"
finds = {{ key = "/data/key", task = "/data/task" }}
[webhook.hmac]
secret = "{{{{ secret.hook }}}}"
over = "{{{{ request.header.x-time }}}}.{{{{ secret.salt }}}}.{{{{ request.body }}}}"
header = "x-signature"
format = "v1={{{{ signature }}}}"
time = "x-time"
tolerance = "5m"
"#
        )
    }
}

fn answer(book: &Book, key: &str) -> Json<Value> {
    let task = format!("task-{key}");
    Json(if book.done.contains(key) {
        json!({"key": key, "task": task, "id": "r-1", "state": "done", "amount": 1000})
    } else {
        json!({"key": key, "task": task, "state": "processing", "wait": WAIT})
    })
}

async fn send(State(shop): State<Shop>, Json(body): Json<Value>) -> Json<Value> {
    let mut book = shop.0.lock().unwrap();
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    book.sent.insert(text("key"), text("account"));
    *book.sends.entry(text("key")).or_default() += 1;
    answer(&book, &text("key"))
}

async fn look_up(State(shop): State<Shop>, Path(key): Path<String>) -> Json<Value> {
    let answer = {
        let mut book = shop.0.lock().unwrap();
        *book.look_ups.entry(key.clone()).or_default() += 1;
        answer(&book, &key)
    };
    let _may_answer = shop.1.read().await;
    answer
}

/// A call to be made.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) path: String,
    pub(super) body: String,
    pub(super) secret: String,
    /// How long ago it was signed, in seconds.
    pub(super) age: i64,
}

impl Call {
    /// A good one about the key.
    pub(super) fn about_key(path: &str, key: &str) -> Self {
        let body = json!({"data": {"key": key}}).to_string();
        Self { path: path.to_owned(), body, secret: format!("hook-of-{path}"), age: 0 }
    }

    /// A good one about the task.
    pub(super) fn about_task(path: &str, task: &str) -> Self {
        let body = json!({"data": {"task": task}}).to_string();
        Self { body, ..Self::about_key(path, "") }
    }

    /// The headers that prove it.
    pub(super) fn headers(&self) -> [(&'static str, String); 2] {
        let time = (OffsetDateTime::now_utc().unix_timestamp() - self.age).to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).unwrap();
        mac.update(format!("{time}.salt.{}", self.body).as_bytes());
        let signature = format!("v1={}", hex::encode(mac.finalize().into_bytes()));
        [("x-time", time), ("x-signature", signature)]
    }

    /// Makes it at a server of a world.
    pub(super) async fn make(&self, world: &World, server: usize) -> StatusCode {
        let mut request = reqwest::Client::new().post(self.url(world, server));
        for (name, value) in self.headers() {
            request = request.header(name, value);
        }
        let answer = request.body(self.body.clone()).send().await.unwrap();
        let status = answer.status();
        assert_eq!(answer.bytes().await.unwrap().len(), 0, "no answer tells anything");
        status
    }

    pub(super) fn url(&self, world: &World, server: usize) -> String {
        let addr = world.server(server).webhook_addr().unwrap();
        format!("http://{addr}/webhooks/{}", self.path)
    }
}
