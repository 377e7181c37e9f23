//! The provider's client: one HTTP call at a time, and what happened to it.
//!
//! Nothing is tried twice here, no redirect is followed and no proxy is asked. Each of those could
//! send a card's code somewhere, or twice, without anybody having decided it.

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use time::OffsetDateTime;
use url::Url;

use super::{
    Answer, Call, Doubt, HttpAnswer, classify,
    classify::hint,
    http::{Call as HttpCall, Http, Limits},
    profile::{Dedup, OpKind, Profile, Request, Unusable, Values},
    wire::{self, CallError, Card, Listed, Page},
};
use crate::{
    config::ProviderArgs,
    domain::{
        id::RedemptionId,
        redemption::{Ask, CardCode, Step as NextStep},
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
    /// How it is asked, and what its answers mean.
    profile: Profile,
    /// The secrets that the profile names.
    secrets: BTreeMap<String, String>,
    /// Whether every send has a connection of its own. An answer that may be to another request is in doubt. Only
    /// a provider that counts a key once, and tells what became of it, can end that soon.
    sends_alone: bool,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Provider").field(&self.0.profile.http.base.as_str()).finish()
    }
}

impl Provider {
    /// Reads the settings. Does not connect.
    pub fn new(args: &ProviderArgs) -> anyhow::Result<Self> {
        let mut profile = Profile::built_in().clone();
        profile.http.base = base_url(&args.url)?;
        if !args.deduplicates {
            profile.identity.dedup = Dedup::None;
        }
        let mut secrets = BTreeMap::new();
        if let Some(file) = &args.token_file {
            profile.prove_by_bearer(TOKEN);
            secrets.insert(TOKEN.to_owned(), token(file)?);
        }
        // Fails only where a provider is installed already, which is then the one that is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let limits =
            Limits { connect: args.connect_timeout, whole: args.timeout, idle: IDLE_TIMEOUT };
        let http = Http::new(&profile.http.base, &limits)
            .context("the provider's HTTP client cannot be made")?;
        let sends_alone = !(args.deduplicates && args.looks_up);
        Ok(Self(Arc::new(Inner { http, profile, secrets, sends_alone })))
    }

    /// Says what an answer calls for.
    pub fn judge(&self, ask: &Ask, call: Call, doubt: Doubt, answer: &Answer) -> NextStep {
        classify::classify(&self.0.profile, ask, call, doubt, answer)
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
        let values = self.values(Values::of_ask(self.0.profile.identity.key, ask));
        let request = self.request(OpKind::Send, &values);
        // Not to be kept while the answer is waited for.
        drop(values);
        self.call_about(ask.redemption_id, step, request, self.0.sends_alone).await
    }

    /// Asks what became of the redemption.
    pub async fn look_up(&self, id: RedemptionId) -> Answer {
        let request = self.request_about(OpKind::LookUp, id);
        self.call_about(id, Step::LookUp, request, false).await
    }

