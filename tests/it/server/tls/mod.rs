//! TLS of a server: handshakes, clients' certificates, new files, what is refused at start, and commands.

mod callers;
mod clients;
mod commands;
mod handshakes;
mod revocation;
mod rotation;
mod startup;

use std::{fs, net::SocketAddr};

use holdfast::{
    app::App,
    config::{AdminTls, GrpcTls, ServeArgs},
    listener::tls::ClientAuth,
};
use tempfile::TempDir;

use crate::support::{
    journal::Journal,
    tls::{self, Authority, Identity},
    world::{Clients, World},
};

/// A server with TLS, for `localhost`.
struct Secure {
    world: World,
    app: App,
    authority: Authority,
    /// Who signs clients' certificates.
    clients: Authority,
    folder: TempDir,
}

impl Secure {
    /// One that asks clients for a certificate, or does not.
    async fn start(client_auth: Option<ClientAuth>) -> Self {
        Self::with_lists(client_auth, |_| None).await
    }

    /// The same, where revocation lists may be in a file, `clients.crl`.
    async fn with_lists(
        client_auth: Option<ClientAuth>,
        lists: impl FnOnce(&Authority) -> Option<String>,
    ) -> Self {
        let (authority, clients) = (Authority::new(), Authority::new());
        let folder = tempfile::tempdir().unwrap();
        let [cert, key] = authority.identity("localhost").write(folder.path(), "server");
        let client_ca = clients.write(folder.path(), "clients.pem");
        let client_ca = client_auth.is_some().then_some(client_ca);
        let client_crl_file = lists(&clients).map(|lists| {
            let file = folder.path().join("clients.crl");
            fs::write(&file, lists).unwrap();
            file
        });
        let world = World::start().await;
        let args = ServeArgs {
            tls: GrpcTls {
                cert_file: Some(cert.clone()),
                key_file: Some(key.clone()),
                client_ca_file: client_ca.clone(),
                client_crl_file: client_crl_file.clone(),
                client_auth,
            },
            admin_tls: AdminTls {
                cert_file: Some(cert),
                key_file: Some(key),
                client_ca_file: client_ca,
                client_crl_file,
                client_auth,
            },
            ..world.args().clone()
        };
        let app = App::start(&args).await.unwrap();
        Self { world, app, authority, clients, folder }
    }

    fn addr(&self) -> SocketAddr {
        self.app.addr()
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.addr().port())
    }

    /// Clients over a connection of their own.
    fn clients(&self, identity: Option<&Identity>) -> Clients {
        let (channel, _) = tls::channel(self.addr(), tls::client(&self.authority, identity));
        Clients::over(channel, Journal::default())
    }

    async fn stop(self) {
        self.app.stop().await.unwrap();
    }
}

/// A client of the admin address, or of any other over HTTP/1.1.
fn browser(authority: &Authority, identity: Option<&Identity>) -> reqwest::Client {
    let mut config = tls::client(authority, identity);
    config.alpn_protocols.clear();
    reqwest::Client::builder().tls_backend_preconfigured(config).build().unwrap()
}
