//! Where the issuer's keys come from: a file that is read again when it changes, or a URL.

use std::{
    fmt, fs,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use reqwest::{Client, StatusCode, redirect, retry};
use rustls::ClientConfig;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};
use url::{Host, Url};

use super::keys::Keys;

/// No JWKS is longer.
const MAX_BYTES: usize = 256 * 1024;
/// How long the issuer may take to answer.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 5_000 });
/// How often the keys are read, and the least time between two readings.
const AGE: Duration = Duration::from_secs(10 * 60);
const LEAST: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 30_000 });
/// How often it is looked whether a file has changed.
const FILE_POLL: Duration = Duration::from_secs(1);

/// The URL of a JWKS: https, or http on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwksUrl(Url);

impl JwksUrl {
    /// Reads one.
    ///
    /// # Errors
    /// When it is not such a URL.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const RULE: &str =
            "must be an https URL (http only on this machine), without a user or password";
        let url = Url::parse(text).map_err(|_| RULE)?;
        let is_here = match url.host() {
            Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
            Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_here;
        let has_user = !url.username().is_empty() || url.password().is_some();
        if is_safe && !has_user { Ok(Self(url)) } else { Err(RULE) }
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the issuer's keys are.
#[derive(Clone, Debug)]
pub enum KeysFrom {
    /// In a file.
    File(PathBuf),
    /// At a URL.
    Url(JwksUrl),
}

#[derive(Debug)]
pub(super) enum KeySource {
    File { path: PathBuf, read: Mutex<Option<SystemTime>> },
    Url { url: JwksUrl, client: Client, wanted: Arc<Notify>, asked: Mutex<Instant> },
}

impl KeySource {
    pub(super) fn new(from: &KeysFrom) -> anyhow::Result<Self> {
        Ok(match from {
            KeysFrom::File(path) => Self::File { path: path.clone(), read: Mutex::default() },
            KeysFrom::Url(url) => Self::Url {
                url: url.clone(),
                client: client()?,
                wanted: Arc::default(),
                asked: Mutex::new(Instant::now()),
            },
        })
    }

    /// The keys at the start. Of a URL that does not answer there are none for now.
    pub(super) async fn first(&self) -> anyhow::Result<Keys> {
        match self {
            Self::File { path, read } => {
                *read.lock().unwrap_or_else(PoisonError::into_inner) = modified(path);
                read_file(path)
            }
            Self::Url { url, client, .. } => Ok(fetch(client, url).await.unwrap_or_else(|error| {
                tracing::warn!(%url, "no JWT is taken until the issuer's keys can be read: {error:#}");
                Keys::default()
            })),
        }
    }

    /// A JWT names a key that there is not.
    pub(super) fn want(&self) {
        if let Self::Url { wanted, .. } = self {
            wanted.notify_one();
        }
    }

    /// Waits until it is time, and reads the keys. Nothing where they cannot be read, or a file did not change.
    pub(super) async fn next(&self) -> Option<Keys> {
        match self {
            Self::File { path, read } => {
                tokio::time::sleep(FILE_POLL).await;
                let now = modified(path);
                {
                    let mut before = read.lock().unwrap_or_else(PoisonError::into_inner);
                    if now.is_none() || *before == now {
                        return None;
                    }
                    *before = now;
                }
                read_file(path)
                    .inspect_err(|error| {
                        tracing::error!("the issuer's keys stay as they were: {error:#}")
                    })
                    .ok()
            }
            Self::Url { url, client, wanted, asked } => {
                let before = *asked.lock().unwrap_or_else(PoisonError::into_inner);
                sleep_until(before + LEAST).await;
                tokio::select! {
                    () = wanted.notified() => {}
                    () = sleep_until(before + AGE) => {}
                }
                *asked.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                let keys = fetch(client, url).await;
                keys.inspect_err(|error| {
                    tracing::warn!(%url, "the issuer's keys cannot be read, and stay as they were: {error:#}");
                })
                .ok()
            }
        }
    }
}

fn modified(path: &PathBuf) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

fn read_file(path: &PathBuf) -> anyhow::Result<Keys> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    anyhow::ensure!(text.len() <= MAX_BYTES, "{} is longer than {MAX_BYTES} bytes", path.display());
    Keys::parse(&text).with_context(|| format!("{} cannot be used", path.display()))
}

/// A client that follows nothing, and trusts the certificates that this machine trusts.
fn client() -> anyhow::Result<Client> {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .context("rustls has no protocol")?
        .with_platform_verifier()
        .context("the certificates that this machine trusts cannot be read")?
        .with_no_client_auth();
    Client::builder()
        .user_agent(concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .no_proxy()
        .timeout(PATIENCE)
        .tls_backend_preconfigured(tls)
        .build()
        .context("reqwest refuses its settings")
}

async fn fetch(client: &Client, url: &JwksUrl) -> anyhow::Result<Keys> {
    let fetched = timeout(PATIENCE, async {
        let mut answer = client.get(url.0.clone()).send().await?;
        anyhow::ensure!(answer.status() == StatusCode::OK, "it answers {}", answer.status());
        let mut text = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            text.extend_from_slice(&chunk);
            anyhow::ensure!(text.len() <= MAX_BYTES, "it answers more than {MAX_BYTES} bytes");
        }
        Keys::parse(&text)
    });
    fetched.await.context("it does not answer in time")?
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::watch,
    };

    use super::*;

    fn jwks(kid: &str) -> String {
        let x = "A".repeat(43);
        format!(r#"{{"keys": [{{"kty": "OKP", "crv": "Ed25519", "kid": "{kid}", "x": "{x}"}}]}}"#)
    }

    /// An issuer that answers with what was sent last, or not at all.
    async fn issuer(told: watch::Receiver<Option<String>>) -> JwksUrl {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = JwksUrl::parse(&format!("http://{}/k", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let told = told.borrow().clone();
                let Some(body) = told else {
                    silent.push(stream);
                    continue;
                };
                let _ = stream.read(&mut [0; 4096]).await;
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close",
                    body.len()
                );
                let _ = stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await;
            }
        });
        url
    }

    #[tokio::test]
    async fn keys_are_read_again_when_one_is_wanted_but_not_too_often_and_silence_changes_nothing()
    {
        let (tell, told) = watch::channel(Some(jwks("a")));
        let source = KeySource::new(&KeysFrom::Url(issuer(told).await)).unwrap();
        let first = source.first().await.unwrap();
        tell.send_replace(None);
        source.want();
        assert!(source.next().await.is_none(), "it is silent");
        tell.send_replace(Some(jwks("b")));
        let begun = Instant::now();
        source.want();
        let second = source.next().await.unwrap();
        assert!(!first.is_same(&second));
        source.want();
        tell.send_replace(Some("x".repeat(MAX_BYTES + 1)));
        assert!(source.next().await.is_none(), "too long");
        source.want();
        tell.send_replace(Some(jwks("a")));
        assert!(source.next().await.unwrap().is_same(&first));
        assert!(begun.elapsed() >= 2 * LEAST, "{:?}", begun.elapsed());
    }

    #[test]
    fn a_jwks_is_read_over_tls_or_from_this_machine() {
        for good in [
            "https://id.example/jwks",
            "http://127.0.0.1:1/k",
            "http://localhost/k",
            "http://[::1]/k",
        ] {
            assert!(JwksUrl::parse(good).is_ok(), "{good}");
        }
        for bad in
            ["http://id.example/jwks", "ftp://127.0.0.1/k", "https://u:p@id.example/", "jwks", ""]
        {
            assert!(JwksUrl::parse(bad).is_err(), "{bad}");
        }
    }
}
