//! One HTTP call at a time, and what happened to it.
//!
//! Nothing is tried twice here, no redirect is followed and no proxy is asked: each of those could
//! send a card's code somewhere, or twice, without anybody having decided it.

use std::{error::Error as _, fmt, fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, header};
use reqwest::{Client, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;

use super::{
    Answer, HttpAnswer,
    wire::{self, Card, Listed, Page},
};
use crate::{
    config::ProviderArgs,
    domain::{
        id::RedemptionId,
        redemption::{Ask, CardCode},
    },
    injection::{self, Side, Step},
};

/// The longest body that is read of an answer about one redemption or card, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// The longest body that is read of a page of redemptions, in bytes.
pub const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// How long a connection may be idle and still be used. Below the 5 s after which common servers
/// close theirs: a request that meets the close on its way is in doubt.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Connections that are kept while idle.
const MAX_IDLE: usize = 256;

/// The provider. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Provider(Arc<Inner>);

struct Inner {
    http: Client,
    /// Without a slash at its end.
    base: String,
}

/// Why a question that changes nothing has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No request left.
    #[error("the provider could not be reached: {0}")]
    NeverSent(String),
    /// No whole answer came back.
    #[error("the provider's answer was lost: {0}")]
    Lost(String),
    /// The provider takes no questions now: 429 or 503.
    #[error("the provider answered HTTP {status}")]
    Busy {
        /// The status code.
        status: u16,
        /// When it wants to be asked again, if it says so.
        after: Option<Duration>,
    },
    /// An answer that the contract does not have for this question.
    #[error("the provider answered HTTP {0}")]
    Status(u16),
    /// A body that is not the contract's. What it says is left out: it may repeat a code.
    #[error("the provider answered HTTP 200 with a body that is not the contract's")]
    Malformed,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Provider").field(&self.0.base).finish()
    }
}

