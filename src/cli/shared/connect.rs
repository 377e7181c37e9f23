//! How a command reaches its server: TCP, TLS where the URL says so, and what goes wrong, in plain words.

use std::{
    error::Error as StdError,
    io::{Error, ErrorKind, Result},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, SignatureScheme,
    client::ResolvesClientCert,
    pki_types::ServerName,
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use rustls_platform_verifier::BuilderVerifierExt as _;
use time::OffsetDateTime;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, BufReader, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;

use crate::listener::tls::{certificate_end, read_identity, read_roots};

/// How long a server may take to say something over a connection. Over HTTP/2 it speaks without being asked.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long a server may take to refuse this client's certificate, before it is taken for one that does not.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);
/// What the alerts of TLS begin with. No frame of HTTP/2 that comes first does.
const ALERT: u8 = 0x15;

/// The files for a server whose URL begins with `https://`.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TlsArgs {
    /// A file with the CAs to trust, in PEM, for an https:// server. Those that this machine trusts, when not given.
    #[arg(long, env = "HOLDFAST_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// A file with this client's certificate, and those between it and its CA, in PEM, for a server that asks for one.
    #[arg(long, env = "HOLDFAST_CERT_FILE", value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,

    /// A file with the private key of --cert-file, in PEM.
    #[arg(long, env = "HOLDFAST_KEY_FILE", value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
}

/// What is wrong between a command and its server, where that is known.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(
        "something takes the connection there, and says nothing: the server hangs, or it is no gRPC server. See its log \
         and start it anew, or name another with --server"
    )]
    Silent,
    #[error("the server does not speak TLS: write http:// where it has none")]
    NoTls,
    #[error("the server speaks TLS: write https:// instead of http://")]
    Tls,
    #[error(
        "the server's certificate is signed by a CA that is not trusted here: name its CA with --ca-file, or see \
         whether this is the server that you mean"
    )]
    UnknownIssuer,
    #[error(
        "the server's certificate is for another name than {name}{}: use a name that it has",
        names.as_ref().map(|names| format!(" (it is for {names})")).unwrap_or_default()
    )]
    WrongName { name: String, names: Option<String> },
    #[error(
        "the server shows the certificate of a CA as its own: make it one that the CA signed, or one without CA:TRUE"
    )]
    IsCa,
    #[error("the server's certificate expired, or this machine's clock is wrong")]
    Expired,
    #[error("the server's certificate is not valid yet, or this machine's clock is wrong")]
    NotYetValid,
    #[error("the server wants a client certificate: give yours with --cert-file and --key-file")]
    WantsCertificate,
    #[error(
        "the server does not take this client's certificate ({0}): it must be signed by a CA that the server trusts, \
         for clients, and not be expired"
    )]
    RefusesCertificate(String),
    #[error("TLS with the server failed: {0}")]
    Other(rustls::Error),
}

impl Trouble {
    /// What is wrong, if an error has that anywhere in it.
    pub(crate) fn of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        anyhow::Chain::new(error).find_map(|error| {
            // The source of such an error is that of what is in it.
            error.downcast_ref::<Error>()?.get_ref()?.downcast_ref()
        })
    }
}

/// Connects to one server.
#[derive(Clone)]
pub(crate) struct Connect {
    tls: Option<(TlsConnector, Arc<OwnCertificate>)>,
    /// Whether the first byte was an alert of TLS, where it has none, once it has come.
    first: watch::Sender<Option<bool>>,
}

/// This client's certificate, and whether the server asked for one.
#[derive(Debug)]
struct OwnCertificate {
    certificate: Option<Arc<CertifiedKey>>,
    was_asked: AtomicBool,
}

