//! One POST: signed, sent, judged.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{sync::Semaphore, time::Instant};
use url::Url;

use crate::{
    domain::{
        id::{PoolId, SubscriptionId},
        subscription::{
            DeliveryId,
            verdict::{Answer, Verdict},
        },
    },
    provider::receiver::{Post, Receivers},
    secret::{SecretKeys, SigningSecret, Undecryptable},
    store::delivery::Claimed,
};

/// What binds a secret to its subscription. No account's credentials have it.
pub(in crate::service) fn context(pool_id: &PoolId, id: &SubscriptionId) -> Vec<u8> {
    format!("subscription/{pool_id}/{id}").into_bytes()
}

/// Sends the deliveries of one subscription. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Sender(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    receivers: Receivers,
    /// How many are under way on this server at once.
    permits: Arc<Semaphore>,
    url: Url,
    secret: SigningSecret,
    /// Signs too, until then.
    secret_before: Option<(SigningSecret, Instant)>,
}

/// Why nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unusable {
    #[error("its secret cannot be decrypted by this server")]
    Secret,
    #[error("its URL is none")]
    Url,
}

impl From<Undecryptable> for Unusable {
    fn from(_: Undecryptable) -> Self {
        Self::Secret
    }
}

impl Sender {
    pub(super) fn new(
        claimed: &Claimed,
        keys: &SecretKeys,
        receivers: Receivers,
        permits: Arc<Semaphore>,
    ) -> Result<Self, Unusable> {
        let context = context(&claimed.claim.pool_id, &claimed.claim.subscription_id);
        let open = |sealed: &[u8]| {
            let opened = keys.decrypt_credentials(&context, sealed)?;
            SigningSecret::of_credentials(&opened).ok_or(Unusable::Secret)
        };
        let before = |(sealed, left): &(Vec<u8>, Duration)| {
            Ok::<_, Unusable>((open(sealed)?, Instant::now() + *left))
        };
        Ok(Self(Arc::new(Inner {
            receivers,
            permits,
            url: Url::parse(&claimed.url).map_err(|_| Unusable::Url)?,
            secret: open(&claimed.secret)?,
            secret_before: claimed.secret_before.as_ref().map(before).transpose()?,
        })))
    }

    /// Sends a delivery, when there is a permit.
    pub(super) async fn send(self, delivery_id: DeliveryId, body: String) -> Verdict {
        let Ok(_permit) = self.0.permits.acquire().await else {
            return Answer::None("this server stops".to_owned()).verdict();
        };
        let post =
            Post { url: self.0.url.clone(), headers: self.headers(&delivery_id, &body), body };
        let answer = match self.0.receivers.post(post).await {
            Ok((status, retry_after)) => Answer::Status(status, retry_after),
            Err(why) => Answer::None(why),
        };
        answer.verdict()
    }

    /// The headers of Standard Webhooks. Several signatures have spaces between them.
    fn headers(&self, delivery_id: &DeliveryId, body: &str) -> Vec<(String, String)> {
        // Receivers compare it with their own clock.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let timestamp = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let id = delivery_id.as_str();
        let mut signature = self.0.secret.sign(id, timestamp, body);
        if let Some((before, until)) = &self.0.secret_before
            && Instant::now() < *until
        {
            signature = format!("{signature} {}", before.sign(id, timestamp, body));
        }
        vec![
            ("webhook-id".to_owned(), id.to_owned()),
            ("webhook-timestamp".to_owned(), timestamp.to_string()),
            ("webhook-signature".to_owned(), signature),
        ]
    }
}
