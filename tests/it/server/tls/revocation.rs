//! Lists of revoked certificates.

use std::{fs, sync::atomic::Ordering, time::Duration};

use holdfast::{
    app::App,
    config::{GrpcTls, ServeArgs},
    listener::tls::ClientAuth,
};
use rustls::{ClientConfig, pki_types::CertificateDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Secure, browser};
use crate::support::{
    batch::{Session, credited, item, opening},
    journal::Journal,
    logs,
    tls::{self, Authority, Identity, client, handshake},
    wait::eventually,
    world::{Clients, World},
};

/// Longer than until the files are read again.
const LIMIT: Duration = Duration::from_secs(30);
const DAY: i64 = 24 * 60 * 60;

/// Replaces the lists of a server.
fn write_lists(server: &Secure, lists: &str) {
    let folder = server.folder.path();
    fs::write(folder.join("clients.crl.new"), lists).unwrap();
    fs::rename(folder.join("clients.crl.new"), folder.join("clients.crl")).unwrap();
}

/// Whether a client is let in: over TLS 1.3 it hears that only when it reads.
async fn is_let_in(server: &Secure, config: ClientConfig) -> bool {
    let Ok(mut stream) = handshake(server.addr(), config).await else { return false };
    // A server speaks first over HTTP/2.
    stream.read_u8().await.is_ok()
}

