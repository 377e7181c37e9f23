//! The files of one listener's TLS: what they hold, and everything that is wrong with it.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::ValueEnum;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{
        NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, x509::X509Version};

use super::revocation::{Lists, lists_in};
use crate::secret_file;

/// No file of certificates is longer.
const MAX_BYTES: u64 = 1024 * 1024;
/// No file of revocation lists is longer: some two hundred thousand certificates.
const MAX_LIST_BYTES: u64 = 8 * 1024 * 1024;

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClientAuth {
    /// One who shows none is served too.
    Optional,
    /// One who shows none is refused.
    Required,
}

/// The settings of one listener's TLS. Without any, it has none.
#[derive(Clone, Debug, Default)]
pub struct TlsSettings {
    /// The certificate and those between it and its CA, in PEM.
    pub cert_file: Option<PathBuf>,
    /// The certificate's private key, in PEM.
    pub key_file: Option<PathBuf>,
    /// The CAs of clients' certificates, in PEM.
    pub client_ca_file: Option<PathBuf>,
    /// Lists of the certificates that these CAs have revoked, in PEM.
    pub client_crl_file: Option<PathBuf>,
    /// Whether clients have to show one: they have to, where this is not set and there is a CA.
    pub client_auth: Option<ClientAuth>,
}

/// The files of a listener that has TLS.
#[derive(Clone, Debug)]
pub(super) struct TlsFiles {
    cert_file: PathBuf,
    key_file: PathBuf,
    clients: Option<ClientFiles>,
    /// The protocols that are spoken inside TLS.
    protocols: Vec<Vec<u8>>,
}

/// What clients' certificates are verified by.
#[derive(Clone, Debug)]
struct ClientFiles {
    authorities: PathBuf,
    lists: Option<PathBuf>,
    auth: ClientAuth,
}

/// What the files hold, as bytes.
pub(super) struct Contents {
    certificates: Vec<u8>,
    key: Zeroizing<String>,
    /// What is wrong with the permissions of the key's file, but not so that it is refused.
    warning: Option<&'static str>,
    client_ca: Option<Vec<u8>>,
    client_lists: Option<Vec<u8>>,
}

/// What they hold, ready for use.
pub(super) struct Loaded {
    pub(super) config: Arc<ServerConfig>,
    /// What verifies clients' certificates, where any are asked for.
    pub(super) clients: Option<Arc<dyn ClientCertVerifier>>,
    /// When the certificate expires, in seconds since 1970.
    pub(super) expires: i64,
    /// When the first of the revocation lists does.
    pub(super) lists_expire: Option<i64>,
}

/// What clients' certificates are verified by, ready for use.
struct Clients {
    verifier: Arc<dyn ClientCertVerifier>,
    lists_expire: Option<i64>,
}

impl TlsSettings {
    /// The files, `None` where no TLS is set. `prefix` is what the names of the variables begin with.
    ///
    /// # Errors
    /// Every setting that is missing beside others.
    pub(super) fn files(
        &self,
        prefix: &str,
        protocol: &str,
    ) -> Result<Option<TlsFiles>, Vec<String>> {
        let missing = |name: &str, of: &str| format!("{prefix}{name} is set without {prefix}{of}");
        let mut wrong = Vec::new();
        if self.client_auth.is_some() && self.client_ca_file.is_none() {
            wrong.push(missing("TLS_CLIENT_AUTH", "TLS_CLIENT_CA_FILE"));
        }
        if self.client_crl_file.is_some() && self.client_ca_file.is_none() {
            wrong.push(missing("TLS_CLIENT_CRL_FILE", "TLS_CLIENT_CA_FILE"));
        }
        if self.client_ca_file.is_some() && self.cert_file.is_none() {
            wrong.push(missing("TLS_CLIENT_CA_FILE", "TLS_CERT_FILE"));
        }
        match (&self.cert_file, &self.key_file) {
            (Some(_), None) => wrong.push(missing("TLS_CERT_FILE", "TLS_KEY_FILE")),
            (None, Some(_)) => wrong.push(missing("TLS_KEY_FILE", "TLS_CERT_FILE")),
            (None, None) if wrong.is_empty() => return Ok(None),
            (Some(cert_file), Some(key_file)) if wrong.is_empty() => {
                let clients = self.client_ca_file.clone().map(|authorities| ClientFiles {
                    authorities,
                    lists: self.client_crl_file.clone(),
                    auth: self.client_auth.unwrap_or(ClientAuth::Required),
                });
                return Ok(Some(TlsFiles {
                    cert_file: cert_file.clone(),
                    key_file: key_file.clone(),
                    clients,
                    protocols: vec![protocol.as_bytes().to_vec()],
                }));
            }
            _ => {}
        }
        Err(wrong)
    }
}

