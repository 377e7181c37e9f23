//! TLS as profiles say it: with a CA of their own, with a certificate of ours, and HTTP/2 where the server chooses it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use holdfast::{
    domain::redemption::Step,
    provider::{
        Answer, Provider, SecretValues,
        profile::{BUILT_IN, Profile},
    },
};
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::client::{Calls as _, ask, first};
use crate::support::tls::{Authority, Identity};

/// What a server saw.
#[derive(Default)]
struct Seen {
    /// Handshakes that went through.
    connections: AtomicUsize,
    requests: AtomicUsize,
    over_http2: AtomicUsize,
}

/// A provider that answers every request with a refusal of the card, over whichever protocol was agreed on.
async fn serve(
    authority: &Authority,
    clients: Option<&Authority>,
    protocols: &[&str],
) -> (String, Arc<Seen>) {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&ring))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(clients.roots()), ring)
                .build()
                .unwrap(),
        ),
    };
    let own = authority.identity("localhost");
    let (certificate, key) = (own.certificate.clone(), own.private_key());
    let mut config = builder.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let seen = Arc::new(Seen::default());
    let counted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), Arc::clone(&counted));
            tokio::spawn(async move {
                let Ok(tls) = acceptor.accept(tcp).await else { return };
                seen.connections.fetch_add(1, Ordering::SeqCst);
                if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
                    over_http2(tls, &seen).await;
                } else {
                    over_http1(tls, &seen).await;
                }
            });
        }
    });
    (url, seen)
}

const REFUSAL: &str = r#"{"failure":{"code":"CODE_UNKNOWN","message":"no","code_spent":false}}"#;

async fn over_http1(mut tls: TlsStream<TcpStream>, seen: &Seen) {
    let mut request = vec![0; 64 * 1024];
    if tls.read(&mut request).await.unwrap_or(0) == 0 {
        return;
    }
    seen.requests.fetch_add(1, Ordering::SeqCst);
    let answer = format!(
        "HTTP/1.1 402 Payment Required\r\ncontent-length: {}\r\n\r\n{REFUSAL}",
        REFUSAL.len()
    );
    let _ = tls.write_all(answer.as_bytes()).await;
    let _ = tls.shutdown().await;
}

async fn over_http2(tls: TlsStream<TcpStream>, seen: &Seen) {
    let Ok(mut connection) = h2::server::handshake(tls).await else { return };
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        seen.requests.fetch_add(1, Ordering::SeqCst);
        seen.over_http2.fetch_add(1, Ordering::SeqCst);
        let head = http::Response::builder().status(402).body(()).unwrap();
        let mut body = respond.send_response(head, false).unwrap();
        body.send_data(Bytes::from_static(REFUSAL.as_bytes()), true).unwrap();
    }
}

/// The built-in profile for a server, with further settings of `[http]`.
fn provider(url: &str, settings: &[(&str, &Path)]) -> anyhow::Result<Provider> {
    let settings: String =
        settings.iter().map(|(name, file)| format!("{name} = {file:?}\n")).collect();
    let http = format!("[http]\n{settings}base = \"{url}\"");
    let text = BUILT_IN.replacen("[http]\nbase = \"http://127.0.0.1:50080\"", &http, 1);
    let text = text.replacen("id = \"holdfast\"", "id = \"with-tls\"", 1);
    // As most providers: none tells a question why it refused a send.
    let text = text.replacen("\ntells_refusals = true", "\ntells_refusals = false", 1);
    let profile = Profile::parse(&text).unwrap_or_else(|faults| panic!("{faults:?}"));
    assert_eq!(profile.http.base.as_str().trim_end_matches('/'), url);
    Provider::new(profile, SecretValues::Fixed(Default::default()), None)
}

/// Sends a card, and answers with what came and whether that settles it.
async fn send(provider: &Provider) -> (Answer, bool) {
    let ask = ask("ABCD-1234-EFGH", "acc");
    let answer = provider.send(&ask).await;
    let is_settled = matches!(first(&ask, &answer), Step::Settle(_));
    (answer, is_settled)
}

struct Files {
    folder: TempDir,
    ca: PathBuf,
}