async fn metric(server: &Secure, identity: &Identity, name: &str) -> f64 {
    let url = format!("https://localhost:{}/metrics", server.app.admin_addr().port());
    let metrics = browser(&server.authority, Some(identity)).get(url).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_revoked_gets_no_connection_and_its_open_ones_end() {
    let lists = |clients: &Authority| Some(clients.revokes(&[], DAY));
    let server = Secure::with_lists(Some(ClientAuth::Required), lists).await;
    let [good, stolen] = ["good", "stolen"].map(|name| server.clients.identity(name));
    let (channel, connections) =
        tls::channel(server.addr(), client(&server.authority, Some(&good)));
    let mut clients = Clients::over(channel, Journal::default());
    clients.create_accounts(2).await;
    let mut session = Session::open(&mut clients, opening("good")).await.unwrap();
    let mut theirs = server.clients(Some(&stolen));
    let mut their_session = Session::open(&mut theirs, opening("stolen")).await.unwrap();
    let mut silent =
        handshake(server.addr(), client(&server.authority, Some(&stolen))).await.unwrap();

    let begun = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0, 0, 0, 4, 0, 0, 0, 0, 0][..]].concat();
    silent.write_all(&begun).await.unwrap();

    write_lists(&server, &server.clients.revokes(&[&stolen.certificate], DAY));
    let ended = async {
        let ended = loop {
            match their_session.next().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        };
        assert!(ended.is_err(), "{ended:?}");
        // What the server said before it heard of the list, and then the end.
        while silent.read_u8().await.is_ok() {}
    };
    tokio::time::timeout(LIMIT, ended).await.expect("the open connections end");
    assert!(!is_let_in(&server, client(&server.authority, Some(&stolen))).await);
    let closed = r#"holdfast_connections_closed_total{cause="revoked"} "#;
    assert!(metric(&server, &good, closed).await >= 2.0);
    let refused = r#"holdfast_tls_handshakes_failed_total{listener="grpc",reason="revoked"} "#;
    assert!(metric(&server, &good, refused).await >= 1.0);

    // The others' go on, and are not even made anew.
    session.send(item("one", &server.world.code("one"))).await;
    credited(&session.result().await);
    session.finish().await.unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 1, "all over one connection");
    drop((theirs, their_session));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_revoked_when_it_has_expired_ends_its_connection_too() {
    let lists = |clients: &Authority| Some(clients.revokes(&[], DAY));
    let server = Secure::with_lists(Some(ClientAuth::Required), lists).await;
    let stolen = server.clients.valid_for("stolen", 3);
    let mut theirs = server.clients(Some(&stolen));
    theirs.create_accounts(1).await;
    let mut session = Session::open(&mut theirs, opening("stolen")).await.unwrap();
    eventually(LIMIT, "it has expired", async || {
        (!is_let_in(&server, client(&server.authority, Some(&stolen))).await).then_some(())
    })
    .await;
    session.send(item("one", &server.world.code("one"))).await;
    credited(&session.result().await);
    write_lists(&server, &server.clients.revokes(&[&stolen.certificate], DAY));
    let ended = async {
        loop {
            match session.next().await {
                Ok(Some(_)) => {}
                ended => break ended,
            }
        }
    };
    let ended = tokio::time::timeout(LIMIT, ended).await.expect("the open connection ends");
    assert!(ended.is_err(), "{ended:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_has_expired_is_used_and_warned_of_until_there_is_a_new_one() {
    let lists = |clients: &Authority| Some(clients.revokes(&[], -3600));
    let server = Secure::with_lists(Some(ClientAuth::Required), lists).await;
    let [good, stolen] = ["good", "stolen"].map(|name| server.clients.identity(name));
    let of = |identity: &Identity| client(&server.authority, Some(identity));
    assert!(is_let_in(&server, of(&good)).await, "nobody loses the service by it");
    let left = r#"holdfast_revocation_list_expiry_seconds{listener="grpc"} "#;
    let expired = metric(&server, &good, left).await;
    assert!((-3700.0..=-3600.0).contains(&expired), "{expired}");
    let warned = logs::lines_with("a revocation list of clients' certificates has expired");
    assert!(warned.iter().any(|line| line.contains("WARN")), "{warned:?}");

    write_lists(&server, &server.clients.revokes(&[&stolen.certificate], -60));
    eventually(LIMIT, "what it revokes is refused", async || {
        (!is_let_in(&server, of(&stolen)).await).then_some(())
    })
    .await;
    write_lists(&server, &server.clients.revokes(&[&stolen.certificate], DAY));
    eventually(LIMIT, "the metric is of the new list", async || {
        (metric(&server, &good, left).await > 86_000.0).then_some(())
    })
    .await;
    // Half a list changes nothing.
    write_lists(&server, &server.clients.revokes(&[], DAY)[..200]);
    eventually(LIMIT, "the file is refused", async || {
        let lines = logs::lines_with(server.folder.path().join("clients.crl").to_str().unwrap());
        lines.into_iter().find(|line| line.contains("is kept"))
    })
    .await;
    assert!(!is_let_in(&server, of(&stolen)).await);
    server.stop().await;
}

/// What a client below another CA shows: its certificate, and that of the CA between.
fn chained(server: &Secure, between: &Authority, identity: &Identity) -> ClientConfig {
    let mut config = client(&server.authority, None);
    let chain: Vec<CertificateDer<'static>> =
        vec![identity.certificate.clone(), between.certificate().clone()];
    let provider = rustls::crypto::ring::default_provider();
    let key = provider.key_provider.load_private_key(identity.private_key()).unwrap();
    let shown = rustls::sign::CertifiedKey::new(chain, key);
    config.client_auth_cert_resolver =
        std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(shown));
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ca_between_needs_a_list_too_and_may_be_revoked_itself() {
    let lists = |clients: &Authority| Some(clients.revokes(&[], DAY));
    let server = Secure::with_lists(Some(ClientAuth::Required), lists).await;
    let between = server.clients.below("between");
    let till = between.identity("till");
    let config = || chained(&server, &between, &till);
    assert!(!is_let_in(&server, config()).await, "nobody knows whether it is revoked");
    let both = |revoked: &[&CertificateDer<'_>]| {
        server.clients.revokes(revoked, DAY) + &between.revokes(&[], DAY)
    };
    write_lists(&server, &both(&[]));
    eventually(LIMIT, "it is let in by both lists", async || {
        is_let_in(&server, config()).await.then_some(())
    })
    .await;
    write_lists(&server, &both(&[between.certificate()]));
    eventually(LIMIT, "it is refused with its CA", async || {
        (!is_let_in(&server, config()).await).then_some(())
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn lists_that_cannot_be_used_are_refused_at_start() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let [authority, clients, other] = [(); 3].map(|()| Authority::new());
    let unnamed = Authority::named("the forgotten CA");
    let [cert, key] = authority.identity("localhost").write(folder, "server");
    let both = folder.join("both.pem");
    let cas =
        [&clients, &unnamed].map(|it| fs::read_to_string(it.write(folder, "ca.pem")).unwrap());
    fs::write(&both, cas.concat()).unwrap();
    let refusal = async |ca: bool, lists: &str| {
        let file = folder.join("clients.crl");
        fs::write(&file, lists).unwrap();
        let args = ServeArgs {
            tls: GrpcTls {
                cert_file: Some(cert.clone()),
                key_file: Some(key.clone()),
                client_ca_file: ca.then(|| both.clone()),
                client_crl_file: Some(file),
                client_auth: None,
            },
            ..world.args().clone()
        };
        match App::start(&args).await {
            Ok(app) => {
                app.stop().await.unwrap();
                String::new()
            }
            Err(error) => format!("{error:#}"),
        }
    };
    let of = |authorities: &[&Authority]| -> String {
        authorities.iter().map(|it| it.revokes(&[], DAY)).collect()
    };
    for (ca, lists, wanted) in [
        (
            false,
            of(&[&clients]),
            "HOLDFAST_TLS_CLIENT_CRL_FILE is set without HOLDFAST_TLS_CLIENT_CA_FILE",
        ),
        (true, String::new(), "clients.crl holds no revocation list of the CA"),
        (
            true,
            of(&[&clients, &other]),
            "clients.crl holds no revocation list of the CA CN=the forgotten CA",
        ),
        (true, of(&[&clients])[..200].to_owned(), "clients.crl is no PEM of revocation lists"),
        (
            true,
            "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n".to_owned(),
            "cannot be read",
        ),
    ] {
        let told = refusal(ca, &lists).await;
        assert!(told.contains(wanted), "{wanted} is not in {told}");
    }
    assert_eq!(refusal(true, &of(&[&clients, &unnamed, &other])).await, "");
}