impl Provider {
    /// Reads the settings. Does not connect.
    pub fn new(args: &ProviderArgs) -> anyhow::Result<Self> {
        let url = base_url(&args.url)?;
        // Fails only where a provider is installed already, which is then the one that is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .referer(false)
            .connect_timeout(args.connect_timeout)
            .timeout(args.timeout)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE)
            .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
            .default_headers(default_headers(args.token_file.as_deref())?);
        if url.scheme() == "http" {
            // Without TLS no certificate is checked, so a machine that has none installed will do.
            http = http.tls_certs_only([]);
        }
        let http = http.build().context("the provider's HTTP client cannot be made")?;
        let base = url.as_str().trim_end_matches('/').to_owned();
        Ok(Self(Arc::new(Inner { http, base })))
    }

    /// Asks for the redemption: the call that may spend a card.
    pub async fn send(&self, ask: &Ask) -> Answer {
        self.post_redemption(Step::Send, ask).await
    }

    /// The same request once more, to the byte, for a redemption in doubt. For providers that count a
    /// key once.
    pub async fn send_again(&self, ask: &Ask) -> Answer {
        self.post_redemption(Step::SendAgain, ask).await
    }

    async fn post_redemption(&self, step: Step, ask: &Ask) -> Answer {
        let Ok(body) = wire::redemption_request(ask) else {
            return Answer::NeverSent("the request cannot be written as JSON".to_owned());
        };
        let request = self
            .post("/redemptions", body)
            .header("idempotency-key", ask.redemption_id.to_string());
        call_about_redemption(step, request).await
    }

    /// Asks what became of the redemption.
    pub async fn look_up(&self, id: RedemptionId) -> Answer {
        let request = self.0.http.get(format!("{}/redemptions/{id}", self.0.base));
        call_about_redemption(Step::LookUp, request).await
    }

    /// Reads a redemption as a page would list it. `None`: the provider has never seen the key.
    pub async fn find(&self, id: RedemptionId) -> Result<Option<Listed>, CallError> {
        let request = self.0.http.get(format!("{}/redemptions/{id}", self.0.base));
        match read::<Listed>(request, MAX_BODY_BYTES).await {
            Ok(listed) if RedemptionId::parse(&listed.key) == Ok(id) => Ok(Some(listed)),
            Ok(_) => Err(CallError::Malformed),
            Err(CallError::Status(404)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks that the redemption never happens, even if it arrives later.
    pub async fn cancel(&self, id: RedemptionId) -> Answer {
        let request = self.post(&format!("/redemptions/{id}/cancel"), Vec::new());
        call_about_redemption(Step::Cancel, request).await
    }

    /// Asks what a card is worth. `None`: the provider does not know it.
    pub async fn inquire(&self, code: &CardCode) -> Result<Option<Card>, CallError> {
        let body = serde_json::to_vec(&wire::InquireRequest { code: code.expose() })
            .map_err(|_| CallError::NeverSent("it cannot be written as JSON".to_owned()))?;
        match read(self.post("/cards/inquire", body), MAX_BODY_BYTES).await {
            Ok(card) => Ok(Some(card)),
            Err(CallError::Status(404)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a page of the redemptions that were completed from `from` until before `to`, both
    /// RFC 3339. `page_token` is what the page before gave; empty for the first.
    pub async fn list(&self, from: &str, to: &str, page_token: &str) -> Result<Page, CallError> {
        let mut url = Url::parse(&format!("{}/redemptions", self.0.base))
            .map_err(|_| CallError::NeverSent("the URL cannot be written".to_owned()))?;
        url.query_pairs_mut().append_pair("from", from).append_pair("to", to);
        if !page_token.is_empty() {
            url.query_pairs_mut().append_pair("page_token", page_token);
        }
        read(self.0.http.get(url), MAX_PAGE_BYTES).await
    }

    fn post(&self, path: &str, body: Vec<u8>) -> RequestBuilder {
        self.0
            .http
            .post(format!("{}{path}", self.0.base))
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
    }
}

fn base_url(text: &str) -> anyhow::Result<Url> {
    let url = Url::parse(text).context("the provider's URL cannot be read")?;
    ensure!(matches!(url.scheme(), "http" | "https"), "the provider's URL must be http or https");
    ensure!(
        url.username().is_empty() && url.password().is_none(),
        "the provider's URL must not hold a user or password; put a bearer token into a file"
    );
    if url.query().is_some() || url.fragment().is_some() {
        bail!("the provider's URL must end with its path, without '?' or '#'");
    }
    Ok(url)
}

fn default_headers(token_file: Option<&Path>) -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(file) = token_file {
        let token = fs::read_to_string(file).with_context(|| {
            format!("the provider's token file {} cannot be read", file.display())
        })?;
        let token = token.trim();
        ensure!(!token.is_empty(), "the provider's token file {} is empty", file.display());
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
            .context("the provider's token has characters that a header cannot hold")?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    Ok(headers)
}

/// Makes one call about a redemption.
async fn call_about_redemption(step: Step, request: RequestBuilder) -> Answer {
    if let Err(error) = injection::reach(step, Side::Before).await {
        return Answer::NeverSent(error.to_string());
    }
    let answer = call(request, MAX_BODY_BYTES).await;
    match injection::reach(step, Side::After).await {
        Ok(()) => answer,
        Err(error) => Answer::Lost(error.to_string()),
    }
}

/// Makes one call and reads its answer to the end.
async fn call(request: RequestBuilder, max_bytes: usize) -> Answer {
    let response = match request.send().await {
        Ok(response) => response,
        // Only a failure of the connector itself proves that nothing left. A total timeout does
        // not, whatever it interrupted.
        Err(error) if error.is_connect() => return Answer::NeverSent(describe(error)),
        Err(error) => return Answer::Lost(describe(error)),
    };
    let status = response.status().as_u16();
    let retry_after = retry_after(response.headers());
    match read_body(response, max_bytes).await {
        Ok(body) => Answer::Http(HttpAnswer { status, retry_after, body }),
        Err(why) => Answer::Lost(format!("HTTP {status}, but {why}")),
    }
}

async fn read<T: DeserializeOwned>(
    request: RequestBuilder,
    max_bytes: usize,
) -> Result<T, CallError> {
    match call(request, max_bytes).await {
        Answer::NeverSent(why) => Err(CallError::NeverSent(why)),
        Answer::Lost(why) => Err(CallError::Lost(why)),
        Answer::Http(http) if http.status == 200 => {
            serde_json::from_slice(&http.body).map_err(|_| CallError::Malformed)
        }
        Answer::Http(http) if matches!(http.status, 429 | 503) => {
            let told = wire::Problem::read(&http.body).retry_after_ms.map(Duration::from_millis);
            Err(CallError::Busy { status: http.status, after: told.or(http.retry_after) })
        }
        Answer::Http(http) => Err(CallError::Status(http.status)),
    }
}

/// Reads a body of at most `max_bytes`, whatever length it claims to have.
async fn read_body(mut response: Response, max_bytes: usize) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    loop {
        match response.chunk().await {
            Ok(None) => return Ok(body.freeze()),
            Ok(Some(chunk)) if body.len() + chunk.len() > max_bytes => {
                return Err(format!("its body is longer than {max_bytes} bytes"));
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Err(error) => return Err(format!("its body broke off: {}", describe(error))),
        }
    }
}

/// The header where it is a number of seconds. A date would need the two clocks to agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The error and its causes on one line. These speak of connections alone: no body, and no code,
/// is ever part of them.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
