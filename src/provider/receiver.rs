//! POSTs to the receivers of outcomes.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::sync::OnceCell;
use url::Url;

use super::{
    http::{Call, Http, IDLE_TIMEOUT, Limits},
    profile::Request,
};

/// How much is read of an answer, in bytes. Nothing of it is kept.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// To connect, the handshake of TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The client of all receivers. Cheap to clone. Follows no redirect, asks no proxy, and tries nothing twice.
#[derive(Clone)]
pub struct Receivers {
    timeout: Duration,
    // It is made when it is first needed: a machine without certificates can serve all that sends to no receiver.
    http: Arc<OnceCell<Http>>,
}

impl std::fmt::Debug for Receivers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receivers").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What is sent. No `Debug`: its headers are signatures.
pub struct Post {
    /// Where to.
    pub url: Url,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// JSON.
    pub body: String,
}

impl Receivers {
    /// Waits so long for an answer.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, http: Arc::default() }
    }

    /// Sends, and answers the status, and the time after which the receiver wants to be asked again.
    ///
    /// # Errors
    /// In plain words why there is no answer. The URL's path is no part of it, nor what was sent.
    pub async fn post(&self, post: Post) -> Result<(u16, Option<Duration>), String> {
        let http = self.http.get_or_try_init(async || {
            let limits = Limits {
                connect: CONNECT_TIMEOUT.min(self.timeout),
                whole: self.timeout,
                idle: IDLE_TIMEOUT,
            };
            Http::of_any_server(&limits).context("nothing can be sent")
        });
        let http = http.await.map_err(|error| format!("{error:#}"))?;
        let mut headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        headers.extend(post.headers);
        let request = Request {
            method: "POST".to_owned(),
            origin: post.url.origin().ascii_serialization(),
            path: post.url.path().to_owned(),
            query: String::new(),
            headers,
            body: Some(post.body),
        };
        let call = Call { request, max_bytes: MAX_ANSWER_BYTES, about: None, alone: false };
        http.status_of(call).await
    }
}
