//! Certificates of the tests' own, and clients that speak TLS with them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber, string::Ia5String,
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

/// Who signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        Self::named(&format!("CA {}", NUMBER.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for a host.
    pub(crate) fn identity(&self, name: &str) -> Identity {
        self.signed(&[name], |_| {})
    }

    /// A certificate for a host that is valid for so long from now, or ended so long ago.
    pub(crate) fn valid_for(&self, name: &str, seconds: i64) -> Identity {
        self.signed(&[name], |params| {
            let until = OffsetDateTime::now_utc() + Duration::from_secs(seconds.unsigned_abs());
            let ended = OffsetDateTime::now_utc() - Duration::from_secs(seconds.unsigned_abs());
            params.not_after = if seconds < 0 { ended } else { until };
        })
    }

    /// Its own certificate, which is for a host too, and its key.
    pub(crate) fn own_identity(name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Identity { certificate: params.self_signed(&key).unwrap().der().clone(), key }
    }

    /// A certificate for a URI.
    pub(crate) fn of_uri(&self, uri: &str) -> Identity {
        let uri = SanType::URI(Ia5String::try_from(uri).unwrap());
        self.signed(&[], |params| params.subject_alt_names.push(uri))
    }

    fn signed(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).unwrap().der().clone();
        Identity { certificate, key }
    }

    /// Another, whose certificate it signed.
    pub(crate) fn below(&self, name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        self.0.der()
    }

    /// Its list of what it revoked, in PEM. It expires so many seconds from now, or did so long ago.
    pub(crate) fn revokes(&self, revoked: &[&CertificateDer<'_>], seconds: i64) -> String {
        let next_update = OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
        let this_update = next_update - Duration::from_secs(365 * 86_400);
        let entry = |certificate: &&CertificateDer<'_>| {
            let (_, certificate) = X509Certificate::from_der(certificate).unwrap();
            RevokedCertParams {
                serial_number: SerialNumber::from_slice(certificate.raw_serial()),
                revocation_time: this_update,
                reason_code: None,
                invalidity_date: None,
            }
        };
        let params = CertificateRevocationListParams {
            this_update,
            next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        roots
    }

    /// Writes its own certificate to a file.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> PathBuf {
        pem(folder, name, "CERTIFICATE", self.0.der())
    }
}

impl Identity {
    /// Writes both to files, `NAME.pem` and `NAME.key`.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> [PathBuf; 2] {
        [
            pem(folder, &format!("{name}.pem"), "CERTIFICATE", &self.certificate),
            pem(folder, &format!("{name}.key"), "PRIVATE KEY", &self.key.serialize_der()),
        ]
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

/// Writes a file that its owner alone can read, in one step.
pub(crate) fn pem(folder: &Path, name: &str, label: &str, der: &[u8]) -> PathBuf {
    let file = folder.join(name);
    let text = format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64.encode(der));
    let begun = folder.join(format!("{name}.new"));
    fs::write(&begun, text).unwrap();
    fs::set_permissions(&begun, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(begun, &file).unwrap();
    file
}

/// What a client speaks.
pub(crate) fn client(authority: &Authority, identity: Option<&Identity>) -> ClientConfig {
    of_versions(authority, identity, rustls::ALL_VERSIONS)
}

/// What a client speaks who knows these versions alone.
pub(crate) fn of_versions(
    authority: &Authority,
    identity: Option<&Identity>,
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(ring)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(authority.roots());
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder
            .with_client_auth_cert(vec![identity.certificate.clone()], identity.private_key())
            .unwrap(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// The handshake with a server for `localhost`.
pub(crate) async fn handshake(
    addr: std::net::SocketAddr,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    let tcp = TcpStream::connect(addr).await?;
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await
}

/// A connection over TLS, and how often it was made.
pub(crate) fn channel(
    addr: std::net::SocketAddr,
    config: ClientConfig,
) -> (Channel, Arc<AtomicUsize>) {
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let connector = tower::service_fn(move |_: http::Uri| {
        let (config, counter) = (config.clone(), Arc::clone(&counter));
        async move {
            counter.fetch_add(1, Ordering::SeqCst);
            handshake(addr, config).await.map(TokioIo::new)
        }
    });
    let endpoint = Endpoint::from_shared(format!("https://localhost:{}", addr.port())).unwrap();
    (endpoint.connect_with_connector_lazy(connector), connections)
}
