//! HTTP to one server, by reqwest: one request, one answer, nothing tried twice, no redirect followed, no proxy asked.
//!
//! HTTP/2 is spoken where the server chooses it, otherwise HTTP/1.1. What matters here is which connection an answer came on.
//! Over HTTP/2 an answer names its request. Over HTTP/1.1 it only follows it, so that one that nobody asked for could be
//! taken for the next one's. A call may therefore ask for a connection of its own; and the others are told whether
//! theirs had carried a request before.
//!
//! Only a connection that could not be made proves that nothing left. After that, only a whole answer is an answer.

mod body;
mod connect;

use std::{
    collections::HashSet,
    fmt,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, TRANSFER_ENCODING},
};
use hyper_util::client::legacy::connect::HttpInfo;
use reqwest::{Client, Response};
use rustls::ClientConfig;
use tokio::time::timeout;
use url::Url;

use super::{Answer, HttpAnswer};
use crate::domain::id::RedemptionId;
use body::{Body, Progress};

/// How long the pool of connections is kept at least, once it was thrown away.
const MIN_POOL_AGE: Duration = Duration::from_millis(100);
/// The header of our key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A client of one server.
pub(super) struct Http {
    /// Without a slash at its end.
    base: String,
    common: HeaderMap,
    tls: Option<ClientConfig>,
    limits: Limits,
    /// Every HTTP/1.1 connection of this one carries one request.
    alone: Client,
    pool: Mutex<Pool>,
    /// The server chose HTTP/2 the last time.
    speaks_http2: AtomicBool,
}

/// Connections that are used again.
struct Pool {
    client: Client,
    /// Our ends of the connections that carried a request. One that is another's by now does no harm: its answer is
    /// believed less.
    used: HashSet<SocketAddr>,
    /// When the one before was thrown away, if there was one.
    since: Option<Instant>,
}

/// How long things may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// To connect, the handshake of TLS included.
    pub(super) connect: Duration,
    /// For everything, to the answer's last byte.
    pub(super) whole: Duration,
    /// For a connection between two calls.
    pub(super) idle: Duration,
}

/// A request as it is sent: it may hold a code.
pub(super) struct Written {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Option<Bytes>,
}

/// A call to make.
pub(super) struct Call {
    pub(super) request: Written,
    /// The longest body that is read of its answer.
    pub(super) max_bytes: usize,
    /// What the answer is to be about, where it can say so.
    pub(super) about: Option<RedemptionId>,
    /// Only over a connection that carries no other request before, or over HTTP/2.
    pub(super) alone: bool,
}

