//! A connection to a client, over TLS or not.

use std::{
    io::{IoSlice, Result},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
};
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use super::{
    super::{
        guarded::closed,
        peer::{Peer, PeerNames},
    },
    Current,
    revocation::Revoked,
};

/// See [the module](self).
#[derive(Debug)]
pub struct Link {
    io: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    peer: Peer,
    /// Whether the client's certificate was revoked since, where that may be.
    revoked: Option<Revoked>,
}

impl Link {
    /// A connection without TLS.
    pub fn plain(stream: TcpStream) -> Self {
        let peer = Peer { addr: stream.peer_addr().ok(), names: PeerNames::default() };
        Self { io: Either::Left(stream), peer, revoked: None }
    }

    /// A connection whose handshake went through. `lists`: where it is told what revokes certificates.
    pub(super) fn secure(
        stream: TlsStream<TcpStream>,
        lists: Option<&watch::Receiver<Arc<Current>>>,
    ) -> Self {
        let (tcp, tls) = stream.get_ref();
        let chain = tls.peer_certificates();
        let certificate = chain.and_then(<[_]>::first);
        let names = certificate.map(|it| PeerNames::of(it)).unwrap_or_default();
        let peer = Peer { addr: tcp.peer_addr().ok(), names };
        let revoked = chain.zip(lists).map(|(chain, lists)| {
            let chain = chain.iter().map(|it| it.clone().into_owned()).collect();
            Revoked::new(lists.clone(), chain)
        });
        Self { io: Either::Right(Box::new(stream)), peer, revoked }
    }

    /// Who is at its other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl AsyncRead for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        if self.revoked.as_mut().is_some_and(|revoked| revoked.poll(cx)) {
            return Poll::Ready(Err(closed("revoked")));
        }
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl Connected for Link {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}