    /// Reads a redemption as a page would list it. `None`: the provider has never seen the key.
    pub async fn find(&self, id: RedemptionId) -> Result<Option<Listed>, CallError> {
        let request = self.request_about(OpKind::LookUp, id);
        match self.read(request, MAX_BODY_BYTES, Some(id), Listed::read).await {
            Ok(listed) if RedemptionId::parse(&listed.key) == Ok(id) => Ok(Some(listed)),
            Ok(_) => Err(CallError::Malformed("key is not the one that was asked with".to_owned())),
            Err(CallError::Status(404)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks that the redemption never happens, even if it arrives later.
    pub async fn cancel(&self, id: RedemptionId) -> Answer {
        let request = self.request_about(OpKind::Cancel, id);
        self.call_about(id, Step::Cancel, request, false).await
    }

    /// Asks what a card is worth. `None`: the provider does not know it.
    pub async fn inquire(&self, code: &CardCode) -> Result<Option<Card>, CallError> {
        let mut values = self.values(Values::at(OffsetDateTime::now_utc()));
        values.code = Some(code.expose().to_owned());
        let request = self.request(OpKind::Inquire, &values).map_err(unsendable)?;
        // Nothing in the answer need say what it is to.
        let alone = self.0.profile.asks_alone(OpKind::Inquire);
        let call = HttpCall { request, max_bytes: MAX_BODY_BYTES, about: None, alone };
        let http = answered(self.0.http.call(call).await)?;
        classify::inquired(&self.0.profile, &values, code, &http)
    }

    /// Reads a page of the redemptions that were completed from `from` until before `to`, both
    /// RFC 3339. `page_token` is what the page before gave; empty for the first.
    pub async fn list(&self, from: &str, to: &str, page_token: &str) -> Result<Page, CallError> {
        let mut values = self.values(Values::at(OffsetDateTime::now_utc()));
        values.from = Some(from.to_owned());
        values.to = Some(to.to_owned());
        values.page = Some(page_token.to_owned()).filter(|token| !token.is_empty());
        let request = self.request(OpKind::List, &values);
        self.read(request, MAX_PAGE_BYTES, None, Page::read).await
    }

    fn values(&self, values: Values) -> Values {
        Values { secrets: self.0.secrets.clone(), ..values }
    }

    /// The request for an op that needs the key alone.
    fn request_about(&self, kind: OpKind, id: RedemptionId) -> Result<Request, Unusable> {
        let mut values = self.values(Values::at(OffsetDateTime::now_utc()));
        values.key = Some(self.0.profile.identity.key.of(id));
        self.request(kind, &values)
    }

    /// The error says why there is no request: nothing is sent then.
    fn request(&self, kind: OpKind, values: &Values) -> Result<Request, Unusable> {
        self.0.profile.request(kind, values)
    }

    /// Makes one call about a redemption.
    async fn call_about(
        &self,
        id: RedemptionId,
        step: Step,
        request: Result<Request, Unusable>,
        alone: bool,
    ) -> Answer {
        let request = match request {
            Ok(request) => request,
            Err(why) => return Answer::Unsendable(why),
        };
        if let Err(error) = failpoints::reach(step, Side::Before).await {
            return Answer::NeverSent(error.to_string());
        }
        let about = Some(self.0.profile.identity.key.of(id));
        let call = HttpCall { request, max_bytes: MAX_BODY_BYTES, about, alone };
        let answer = self.0.http.call(call).await;
        match failpoints::reach(step, Side::After).await {
            Ok(()) => answer,
            Err(error) => Answer::Lost(error.to_string()),
        }
    }

    async fn read<T>(
        &self,
        request: Result<Request, Unusable>,
        max_bytes: usize,
        about: Option<RedemptionId>,
        read: fn(&[u8]) -> Result<T, String>,
    ) -> Result<T, CallError> {
        let request = request.map_err(unsendable)?;
        let about = about.map(|id| self.0.profile.identity.key.of(id));
        let call = HttpCall { request, max_bytes, about, alone: false };
        let http = answered(self.0.http.call(call).await)?;
        match http.status {
            200 => read(&http.body).map_err(CallError::Malformed),
            429 | 503 => {
                let after = hint(wire::retry_after(&http.body), &http);
                Err(CallError::Busy { status: http.status, after })
            }
            status => Err(CallError::Status(status)),
        }
    }
}

fn unsendable(why: Unusable) -> CallError {
    CallError::NeverSent(why.to_string())
}

/// The answer to a question that changes nothing, if there is one.
fn answered(answer: Answer) -> Result<HttpAnswer, CallError> {
    match answer {
        Answer::NeverSent(why) => Err(CallError::NeverSent(why)),
        Answer::Unsendable(why) => Err(unsendable(why)),
        Answer::Lost(why) => Err(CallError::Lost(why)),
        Answer::Http(http) => Ok(http),
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

/// The name of the secret that the token file holds.
const TOKEN: &str = "token";

/// What proves who asks.
fn token(file: &Path) -> anyhow::Result<String> {
    let token = secret_file::read(file, "the provider's token file")?;
    let token = token.trim();
    ensure!(!token.is_empty(), "the provider's token file {} is empty", file.display());
    let is_sendable = token.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    ensure!(is_sendable, "the provider's token has characters that a header cannot hold");
    Ok(token.to_owned())
}
