//! Webhooks: calls of providers. One that is verified brings the look-up of its redemption forward, and does nothing
//! else.
//!
//! What it says is never believed: the provider is asked, as always, and its answer judged. No state changes by a call,
//! no check is counted, and no recovery action is taken earlier. It is one look-up as for a server that is dead (see
//! [`super::background::reconcile::takeover`]), also while another server sends it, or one poll of a redemption that
//! this server sends.
//!
//! Nothing rests on calls: what none comes for is looked up when its check is due.

mod heard;
pub mod paths;
mod routes;

use std::{path::PathBuf, sync::Arc, time::Duration};

use time::OffsetDateTime;
use tokio::{sync::Semaphore, time::sleep};
use tokio_util::sync::CancellationToken;

pub use self::routes::{Hook, NotReady};
use self::{
    heard::{About, By, Heard, Noted, Round},
    routes::Routes,
};
use super::{Error, background::reconcile::Reconciler, redeem::Redeem};
use crate::{
    provider::profile::KeyOf,
    store::{Store, redemption::wake::OpenRedemption},
};

/// A redemption is looked up for calls at most once in this time, by whichever server. A look-up takes no longer.
const HOLD: Duration = Duration::from_secs(5);
/// How many calls may ask the database at once.
const STATEMENTS: usize = 4;
/// How many look-ups there may be at once.
const LOOK_UPS: usize = 32;
/// The longest name of a redemption, in bytes.
const MAX_NAME: usize = 512;

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is not proven to be the provider's. Says why.
    Forged(&'static str),
    /// This server lacks a secret to verify it with.
    NoSecret,
    /// It cannot be acted upon now; the provider may repeat it.
    Unavailable,
}

impl Refused {
    /// The word for it, in metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Forged(why) => why,
            Self::NoSecret => "no_secret",
            Self::Unavailable => "unavailable",
        }
    }
}

/// The webhooks that this server serves. Cheap to clone.
#[derive(Clone)]
pub struct Webhooks(Arc<Inner>);

struct Inner {
    store: Store,
    redeem: Redeem,
    reconciler: Reconciler,
    routes: Routes,
    heard: Heard,
    statements: Semaphore,
    look_ups: Semaphore,
    closing: CancellationToken,
}

impl Webhooks {
    /// Those of the profiles that `store` has. What they are about is looked up by `reconciler`, or by `redeem` where
    /// this server sends it.
    pub fn new(
        store: Store,
        redeem: Redeem,
        reconciler: Reconciler,
        closing: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            redeem,
            reconciler,
            routes: Routes::default(),
            heard: Heard::default(),
            statements: Semaphore::new(STATEMENTS),
            look_ups: Semaphore::new(LOOK_UPS),
            closing,
        }))
    }

    /// Keeps the paths up to date, until this server closes. The secrets are files in `secrets_dir`.
    pub async fn run(self, secrets_dir: Option<PathBuf>) {
        let Inner { store, routes, closing, .. } = &*self.0;
        routes.keep(store, secrets_dir, closing.clone()).await;
    }

    /// What serves a path. No statement is run for it.
    pub fn hook(&self, path: &str) -> Result<Option<Arc<Hook>>, NotReady> {
        self.0.routes.get(path)
    }

    /// Acts upon a call that was sent whole, if it is the provider's. No statement is run before that is proven.
    pub async fn hear(
        &self,
        hook: &Hook,
        headers: &[(String, String)],
        body: &str,
    ) -> Result<(), Refused> {
        let now = OffsetDateTime::now_utc();
        let secrets = hook.secrets.read(&hook.names).map_err(|_| Refused::NoSecret)?;
        let found = hook.webhook.hear(&secrets, headers, body, now);
        let found = found.map_err(|why| Refused::Forged(why.as_str()))?;
        let outcome = match about(hook, &found) {
            Some(about) => self.act(about).await?,
            None => "nothing",
        };
        metrics::counter!("holdfast_webhooks_total", "outcome" => outcome).increment(1);
        Ok(())
    }

    async fn act(&self, about: About) -> Result<&'static str, Refused> {
        let round = match self.0.heard.note(&about) {
            Noted::First(round) => round,
            Noted::Again => return Ok("repeated"),
            Noted::Full => return Err(Refused::Unavailable),
        };
        let open = self.0.find(&about).await.map_err(|error| {
            tracing::debug!(%error, "a webhook's redemption could not be read");
            Refused::Unavailable
        })?;
        let outcome = if open.is_some() { "woken" } else { "nothing" };
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            let closing = inner.closing.clone();
            Box::pin(closing.run_until_cancelled(inner.follow(round, open))).await;
        });
        Ok(outcome)
    }
}

