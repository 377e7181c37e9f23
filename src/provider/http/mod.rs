//! HTTP to one server, by reqwest: one request, one answer, nothing tried twice, no redirect followed, no proxy asked.
//!
//! HTTP/2 is spoken where the server chooses it, otherwise HTTP/1.1. What matters here is which connection an answer came on.
//! Over HTTP/2 an answer names its request. Over HTTP/1.1 it only follows it, so that one that nobody asked for could be
//! taken for the next one's. A call may therefore ask for a connection of its own; and the others are told whether
//! theirs had carried a request before.
//!
//! Only a connection that could not be made proves that nothing left. After that, only a whole answer is an answer.

mod body;
pub(super) mod connect;
pub(super) mod quota;

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Version,
    header::{CONTENT_LENGTH, RETRY_AFTER, TRANSFER_ENCODING},
};
use hyper_util::client::legacy::connect::HttpInfo;
use reqwest::{Client, Response};
use rustls::ClientConfig;
use tokio::time::{timeout, timeout_at};
use url::Url;

use super::{
    Answer, HttpAnswer,
    profile::{HttpSettings, Quota, Request},
};
use body::{Body, Progress};

/// How long a connection may be idle and still be used. Below the 5 s after which common servers
/// close theirs: a request that meets the close on its way is in doubt.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// How long the pool of connections is kept at least, once it was thrown away.
const MIN_POOL_AGE: Duration = Duration::from_millis(100);

/// A client of one server.
pub(super) struct Http {
    tls: Option<ClientConfig>,
    limits: Limits,
    quota: Option<Quota>,
    /// Every HTTP/1.1 connection of this one carries one request.
    alone: Client,
    pool: Mutex<Pool>,
    /// The server chose HTTP/2 the last time.
    speaks_http2: AtomicBool,
}

/// Connections that are used again.
struct Pool {
    client: Client,
    /// Of the connections of this client alone.
    used: Used,
    /// When the one before was thrown away, if there was one.
    since: Option<Instant>,
}

/// Our ends of the connections that carried a request. One that is another's by now does no harm: its answer is
/// believed less.
#[derive(Clone, Default)]
struct Used(Arc<Mutex<HashSet<SocketAddr>>>);

impl Used {
    /// Whether nothing was sent before on the connection that this came on.
    fn is_first(&self, response: &Response) -> bool {
        let ours = response.extensions().get::<HttpInfo>().map(HttpInfo::local_addr);
        let mut used = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ours.is_some_and(|ours| used.insert(ours))
    }
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

/// A call to make.
pub(super) struct Call {
    pub(super) request: Request,
    /// The longest body that is read of its answer.
    pub(super) max_bytes: usize,
    /// The key that the answer should name, where it can.
    pub(super) about: Option<String>,
    /// Only over a connection that carries no other request before, or over HTTP/2.
    pub(super) alone: bool,
}

/// What comes before the body of an answer.
pub(super) struct Head {
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
}

impl Http {
    /// A client of the server that a profile names, which is `http` or `https`. Does not connect.
    pub(super) fn new(settings: &HttpSettings, limits: &Limits) -> anyhow::Result<Self> {
        // Without TLS no certificate is checked, so a machine that has none installed will do.
        let is_tls = settings.base.scheme() == "https";
        let tls = is_tls.then(|| connect::tls_of(settings)).transpose()?;
        Self::with_tls(tls, limits)
    }

    /// Reads these headers of each answer.
    pub(super) fn with_quota(self, quota: Option<Quota>) -> Self {
        Self { quota, ..self }
    }

    /// A client of any server, which trusts the certificates that this machine does. Does not connect.
    pub(super) fn of_any_server(limits: &Limits) -> anyhow::Result<Self> {
        Self::with_tls(Some(connect::tls_of_machine()?), limits)
    }

    fn with_tls(tls: Option<ClientConfig>, limits: &Limits) -> anyhow::Result<Self> {
        let make = |reuse| connect::client(limits, tls.as_ref(), reuse).context("no HTTP client");
        Ok(Self {
            alone: make(false)?,
            pool: Mutex::new(Pool::new(make(true)?)),
            tls,
            limits: *limits,
            quota: None,
            speaks_http2: AtomicBool::new(false),
        })
    }

    /// Makes one call and reads its answer to the end.
    pub(super) async fn call(&self, call: Call) -> Answer {
        self.call_and_tell(call).await.0
    }

    /// The same, with what came before the body, as far as it came.
    pub(super) async fn call_and_tell(&self, call: Call) -> (Answer, Option<Head>) {
        let mut head = None;
        let answer = self.answer(call, &mut head).await;
        (answer, head)
    }

