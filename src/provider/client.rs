//! The provider's client: the calls of one profile, and what happened to each.
//!
//! Nothing is tried twice here, no redirect is followed and no proxy is asked. Each of those could
//! send a card's code somewhere, or twice, without anybody having decided it. The one exception is a call that the
//! provider refused for its token: that is made once more with a new one.

mod questions;
mod trial;

use std::{collections::BTreeMap, fmt, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail, ensure};
use time::OffsetDateTime;
use tokio::time::timeout;
use url::Url;

use super::{
    Answer, Call, Doubt,
    classify::{self, Proof},
    http::{Call as HttpCall, Http, IDLE_TIMEOUT, Limits},
    profile::{MAX_PAGES, OpKind, Profile, Request, Unusable, Values},
    secrets::Secrets,
    tokens::Tokens,
};
use crate::{
    config::ProviderArgs,
    domain::{
        id::RedemptionId,
        provider::{Condition, ProfileVersion},
        redemption::{Ask, Dedup, RedeemLimits, Step as NextStep},
    },
    failpoints::{self, Side, Step},
    secret_file,
};

pub use trial::{Exchange, Heard, Judged, Trial, Tried};

/// The longest body that is read of an answer about one redemption or card, in bytes.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// The longest body that is read of a page of redemptions, in bytes.
pub const MAX_PAGE_BYTES: usize = 8 * 1024 * 1024;

mod past;

/// A provider, by one version of its profile. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Provider(Arc<Inner>);

struct Inner {
    http: Http,
    /// How it is asked, and what its answers mean.
    profile: Profile,
    version: ProfileVersion,
    limits: RedeemLimits,
    secrets: SecretValues,
    tokens: Tokens,
}

/// What one call proves who asks with. No `Debug`: it is secret.
#[derive(Default)]
struct Means {
    /// The secrets that the profile names.
    secrets: BTreeMap<String, String>,
    /// The token, where the profile fetches one.
    token: Option<String>,
}

/// Where the values of the secrets that a profile names come from.
pub enum SecretValues {
    /// These, for good.
    Fixed(BTreeMap<String, String>),
    /// Files, as they are when a request is made.
    Files(Secrets),
}

/// What a call about a redemption brought.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What it calls for.
    pub step: NextStep,
    /// What it shows of the provider.
    pub condition: Condition,
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Provider").field(&self.0.version).finish()
    }
}

impl Provider {
    /// The built-in profile, with the settings that stand before what it says. Does not connect.
    pub fn built_in(args: &ProviderArgs) -> anyhow::Result<Self> {
        let mut profile = Profile::built_in().clone();
        profile.http.base = base_url(&args.url)?;
        profile.http.timeout = args.timeout;
        profile.http.connect_timeout = args.connect_timeout;
        profile.identity.window = args.key_retention;
        profile.times.visibility = args.visibility_horizon;
        profile.times.max_processing = args.max_processing_time;
        profile.times.send_window = args.send_window;
        if !args.deduplicates {
            profile.identity.dedup = Dedup::None;
        }
        let without = [
            (args.looks_up, OpKind::LookUp),
            (args.cancels, OpKind::Cancel),
            (args.inquires, OpKind::Inquire),
        ];
        for (_, kind) in without.into_iter().filter(|(has, _)| !has) {
            profile.remove(kind);
        }
        let mut secrets = BTreeMap::new();
        if let Some(file) = &args.token_file {
            profile.prove_by_bearer(TOKEN);
            secrets.insert(TOKEN.to_owned(), token(file)?);
        }
        Self::new(profile, SecretValues::Fixed(secrets), Some(args.not_after))
    }