impl TlsFiles {
    /// Reads all files.
    ///
    /// # Errors
    /// What is wrong with each that cannot be read.
    pub(super) fn read(&self) -> Result<Contents, Vec<String>> {
        let mut wrong = Vec::new();
        let certificates = read_certificates(&self.cert_file);
        let key = read_key(&self.key_file);
        let clients = self.clients.as_ref();
        let client_ca = clients.map(|it| read_certificates(&it.authorities)).transpose();
        let client_lists = clients.and_then(|it| it.lists.as_deref());
        let client_lists = client_lists.map(|file| read_at_most(file, MAX_LIST_BYTES)).transpose();
        let certificates = certificates.map_err(|why| wrong.push(why));
        let key = key.map_err(|why| wrong.push(why));
        let client_ca = client_ca.map_err(|why| wrong.push(why));
        let client_lists = client_lists.map_err(|why| wrong.push(why));
        match (certificates, key, client_ca, client_lists) {
            (Ok(certificates), Ok((key, warning)), Ok(client_ca), Ok(client_lists)) => {
                Ok(Contents { certificates, key, warning, client_ca, client_lists })
            }
            _ => Err(wrong),
        }
    }

    /// Makes what was read ready for use.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn load(
        &self,
        contents: &Contents,
        now: OffsetDateTime,
    ) -> Result<Loaded, Vec<String>> {
        let ring = Arc::new(ring::default_provider());
        let mut wrong = Vec::new();
        let chain = certificates_in(&contents.certificates, &self.cert_file);
        let chain = chain.map_err(|why| wrong.push(why)).ok();
        let key = key_in(&contents.key, &self.key_file);
        let key = key.map_err(|why| wrong.push(why)).ok();
        let expires = chain.as_ref().and_then(|chain| {
            let checked = check_certificate(&chain[0], now);
            let name = self.cert_file.display();
            checked.map_err(|why| wrong.push(format!("the certificate in {name} {why}"))).ok()
        });
        let pair = chain.zip(key).zip(expires).and_then(|((chain, key), expires)| {
            let pair = CertifiedKey::from_der(chain, key, &ring);
            pair.map_err(|error| wrong.push(self.unfit(&error))).ok().map(|pair| (pair, expires))
        });
        let clients = self.clients_of(contents, &ring).map_err(|why| wrong.push(why)).ok();
        let (Some((pair, expires)), Some(clients)) = (pair, clients) else { return Err(wrong) };
        let lists_expire = clients.as_ref().and_then(|clients| clients.lists_expire);
        let clients = clients.map(|clients| clients.verifier);
        let config = self.config(ring, pair, clients.clone());
        let config = config.map_err(|error| vec![format!("TLS cannot be set up: {error}")])?;
        Ok(Loaded { config: Arc::new(config), clients, expires, lists_expire })
    }

    /// Warns where the key's file is more open than it should be.
    pub(super) fn warn_of(&self, contents: &Contents) {
        if let Some(why) = contents.warning {
            secret_file::warn(&self.key_file, "the private key's file", why);
        }
    }

    fn unfit(&self, error: &rustls::Error) -> String {
        let [certificate, key] = [&self.cert_file, &self.key_file].map(|file| file.display());
        match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("the key in {key} is not the one of the certificate in {certificate}")
            }
            other => format!("the certificate in {certificate} and the key in {key}: {other}"),
        }
    }

    /// What verifies clients' certificates, where any are asked for, and when the first revocation list expires. A list that
    /// has expired is used all the same, and one that lacks refuses: see
    /// `docs/adr/0063-revoked-certificates-are-refused-and-their-connections-end.md`.
    fn clients_of(
        &self,
        contents: &Contents,
        ring: &Arc<CryptoProvider>,
    ) -> Result<Option<Clients>, String> {
        let (Some(clients), Some(client_ca)) = (&self.clients, &contents.client_ca) else {
            return Ok(None);
        };
        let file = &clients.authorities;
        let authorities = certificates_in(client_ca, file)?;
        let lists = clients.lists.as_deref().zip(contents.client_lists.as_deref());
        let lists = lists.map(|(file, pem)| lists_in(pem, file, &authorities)).transpose()?;
        let roots = roots(authorities, file)?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(ring));
        let verifier = match clients.auth {
            ClientAuth::Optional => verifier.allow_unauthenticated(),
            ClientAuth::Required => verifier,
        };
        let (lists, lists_expire) = lists.map(|Lists { lists, expires }| (lists, expires)).unzip();
        let verifier = verifier.with_crls(lists.unwrap_or_default()).build();
        let verifier = verifier.map_err(|error| clients.unusable(&error))?;
        Ok(Some(Clients { verifier, lists_expire }))
    }

    fn config(
        &self,
        ring: Arc<CryptoProvider>,
        pair: CertifiedKey,
        clients: Option<Arc<dyn ClientCertVerifier>>,
    ) -> Result<ServerConfig, rustls::Error> {
        let resumes = clients.is_none();
        let builder =
            ServerConfig::builder_with_provider(ring).with_protocol_versions(&[&TLS13, &TLS12])?;
        let builder = match clients {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config =
            builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair)));
        config.alpn_protocols.clone_from(&self.protocols);
        if !resumes {
            // A session that goes on would bring a certificate that is not verified again.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(config)
    }
}

