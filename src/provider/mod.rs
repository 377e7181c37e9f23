//! All that is sent over HTTP: to the provider, whose answers are judged here, and to the receivers of outcomes.
//!
//! [`client::Provider`] makes one call at a time and reports what happened to it as an [`Answer`],
//! without judging. [`classify::classify`] is the judge: a pure function from an answer to the next
//! step. The two are separate, so that every rule can be read and tested by itself.

pub mod check;
pub mod classify;
pub mod client;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz;
mod http;
mod json;
pub mod profile;
pub mod question;
pub mod receiver;
mod scrub;
pub mod secrets;
mod tokens;

use std::{fmt, time::Duration};

use bytes::Bytes;

pub use classify::{Call, Doubt, Inquired, classify, of_line};
pub use client::{Asked, Provider, SecretValues};
pub use profile::Unusable;
pub use question::CallError;
pub use scrub::{codes_in, holds_code};

/// TLS as calls by a profile do it: to see whether its host can be reached, without asking it anything.
///
/// # Errors
/// When a file that the profile names cannot be used on this machine.
pub fn tls_of(profile: &profile::Profile) -> anyhow::Result<rustls::ClientConfig> {
    // Fails only where a provider is installed already, which is then the one that is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    http::connect::tls_of(&profile.http)
}

/// What happened to one call. Owned and raw: nothing has been concluded from it yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Proven never to have left: DNS, refused, TLS or connect timeout. Says which.
    NeverSent(String),
    /// Never to be sent: the profile asks for a value that is not there, or that cannot stand there.
    Unsendable(Unusable),
    /// It may have arrived, and no whole answer came back: timeout, reset, broken or oversized
    /// body. Says which.
    Lost(String),
    /// A whole answer.
    Http(HttpAnswer),
    /// An answer that came in pages.
    Pages {
        /// The pages, the first first.
        pages: Vec<HttpAnswer>,
        /// Whether these are all of them.
        is_whole: bool,
    },
}

impl Answer {
    /// Whether it is the provider's own failure, or that of somebody in between: asked later it may answer otherwise.
    fn is_own_failure(&self) -> bool {
        let status = match self {
            Self::Http(http) => Some(http.status),
            Self::Pages { pages, .. } => pages.last().map(|page| page.status),
            _ => None,
        };
        status.is_none_or(|status| status >= 500)
    }
}

/// A whole HTTP answer.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status code.
    pub status: u16,
    /// The `Retry-After` header, where it is given in seconds.
    pub retry_after: Option<Duration>,
    /// In how long there are more calls, where its headers say that none is left.
    pub quota_used_up: Option<Duration>,
    /// Whether its connection had carried no other request: then it can be an answer to no other.
    pub first_on_connection: bool,
    /// The body, at most [`client::MAX_BODY_BYTES`] long. It may repeat the card's code.
    pub body: Bytes,
}

impl HttpAnswer {
    fn as_answered(&self) -> profile::Answered<'_> {
        profile::Answered { status: self.status, body: &self.body, retry_after: self.retry_after }
    }
}

/// The body may hold a code, so only its length is shown.
impl fmt::Debug for HttpAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpAnswer")
            .field("status", &self.status)
            .field("retry_after", &self.retry_after)
            .field("quota_used_up", &self.quota_used_up)
            .field("first_on_connection", &self.first_on_connection)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}
