//! TLS and authentication of a run: a CA of its own, tokens and JWTs, and channels that use them.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as URL};
use holdfast::{
    app::{NewToken, create_token, write_secret},
    domain::{
        access::{Grant, Grants, PoolPattern, Role},
        id::TokenName,
    },
};
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ED25519,
    PublicKeyData as _, SigningKey as _,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// Whom all certificates are for.
const HOST: &str = "localhost";
/// Who makes JWTs, for whom, and for which subject.
const ISSUER: &str = "https://bench.example";
const AUDIENCE: &str = "holdfast";
const SUBJECT: &str = "caller";
/// How long a JWT is valid: longer than any run.
const VALID: Duration = Duration::from_secs(24 * 3600);

/// A CA, in a folder that is removed with it.
pub(crate) struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub(crate) ca_file: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("holdfast-bench-").tempdir()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, issuer.pem())?;
        Ok(Self { folder, issuer, ca_file })
    }

    /// What a server in this process speaks HTTP/2 over.
    pub(crate) fn server(&self) -> anyhow::Result<ServerConfig> {
        let (certificate, key) = self.identity()?;
        let key =
            PrivateKeyDer::try_from(key.serialize_der()).ok().context("a key that is none")?;
        let mut config = ServerConfig::builder_with_provider(ring())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// The settings of `holdfast serve` for TLS on both of its addresses.
    pub(crate) fn settings(&self) -> anyhow::Result<Vec<String>> {
        let (certificate, key) = self.identity()?;
        let (cert_file, key_file) = (self.path("server.pem"), self.path("server.key"));
        if !key_file.exists() {
            write_secret(&key_file, key.serialize_pem().trim_end())?;
            std::fs::write(&cert_file, certificate.pem())?;
        }
        let of = |prefix: &str| {
            [("cert", &cert_file), ("key", &key_file)]
                .map(|(what, file)| format!("--{prefix}tls-{what}-file={}", file.display()))
        };
        Ok([of(""), of("admin-")].concat())
    }

    /// The settings of a server that takes JWTs, and one that may redeem in all pools.
    pub(crate) fn jwt(&self) -> anyhow::Result<(Vec<String>, String)> {
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let keys = serde_json::json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "kid": "bench", "use": "sig", "alg": "EdDSA",
            "x": URL.encode(key.der_bytes()),
        }] });
        let (jwks_file, access_file) = (self.path("jwks.json"), self.path("access.toml"));
        std::fs::write(&jwks_file, keys.to_string())?;
        let grant = format!(
            "[[grant]]\nprincipal = \"jwt:{ISSUER}:{SUBJECT}\"\nrole = \"redeemer\"\npools = \"*\"\n"
        );
        std::fs::write(&access_file, grant)?;
        let until = (SystemTime::now() + VALID).duration_since(UNIX_EPOCH)?.as_secs();
        let header = serde_json::json!({ "alg": "EdDSA", "kid": "bench" });
        let claims =
            serde_json::json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "exp": until });
        let part = |value: &serde_json::Value| URL.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let jwt = format!("{signed}.{}", URL.encode(key.sign(signed.as_bytes())?));
        let settings = vec![
            format!("--jwt-issuer={ISSUER}"),
            format!("--jwt-audience={AUDIENCE}"),
            format!("--jwt-jwks-file={}", jwks_file.display()),
            format!("--access-file={}", access_file.display()),
        ];
        Ok((settings, jwt))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn identity(&self) -> anyhow::Result<(rcgen::Certificate, KeyPair)> {
        let key = KeyPair::generate()?;
        let params = CertificateParams::new(vec![HOST.to_owned()])?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate, key))
    }
}

/// Makes a token in a database: what it may do, and on which pools.
pub(crate) async fn new_token(
    database_url: &str,
    name: &str,
    grants: &[(Role, &str)],
) -> anyhow::Result<String> {
    let grants = grants.iter().map(|(role, pools)| {
        let pools = PoolPattern::parse(pools).context("no pattern of pools")?;
        Ok(Grant { role: *role, pools })
    });
    let new = NewToken {
        name: TokenName::parse(name).ok().context("no name of a token")?,
        grants: Grants::new(grants.collect::<anyhow::Result<_>>()?),
        lifetime: None,
    };
    let (_, secret) = create_token(&database_url.to_owned().into(), new).await?;
    Ok(secret.expose().to_owned())
}

fn ring() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a client speaks that trusts the CA in a file. `protocol` is what it speaks inside TLS.
pub(crate) fn trusting(ca_file: &Path, protocol: &str) -> anyhow::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca_file).ok().context("the CA cannot be read")?)?;
    let mut config = ClientConfig::builder_with_provider(ring())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    Ok(Arc::new(config))
}

pub(crate) fn server_name() -> anyhow::Result<ServerName<'static>> {
    Ok(ServerName::try_from(HOST)?)
}

/// A connection from an address of this machine.
pub(crate) async fn tcp(from: IpAddr, to: std::net::SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// TLS with a server, over a connection.
pub(crate) async fn tls(
    config: &Arc<ClientConfig>,
    stream: TcpStream,
) -> anyhow::Result<TlsStream<TcpStream>> {
    Ok(TlsConnector::from(Arc::clone(config)).connect(server_name()?, stream).await?)
}

/// Says who calls, where that is asked.
#[derive(Clone, Debug)]
pub(crate) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.0 {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}

pub(crate) type Connection = InterceptedService<Channel, Bearer>;

/// How a server is reached.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) url: String,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// A token or JWT.
    pub(crate) bearer: Option<String>,
    pub(crate) from: IpAddr,
}

impl Target {
    /// Without TLS, and as nobody.
    pub(crate) fn plain(url: &str) -> Self {
        let from = std::net::Ipv4Addr::LOCALHOST.into();
        Self { url: url.to_owned(), tls: None, bearer: None, from }
    }

    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let url = &self.url;
        let endpoint = Endpoint::from_shared(url.clone())?.tcp_nodelay(true);
        let channel = match &self.tls {
            None => endpoint.connect().await,
            Some(config) => {
                let (config, from) = (Arc::clone(config), self.from);
                let addr = url.rsplit_once("//").map_or(&**url, |(_, addr)| addr).parse()?;
                let connector = tower::service_fn(move |_: http::Uri| {
                    let config = Arc::clone(&config);
                    async move { anyhow::Ok(TokioIo::new(tls(&config, tcp(from, addr).await?).await?)) }
                });
                endpoint.connect_with_connector(connector).await
            }
        };
        let channel = channel.with_context(|| format!("nobody listens at {url}"))?;
        let bearer = self.bearer.as_ref().map(|bearer| format!("Bearer {bearer}").parse());
        Ok(InterceptedService::new(channel, Bearer(bearer.transpose()?)))
    }
}