impl ClientFiles {
    fn unusable(&self, error: &VerifierBuilderError) -> String {
        match (error, &self.lists) {
            (VerifierBuilderError::InvalidCrl(error), Some(lists)) => {
                format!("a revocation list in {} cannot be used: {error:?}", lists.display())
            }
            _ => format!("the CAs in {} cannot be used: {error}", self.authorities.display()),
        }
    }
}

impl Contents {
    /// What tells these contents from others.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        let client_ca = self.client_ca.as_deref().unwrap_or_default();
        let client_lists = self.client_lists.as_deref().unwrap_or_default();
        for part in [&self.certificates[..], self.key.as_bytes(), client_ca, client_lists] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

fn read_certificates(path: &Path) -> Result<Vec<u8>, String> {
    read_at_most(path, MAX_BYTES)
}

/// A file's bytes, if it is a file and not too long. To open a pipe could take for ever.
fn read_at_most(path: &Path, max_bytes: u64) -> Result<Vec<u8>, String> {
    let cannot = |why: String| format!("{} cannot be read: {why}", path.display());
    let metadata = fs::metadata(path).map_err(|error| cannot(error.to_string()))?;
    if !metadata.is_file() {
        return Err(cannot("it is no file".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|error| cannot(error.to_string()))?;
    let read = file.take(max_bytes + 1).read_to_end(&mut bytes);
    read.map_err(|error| cannot(error.to_string()))?;
    if bytes.len() as u64 > max_bytes {
        return Err(cannot(format!("it is longer than {max_bytes} bytes")));
    }
    Ok(bytes)
}

fn read_key(path: &Path) -> Result<(Zeroizing<String>, Option<&'static str>), String> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(format!("{} is no file", path.display())),
        _ => secret_file::read_quietly(path, "the private key's file")
            .map_err(|error| format!("{error:#}")),
    }
}

/// The certificates in a file's bytes, at least one.
fn certificates_in(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let found =
        found.map_err(|error| format!("{} is no PEM of certificates: {error}", path.display()))?;
    if found.is_empty() {
        return Err(format!("{} holds no certificate in PEM", path.display()));
    }
    Ok(found)
}

fn key_in(pem: &str, path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| format!("{} holds no private key in PEM: {error}", path.display()))
}

fn roots(certificates: Vec<CertificateDer<'static>>, path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| {
            format!("{} holds a certificate that cannot be used: {error}", path.display())
        })?;
    }
    Ok(roots)
}

/// The CAs in a file.
///
/// # Errors
/// What is wrong with it.
pub fn read_roots(path: &Path) -> Result<RootCertStore, String> {
    roots(certificates_in(&read_certificates(path)?, path)?, path)
}

/// A certificate with those between it and its CA, and its key.
///
/// # Errors
/// What is wrong with the files.
pub fn read_identity(
    cert_file: &Path,
    key_file: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = certificates_in(&read_certificates(cert_file)?, cert_file)?;
    let (key, warning) = read_key(key_file)?;
    if let Some(why) = warning {
        secret_file::warn(key_file, "the private key's file", why);
    }
    Ok((chain, key_in(&key, key_file)?))
}

/// When the certificate expires, unless it cannot be used now; then why.
fn check_certificate(certificate: &[u8], now: OffsetDateTime) -> Result<i64, String> {
    let (_, certificate) = X509Certificate::from_der(certificate)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if certificate.version() != X509Version::V3 {
        return Err("is not of X.509 version 3: clients do not take it".to_owned());
    }
    let validity = certificate.validity();
    let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    let now = now.unix_timestamp();
    if until <= now {
        return Err(format!("expired at {}", written(until)));
    }
    if from > now {
        return Err(format!("is not valid before {}", written(from)));
    }
    Ok(until)
}

/// When a certificate, in DER, expires, unless it cannot be used now; then why.
///
/// # Errors
/// When it cannot be read, has expired, or is not valid yet.
pub fn certificate_end(certificate: &[u8]) -> Result<OffsetDateTime, String> {
    let until = check_certificate(certificate, OffsetDateTime::now_utc())?;
    OffsetDateTime::from_unix_timestamp(until).map_err(|error| error.to_string())
}

/// A time in seconds since 1970, for people.
pub(super) fn written(seconds: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| seconds.to_string())
}
