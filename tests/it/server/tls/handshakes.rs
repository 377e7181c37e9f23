//! Handshakes: versions, protocols, and those that do not end.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use holdfast::listener::{
    Accepts, ConnectionLimit,
    tls::{Reload, TlsSettings},
};
use rustls::version::{TLS12, TLS13};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{Secure, browser};
use crate::support::{
    tls::{Authority, client, handshake, of_versions},
    wait::eventually,
};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(60);
/// What an alert says of a version that is not spoken.
const PROTOCOL_VERSION: u8 = 70;
/// What a record is that is no alert.
const HANDSHAKE: u8 = 22;

/// The first message of a client whose newest version is this.
fn hello(version: [u8; 2]) -> Vec<u8> {
    let mut body = version.to_vec();
    body.extend([7; 32]);
    // No session, a suite of TLS 1.2 and an earlier one, no compression.
    body.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x13, 1, 0]);
    // Extensions: signatures and groups.
    body.extend([0, 18, 0, 13, 0, 6, 0, 4, 4, 3, 4, 1, 0, 10, 0, 4, 0, 2, 0, 23]);
    let length = u8::try_from(body.len()).unwrap();
    let mut record = vec![HANDSHAKE, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(body);
    record
}

async fn answer(addr: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(sent).await.unwrap();
    let mut answer = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("it is closed").unwrap();
    answer
}

#[tokio::test]
async fn versions_1_2_and_1_3_are_spoken_and_older_ones_are_refused() {
    let server = Secure::start(None).await;
    for (version, spoken) in [(&TLS12, "TLSv1_2"), (&TLS13, "TLSv1_3")] {
        let config = of_versions(&server.authority, None, &[version]);
        let stream = handshake(server.addr(), config).await.unwrap();
        let tls = stream.get_ref().1;
        assert_eq!(format!("{:?}", tls.protocol_version().unwrap()), spoken);
        assert_eq!(tls.alpn_protocol(), Some(&b"h2"[..]));
    }
    for old in [[3, 2], [3, 1], [3, 0]] {
        assert_eq!(answer(server.addr(), &hello(old)).await[5..], [2, PROTOCOL_VERSION], "{old:?}");
    }
    // The same message of a newer client is answered by a handshake.
    assert_eq!(answer(server.addr(), &hello([3, 3])).await[0], HANDSHAKE);
    server.clients(None).create_account("a", |_| {}).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_offers_no_http2_is_refused_on_grpc_and_served_on_the_admin_address() {
    let server = Secure::start(None).await;
    let mut config = client(&server.authority, None);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let refused = handshake(server.addr(), config.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    let admin = server.app.admin_addr();
    let stream = handshake(admin, config).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let refused = handshake(admin, client(&server.authority, None)).await.unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");

    let client = browser(&server.authority, None);
    let url = |path: &str| format!("https://localhost:{}/{path}", admin.port());
    let ready = client.get(url("readyz")).send().await.unwrap();
    assert_eq!(ready.status().as_u16(), 200);
    let metrics = client.get(url("metrics")).send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains(
            r#"holdfast_tls_handshakes_failed_total{listener="grpc",reason="incompatible"}"#
        ),
        "{metrics}"
    );
    let plain = reqwest::get(format!("http://{admin}/readyz")).await;
    assert!(plain.is_err(), "{plain:?}");
    server.stop().await;
}

#[tokio::test]
async fn what_has_begun_inside_tls_and_does_not_end_is_closed_as_it_is_without() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let server = Secure::start(None).await;
    let half_a_block = [PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0], &[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x83]];
    let half_a_block = half_a_block.concat();
    let closed_after = async |sent: &[u8]| {
        let config = client(&server.authority, None);
        let mut stream = handshake(server.addr(), config).await.unwrap();
        stream.write_all(sent).await.unwrap();
        stream.flush().await.unwrap();
        let mut rest = Vec::new();
        let closed = timeout(LIMIT, stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "after {sent:?}");
    };
    tokio::join!(closed_after(b""), closed_after(&PREFACE[..20]), closed_after(&half_a_block));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_handshakes_that_do_not_end_keep_nobody_out_and_are_closed_after_five_seconds()
{
    const MANY: usize = 500;
    let server = Secure::start(None).await;
    let mut steady = server.clients(None);
    steady.create_account("a", |_| {}).await;
    let begun = Instant::now();
    let mut half_done = Vec::new();
    let hello = hello([3, 3]);
    for n in 0..MANY {
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        // From silent ones to those that wait for more.
        stream.write_all(&hello[..n % (hello.len() + 1)]).await.unwrap();
        half_done.push(stream);
    }
    let mut calls = 0;
    while begun.elapsed() < Duration::from_secs(4) {
        let called = timeout(Duration::from_secs(3), steady.account("a")).await;
        called.expect("a client that is connected is served");
        let mut new = server.clients(None);
        let called = timeout(Duration::from_secs(3), new.account("a")).await;
        called.expect("a client that connects is served");
        calls += 1;
    }
    assert!(calls > 3, "{calls}");
    for mut stream in half_done {
        let mut rest = Vec::new();
        let closed = timeout(LIMIT, stream.read_to_end(&mut rest)).await;
        closed.expect("closed").ok();
    }
    assert!(begun.elapsed() >= Duration::from_millis(4_900), "{:?}", begun.elapsed());
    let slow = r#"holdfast_tls_handshakes_failed_total{listener="grpc",reason="slow"}"#;
    let url = format!("https://localhost:{}/metrics", server.app.admin_addr().port());
    let metrics = browser(&server.authority, None);
    eventually(LIMIT, slow, async || {
        let metrics = metrics.get(&url).send().await.unwrap().text().await.unwrap();
        let line = metrics.lines().find_map(|line| line.strip_prefix(slow));
        line.and_then(|count| count.trim().parse::<usize>().ok()).filter(|count| *count >= MANY)
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn a_handshake_counts_as_a_connection() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let [cert, key] = authority.identity("localhost").write(folder.path(), "server");
    let settings =
        TlsSettings { cert_file: Some(cert), key_file: Some(key), ..TlsSettings::default() };
    let (tls, _reload) = Reload::begin(&settings, "test", "HOLDFAST_", "h2").unwrap().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accepts = Accepts::new(listener, ConnectionLimit::new(2, "test"));
    let accepted = tokio::spawn(async move {
        let mut connections = Box::pin(accepts.into_http2(Some(tls)));
        let mut kept = Vec::new();
        while kept.len() < 2 {
            kept.push(connections.next().await.unwrap().unwrap());
        }
        kept.len()
    });
    let (_first, _second) =
        (TcpStream::connect(addr).await.unwrap(), TcpStream::connect(addr).await.unwrap());
    assert_eq!(answer(addr, b"").await, b"", "the third is closed at once");
    // Those that do not go on make room for others.
    for _ in 0..2 {
        eventually(LIMIT, "a handshake", async || {
            handshake(addr, client(&authority, None)).await.ok()
        })
        .await;
    }
    assert_eq!(accepted.await.unwrap(), 2);
}
