//! A provider over HTTP/2 that takes every call and never answers: what waits for it is measured elsewhere.

use std::{path::PathBuf, sync::Arc};

use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use crate::secure::Authority;

/// More calls of one connection than wait at once.
const MAX_STREAMS: u32 = 16_384;

/// A provider that listens until this is dropped.
pub(crate) struct SilentProvider {
    pub(crate) url: String,
    /// The certificate that signed the provider's, in PEM.
    pub(crate) ca_file: PathBuf,
    _authority: Authority,
    _connections: JoinSet<()>,
}

impl SilentProvider {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let authority = Authority::new()?;
        let acceptor = TlsAcceptor::from(Arc::new(authority.server()?));
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
        let ca_file = authority.ca_file.clone();
        Ok(Self { url, ca_file, _authority: authority, _connections: connections })
    }
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
