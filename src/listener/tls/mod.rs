//! TLS of a listener: the handshake, within a bound of time, and what it leaves of a connection.

mod files;
mod link;
mod reload;
mod revocation;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{ServerConfig, server::danger::ClientCertVerifier};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsAcceptor;

pub use self::{
    files::{ClientAuth, TlsSettings, certificate_end, read_identity, read_roots},
    link::Link,
    reload::Reload,
};
use super::Warning;

/// How long a handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// The most bytes that are read from a client whose handshake failed, so that it can read why.
const LAST_BYTES: usize = 64 * 1024;

/// What is in use now.
#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    /// What verifies clients' certificates.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// TLS of one listener. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls {
    current: watch::Receiver<Arc<Current>>,
    /// Whether clients' certificates may be revoked.
    revokes: bool,
    listener: &'static str,
    failures: Arc<Mutex<Warning>>,
}

impl Tls {
    fn new(current: watch::Receiver<Arc<Current>>, revokes: bool, listener: &'static str) -> Self {
        Self { current, revokes, listener, failures: Arc::default() }
    }

    /// The handshake of a connection, with the certificate that is in use now. `None` when it failed; that is counted.
    pub async fn accept(&self, stream: TcpStream) -> Option<Link> {
        let end = Instant::now() + HANDSHAKE_LIMIT;
        let config = Arc::clone(&self.current.borrow().config);
        let accept = TlsAcceptor::from(config).accept(stream).into_fallible();
        match timeout_at(end, accept).await {
            Ok(Ok(stream)) => {
                return Some(Link::secure(stream, self.revokes.then_some(&self.current)));
            }
            Ok(Err((error, stream))) => {
                self.note_failure(reason(&error), &error.to_string());
                let _ = timeout_at(end, close(stream)).await;
            }
            Err(_) => self.note_failure("slow", "the handshake did not end in time"),
        }
        None
    }

    fn note_failure(&self, reason: &'static str, error: &str) {
        let listener = self.listener;
        let failed = metrics::counter!(
            "holdfast_tls_handshakes_failed_total", "listener" => listener, "reason" => reason
        );
        failed.increment(1);
        // A check whether the port is open ends so: nothing is wrong.
        if reason == "closed" {
            tracing::debug!(listener, reason, error, "a TLS handshake failed");
            return;
        }
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.say(|times| {
            tracing::warn!(
                listener,
                reason,
                error,
                times,
                "TLS handshakes failed; this is the last"
            );
        });
    }
}

/// Closes a connection in such a way that its client can read the alert: what it sent is read, and not answered by a
/// reset.
async fn close(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    let mut left = LAST_BYTES;
    while left > 0 {
        match stream.read(&mut rest).await? {
            0 => break,
            bytes => left = left.saturating_sub(bytes),
        }
    }
    Ok(())
}

/// Why a handshake failed, as the metric has it.
fn reason(error: &io::Error) -> &'static str {
    use rustls::{CertificateError, Error as Tls};
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>());
    match tls {
        None => "closed",
        Some(Tls::InvalidMessage(_) | Tls::InappropriateMessage { .. }) => "not_tls",
        Some(Tls::PeerIncompatible(_) | Tls::NoApplicationProtocol) => "incompatible",
        Some(Tls::NoCertificatesPresented) => "no_certificate",
        Some(Tls::InvalidCertificate(CertificateError::Revoked)) => "revoked",
        Some(Tls::InvalidCertificate(_)) => "bad_certificate",
        Some(Tls::AlertReceived(_)) => "refused_by_client",
        Some(_) => "other",
    }
}
