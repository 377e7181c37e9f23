//! Tokens: made, listed, revoked, and kept in memory by every server.
//!
//! A server asks every second whether tokens were changed, and reads them when they were. So one that is revoked stops
//! working everywhere within about a second, and a call never waits for the database to know who calls.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::{
    access::tokens::{TokenSecret, Tokens as InMemory},
    domain::{
        access::{Grants, Token},
        id::TokenName,
        page::Page,
        principal::Authority,
    },
    service::error::Error,
    store::{Store, StoreError},
};

/// How often it is asked whether tokens were changed.
const POLL: Duration = Duration::from_secs(1);
/// How often the last uses are written.
const NOTE_USE: Duration = Duration::from_secs(15);
/// The first token of a private Postgres.
const FIRST: &str = "local-admin";

/// The keeping of tokens. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tokens {
    store: Store,
    memory: InMemory,
}

impl Tokens {
    /// The tokens of a store.
    pub fn new(store: Store) -> Self {
        Self { store, memory: InMemory::default() }
    }

    /// Those that are valid.
    pub fn in_memory(&self) -> InMemory {
        self.memory.clone()
    }

    /// Makes a token. On this server it works at once.
    pub async fn create(
        &self,
        name: &TokenName,
        grants: &Grants,
        lifetime: Option<Duration>,
        by: &Authority,
    ) -> Result<(Token, TokenSecret), Error> {
        let secret = TokenSecret::generate();
        let made = self.store.insert_token(name, &secret.hash(), grants, by, lifetime).await?;
        let token = made.ok_or_else(|| Error::TokenExists(name.clone()))?;
        self.reread().await;
        Ok((token, secret))
    }

    /// Revokes a token. On this server it stops working at once.
    pub async fn revoke(&self, name: &TokenName, by: &Authority) -> Result<Token, Error> {
        let revoked = self.store.revoke_token(name, by).await?;
        let token = revoked.ok_or_else(|| Error::TokenNotFound(name.clone()))?;
        self.reread().await;
        Ok(token)
    }

    /// Lists tokens after `after`, at most `limit`.
    pub async fn list(&self, after: &str, limit: i64) -> Result<Page<Token>, Error> {
        Ok(self.store.list_tokens(after, limit).await?)
    }

    /// Lets a secret be the first token's, which may do everything. `is_new` says that it was made just now: it takes
    /// the place of an earlier one. One that was there before does not undo that the token was revoked.
    pub async fn put_first(&self, secret: &TokenSecret, is_new: bool) -> anyhow::Result<()> {
        let name = TokenName::parse(FIRST)?;
        let (hash, grants) = (secret.hash(), Grants::all());
        if is_new {
            self.store.put_token(&name, &hash, &grants, "").await?;
        } else {
            self.store.insert_token(&name, &hash, &grants, &Authority::default(), None).await?;
        }
        Ok(())
    }

    /// Reads the tokens that are valid.
    pub async fn read(&self) -> Result<(), StoreError> {
        let asked = Instant::now();
        let living = self.store.living_tokens().await?;
        let token = |token: crate::store::token::LivingToken| {
            (token.secret_hash, token.name, token.grants, token.expires_in)
        };
        self.memory.replace(living.into_iter().map(token), asked);
        Ok(())
    }

    /// What fails here is done by the next poll.
    async fn reread(&self) {
        if let Err(error) = self.read().await {
            tracing::warn!(%error, "the tokens cannot be read");
        }
    }

    /// Keeps the tokens in memory as they are in the database until `stop`, and notes there that they are used.
    pub async fn follow(self, stop: CancellationToken) {
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut is_read, mut noted_at) = (None, true, Instant::now());
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match self.poll(&mut seen).await {
                Ok(()) => is_read = true,
                Err(error) if std::mem::replace(&mut is_read, false) => {
                    tracing::warn!(%error, "it cannot be read which tokens are valid");
                }
                Err(_) => {}
            }
            if noted_at.elapsed() >= NOTE_USE {
                noted_at = Instant::now();
                self.note_use().await;
            }
        }
        self.note_use().await;
    }

    async fn poll(&self, seen: &mut Option<i64>) -> Result<(), StoreError> {
        let asked = Instant::now();
        let changes = self.store.token_changes().await?;
        if *seen == Some(changes) {
            self.memory.confirm(asked);
            return Ok(());
        }
        self.read().await?;
        *seen = Some(changes);
        Ok(())
    }

    async fn note_use(&self) {
        let used = self.memory.take_used();
        if used.is_empty() {
            return;
        }
        if let Err(error) = self.store.note_token_use(&used).await {
            tracing::debug!(%error, "the last use of tokens is not noted");
        }
    }
}
