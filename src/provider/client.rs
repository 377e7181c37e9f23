//! The provider's client: one HTTP call at a time, and what happened to it.
//!
//! Nothing is tried twice here, no redirect is followed and no proxy is asked. Each of those could
//! send a card's code somewhere, or twice, without anybody having decided it.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use http::HeaderValue;
use url::{Url, form_urlencoded};

use super::{
    Answer,
    classify::hint,
    http::{Call as HttpCall, Http, Limits, Written},
    wire::{self, Card, Listed, Page},
};
use crate::{
    config::ProviderArgs,
    domain::{
        id::RedemptionId,
        redemption::{Ask, CardCode},
    },
    failpoints::{self, Side, Step},
    secret_file,
};

/// The longest body that is read of an answer about one redemption or card, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// The longest body that is read of a page of redemptions, in bytes.
pub const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;

/// How long a connection may be idle and still be used. Below the 5 s after which common servers
/// close theirs: a request that meets the close on its way is in doubt.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// The provider. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Provider(Arc<Inner>);

struct Inner {
    http: Http,
    /// Without a slash at its end.
    base: String,
    /// Whether every send has a connection of its own. An answer that may be to another request is in doubt. Only
    /// a provider that counts a key once, and tells what became of it, can end that soon.
    sends_alone: bool,
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
    /// A body that is not the contract's: which fields are wrong, and why. What it says is left out: it
    /// may repeat a code.
    #[error("the provider answered HTTP 200 with a body that is not the contract's: {0}")]
    Malformed(String),
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
        let limits =
            Limits { connect: args.connect_timeout, whole: args.timeout, idle: IDLE_TIMEOUT };
        let token = args.token_file.as_deref().map(authorization).transpose()?;
        let http = Http::new(&url, token.as_ref(), &limits)
            .context("the provider's HTTP client cannot be made")?;
        let base = url.as_str().trim_end_matches('/').to_owned();
        let sends_alone = !(args.deduplicates && args.looks_up);
        Ok(Self(Arc::new(Inner { http, base, sends_alone })))
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
        let request = self.0.http.post("/redemptions", Some(ask.redemption_id), body);
        self.call_about(ask.redemption_id, step, request, self.0.sends_alone).await
    }

    /// Asks what became of the redemption.
    pub async fn look_up(&self, id: RedemptionId) -> Answer {
        let request = self.0.http.get(&format!("/redemptions/{id}"));
        self.call_about(id, Step::LookUp, request, false).await
    }

    /// Reads a redemption as a page would list it. `None`: the provider has never seen the key.
    pub async fn find(&self, id: RedemptionId) -> Result<Option<Listed>, CallError> {
        let request = self.0.http.get(&format!("/redemptions/{id}"));
        match self.read(request, MAX_BODY_BYTES, Some(id), Listed::read).await {
            Ok(listed) if RedemptionId::parse(&listed.key) == Ok(id) => Ok(Some(listed)),
            Ok(_) => Err(CallError::Malformed("key is not the one that was asked with".to_owned())),
            Err(CallError::Status(404)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks that the redemption never happens, even if it arrives later.
    pub async fn cancel(&self, id: RedemptionId) -> Answer {
        let request = self.0.http.post(&format!("/redemptions/{id}/cancel"), None, Vec::new());
        self.call_about(id, Step::Cancel, request, false).await
    }

    /// Asks what a card is worth. `None`: the provider does not know it.
    pub async fn inquire(&self, code: &CardCode) -> Result<Option<Card>, CallError> {
        let body = serde_json::to_vec(&wire::InquireRequest { code: code.expose() })
            .map_err(|_| CallError::NeverSent("it cannot be written as JSON".to_owned()))?;
        let request = self.0.http.post("/cards/inquire", None, body);
        match self.read(request, MAX_BODY_BYTES, None, Card::read).await {
            Ok(card) => Ok(Some(card)),
            Err(CallError::Status(404)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a page of the redemptions that were completed from `from` until before `to`, both
    /// RFC 3339. `page_token` is what the page before gave; empty for the first.
    pub async fn list(&self, from: &str, to: &str, page_token: &str) -> Result<Page, CallError> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("from", from).append_pair("to", to);
        if !page_token.is_empty() {
            query.append_pair("page_token", page_token);
        }
        let request = self.0.http.get(&format!("/redemptions?{}", query.finish()));
        self.read(request, MAX_PAGE_BYTES, None, Page::read).await
    }

    /// Makes one call about a redemption.
    async fn call_about(
        &self,
        id: RedemptionId,
        step: Step,
        request: Written,
        alone: bool,
    ) -> Answer {
        if let Err(error) = failpoints::reach(step, Side::Before).await {
            return Answer::NeverSent(error.to_string());
        }
        let call = HttpCall { request, max_bytes: MAX_BODY_BYTES, about: Some(id), alone };
        let answer = self.0.http.call(call).await;
        match failpoints::reach(step, Side::After).await {
            Ok(()) => answer,
            Err(error) => Answer::Lost(error.to_string()),
        }
    }

    async fn read<T>(
        &self,
        request: Written,
        max_bytes: usize,
        about: Option<RedemptionId>,
        read: fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, CallError> {
        let call = HttpCall { request, max_bytes, about, alone: false };
        match self.0.http.call(call).await {
            Answer::NeverSent(why) => Err(CallError::NeverSent(why)),
            Answer::Lost(why) => Err(CallError::Lost(why)),
            Answer::Http(http) if http.status == 200 => {
                read(&http.body).map_err(CallError::Malformed)
            }
            Answer::Http(http) if matches!(http.status, 429 | 503) => {
                let after = hint(wire::Problem::read(&http.body).retry_after, &http);
                Err(CallError::Busy { status: http.status, after })
            }
            Answer::Http(http) => Err(CallError::Status(http.status)),
        }
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

/// The header that proves who asks.
fn authorization(token_file: &Path) -> anyhow::Result<HeaderValue> {
    let token = secret_file::read(token_file, "the provider's token file")?;
    let token = token.trim();
    ensure!(!token.is_empty(), "the provider's token file {} is empty", token_file.display());
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .context("the provider's token has characters that a header cannot hold")?;
    value.set_sensitive(true);
    Ok(value)
}