impl Hook {
    /// Checks what can be before the body is read.
    pub fn admits(&self, headers: &[(String, String)]) -> Result<(), Refused> {
        let admitted = self.webhook.admits(headers, OffsetDateTime::now_utc());
        admitted.map_err(|why| Refused::Forged(why.as_str()))
    }
}

/// What a call is about, by the first of its names that can be one of a redemption.
fn about(hook: &Hook, found: &[(&'static str, String)]) -> Option<About> {
    let named = |wanted: &str| {
        let named = found.iter().find(|(what, _)| *what == wanted);
        named.map(|(_, text)| text.as_str()).filter(|text| (1..=MAX_NAME).contains(&text.len()))
    };
    let by_key = named("key").and_then(|key| hook.key.read(key)).map(|key| match key {
        KeyOf::Redemption(id) => By::Id(id),
        KeyOf::Holder(key) => By::Key(key),
    });
    // What the provider calls its work is the task before it is anything else.
    let by_task = || named("task").or(named("ref")).map(|task| By::Task(task.to_owned()));
    let provider_id = hook.provider_id.clone();
    by_key.or_else(by_task).map(|by| About { provider_id, by })
}

impl Inner {
    /// The redemption that a call is about, if its outcome is not known.
    async fn find(&self, about: &About) -> Result<Option<OpenRedemption>, Error> {
        let _permit = self.statements.acquire().await.map_err(|_| Error::Overloaded)?;
        let About { provider_id, by } = about;
        let id = match by {
            By::Task(task) => return Ok(self.store.find_open_by_task(provider_id, task).await?),
            By::Id(id) => Some(*id),
            By::Key(key) => self.store.get_id_of_key(provider_id, key).await?,
        };
        match id {
            Some(id) => Ok(self.store.find_open_by_id(provider_id, id).await?),
            None => Ok(None),
        }
    }

    /// Looks up what a call is about, and once more after the hold for all calls that came meanwhile.
    async fn follow(&self, mut round: Round, mut open: Option<OpenRedemption>) {
        loop {
            if let Some(open) = &open
                && !self.look_up(open).await
            {
                round.repeat();
            }
            sleep(HOLD).await;
            if !round.goes_on() {
                return;
            }
            open = self.find(round.about()).await.unwrap_or_else(|error| {
                tracing::debug!(%error, "a webhook's redemption could not be read");
                None
            });
        }
    }

    /// Looks a redemption up. False: a server asks about it now, and it is to be looked up after that.
    async fn look_up(&self, open: &OpenRedemption) -> bool {
        let OpenRedemption { pool_id, redemption_id, is_held } = open;
        let outcome = match self.look_up_now(open).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => return !is_held,
            Err(error) => {
                tracing::warn!(%pool_id, %redemption_id, %error, "a redemption that its provider called about could not be looked up; its check comes when it is due");
                "failed"
            }
        };
        metrics::counter!("holdfast_webhook_look_ups_total", "outcome" => outcome).increment(1);
        true
    }

    /// `None`: it is not this server's to look up.
    async fn look_up_now(&self, open: &OpenRedemption) -> Result<Option<&'static str>, Error> {
        let OpenRedemption { pool_id, redemption_id, .. } = open;
        if self.redeem.poll_now(*redemption_id) {
            return Ok(Some("polled"));
        }
        let _permit = self.look_ups.acquire().await.map_err(|_| Error::Overloaded)?;
        let claimed = self.store.claim_early_check(pool_id, *redemption_id, HOLD).await?;
        let Some(early) = claimed else { return Ok(None) };
        let is_settled = self.reconciler.check_early(&early).await?;
        if is_settled {
            tracing::info!(%pool_id, %redemption_id, "looked up because its provider called: the outcome is known");
        }
        Ok(Some(if is_settled { "settled" } else { "not_yet" }))
    }
}
