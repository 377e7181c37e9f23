//! Clients as they are set up: what they may not do by themselves, and how long things may take.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use reqwest::{Client, redirect, retry};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use rustls_platform_verifier::BuilderVerifierExt as _;

use super::{super::profile::HttpSettings, Limits};

/// Connections that are kept while idle: as many as the redemptions that one batch may have in progress.
const MAX_IDLE: usize = 1024;
/// How long the other side may be silent before it is asked whether it lives. Then how often, and how many of these
/// questions may be without an answer. A redemption may wait longer than a router remembers a connection.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_QUESTIONS: u32 = 3;
/// How long what was written may wait for the other side to have it.
const UNHEARD: Duration = Duration::from_secs(30);
/// The most lines of an answer's head.
const MAX_HEADERS: usize = 100;
/// The longest head over HTTP/2, in bytes.
const MAX_HTTP2_HEAD_BYTES: u32 = 64 * 1024;
/// What each side may send over HTTP/2 before it is read: for one answer, and for all of a connection.
const HTTP2_WINDOW_BYTES: u32 = 64 * 1024;
const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
const UNTRUSTING: &str = "the certificates that this machine trusts cannot be read";

/// A client that does nothing by itself. Without `reuse`, every HTTP/1.1 connection carries one request.
pub(super) fn client(
    limits: &Limits,
    tls: Option<&ClientConfig>,
    reuse: bool,
) -> anyhow::Result<Client> {
    let mut client = Client::builder()
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .referer(false)
        .retry(retry::never())
        .no_proxy()
        .connect_timeout(limits.connect)
        .timeout(limits.whole)
        .pool_idle_timeout(limits.idle)
        .pool_max_idle_per_host(if reuse { MAX_IDLE } else { 0 })
        .tcp_nodelay(true)
        .tcp_keepalive(KEEPALIVE)
        .tcp_keepalive_interval(KEEPALIVE)
        .tcp_keepalive_retries(KEEPALIVE_QUESTIONS)
        .http1_max_headers(MAX_HEADERS)
        .http2_max_header_list_size(MAX_HTTP2_HEAD_BYTES)
        .http2_initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .http2_initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEPALIVE)
        .http2_keep_alive_timeout(UNHEARD);
    #[cfg(target_os = "linux")]
    {
        client = client.tcp_user_timeout(UNHEARD);
    }
    let mut tls = tls.map_or_else(trusting_nobody, |tls| Ok(tls.clone()))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    client.tls_backend_preconfigured(tls).build().context("reqwest refuses its settings")
}

/// For a server without TLS: a machine that has no certificates installed will do.
fn trusting_nobody() -> anyhow::Result<ClientConfig> {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .context("rustls has no protocol")?;
    Ok(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// TLS with the certificates that this machine trusts.
pub(super) fn tls_of_machine() -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder().with_platform_verifier().context(UNTRUSTING)?;
    Ok(builder.with_no_client_auth())
}

/// TLS as a profile says: with the certificates that it names, or those that this machine trusts; and with our own
/// certificate, where it names one.
pub(in crate::provider) fn tls_of(settings: &HttpSettings) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder();
    let builder = match &settings.ca_file {
        None => builder.with_platform_verifier().context(UNTRUSTING)?,
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).with_context(|| {
                    format!("{} holds a certificate that cannot be used", file.display())
                })?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let Some((chain, key)) = &settings.client_cert else {
        return Ok(builder.with_no_client_auth());
    };
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("{} holds no private key in PEM", key.display()))?;
    builder
        .with_client_auth_cert(certificates(chain)?, key)
        .context("the client's certificate and its key do not fit each other")
}

/// The certificates in a PEM file, at least one.
fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    let found =
        read().with_context(|| format!("{} cannot be read as certificates", file.display()))?;
    ensure!(!found.is_empty(), "{} holds no certificate in PEM", file.display());
    Ok(found)
}
