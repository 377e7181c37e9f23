//! Who a caller is by its certificate alone, over real listeners: gRPC and the metrics.

use holdfast::{
    app::App,
    config::{AccessArgs, AdminTls, GrpcTls, ServeArgs},
    listener::tls::ClientAuth,
    rpc::pb,
};
use tonic::Code;

use super::browser;
use crate::support::{
    journal::Journal,
    secrets::write_secret,
    tls::{self, Authority, Identity},
    world::{Clients, POOL, World, lease, reason},
};

const TILL: &str = "spiffe://example.org/ns/tills/sa/7";
const PROMETHEUS: &str = "spiffe://example.org/ns/monitoring/sa/prometheus";

/// What is granted to names of certificates.
fn grants() -> String {
    let grant = |principal: &str, role: &str, pools: &str| {
        format!(
            "[[grant]]\nprincipal = \"cert:{principal}\"\nrole = \"{role}\"\npools = \"{pools}\"\n"
        )
    };
    [
        grant("spiffe://example.org/ns/tills/*", "redeemer", POOL),
        grant(PROMETHEUS, "auditor", "*"),
        grant("anna.example", "operator", POOL),
    ]
    .concat()
}

/// A server that knows callers by their certificates, on addresses that others may reach.
struct Stage {
    world: World,
    app: App,
    authority: Authority,
    signer: Authority,
    _folder: tempfile::TempDir,
}

impl Stage {
    async fn start() -> Self {
        let (authority, signer) = (Authority::new(), Authority::new());
        let folder = tempfile::tempdir().unwrap();
        let [cert, key] = authority.identity("localhost").write(folder.path(), "server");
        let (cert_file, key_file) = (Some(cert), Some(key));
        let client_ca_file = Some(signer.write(folder.path(), "clients.pem"));
        let client_auth = Some(ClientAuth::Optional);
        let access_file = folder.path().join("access.toml");
        write_secret(&access_file, grants());
        let world = World::start().await;
        let args = ServeArgs {
            listen: ([0, 0, 0, 0], 0).into(),
            admin_listen: ([0, 0, 0, 0], 0).into(),
            access: AccessArgs { access_file: Some(access_file), ..AccessArgs::on() },
            tls: GrpcTls {
                cert_file: cert_file.clone(),
                key_file: key_file.clone(),
                client_ca_file: client_ca_file.clone(),
                client_auth,
                ..GrpcTls::default()
            },
            admin_tls: AdminTls {
                cert_file,
                key_file,
                client_ca_file,
                client_auth,
                ..AdminTls::default()
            },
            ..world.args().clone()
        };
        let app = App::start(&args).await.unwrap();
        Self { world, app, authority, signer, _folder: folder }
    }

    fn clients(&self, identity: Option<&Identity>) -> Clients {
        let addr = ([127, 0, 0, 1], self.app.addr().port()).into();
        let (channel, _) = tls::channel(addr, tls::client(&self.authority, identity));
        Clients::over(channel, Journal::default())
    }

    /// The status with which the metrics are answered.
    async fn metrics(&self, identity: Option<&Identity>, token: Option<&str>) -> u16 {
        let url = format!("https://localhost:{}/metrics", self.app.admin_addr().port());
        let mut request = browser(&self.authority, identity).get(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap().status().as_u16()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_is_who_its_certificate_names_and_may_do_what_that_is_granted() {
    let stage = Stage::start().await;
    let mut anybody = stage.world.clients(0).await;
    anybody.create_account("a", |_| {}).await;
    anybody.create_pool("other").await;

    let mut till = stage.clients(Some(&stage.signer.of_uri(TILL)));
    let acquired = till.acquire(|_| {}).await.unwrap();
    assert_eq!(acquired.lease.as_ref().unwrap().principal, format!("cert:{TILL}"));
    let elsewhere = till.acquire(|request| request.pool_id = "other".into()).await.unwrap_err();
    assert_eq!(elsewhere.code(), Code::PermissionDenied);
    let list = || pb::ListAccountsRequest { pool_id: POOL.into(), ..Default::default() };
    let error = till.accounts.list_accounts(list()).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::PermissionDenied, "PERMISSION_DENIED"));

    // An operator by the name of a host.
    let mut anna = stage.clients(Some(&stage.signer.identity("anna.example")));
    anna.accounts.list_accounts(list()).await.unwrap();
    let mut nobody =
        stage.clients(Some(&stage.signer.of_uri("spiffe://example.org/ns/other/sa/7")));
    let error = nobody.acquire(|_| {}).await.unwrap_err();
    assert_eq!(error.code(), Code::PermissionDenied, "a certificate without a grant");
    let error = stage.clients(None).acquire(|_| {}).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::Unauthenticated, "UNAUTHENTICATED"));

    till.release(&lease(&acquired)).await.unwrap();
    drop((till, anna, nobody));
    stage.app.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_are_shown_to_an_auditor_of_all_pools_by_its_certificate() {
    let stage = Stage::start().await;
    let prometheus = stage.signer.of_uri(PROMETHEUS);
    assert_eq!(stage.metrics(Some(&prometheus), None).await, 200);
    assert_eq!(stage.metrics(Some(&stage.signer.of_uri(TILL)), None).await, 403);
    let other = stage.signer.of_uri("spiffe://example.org/ns/other/sa/7");
    assert_eq!(stage.metrics(Some(&other), None).await, 403);
    assert_eq!(stage.metrics(None, None).await, 401);
    // A token goes before the certificate of its connection.
    assert_eq!(stage.metrics(Some(&prometheus), Some("hf_x")).await, 401);
    stage.app.stop().await.unwrap();
}
