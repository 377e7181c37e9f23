//! Certificates of clients, optional and required.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use holdfast::listener::{
    Accepts, ConnectionLimit, Peer,
    connection::Arrived,
    tls::{ClientAuth, Reload, TlsSettings},
};
use rustls::{
    HandshakeKind, SupportedProtocolVersion,
    version::{TLS12, TLS13},
};
use tokio::{io::AsyncReadExt as _, net::TcpListener};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::util::MapRequestLayer;

use super::{Secure, browser};
use crate::support::{
    journal::Journal,
    tls::{Authority, Identity, channel, client, handshake, of_versions},
    wait::eventually,
    world::Clients,
};

/// Whether a client who shows this is served: over both versions of TLS, and on the admin address.
async fn is_served(server: &Secure, identity: Option<&Identity>) -> [bool; 3] {
    let mut served = [false; 3];
    for (version, served) in [&TLS12, &TLS13].into_iter().zip(&mut served) {
        let config = of_versions(&server.authority, identity, &[version]);
        let (channel, _) = channel(server.addr(), config);
        let mut clients = Clients::over(channel, Journal::default());
        let request = holdfast::rpc::pb::ListPoolsRequest::default();
        *served = clients.pools.list_pools(request).await.is_ok();
    }
    let admin = format!("https://localhost:{}/readyz", server.app.admin_addr().port());
    served[2] = browser(&server.authority, identity).get(admin).send().await.is_ok();
    served
}

#[tokio::test]
async fn a_certificate_is_required_or_optional_and_one_that_is_not_valid_is_always_refused() {
    for (auth, without) in [(ClientAuth::Required, false), (ClientAuth::Optional, true)] {
        let server = Secure::start(Some(auth)).await;
        assert_eq!(is_served(&server, None).await, [without; 3], "{auth:?}");
        let good = server.clients.identity("till.example");
        assert_eq!(is_served(&server, Some(&good)).await, [true; 3], "{auth:?}");
        let anothers = Authority::new().identity("till.example");
        let expired = server.clients.valid_for("till.example", -60);
        for wrong in [anothers, expired] {
            assert_eq!(is_served(&server, Some(&wrong)).await, [false; 3], "{auth:?}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn every_call_has_the_names_of_its_clients_certificate_and_the_address() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = authority.identity("localhost").write(folder.path(), "server");
    let settings = TlsSettings {
        cert_file: Some(cert),
        key_file: Some(key),
        client_ca_file: Some(clients.write(folder.path(), "clients.pem")),
        client_crl_file: None,
        client_auth: Some(ClientAuth::Optional),
    };
    let (tls, _reload) = Reload::begin(&settings, "test", "HOLDFAST_", "h2").unwrap().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let note = move |mut request: http::Request<tonic::body::Body>| {
        Arrived::unpack(request.extensions_mut()).unwrap();
        let peer = request.extensions().get::<Peer>().unwrap();
        let names = peer.names.0.to_vec();
        noted.lock().unwrap().push((names, peer.addr.unwrap().ip().is_loopback()));
        request
    };
    let stop = CancellationToken::new();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let serving = Server::builder()
        .layer(MapRequestLayer::new(note))
        .add_service(health)
        .serve_with_incoming_shutdown(
            Accepts::new(listener, ConnectionLimit::new(10, "test")).into_http2(Some(tls)),
            stop.clone().cancelled_owned(),
        );
    let serving = tokio::spawn(serving);
    let workload = clients.of_uri("spiffe://example.org/till/7");
    for identity in [Some(&workload), Some(&clients.identity("Till.Example")), None] {
        let (channel, _) = channel(addr, client(&authority, identity));
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
    }
    let seen = seen.lock().unwrap().clone();
    let names = |name: &str| (vec![name.to_owned()], true);
    let expected =
        [names("spiffe://example.org/till/7"), names("till.example"), (Vec::new(), true)];
    assert_eq!(seen, expected);
    stop.cancel();
    serving.await.unwrap().unwrap();
}

/// How the second of two connections with the same memory of sessions began.
async fn second_handshake(
    server: &Secure,
    version: &'static SupportedProtocolVersion,
) -> HandshakeKind {
    let identity = server.clients.identity("till.example");
    let config = of_versions(&server.authority, Some(&identity), &[version]);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let mut stream = handshake(server.addr(), config.clone()).await.unwrap();
        // The server speaks first. Before that it sends what a session could go on with.
        stream.read_u8().await.unwrap();
        kinds.push(stream.get_ref().1.handshake_kind().unwrap());
    }
    kinds[1]
}

#[tokio::test]
async fn a_session_goes_on_in_another_connection_only_where_no_certificate_has_to_be_verified() {
    for (auth, expected) in
        [(None, HandshakeKind::Resumed), (Some(ClientAuth::Optional), HandshakeKind::Full)]
    {
        let server = Secure::start(auth).await;
        for version in [&TLS12, &TLS13] {
            assert_eq!(second_handshake(&server, version).await, expected, "{auth:?} {version:?}");
        }
        server.stop().await;
    }
}

#[tokio::test]
async fn another_ca_of_clients_holds_for_new_connections() {
    let server = Secure::start(Some(ClientAuth::Required)).await;
    let before = server.clients.identity("till.example");
    let mut connected = server.clients(Some(&before));
    connected.create_account("a", |_| {}).await;
    let next = Authority::new();
    next.write(server.folder.path(), "clients.pem");
    let after = next.identity("till.example");
    eventually(Duration::from_secs(30), "the new CA holds on both addresses", async || {
        let (new, old) = (is_served(&server, Some(&after)), is_served(&server, Some(&before)));
        (new.await == [true; 3] && old.await == [false; 3]).then_some(())
    })
    .await;
    connected.account("a").await;
    server.stop().await;
}
