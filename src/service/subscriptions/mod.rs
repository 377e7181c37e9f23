//! Subscriptions: outcomes, sent to a URL as they are recorded. People make and change them here; `deliver` sends.

mod body;
pub mod deliver;
mod deliverer;
mod sending;

use std::time::Duration;

pub(super) use self::sending::context;
use crate::{
    domain::{
        http_url::http_url,
        id::{PoolId, SubscriptionId},
        page::Page,
        principal::Authority,
        subscription::{
            Delivery, DeliveryId, MAX_SUBSCRIPTIONS, MAX_URL, NotTaken, Subscription,
            SubscriptionChange, Terms,
        },
    },
    secret::{SecretKeys, SigningSecret},
    service::{
        error::{Error, Violation},
        keys,
        pools::Pools,
        watching::{After, Watching},
    },
    store::{Store, StoreError},
};

/// How often a change of a subscription that others change too is tried.
const MAX_UPDATES: u32 = 5;

/// The keeping of subscriptions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Subscriptions {
    store: Store,
    pools: Pools,
    secret: SecretKeys,
    watching: Watching,
}

impl Subscriptions {
    /// The subscriptions of a store, which get what `watching` tells.
    pub fn new(store: Store, pools: Pools, secret: SecretKeys, watching: Watching) -> Self {
        Self { store, pools, secret, watching }
    }

    /// Makes a subscription.
    pub async fn create(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
        terms: &Terms,
        after: After,
        by: &Authority,
    ) -> Result<(Subscription, SigningSecret), Error> {
        check(terms)?;
        self.pools.settings(pool_id).await?;
        let cursor = self.watching.begin(pool_id, after).await?.cursor(pool_id);
        let secret = SigningSecret::generate();
        let insert = async |sealed: Vec<u8>| {
            self.store.insert_subscription(pool_id, id, terms, (&sealed, &cursor), by).await
        };
        // Once more with the key that is current by now, where the database refuses the one that was.
        let made = match insert(self.sealed(pool_id, id, &secret)).await {
            Err(StoreError::KeyChanged) => {
                keys::catch_up(&self.store, &self.secret).await?;
                insert(self.sealed(pool_id, id, &secret)).await?
            }
            made => made?,
        };
        match made {
            Some(subscription) => Ok((subscription, secret)),
            None => Err(self.why_not_made(pool_id, id).await?),
        }
    }

    async fn why_not_made(&self, pool_id: &PoolId, id: &SubscriptionId) -> Result<Error, Error> {
        // The pool may have been deleted since its settings were read.
        self.pools.get(pool_id).await?;
        Ok(match self.store.get_subscription(pool_id, id).await? {
            Some(_) => Error::SubscriptionExists(pool_id.clone(), id.clone()),
            None => Error::TooManySubscriptions(pool_id.clone(), MAX_SUBSCRIPTIONS),
        })
    }

    /// Reads a subscription.
    pub async fn get(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
    ) -> Result<(Subscription, NotTaken), Error> {
        let subscription = self.read(pool_id, id).await?;
        Ok((subscription, self.store.count_deliveries(pool_id, id).await?))
    }

    /// Lists the subscriptions of a pool after `after`, at most `limit`.
    pub async fn list(
        &self,
        pool_id: &PoolId,
        after: &str,
        limit: i64,
    ) -> Result<Page<Subscription>, Error> {
        self.pools.settings(pool_id).await?;
        Ok(self.store.list_subscriptions(pool_id, after, limit).await?)
    }

    /// Changes a subscription.
    pub async fn update(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
        change: SubscriptionChange,
        by: &Authority,
    ) -> Result<Subscription, Error> {
        // Once more when another change came between the read and this one.
        for _ in 0..MAX_UPDATES {
            let now = self.read(pool_id, id).await?;
            let terms = change.clone().apply(&now.terms);
            check(&terms)?;
            if let Some(subscription) = self.store.update_subscription(&now, &terms, by).await? {
                return Ok(subscription);
            }
        }
        Err(Error::Overloaded)
    }

    /// Gives a subscription another secret.
    pub async fn rotate(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
        overlap: Duration,
        by: &Authority,
    ) -> Result<(Subscription, SigningSecret), Error> {
        let secret = SigningSecret::generate();
        let change = async |sealed: Vec<u8>| {
            self.store.rotate_subscription_secret(pool_id, id, &sealed, overlap, by).await
        };
        // As above.
        let changed = match change(self.sealed(pool_id, id, &secret)).await {
            Err(StoreError::KeyChanged) => {
                keys::catch_up(&self.store, &self.secret).await?;
                change(self.sealed(pool_id, id, &secret)).await?
            }
            changed => changed?,
        };
        let subscription = changed.ok_or_else(|| not_found(pool_id, id))?;
        Ok((subscription, secret))
    }

    /// Deletes a subscription.
    pub async fn delete(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
        by: &Authority,
    ) -> Result<(), Error> {
        match self.store.delete_subscription(pool_id, id, by).await? {
            true => Ok(()),
            false => Err(not_found(pool_id, id)),
        }
    }

    /// Lists deliveries that were not taken, after `after`, at most `limit`.
    pub async fn deliveries(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
        is_dead: Option<bool>,
        after: &str,
        limit: i64,
    ) -> Result<Page<Delivery>, Error> {
        self.read(pool_id, id).await?;
        Ok(self.store.list_deliveries(pool_id, id, is_dead, after, limit).await?)
    }

    /// Lets deliveries be tried now: these, or all dead letters where none is named. Answers how many.
    pub async fn retry(
        &self,
        pool_id: &PoolId,
        id: &SubscriptionId,
        deliveries: &[DeliveryId],
        by: &Authority,
    ) -> Result<i64, Error> {
        self.read(pool_id, id).await?;
        let named = (!deliveries.is_empty()).then_some(deliveries);
        Ok(self.store.retry_deliveries(pool_id, id, named, by).await?)
    }

    async fn read(&self, pool_id: &PoolId, id: &SubscriptionId) -> Result<Subscription, Error> {
        let found = self.store.get_subscription(pool_id, id).await?;
        found.ok_or_else(|| not_found(pool_id, id))
    }

    fn sealed(&self, pool_id: &PoolId, id: &SubscriptionId, secret: &SigningSecret) -> Vec<u8> {
        self.secret.encrypt_credentials(&context(pool_id, id), &secret.to_credentials())
    }
}

fn not_found(pool_id: &PoolId, id: &SubscriptionId) -> Error {
    Error::SubscriptionNotFound(pool_id.clone(), id.clone())
}

fn check(terms: &Terms) -> Result<(), Error> {
    let wrong = |rule: &str| Err(Error::Invalid(vec![Violation::new("subscription.url", rule)]));
    if terms.url.len() > MAX_URL {
        return wrong("must be at most 2048 bytes long");
    }
    match http_url(&terms.url, terms.allow_plain) {
        Ok(url) if url.port() == Some(0) => wrong("has the port 0, to which nothing can be sent"),
        // What is stored is what is sent to.
        Ok(url) if url.as_str() != terms.url => wrong(&format!("must be written as {url}")),
        Ok(_) => Ok(()),
        Err(why) => wrong(why),
    }
}
