//! Connections that can be cut off, so that a request gets no answer at all.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{extract::connect_info::Connected, serve};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Accepts connections that are cut when `all` is cancelled, or each by its own [`Connection`].
pub(super) struct Listener {
    tcp: TcpListener,
    all: CancellationToken,
}

impl Listener {
    pub(super) fn new(tcp: TcpListener, all: CancellationToken) -> Self {
        Self { tcp, all }
    }
}

impl serve::Listener for Listener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        // axum's own way to accept outlives errors such as too many open files.
        let (tcp, addr) = serve::Listener::accept(&mut self.tcp).await;
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "a connection answers in its own time");
        }
        let cut = self.all.child_token();
        (Stream { tcp, is_cut: Box::pin(cut.clone().cancelled_owned()), cut }, addr)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// The connection that a request came by.
#[derive(Clone)]
pub(super) struct Connection(CancellationToken);

impl Connection {
    /// Cuts it: nothing more is read or written, and it closes.
    pub(super) fn cut(&self) {
        self.0.cancel();
    }
}

impl Connected<serve::IncomingStream<'_, Listener>> for Connection {
    fn connect_info(stream: serve::IncomingStream<'_, Listener>) -> Self {
        Self(stream.io().cut.clone())
    }
}

/// A TCP stream that fails once it is cut.
pub(super) struct Stream {
    tcp: TcpStream,
    cut: CancellationToken,
    /// Wakes a read that waits when the cut comes.
    is_cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Stream {
    fn check(&self) -> io::Result<()> {
        if self.cut.is_cancelled() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.cut.is_cancelled() && self.is_cut.as_mut().poll(cx).is_pending() {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
        }
        Poll::Ready(self.check())
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.check() {
            Ok(()) => Pin::new(&mut self.tcp).poll_write(cx, data),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.check() {
            Ok(()) => Pin::new(&mut self.tcp).poll_write_vectored(cx, data),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