    /// The provider of a profile, with the values of the secrets that it names. Does not connect.
    pub fn new(
        profile: Profile,
        secrets: SecretValues,
        not_after: Option<Duration>,
    ) -> anyhow::Result<Self> {
        // Fails only where a provider is installed already, which is then the one that is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let limits = Limits {
            connect: profile.http.connect_timeout,
            whole: profile.http.timeout,
            idle: IDLE_TIMEOUT,
        };
        let http = Http::new(&profile.http, &limits)
            .context("the provider's HTTP client cannot be made")?
            .with_quota(profile.limits.quota.clone());
        Ok(Self(Arc::new(Inner {
            http,
            version: profile.pinned(),
            limits: profile.limits(not_after),
            profile,
            secrets,
            tokens: Tokens::default(),
        })))
    }

    /// The version of the profile.
    pub fn version(&self) -> &ProfileVersion {
        &self.0.version
    }

    /// The profile.
    pub fn profile(&self) -> &Profile {
        &self.0.profile
    }

    /// How long redemptions may be sent, and what it can do for those in doubt.
    pub fn limits(&self) -> &RedeemLimits {
        &self.0.limits
    }

    /// The secrets that it names. The error says what is wrong with each that cannot be used.
    pub fn secrets(&self) -> Result<BTreeMap<String, String>, Vec<String>> {
        match &self.0.secrets {
            SecretValues::Fixed(secrets) => Ok(secrets.clone()),
            SecretValues::Files(files) => files.read(&self.0.profile.secrets()),
        }
    }

    /// Makes a call about a redemption, and says what its answer calls for. A send counts as sent again when it is in
    /// doubt.
    pub async fn ask(&self, call: Call, doubt: Doubt, ask: &Ask) -> Asked {
        let means = match Box::pin(self.means()).await {
            Ok(means) => means,
            Err(why) => {
                return asked(
                    call,
                    &Answer::NeverSent(why.clone()),
                    self.unmade(ask, call, doubt, why),
                );
            }
        };
        let answer = Box::pin(self.call_with(call, doubt, ask, &means)).await;
        let proven = self.proven(ask, call, doubt, &answer, &means);
        let is_refused = matches!(
            &proven,
            Ok(Proof::NotExecuted { unauthorized: true, .. }
                | Proof::Busy { unauthorized: true, .. })
        );
        if is_refused && let Some(new) = Box::pin(self.with_new_token(&means)).await {
            let answer = Box::pin(self.call_with(call, doubt, ask, &new)).await;
            return asked(call, &answer, self.proven(ask, call, doubt, &answer, &new));
        }
        asked(call, &answer, proven)
    }

    /// Makes a call about a redemption.
    pub async fn call(&self, call: Call, doubt: Doubt, ask: &Ask) -> Answer {
        match self.means().await {
            Ok(means) => self.call_with(call, doubt, ask, &means).await,
            Err(why) => Answer::NeverSent(why),
        }
    }

    /// Says what a call calls for that was not made.
    pub fn not_made(&self, ask: &Ask, call: Call, doubt: Doubt, why: String) -> NextStep {
        asked(call, &Answer::NeverSent(why.clone()), self.unmade(ask, call, doubt, why)).step
    }

    fn unmade(&self, ask: &Ask, call: Call, doubt: Doubt, why: String) -> Result<Proof, NextStep> {
        self.proven(ask, call, doubt, &Answer::NeverSent(why), &Means::default())
    }

    /// What a call proves who asks with. The secrets are read once for it: what it was made with is taken out of what it
    /// is answered, also where a file has changed meanwhile.
    async fn means(&self) -> Result<Means, String> {
        let secrets = self.secrets().map_err(|missing| missing.join("; "))?;
        let token = self.token(None, &secrets).await?;
        Ok(Means { secrets, token })
    }

    /// The same with another token than the one that was refused. `None`: there is none.
    async fn with_new_token(&self, refused: &Means) -> Option<Means> {
        let secrets = self.secrets().ok()?;
        let token = self.token(Some(refused.token.as_ref()?), &secrets).await.ok()?;
        Some(Means { secrets, token })
    }

    fn proven(
        &self,
        ask: &Ask,
        call: Call,
        doubt: Doubt,
        answer: &Answer,
        means: &Means,
    ) -> Result<Proof, NextStep> {
        let mut secrets = means.secrets.clone();
        // An answer may repeat it. No secret of a profile has this name.
        secrets.extend(means.token.clone().map(|token| (String::new(), token)));
        classify::proven(&self.0.profile, &secrets, ask, call, doubt, answer)
    }

    async fn call_with(&self, call: Call, doubt: Doubt, ask: &Ask, means: &Means) -> Answer {
        let values = Box::new(self.values_of(call, ask, means));
        self.call_by(call, doubt, ask.redemption_id, values).await
    }

    fn values_of(&self, call: Call, ask: &Ask, means: &Means) -> Values {
        let mut values = means.with(Values::of_ask(self.0.profile.identity.key, ask));
        if call == Call::Reverse {
            values.amount = ask.expected;
        }
        values
    }

    /// Makes a call about a redemption with these values. Thousands may wait for an answer here, so what few of them
    /// need is in a box.
    async fn call_by(
        &self,
        call: Call,
        doubt: Doubt,
        id: RedemptionId,
        values: Box<Values>,
    ) -> Answer {
        let kind = call.op();
        let step = step_of(call, doubt);
        let (call, values) = match self.prepared(kind, id, *values) {
            Ok(prepared) => prepared,
            Err(answer) => return answer,
        };
        if let Err(error) = failpoints::reach(step, Side::Before).await {
            return Answer::NeverSent(error.to_string());
        }
        let first = self.0.http.call(call).await;
        let answer = match values {
            Some(values) => {
                let key = self.0.profile.identity.key.of(id);
                Box::pin(self.other_pages(kind, &key, values, first)).await
            }
            None => first,
        };
        match failpoints::reach(step, Side::After).await {
            Ok(()) => answer,
            Err(error) => Answer::Lost(error.to_string()),
        }
    }

    /// The call, and the values that it was made with where there may be more to ask with them: they are not kept
    /// otherwise while the answer is waited for.
    fn prepared(
        &self,
        kind: OpKind,
        id: RedemptionId,
        values: Values,
    ) -> Result<(HttpCall, Option<Box<Values>>), Answer> {
        let request = self.request(kind, &values).map_err(Answer::Unsendable)?;
        let values = self.0.profile.has_pages(kind).then(|| Box::new(values));
        let about = Some(self.0.profile.identity.key.of(id));
        let alone = self.0.profile.asks_alone(kind);
        Ok((HttpCall { request, max_bytes: MAX_BODY_BYTES, about, alone }, values))
    }

    /// Asks for the pages after the first, in the time that the question has as a whole.
    async fn other_pages(
        &self,
        kind: OpKind,
        key: &str,
        mut values: Box<Values>,
        first: Answer,
    ) -> Answer {
        let mut pages = match first {
            // What is no page is an answer of its own: too many calls, a token that is refused.
            Answer::Http(first) if Profile::is_page(&first.body) => vec![first],
            answer => return answer,
        };
        // Whether these are all of them; the error is that one was lost, which says nothing of the others.
        let read = async {
            loop {
                let last = pages.last().map_or(&[][..], |page| &page.body);
                match self.0.profile.next_page(kind, last) {
                    Ok(None) => return Ok(true),
                    Ok(Some(page)) if pages.len() < MAX_PAGES => values.page = Some(page),
                    _ => return Ok(false),
                }
                let Ok(request) = self.request(kind, &values) else { return Ok(false) };
                let about = Some(key.to_owned());
                let alone = self.0.profile.asks_alone(kind);
                let call = HttpCall { request, max_bytes: MAX_BODY_BYTES, about, alone };
                match self.0.http.call(call).await {
                    Answer::Http(page) if matches!(page.status, 401 | 429 | 500..) => {
                        return Err(format!("HTTP {}", page.status));
                    }
                    Answer::Http(page) => pages.push(page),
                    Answer::NeverSent(why) | Answer::Lost(why) => return Err(why),
                    _ => return Ok(false),
                }
            }
        };
        let rest = self.0.limits.call_timeout.saturating_sub(self.0.profile.http.timeout);
        let read = timeout(rest, read).await.unwrap_or(Err("no answer in time".to_owned()));
        let is_whole = match read {
            Ok(is_whole) => is_whole,
            Err(why) => return Answer::Lost(format!("a page of the answer was lost: {why}")),
        };
        match (pages.len(), is_whole) {
            (1, true) => pages.pop().map_or(Answer::Lost("no page".to_owned()), Answer::Http),
            _ => Answer::Pages { pages, is_whole },
        }
    }

    /// The token that calls are made with, where the profile fetches one.
    async fn token(
        &self,
        refused: Option<&str>,
        secrets: &BTreeMap<String, String>,
    ) -> Result<Option<String>, String> {
        if !self.0.profile.fetches_token() {
            return Ok(None);
        }
        let fetch = || async {
            let now = Values::at(OffsetDateTime::now_utc());
            let values = Values { secrets: secrets.clone(), ..now };
            let request = match self.0.profile.token_request(&values) {
                Some(request) => {
                    request.map_err(|why| format!("no token can be asked for: {why}"))?
                }
                None => return Err("the profile fetches no token".to_owned()),
            };
            let call = HttpCall { request, max_bytes: MAX_BODY_BYTES, about: None, alone: true };
            let http = questions::answered(self.0.http.call(call).await)
                .map_err(|why| format!("no token was given: {why}"))?;
            self.0
                .profile
                .read_token(http.status, &http.body)
                .map_err(|why| format!("no token was given: {why}"))
        };
        self.0.tokens.get(refused, fetch).await.map(Some)
    }

    /// The error says why there is no request: nothing is sent then.
    fn request(&self, kind: OpKind, values: &Values) -> Result<Request, Unusable> {
        self.0.profile.request(kind, values)
    }
}

impl Means {
    fn with(&self, values: Values) -> Values {
        Values { secrets: self.secrets.clone(), token: self.token.clone(), ..values }
    }
}

/// The step of the protocol that a call is.
fn step_of(call: Call, doubt: Doubt) -> Step {
    match (call, doubt) {
        (Call::Send, Doubt::FirstSend) => Step::Send,
        (Call::Send, Doubt::InDoubt) => Step::SendAgain,
        (Call::LookUp, _) => Step::LookUp,
        (Call::Find, _) => Step::Find,
        (Call::Cancel, _) => Step::Cancel,
        (Call::Reverse, _) => Step::Reverse,
    }
}

fn asked(call: Call, answer: &Answer, proven: Result<Proof, NextStep>) -> Asked {
    let condition = classify::condition(answer, proven.as_ref().ok());
    let step = match proven {
        Ok(proof) => classify::step(call, answer, proof),
        Err(step) => step,
    };
    Asked { step, condition }
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
