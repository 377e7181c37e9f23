//! Webhooks: the provider calls its customer when something has ended. Signed; sometimes lost, sometimes repeated.

use std::time::Duration;

use anyhow::Context as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Client;
use sha2::Sha256;
use time::OffsetDateTime;

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where calls go, and what they are signed with.
pub(super) struct Webhooks {
    client: Client,
    url: String,
    secret: String,
}

impl Webhooks {
    pub(super) fn new(url: &str, secret: Option<&str>) -> anyhow::Result<Self> {
        // Fails only where one is installed already, which is then the one that is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().no_proxy().timeout(TIMEOUT).build();
        let client = client.context("the HTTP client of the webhooks cannot be made")?;
        Ok(Self { client, url: url.to_owned(), secret: secret.unwrap_or_default().to_owned() })
    }

    /// Calls once. What is answered changes nothing: whoever did not hear it can ask.
    pub(super) async fn send(&self, body: &str) {
        let time = OffsetDateTime::now_utc().unix_timestamp().to_string();
        let call = self
            .client
            .post(&self.url)
            .header("content-type", "application/json")
            .header("x-webhook-signature", self.sign(&time, body))
            .header("x-webhook-time", time)
            .body(body.to_owned());
        match call.send().await {
            Ok(answer) => tracing::debug!(status = answer.status().as_u16(), "webhook sent"),
            Err(error) => tracing::debug!(%error, "a webhook could not be sent"),
        }
    }

    /// HMAC-SHA256 over the time, a point and the body, in hex.
    fn sign(&self, time: &str, body: &str) -> String {
        // Keys of any length are taken.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()) else {
            return String::new();
        };
        mac.update(format!("{time}.{body}").as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }
}
