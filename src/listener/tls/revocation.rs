//! Lists of clients' certificates that their CA has revoked.

use std::{fmt, path::Path, pin::Pin, sync::Arc, task::Context};

use rustls::{
    CertificateError, Error,
    pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime, pem::PemObject as _},
    server::danger::ClientCertVerifier,
};
use tokio::sync::watch;
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer as _, revocation_list::CertificateRevocationList,
};

use super::Current;

/// The lists of a file.
pub(super) struct Lists {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    /// When the first of them expires, in seconds since 1970.
    pub(super) expires: i64,
}

/// The lists in a file's bytes. Each of the CAs needs one: nobody could say otherwise whether it revoked a certificate.
pub(super) fn lists_in(
    pem: &[u8],
    path: &Path,
    authorities: &[CertificateDer<'_>],
) -> Result<Lists, String> {
    let name = path.display();
    let lists = CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let lists = lists.map_err(|error| format!("{name} is no PEM of revocation lists: {error}"))?;
    let mut issuers = Vec::new();
    let mut expires = i64::MAX;
    for list in &lists {
        let (_, list) = CertificateRevocationList::from_der(list).map_err(|error| {
            format!("{name} holds a revocation list that cannot be read: {error}")
        })?;
        let until = list.next_update().ok_or_else(|| {
            format!(
                "{name} holds a revocation list of {} that does not say when the next is due",
                list.issuer()
            )
        })?;
        expires = expires.min(until.timestamp());
        issuers.push(list.tbs_cert_list.issuer.as_raw().to_vec());
    }
    for authority in authorities {
        // One that cannot be read is an error of its own file.
        let Ok((_, authority)) = X509Certificate::from_der(authority) else { continue };
        let subject = authority.subject();
        if !issuers.iter().any(|issuer| issuer == subject.as_raw()) {
            return Err(format!("{name} holds no revocation list of the CA {subject}"));
        }
    }
    Ok(Lists { lists, expires })
}

/// Whether a connection's certificate was revoked. `None`: it was.
pub(super) struct Revoked(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl fmt::Debug for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Revoked").finish_non_exhaustive()
    }
}

impl Revoked {
    /// Of a connection that was verified by what was in use then, or before.
    pub(super) fn new(
        mut current: watch::Receiver<Arc<Current>>,
        chain: Vec<CertificateDer<'static>>,
    ) -> Self {
        // As it was verified: a certificate that has expired since may be revoked all the same.
        let then = UnixTime::now();
        Self(Some(Box::pin(async move {
            while current.changed().await.is_ok() {
                let now = Arc::clone(&current.borrow_and_update());
                if now
                    .clients
                    .as_ref()
                    .is_some_and(|verifier| is_revoked(&**verifier, &chain, then))
                {
                    return;
                }
            }
            // The server is stopping.
            std::future::pending().await
        })))
    }

    /// Whether it was.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        if self.0.as_mut().is_some_and(|revoked| revoked.as_mut().poll(cx).is_ready()) {
            self.0 = None;
        }
        self.0.is_none()
    }
}

/// Whether a list has the certificate, or one between it and its CA. What else may be wrong with it by now ends no
/// connection: that is open, and goes on with what it began with.
fn is_revoked(
    verifier: &dyn ClientCertVerifier,
    chain: &[CertificateDer<'_>],
    then: UnixTime,
) -> bool {
    let Some((certificate, between)) = chain.split_first() else { return false };
    matches!(
        verifier.verify_client_cert(certificate, between, then),
        Err(Error::InvalidCertificate(CertificateError::Revoked))
    )
}
