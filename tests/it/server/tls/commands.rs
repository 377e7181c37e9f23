//! Commands over TLS, and what they say when it goes wrong.

use std::{path::Path, process::Stdio, sync::Arc};

use holdfast::listener::tls::ClientAuth;
use rustls::ServerConfig;
use tokio::{net::TcpListener, process::Command};
use tokio_rustls::TlsAcceptor;

use super::Secure;
use crate::support::{
    program::{Finished, finish},
    tls::{Authority, Identity, pem},
};

/// Runs a command that talks to a server.
async fn list_pools(server: &str, files: &[(&str, &Path)]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("HOLDFAST_")) {
        command.env_remove(name);
    }
    command.args(["pool", "list", "--server", server]);
    for (flag, file) in files {
        command.arg(flag).arg(file);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    finish(command.spawn().unwrap()).await
}

/// A server with this certificate that ends each connection after the handshake.
async fn serve(own: Identity) -> String {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.certificate.clone()], own.private_key())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let _ = acceptor.accept(tcp).await;
        }
    });
    url
}

#[tokio::test]
async fn a_command_talks_to_a_server_with_tls_and_says_what_is_wrong() {
    let server = Secure::start(None).await;
    let folder = server.folder.path();
    let ca = server.authority.write(folder, "ca.pem");
    let another = Authority::new().write(folder, "another.pem");
    let done = list_pools(&server.url(), &[("--ca-file", &ca)]).await;
    done.says(0, &[]);
    assert!(done.stdout.contains("pool"), "{done:?}");

    let wrong_name = format!("https://127.0.0.1:{}", server.addr().port());
    let (to_tls, plain) =
        (format!("http://{}", server.addr()), server.world.server(0).addr().to_string());
    let to_plain = format!("https://localhost:{}", plain.rsplit(':').next().unwrap());
    let empty = folder.join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    for (url, files, says) in [
        (
            &*server.url(),
            &[("--ca-file", &*another)][..],
            "signed by a CA that is not trusted here",
        ),
        (&server.url(), &[], "--ca-file"),
        (&wrong_name, &[("--ca-file", &ca)], "is for another name than 127.0.0.1"),
        (&to_plain, &[("--ca-file", &ca)], "does not speak TLS: write http://"),
        (&to_tls, &[], "speaks TLS: write https://"),
        (&to_tls, &[("--ca-file", &ca)], "are for a server with TLS"),
        (&server.url(), &[("--ca-file", &empty)], "holds no certificate in PEM"),
        (&server.url(), &[("--ca-file", &folder.join("none"))], "cannot be read"),
        ("ftp://localhost", &[], "is not a URL such as"),
    ] {
        list_pools(url, files).await.says(1, &[says]);
    }
    list_pools(&server.url(), &[("--cert-file", &ca)]).await.says(2, &["--key-file"]);

    let expired = serve(server.authority.valid_for("localhost", -60)).await;
    let done = list_pools(&expired, &[("--ca-file", &ca)]).await;
    done.says(1, &["the server's certificate expired"]);
    let own = Authority::own_identity("localhost");
    let own_file = pem(folder, "own.pem", "CERTIFICATE", &own.certificate);
    let done = list_pools(&serve(own).await, &[("--ca-file", &own_file)]).await;
    done.says(1, &["the certificate of a CA as its own"]);
    let [one, namesake] = [Authority::named("namesakes"), Authority::named("namesakes")];
    let url = serve(one.identity("localhost")).await;
    let done = list_pools(&url, &[("--ca-file", &namesake.write(folder, "namesake.pem"))]).await;
    done.says(1, &["signed by a CA that is not trusted here"]);
    server.stop().await;
}

#[tokio::test]
async fn a_command_shows_its_certificate_and_says_when_it_is_missing_or_refused() {
    let server = Secure::start(Some(ClientAuth::Required)).await;
    let folder = server.folder.path();
    let ca = server.authority.write(folder, "ca.pem");
    let [cert, key] = server.clients.identity("operator.example").write(folder, "operator");
    let [wrong, wrong_key] = Authority::new().identity("operator.example").write(folder, "wrong");
    let [old, old_key] = server.clients.valid_for("operator.example", -60).write(folder, "old");
    let with = |cert, key| [("--ca-file", &*ca), ("--cert-file", cert), ("--key-file", key)];
    list_pools(&server.url(), &with(&cert, &key)).await.says(0, &[]);
    let none = [("--ca-file", &*ca)];
    list_pools(&server.url(), &none).await.says(1, &["wants a client certificate"]);
    let refused = ["does not take this client's certificate"];
    list_pools(&server.url(), &with(&wrong, &wrong_key)).await.says(1, &refused);
    list_pools(&server.url(), &with(&old, &old_key)).await.says(1, &refused);
    let unfit = ["--cert-file and --key-file do not fit each other"];
    list_pools(&server.url(), &with(&cert, &wrong_key)).await.says(1, &unfit);
    server.stop().await;
}

#[tokio::test]
async fn the_doctor_tells_until_when_a_certificate_is_valid_and_that_a_ca_is_another() {
    let server = Secure::start(None).await;
    let folder = server.folder.path();
    let (ca, another) =
        (server.authority.write(folder, "ca.pem"), Authority::new().write(folder, "another.pem"));
    for (ca, code, wanted) in
        [(&ca, 0, "server,certificate,ok,"), (&another, 1, "server,reachable,failed,")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        let provider = &server.world.args().provider.url;
        command.args([
            "doctor",
            "--server",
            &server.url(),
            "--provider-url",
            provider,
            "--ca-file",
        ]);
        command.arg(ca).env_remove("HOLDFAST_DATABASE_URL").current_dir(folder);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let done = finish(command.spawn().unwrap()).await;
        done.says(code, &[]);
        assert!(done.stdout.contains(wanted), "{}", done.stdout);
    }
}