impl TlsArgs {
    /// The files that are given.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.open_files().map(|(_, file)| file).chain(self.key_file())
    }

    /// Those that anybody may read, with the options that name them.
    pub(super) fn open_files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [("--ca-file", &self.ca_file), ("--cert-file", &self.cert_file)];
        files.into_iter().filter_map(|(option, file)| Some((option, file.as_deref()?)))
    }

    /// The file of this client's private key.
    pub(super) fn key_file(&self) -> Option<&Path> {
        self.key_file.as_deref()
    }

    /// Those that trust the CAs in a file.
    pub(crate) fn trusting(ca_file: &std::path::Path) -> Self {
        Self { ca_file: Some(ca_file.to_owned()), ..Self::default() }
    }

    /// Until when this client's certificate is valid, where there is one.
    pub(super) fn own_certificate_end(&self) -> anyhow::Result<Option<OffsetDateTime>> {
        let Some((cert_file, key_file)) = self.cert_file.as_ref().zip(self.key_file.as_ref())
        else {
            return Ok(None);
        };
        let (chain, _) = read_identity(cert_file, key_file).map_err(anyhow::Error::msg)?;
        let own = chain.first().context("the file has no certificate")?;
        certificate_end(own).map(Some).map_err(anyhow::Error::msg)
    }

    /// How to connect to a URL of one of the two schemes.
    ///
    /// # Errors
    /// When a file cannot be used, or is given for a server without TLS.
    pub(crate) fn connect(&self, url: &str) -> anyhow::Result<Connect> {
        let (first, _) = watch::channel(None);
        if url.starts_with("http://") {
            let given = [&self.ca_file, &self.cert_file, &self.key_file];
            anyhow::ensure!(
                given.iter().all(|file| file.is_none()),
                "--ca-file, --cert-file and --key-file are for a server with TLS: write https:// instead of http:// \
                 in {url}, or leave them out"
            );
            return Ok(Connect { tls: None, first });
        }
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&ring))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .context("rustls has no protocol")?;
        let builder = match &self.ca_file {
            Some(file) => builder.with_root_certificates(
                read_roots(file).map_err(|why| anyhow::anyhow!("--ca-file: {why}"))?,
            ),
            None => builder.with_platform_verifier().context(
                "the CAs that this machine trusts cannot be read: name one with --ca-file",
            )?,
        };
        let certificate = match (&self.cert_file, &self.key_file) {
            (Some(cert_file), Some(key_file)) => {
                let (chain, key) = read_identity(cert_file, key_file)
                    .map_err(|why| anyhow::anyhow!("this client's certificate: {why}"))?;
                let pair = CertifiedKey::from_der(chain, key, &ring)
                    .context("--cert-file and --key-file do not fit each other")?;
                Some(Arc::new(pair))
            }
            _ => None,
        };
        let own = Arc::new(OwnCertificate { certificate, was_asked: AtomicBool::new(false) });
        let mut config = builder.with_client_cert_resolver(Arc::clone(&own) as _);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Connect { tls: Some((TlsConnector::from(Arc::new(config)), own)), first })
    }
}

impl ResolvesClientCert for OwnCertificate {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.was_asked.store(true, Ordering::Relaxed);
        self.certificate.clone().filter(|pair| pair.key.choose_scheme(schemes).is_some())
    }

    fn has_certs(&self) -> bool {
        self.certificate.is_some()
    }
}

impl OwnCertificate {
    /// What an alert of a server means that asked for a certificate.
    fn trouble(&self, error: rustls::Error) -> Trouble {
        use AlertDescription as Alert;
        match error {
            rustls::Error::AlertReceived(alert) if self.was_asked.load(Ordering::Relaxed) => {
                match (alert, &self.certificate) {
                    (Alert::CertificateRequired, _) | (_, None) => Trouble::WantsCertificate,
                    (alert, Some(_)) => Trouble::RefusesCertificate(format!("{alert:?}")),
                }
            }
            other => Trouble::Other(other),
        }
    }
}

/// A connection to a server.
pub(crate) type Io = TokioIo<Listened<Either<TcpStream, Box<BufReader<TlsStream<TcpStream>>>>>>;

impl Connect {
    /// What is wrong with the server, by what it says over the connection that was opened.
    pub(crate) async fn trouble(&self) -> Option<Trouble> {
        let mut first = self.first.subscribe();
        match timeout(ANSWER_LIMIT, first.wait_for(Option::is_some)).await {
            Ok(Ok(is_alert)) => (*is_alert == Some(true)).then_some(Trouble::Tls),
            // It was closed without a word: what calls answer says more.
            Ok(Err(_)) => None,
            Err(_) => Some(Trouble::Silent),
        }
    }