/// The headers may hold a token.
impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Http {
    /// A client of the server at `base`, which is `http` or `https`. Does not connect.
    pub(super) fn new(
        base: &Url,
        authorization: Option<&HeaderValue>,
        limits: &Limits,
    ) -> anyhow::Result<Self> {
        // Without TLS no certificate is checked, so a machine that has none installed will do.
        let tls = (base.scheme() == "https").then(connect::as_this_machine_trusts).transpose()?;
        Self::with_tls(base, tls, authorization, limits)
    }

    fn with_tls(
        base: &Url,
        tls: Option<ClientConfig>,
        authorization: Option<&HeaderValue>,
        limits: &Limits,
    ) -> anyhow::Result<Self> {
        let mut common = HeaderMap::new();
        common.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(value) = authorization {
            common.insert(AUTHORIZATION, value.clone());
        }
        let make = |reuse| connect::client(limits, tls.as_ref(), reuse).context("no HTTP client");
        Ok(Self {
            base: base.as_str().trim_end_matches('/').to_owned(),
            common,
            alone: make(false)?,
            pool: Mutex::new(Pool::new(make(true)?)),
            tls,
            limits: *limits,
            speaks_http2: AtomicBool::new(false),
        })
    }

    /// A question. `target` follows the base path, encoded as a URL is.
    pub(super) fn get(&self, target: &str) -> Written {
        self.written(Method::GET, target, None)
    }

    /// What may change something.
    pub(super) fn post(
        &self,
        target: &str,
        idempotency_key: Option<RedemptionId>,
        body: Vec<u8>,
    ) -> Written {
        let mut written = self.written(Method::POST, target, Some(body.into()));
        written.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // A UUID's text is always a header's value.
        if let Some(Ok(key)) = idempotency_key.map(|key| HeaderValue::from_str(&key.to_string())) {
            written.headers.insert(IDEMPOTENCY_KEY, key);
        }
        written
    }

    fn written(&self, method: Method, target: &str, body: Option<Bytes>) -> Written {
        Written {
            method,
            url: format!("{}{target}", self.base),
            headers: self.common.clone(),
            body,
        }
    }

    /// Makes one call and reads its answer to the end.
    pub(super) async fn call(&self, call: Call) -> Answer {
        match timeout(self.limits.whole, Box::pin(self.exchange(call))).await {
            Ok(Ok(answer)) => Answer::Http(answer),
            Ok(Err(NoAnswer::NeverSent(why))) => Answer::NeverSent(why),
            Ok(Err(NoAnswer::Lost(why))) => Answer::Lost(why),
            // Whatever it interrupted: this alone never proves that nothing left.
            Err(_) => Answer::Lost("no answer in time".to_owned()),
        }
    }

    async fn exchange(&self, call: Call) -> Result<HttpAnswer, NoAnswer> {
        let Call { request, max_bytes, about, alone } = call;
        // A server that speaks HTTP/2 keeps answers and requests together by itself.
        let alone = alone && !self.speaks_http2.load(Ordering::Relaxed);
        let client = if alone { self.alone.clone() } else { self.pool().client.clone() };
        let (request, progress) = request.into_request()?;
        let response = client.execute(request).await.map_err(NoAnswer::from)?;
        let status = response.status().as_u16();
        let is_http2 = response.version() == Version::HTTP_2;
        self.speaks_http2.store(is_http2, Ordering::Relaxed);
        let first_on_connection = alone || is_http2 || self.is_first(&response);
        if !progress.is_whole() {
            let why = "the server spoke before it had the whole request";
            return Err(NoAnswer::Lost(why.to_owned()));
        }
        let but = |why: String| NoAnswer::Lost(format!("HTTP {status}, but {why}"));
        check_framing(&response).map_err(but)?;
        // A length beside the chunks is a sign of somebody in between who reads it otherwise.
        let is_ambiguous = response.headers().contains_key(TRANSFER_ENCODING)
            && response.headers().contains_key(CONTENT_LENGTH);
        let retry_after = retry_after(&response);
        let body = read_body(response, max_bytes).await.map_err(but)?;
        let is_out_of_step = !first_on_connection && about.is_some_and(|id| !names(&body, id));
        if is_out_of_step || is_ambiguous {
            self.distrust();
        }
        Ok(HttpAnswer { status, retry_after, first_on_connection, body })
    }

    /// Whether nothing was sent before on the connection that this came on.
    fn is_first(&self, response: &Response) -> bool {
        let ours = response.extensions().get::<HttpInfo>().map(HttpInfo::local_addr);
        ours.is_some_and(|ours| self.pool().used.insert(ours))
    }

    /// An answer did not name what it should be about. The next one on its connection could be one answer
    /// behind, and which connection that is reqwest does not tell: none of them is used again.
    fn distrust(&self) {
        let mut pool = self.pool();
        if pool.since.is_some_and(|since| since.elapsed() < MIN_POOL_AGE) {
            return;
        }
        if let Ok(client) = connect::client(&self.limits, self.tls.as_ref(), true) {
            *pool = Pool { since: Some(Instant::now()), ..Pool::new(client) };
        }
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    fn new(client: Client) -> Self {
        Self { client, used: HashSet::new(), since: None }
    }
}

/// Why there is no answer.
enum NoAnswer {
    /// Nothing left.
    NeverSent(String),
    Lost(String),
}

impl From<reqwest::Error> for NoAnswer {
    fn from(error: reqwest::Error) -> Self {
        let is_connect = error.is_connect();
        let why = reason(&error.without_url());
        if is_connect {
            Self::NeverSent(format!("it cannot be connected: {why}"))
        } else {
            Self::Lost(why)
        }
    }
}

/// An error with what caused it. Its URL, which may hold a code, is no part of it.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

impl Written {
    fn into_request(self) -> Result<(reqwest::Request, Progress), NoAnswer> {
        let url = Url::parse(&self.url)
            .ok()
            .filter(|url| url.as_str() == self.url)
            .ok_or_else(|| NoAnswer::NeverSent("its URL would be changed on the way".to_owned()))?;
        let mut request = reqwest::Request::new(self.method, url);
        *request.headers_mut() = self.headers;
        let (body, progress) = Body::of(self.body);
        *request.body_mut() = body.map(reqwest::Body::wrap);
        Ok((request, progress))
    }
}

/// reqwest takes any encodings before `chunked`; a body of which it undoes one only is not whole.
fn check_framing(response: &Response) -> Result<(), String> {
    let mut encodings = response.headers().get_all(TRANSFER_ENCODING).iter();
    let is_chunked =
        |value: &HeaderValue| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    match (encodings.next(), encodings.next()) {
        (None, _) => Ok(()),
        (Some(one), None) if is_chunked(one) => Ok(()),
        _ => Err("its transfer encoding is not understood".to_owned()),
    }
}

/// In seconds. A date would need the two clocks to agree.
fn retry_after(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Reads a body of at most so many bytes, whatever length it claims to have.
async fn read_body(mut response: Response, max_bytes: usize) -> Result<Bytes, String> {
    let too_long = || format!("its body is longer than {max_bytes} bytes");
    if response.content_length().is_some_and(|length| length > max_bytes as u64) {
        return Err(too_long());
    }
    let mut body = BytesMut::new();
    loop {
        let chunk = response.chunk().await;
        match chunk
            .map_err(|error| format!("its body broke off: {}", reason(&error.without_url())))?
        {
            None => return Ok(body.freeze()),
            Some(chunk) if body.len() + chunk.len() > max_bytes => return Err(too_long()),
            Some(chunk) => body.extend_from_slice(&chunk),
        }
    }
}

/// Whether a body holds the key of a redemption somewhere.
fn names(body: &[u8], id: RedemptionId) -> bool {
    let key = id.to_string();
    body.windows(key.len()).any(|part| part.eq_ignore_ascii_case(key.as_bytes()))
}

#[cfg(test)]
mod tests;