impl Files {
    fn of(authority: &Authority) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = authority.write(folder.path(), "ca.pem");
        Self { folder, ca }
    }

    fn identity(&self, name: &str, identity: &Identity) -> [PathBuf; 2] {
        identity.write(self.folder.path(), name)
    }
}

#[tokio::test]
async fn a_profiles_own_ca_is_believed_and_with_another_nothing_is_sent() {
    let (authority, another) = (Authority::new(), Authority::new());
    let (url, seen) = serve(&authority, None, &["http/1.1"]).await;
    let files = Files::of(&authority);
    let (answer, is_settled) = send(&provider(&url, &[("ca_file", &files.ca)]).unwrap()).await;
    assert!(matches!(&answer, Answer::Http(http) if http.status == 402), "{answer:?}");
    assert!(is_settled, "{answer:?}");
    assert_eq!(seen.requests.load(Ordering::SeqCst), 1);

    // Another CA, and those that this machine trusts: it is never sent, which is no doubt.
    let wrong = Files::of(&another);
    for settings in [&[("ca_file", &*wrong.ca)][..], &[]] {
        let (answer, _) = send(&provider(&url, settings).unwrap()).await;
        assert!(matches!(answer, Answer::NeverSent(_)), "{answer:?}");
    }
    // Nor is it to a name that the certificate does not have.
    let by_address = provider(&url.replace("localhost", "127.0.0.1"), &[("ca_file", &files.ca)]);
    let (answer, _) = send(&by_address.unwrap()).await;
    assert!(matches!(answer, Answer::NeverSent(_)), "{answer:?}");
    assert_eq!(seen.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_certificate_of_ours_is_shown_where_the_profile_names_one() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let (url, seen) = serve(&authority, Some(&clients), &["h2", "http/1.1"]).await;
    let files = Files::of(&authority);
    let [certificate, key] = files.identity("ours", &clients.identity("holdfast"));
    let ca = ("ca_file", &*files.ca);
    let with = [ca, ("client_cert_file", &*certificate), ("client_key_file", &*key)];
    let (answer, is_settled) = send(&provider(&url, &with).unwrap()).await;
    assert!(matches!(&answer, Answer::Http(http) if http.status == 402), "{answer:?}");
    assert!(is_settled, "{answer:?}");
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1);

    // Without one, and with one that somebody else signed, there is no answer that settles anything. TLS 1.3 lets a
    // client send before it hears that its certificate is refused, so it need not be proven that nothing left.
    let [strange, strange_key] = files.identity("strange", &authority.identity("holdfast"));
    let strange = [ca, ("client_cert_file", &*strange), ("client_key_file", &*strange_key)];
    for settings in [&[ca][..], &strange] {
        let (answer, is_settled) = send(&provider(&url, settings).unwrap()).await;
        assert!(!matches!(answer, Answer::Http(_)) && !is_settled, "{answer:?}");
    }
    assert_eq!(seen.requests.load(Ordering::SeqCst), 1);
    // A key of another certificate is told before anything is asked.
    let mixed = [ca, ("client_cert_file", &*certificate), ("client_key_file", strange[2].1)];
    let error = format!("{:#}", provider(&url, &mixed).unwrap_err());
    assert!(error.contains("do not fit each other"), "{error}");
}

#[tokio::test]
async fn http2_is_spoken_where_the_server_chooses_it_and_calls_share_a_connection() {
    let authority = Authority::new();
    let files = Files::of(&authority);
    let (url, seen) = serve(&authority, None, &["h2", "http/1.1"]).await;
    let provider = provider(&url, &[("ca_file", &files.ca)]).unwrap();
    for _ in 0..5 {
        let (answer, is_settled) = send(&provider).await;
        // No key is told: over HTTP/2 an answer is to its own request, on whichever connection.
        assert!(is_settled, "{answer:?}");
    }
    assert_eq!(seen.over_http2.load(Ordering::SeqCst), 5);
    // A send that may be refused without its key goes alone until it is known that HTTP/2 is spoken.
    assert_eq!(seen.connections.load(Ordering::SeqCst), 2, "all but the first share a connection");
}