    /// Until when the certificate is valid that the server shows; `None` without TLS.
    pub(super) async fn certificate_end(self, uri: Uri) -> anyhow::Result<Option<OffsetDateTime>> {
        let opened = self.open(uri).await?;
        let Either::Right(tls) = &opened.inner().io else { return Ok(None) };
        let shown = tls.get_ref().get_ref().1.peer_certificates().and_then(<[_]>::first);
        let shown = shown.context("the server shows no certificate")?;
        certificate_end(shown).map(Some).map_err(anyhow::Error::msg)
    }

    /// Opens a connection.
    pub(crate) async fn open(self, uri: Uri) -> std::result::Result<Io, Error> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let tcp = TcpStream::connect((host.as_str(), port)).await?;
        tcp.set_nodelay(true)?;
        let Some((connector, own)) = self.tls else {
            return Ok(TokioIo::new(Listened::to(Either::Left(tcp), self.first, true)));
        };
        let name = ServerName::try_from(host.clone()).map_err(|_| {
            Error::new(ErrorKind::InvalidInput, format!("{host} is no name of a host"))
        })?;
        let tls = connector.connect(name, tcp).await.map_err(|error| told(error, &host, &own))?;
        let mut tls = BufReader::new(tls);
        if own.was_asked.load(Ordering::Relaxed) {
            // Over TLS 1.3 the server judges the certificate only after the client is through.
            let first = timeout(REFUSAL_LIMIT, tls.fill_buf()).await;
            if let Ok(Err(error)) = first {
                return Err(told(error, &host, &own));
            }
        }
        Ok(TokioIo::new(Listened::to(Either::Right(Box::new(tls)), self.first, false)))
    }
}

/// An error of a connection, in plain words where what it means is known.
fn told(error: Error, host: &str, own: &OwnCertificate) -> Error {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return error;
    };
    let trouble = judged(tls.clone(), host).unwrap_or_else(|other| own.trouble(other));
    Error::new(error.kind(), trouble)
}

/// What is wrong with TLS to a host, where an error of a connection says so.
pub(crate) fn tls_trouble(error: &Error, host: &str) -> Option<Trouble> {
    let tls = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(judged(tls.clone(), host).unwrap_or_else(Trouble::Other))
}

/// What an error of TLS means, or the error itself.
fn judged(error: rustls::Error, host: &str) -> std::result::Result<Trouble, rustls::Error> {
    use rustls::Error as Tls;
    Ok(match error {
        Tls::InvalidMessage(_) => Trouble::NoTls,
        Tls::InvalidCertificate(why) => match why {
            // But for the first: of a CA with the name of one that is trusted.
            CertificateError::UnknownIssuer
            | CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
                Trouble::UnknownIssuer
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Trouble::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Trouble::NotYetValid
            }
            CertificateError::NotValidForName => {
                Trouble::WrongName { name: host.to_owned(), names: None }
            }
            CertificateError::NotValidForNameContext { presented, .. } => {
                Trouble::WrongName { name: host.to_owned(), names: Some(presented.join(", ")) }
            }
            CertificateError::Other(why) if why.to_string().contains("CaUsedAsEndEntity") => {
                Trouble::IsCa
            }
            other => Trouble::Other(Tls::InvalidCertificate(other)),
        },
        other => return Err(other),
    })
}

/// A connection, of which the first byte is listened to: a server with TLS answers to one without it by an alert.
#[derive(Debug)]
pub(crate) struct Listened<S> {
    io: S,
    /// Where to tell whether the first byte was an alert.
    first: Option<watch::Sender<Option<bool>>>,
    is_plain: bool,
}

impl<S> Listened<S> {
    fn to(io: S, first: watch::Sender<Option<bool>>, is_plain: bool) -> Self {
        Self { io, first: Some(first), is_plain }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listened<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<()>> {
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        if let Some(first) = self.first.take() {
            let is_alert = self.is_plain && buf.filled().get(before) == Some(&ALERT);
            first.send_replace(Some(is_alert));
            if is_alert {
                return Poll::Ready(Err(Error::new(ErrorKind::InvalidData, Trouble::Tls)));
            }
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listened<S> {
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
}
