//! One connection over HTTP/1.1, for a time that is bounded.

use std::{error::Error as StdError, pin::pin, time::Duration};

use hyper::{
    body::{Body, Incoming},
    server::conn::http1,
    service::HttpService,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    ConnectionPermit, Peer,
    tls::{Link, Tls},
};

/// How long the head of a request may take, and how long a connection may wait for one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the answer that is under way may still take when the connection's time is over.
const LAST_ANSWER: Duration = Duration::from_secs(5);
/// The most bytes that are read before they are needed; the head of a request has to fit.
const BUFFER: usize = 16 * 1024;

/// Serves a connection, after the handshake where there is TLS, until it ends, for at most `max_age`, or until `stop`.
/// The next request opens another. `service` is told who is at the other end.
pub async fn serve<S>(
    stream: TcpStream,
    _permit: ConnectionPermit,
    tls: Option<Tls>,
    service: impl FnOnce(&Peer) -> S,
    max_age: Duration,
    stop: CancellationToken,
) where
    S: HttpService<Incoming>,
    S::Error: Into<Box<dyn StdError + Send + Sync>>,
    S::ResBody: 'static,
    <S::ResBody as Body>::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let link = match tls {
        Some(tls) => tls.accept(stream).await,
        None => Some(Link::plain(stream)),
    };
    let Some(link) = link else { return };
    let service = service(link.peer());
    let mut served = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(BUFFER)
            .serve_connection(TokioIo::new(link), service)
    );
    let ended = tokio::select! {
        ended = &mut served => Some(ended),
        _ = timeout(max_age, stop.cancelled()) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            timeout(LAST_ANSWER, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection over HTTP/1.1 ended early");
    }
}