    /// Sends a request of which only the status of its answer counts: with the time after which the server wants to be asked
    /// again. What it answers beside is read up to a bound, so that its connection can be used again, and thrown away.
    pub(super) async fn status_of(&self, call: Call) -> Result<(u16, Option<Duration>), String> {
        let end = tokio::time::Instant::now() + self.limits.whole;
        let answered = timeout_at(end, Box::pin(self.begin_answer(call.request))).await;
        let response = match answered {
            Ok(Ok(response)) => response,
            Ok(Err(NoAnswer::NeverSent(why) | NoAnswer::Lost(why))) => return Err(why),
            Err(_) => return Err("no answer in time".to_owned()),
        };
        let told = (response.status().as_u16(), retry_after(response.headers()));
        let _ = timeout_at(end, read_body(response, call.max_bytes)).await;
        Ok(told)
    }

    async fn begin_answer(&self, request: Request) -> Result<Response, NoAnswer> {
        let client = self.pool().client.clone();
        let (request, progress) = prepared(request)?;
        let response = client.execute(request).await.map_err(NoAnswer::from)?;
        if !progress.is_whole() {
            return Err(NoAnswer::Lost(
                "the server spoke before it had the whole request".to_owned(),
            ));
        }
        Ok(response)
    }

    async fn answer(&self, call: Call, head: &mut Option<Head>) -> Answer {
        match timeout(self.limits.whole, Box::pin(self.exchange(call, head))).await {
            Ok(Ok(answer)) => Answer::Http(answer),
            Ok(Err(NoAnswer::NeverSent(why))) => Answer::NeverSent(why),
            Ok(Err(NoAnswer::Lost(why))) => Answer::Lost(why),
            // Whatever it interrupted: this alone never proves that nothing left.
            Err(_) => Answer::Lost("no answer in time".to_owned()),
        }
    }

    async fn exchange(&self, call: Call, head: &mut Option<Head>) -> Result<HttpAnswer, NoAnswer> {
        let Call { request, max_bytes, about, alone } = call;
        // A server that speaks HTTP/2 keeps answers and requests together by itself.
        let alone = alone && !self.speaks_http2.load(Ordering::Relaxed);
        let (client, used) = {
            let pool = self.pool();
            let client = if alone { &self.alone } else { &pool.client };
            (client.clone(), pool.used.clone())
        };
        let (request, progress) = prepared(request)?;
        let response = client.execute(request).await.map_err(NoAnswer::from)?;
        let status = response.status().as_u16();
        *head = Some(Head { version: response.version(), headers: response.headers().clone() });
        let is_http2 = response.version() == Version::HTTP_2;
        self.speaks_http2.store(is_http2, Ordering::Relaxed);
        let first_on_connection = alone || is_http2 || used.is_first(&response);
        if !progress.is_whole() {
            let why = "the server spoke before it had the whole request";
            return Err(NoAnswer::Lost(why.to_owned()));
        }
        let but = |why: String| NoAnswer::Lost(format!("HTTP {status}, but {why}"));
        check_framing(&response).map_err(but)?;
        // A length beside the chunks is a sign of somebody in between who reads it otherwise.
        let is_ambiguous = response.headers().contains_key(TRANSFER_ENCODING)
            && response.headers().contains_key(CONTENT_LENGTH);
        let retry_after = retry_after(response.headers());
        let quota = self.quota.as_ref();
        let quota_used_up = quota.and_then(|quota| quota::used_up(quota, response.headers()));
        let body = read_body(response, max_bytes).await.map_err(but)?;
        let is_out_of_step = !first_on_connection && about.is_some_and(|key| !names(&body, &key));
        if is_out_of_step || is_ambiguous {
            self.distrust();
        }
        Ok(HttpAnswer { status, retry_after, quota_used_up, first_on_connection, body })
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
        Self { client, used: Used::default(), since: None }
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

/// The request as reqwest takes it. What it would change on the way is not sent.
fn prepared(request: Request) -> Result<(reqwest::Request, Progress), NoAnswer> {
    let never = |why: &str| NoAnswer::NeverSent(why.to_owned());
    let text = request.url();
    let url = Url::parse(&text).ok().filter(|url| url.as_str() == text);
    let url = url.ok_or_else(|| never("its URL would be changed on the way"))?;
    let method = Method::from_bytes(request.method.as_bytes());
    let mut prepared = reqwest::Request::new(method.map_err(|_| never("its method"))?, url);
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let mut value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| never("a header has characters that it cannot hold"))?;
        // Any may be a secret.
        value.set_sensitive(true);
        prepared.headers_mut().insert(name.map_err(|_| never("a header's name"))?, value);
    }
    let (body, progress) = Body::of(request.body.map(Bytes::from));
    *prepared.body_mut() = body.map(reqwest::Body::wrap);
    Ok((prepared, progress))
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
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
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

/// Whether a body holds a key somewhere.
fn names(body: &[u8], key: &str) -> bool {
    body.windows(key.len()).any(|part| part.eq_ignore_ascii_case(key.as_bytes()))
}

#[cfg(test)]
mod tests;
