//! A provider over HTTP/2 that takes every call and never answers: what waits for it is measured elsewhere.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

/// More calls of one connection than wait at once.
const MAX_STREAMS: u32 = 16_384;

/// A provider that listens until this is dropped.
pub(crate) struct SilentProvider {
    pub(crate) url: String,
    /// The certificate that signed the provider's, in PEM.
    pub(crate) ca_file: PathBuf,
    _folder: TempDir,
    _connections: JoinSet<()>,
}

impl SilentProvider {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("holdfast-bench-").tempdir()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, authority.pem())?;
        let acceptor = acceptor(&authority)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://localhost:{}", listener.local_addr()?.port());
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                // One that fails is opened again, or missed by whoever counts the calls.
                open.spawn(take_calls(acceptor.clone(), tcp));
            }
        });
        Ok(Self { url, ca_file, _folder: folder, _connections: connections })
    }
}

fn acceptor(authority: &CertifiedIssuer<'_, KeyPair>) -> anyhow::Result<TlsAcceptor> {
    let key = KeyPair::generate()?;
    let params = CertificateParams::new(vec!["localhost".to_owned()])?;
    let certificate = params.signed_by(&key, authority)?.der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).ok().context("a key that is none")?;
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn take_calls(acceptor: TlsAcceptor, tcp: TcpStream) -> anyhow::Result<()> {
    let tls = acceptor.accept(tcp).await?;
    let mut http2 = h2::server::Builder::new();
    let mut connection =
        http2.max_concurrent_streams(MAX_STREAMS).handshake::<_, bytes::Bytes>(tls).await?;
    let mut waiting = JoinSet::new();
    while let Some(call) = connection.accept().await {
        let (mut request, answering) = call?;
        waiting.spawn(async move {
            while let Some(Ok(bytes)) = request.body_mut().data().await {
                if request.body_mut().flow_control().release_capacity(bytes.len()).is_err() {
                    return;
                }
            }
            std::future::pending::<()>().await;
            drop(answering);
        });
    }
    Ok(())
}
