//! Files of TLS that change while a server runs.

use std::{fs, path::Path, sync::atomic::Ordering, time::Duration};

use rustls::pki_types::CertificateDer;

use super::Secure;
use crate::support::{
    batch::{Session, credited, item, opening},
    journal::Journal,
    logs,
    tls::{channel, client, handshake, pem},
    wait::eventually,
    world::Clients,
};

/// Longer than until the files are read again.
const LIMIT: Duration = Duration::from_secs(30);

/// The certificate that a new connection gets.
async fn shown(server: &Secure) -> CertificateDer<'static> {
    let stream = handshake(server.addr(), client(&server.authority, None)).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Waits for a warning about a file.
async fn refused(file: &Path, why: &str) {
    eventually(LIMIT, "the files are refused", async || {
        let lines = logs::lines_with(file.to_str().unwrap());
        let wanted = ["WARN", "the certificate from before is kept", why];
        lines.into_iter().find(|line| wanted.iter().all(|part| line.contains(part)))
    })
    .await;
}

#[tokio::test]
async fn new_connections_get_the_new_certificate_and_an_open_stream_goes_on() {
    let server = Secure::start(None).await;
    let (channel, connections) = channel(server.addr(), client(&server.authority, None));
    let mut clients = Clients::over(channel, Journal::default());
    clients.create_accounts(2).await;
    let mut session = Session::open(&mut clients, opening("through")).await.unwrap();
    session.send(item("one", &server.world.code("one"))).await;
    credited(&session.result().await);

    let before = shown(&server).await;
    let next = server.authority.identity("localhost");
    next.write(server.folder.path(), "server");
    eventually(LIMIT, "the new certificate is shown", async || {
        (shown(&server).await == next.certificate).then_some(())
    })
    .await;
    assert_ne!(before, next.certificate);

    session.send(item("two", &server.world.code("two"))).await;
    credited(&session.result().await);
    session.finish().await.unwrap();
    clients.account("a-000").await;
    assert_eq!(connections.load(Ordering::SeqCst), 1, "all over one connection");
    server.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_certificate_from_before_until_they_can() {
    let server = Secure::start(None).await;
    let before = shown(&server).await;
    let folder = server.folder.path();
    let (cert, key) = (folder.join("server.pem"), folder.join("server.key"));
    let next = server.authority.identity("localhost");

    // The certificate is there before its key.
    pem(folder, "server.pem", "CERTIFICATE", &next.certificate);
    refused(&key, "is not the one of the certificate in").await;
    assert_eq!(shown(&server).await, before);
    // Half of it is written.
    let text = fs::read_to_string(&cert).unwrap();
    fs::write(&cert, &text[..text.len() / 2]).unwrap();
    refused(&cert, "is no PEM of certificates").await;
    assert_eq!(shown(&server).await, before);
    // It is gone.
    fs::remove_file(&cert).unwrap();
    refused(&cert, "cannot be read").await;
    assert_eq!(shown(&server).await, before);
    // It has expired.
    server.authority.valid_for("localhost", -60).write(folder, "server");
    refused(&cert, "expired at").await;
    assert_eq!(shown(&server).await, before);

    next.write(folder, "server");
    eventually(LIMIT, "the new certificate is shown", async || {
        (shown(&server).await == next.certificate).then_some(())
    })
    .await;
    server.stop().await;
}
