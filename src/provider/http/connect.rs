//! Connections: names, addresses, TLS.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use anyhow::Context as _;
use bytes::BytesMut;
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use rustix::net::{RecvFlags, recv, sockopt};
use rustls::{ClientConfig, pki_types::ServerName};
use rustls_platform_verifier::ConfigVerifierExt as _;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpStream, lookup_host},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use url::{Host, Url};

/// How long one address of a name may take before the next one is tried beside it.
const NEXT_ADDRESS: Duration = Duration::from_millis(300);
/// How long the other side may be silent before it is asked whether it lives. Then how often, and how many of these
/// questions may be without an answer. A redemption may wait longer than a router remembers a connection.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_QUESTIONS: u32 = 3;
/// How long what was written may wait for the other side to have it.
#[cfg(target_os = "linux")]
const UNHEARD: Duration = Duration::from_secs(30);
/// The most that is read at once.
const READ_BYTES: usize = 8 * 1024;

/// Makes connections to one server.
pub(super) struct Connector {
    host: Host<String>,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(
        base: &Url,
        tls: Option<ClientConfig>,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let host = base.host().context("the provider's URL has no host")?.to_owned();
        let port = base.port_or_known_default().context("the provider's URL has no port")?;
        let tls = tls
            .map(|mut config| {
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                Ok::<_, anyhow::Error>((TlsConnector::from(Arc::new(config)), server_name(&host)?))
            })
            .transpose()?;
        Ok(Self { host, port, tls, timeout })
    }

    /// Connects, in the time that there is for it. The error says why not.
    pub(super) async fn connect(&self) -> Result<Connection, String> {
        match timeout(self.timeout, self.connect_to_any()).await {
            Ok(connected) => connected.map_err(|error| format!("it cannot be connected: {error}")),
            Err(_) => Err("it cannot be connected: no answer in time".to_owned()),
        }
    }

    async fn connect_to_any(&self) -> io::Result<Connection> {
        let port = self.port;
        let addrs = match &self.host {
            Host::Ipv4(ip) => vec![SocketAddr::from((*ip, port))],
            Host::Ipv6(ip) => vec![SocketAddr::from((*ip, port))],
            Host::Domain(name) => lookup_host((name.as_str(), port)).await?.collect(),
        };
        let tcp = first_to_connect(addrs).await?;
        prepare(&tcp)?;
        match &self.tls {
            None => Ok(Connection::new(tcp)),
            Some((tls, name)) => Ok(Connection::new(tls.connect(name.clone(), tcp).await?)),
        }
    }
}

/// TLS with the certificates that this machine trusts.
pub(super) fn as_this_machine_trusts() -> anyhow::Result<ClientConfig> {
    ClientConfig::with_platform_verifier()
        .context("the certificates that this machine trusts cannot be read")
}

fn server_name(host: &Host<String>) -> anyhow::Result<ServerName<'static>> {
    Ok(match host {
        Host::Ipv4(ip) => ServerName::IpAddress((*ip).into()),
        Host::Ipv6(ip) => ServerName::IpAddress((*ip).into()),
        Host::Domain(name) => ServerName::try_from(name.clone())
            .context("the provider's host name cannot be in a certificate")?,
    })
}

/// Tries one address after the other, each beside those before when these take long.
async fn first_to_connect(addrs: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut addrs = addrs.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut error = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    loop {
        if let Some(addr) = addrs.next() {
            under_way.push(TcpStream::connect(addr));
        } else if under_way.is_empty() {
            return Err(error);
        }
        loop {
            tokio::select! {
                Some(tried) = under_way.next() => match tried {
                    Ok(tcp) => return Ok(tcp),
                    Err(why) => error = why,
                },
                () = sleep(NEXT_ADDRESS), if addrs.len() > 0 => {}
            }
            // Until the last address has been tried there is one more to begin; then all are waited for.
            if addrs.len() > 0 || under_way.is_empty() {
                break;
            }
        }
    }
}

fn prepare(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    sockopt::set_socket_keepalive(tcp, true)?;
    sockopt::set_tcp_keepidle(tcp, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(tcp, KEEPALIVE)?;
    sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_QUESTIONS)?;
    #[cfg(target_os = "linux")]
    sockopt::set_tcp_user_timeout(tcp, u32::try_from(UNHEARD.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {
    /// The socket, where every byte that comes on it is the server's word.
    fn plain(&self) -> Option<&TcpStream>;
}

impl Io for TcpStream {
    fn plain(&self) -> Option<&TcpStream> {
        Some(self)
    }
}

impl Io for TlsStream<TcpStream> {
    fn plain(&self) -> Option<&TcpStream> {
        None
    }
}

/// A connection to the server, with TLS or without.
pub(super) struct Connection {
    io: Box<dyn Io>,
    /// Whether a request was written on it.
    is_used: bool,
}

impl Connection {
    pub(super) fn new(io: impl Io + 'static) -> Self {
        Self { io: Box::new(io), is_used: false }
    }

    /// Whether a request was written on it.
    pub(super) fn is_used(&self) -> bool {
        self.is_used
    }

    /// Writes a request. Fails when anything comes before the last of it was written: that is no answer
    /// to it.
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let written = poll_fn(|context| {
                // Before the first part the caller has made sure.
                let is_broken_into = left.len() < bytes.len() && self.is_broken_into(context);
                self.is_used = true;
                if is_broken_into {
                    let why = "the server spoke before it had the whole request";
                    return Poll::Ready(Err(io::Error::other(why)));
                }
                Pin::new(&mut self.io).poll_write(context, left)
            });
            match written.await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => left = &left[written..],
            }
        }
        self.io.flush().await
    }

    /// Reads what is there, or waits for it; 0 at the end. Nothing is allocated while it waits.
    pub(super) async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, into)).await
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        into: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); READ_BYTES];
        let mut space = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.io).poll_read(context, &mut space))?;
        into.extend_from_slice(space.filled());
        Poll::Ready(Ok(space.filled().len()))
    }

    /// Whether anything came; if not, the writer hears of it when it does.
    fn is_broken_into(&mut self, context: &mut Context<'_>) -> bool {
        !self.is_quiet() || self.poll_read(context, &mut BytesMut::new()).is_ready()
    }

    /// Whether nothing came, not even the end, since the last answer. Where it is not quiet it must be
    /// closed.
    pub(super) fn is_quiet(&mut self) -> bool {
        if let Some(tcp) = self.io.plain() {
            // The kernel is asked: the runtime may not have heard yet of what came a moment ago.
            let peeked = recv(tcp, &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
            return matches!(peeked, Err(rustix::io::Errno::AGAIN));
        }
        let mut surplus = BytesMut::new();
        self.poll_read(&mut Context::from_waker(Waker::noop()), &mut surplus).is_pending()
    }
}
