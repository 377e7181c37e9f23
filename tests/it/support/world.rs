//! A whole Holdfast for one test: a database, a provider, servers, clients. When it is dropped the
//! invariants are checked, so no test can forget to.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Duration,
};

use holdfast::{
    app::App,
    config::{AccessArgs, DeliveryArgs, ProviderArgs, ServeArgs},
    domain::access::Role,
    rpc::pb::{
        self, access_service_client::AccessServiceClient,
        account_service_client::AccountServiceClient, pool_service_client::PoolServiceClient,
        provider_service_client::ProviderServiceClient,
        redemption_service_client::RedemptionServiceClient,
        subscription_service_client::SubscriptionServiceClient,
    },
    secret::SecretKeys,
    simulator::{
        Simulator, SimulatorArgs,
        faults::{Fault, Faults},
    },
    store::Store,
};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::{Status, transport::Channel};
use tonic_types::StatusExt as _;

use super::{
    caller::{self, Caller, Connection},
    checks::{self, Scene},
    cluster::{Template, TestDatabase},
    journal::Journal,
    logs,
    tokens::{self, ADMIN, Tokens},
    wait::eventually,
};

mod clients;
mod proxied;

static MIGRATED: Template = Template::new("holdfast_template");

/// How every code begins that a test redeems: nothing that is stored or logged may hold it.
pub(crate) const CODE_PREFIX: &str = "HFCODE";
/// The account whose login the provider refuses.
pub(crate) const INVALID_ACCOUNT: &str = "login-invalid";
/// The pool of most tests.
pub(crate) const POOL: &str = "pool";

pub(crate) struct World {
    pub(crate) db_url: String,
    pub(crate) ledger: std::path::PathBuf,
    /// The secret of the token `test-admin`, where the servers ask who calls.
    pub(crate) admin: Option<String>,
    number: u32,
    servers: Vec<App>,
    provider: Option<Simulator>,
    database: Option<TestDatabase>,
    folder: Option<TempDir>,
    args: ServeArgs,
    journal: Journal,
    tokens: Tokens,
    /// The servers' own threads: a test that blocks does not stop them.
    runtime: Option<Runtime>,
}

/// The clients of one server.
#[derive(Clone)]
pub(crate) struct Clients {
    pub(crate) redemptions: RedemptionServiceClient<Connection>,
    pub(crate) accounts: AccountServiceClient<Connection>,
    pub(crate) pools: PoolServiceClient<Connection>,
    pub(crate) providers: ProviderServiceClient<Connection>,
    pub(crate) access: AccessServiceClient<Connection>,
    pub(crate) subscriptions: SubscriptionServiceClient<Connection>,
    journal: Journal,
}

impl World {
    /// One server, with the pool [`POOL`] in EUR and nothing in it.
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}, 1).await
    }

    /// `servers` servers on one database, with the pool [`POOL`], with changed settings.
    pub(crate) async fn with(change: impl FnOnce(&mut ServeArgs), servers: usize) -> Self {
        Self::with_cards(&[], change, servers).await
    }

    /// As [`World::with`], where no cards exist but these: the names of their codes, and what the
    /// simulator's file says after the code.
    pub(crate) async fn with_cards(
        cards: &[(&str, &str)],
        change: impl FnOnce(&mut ServeArgs),
        servers: usize,
    ) -> Self {
        logs::keep();
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let database = fresh_database().await;
        let folder = tempfile::tempdir().unwrap();
        let ledger = folder.path().join("ledger.jsonl");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let cards = (!cards.is_empty()).then(|| {
            let lines: Vec<_> = cards
                .iter()
                .map(|(name, rest)| format!("{},{rest}\n", code_of(number, name)))
                .collect();
            let head = "code,amount_minor,currency_code,country_code,state\n";
            let file = folder.path().join("cards.csv");
            std::fs::write(&file, format!("{head}{}", lines.concat())).unwrap();
            file
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("servers")
            .enable_all()
            .build()
            .unwrap();
        let simulator = SimulatorArgs {
            invalid_accounts: vec![INVALID_ACCOUNT.to_owned()],
            cards,
            ..SimulatorArgs::new(&ledger)
        };
        let provider = runtime
            .spawn(async move { Simulator::start(&simulator).await.unwrap() })
            .await
            .unwrap();
        let _ = SecretKeys::create_beside(folder.path()).unwrap();
        let mut args = serve_args(&database.url, &folder, provider.url());
        change(&mut args);
        let mut world = Self {
            db_url: database.url.clone(),
            ledger,
            admin: None,
            number,
            servers: Vec::new(),
            provider: Some(provider),
            database: Some(database),
            folder: Some(folder),
            args,
            journal: Journal::default(),
            tokens: Tokens::default(),
            runtime: Some(runtime),
        };
        if world.args.access.is_on() {
            world.admin = Some(world.tokens.of(&world.db_url, ADMIN, Role::Admin).await);
        }
        for _ in 0..servers {
            world.start_server().await;
        }
        match &world.admin {
            None => world.clients(0).await.create_pool(POOL).await,
            Some(secret) => {
                Caller::with(world.channel(0).await, secret).create_pool(POOL).await.unwrap();
            }
        }
        world
    }

    /// Starts one more server on the same database.
    pub(crate) async fn start_server(&mut self) {
        self.start_server_with(|_| {}).await;
    }

    /// The same, with changed settings.
    pub(crate) async fn start_server_with(&mut self, change: impl FnOnce(&mut ServeArgs)) {
        let mut args = self.args.clone();
        change(&mut args);
        let runtime = self.runtime.as_ref().unwrap();
        let app = runtime.spawn(async move { App::start(&args).await }).await.unwrap().unwrap();
        self.servers.push(app);
    }

    /// Takes a server out, to be stopped by the test.
    pub(crate) fn take_server(&mut self, place: usize) -> App {
        self.servers.remove(place)
    }

    pub(crate) fn server(&self, place: usize) -> &App {
        &self.servers[place]
    }

    /// The clients of a server: the admin's, where it asks who calls.
    pub(crate) async fn clients(&self, place: usize) -> Clients {
        let channel = self.channel(place).await;
        Clients::showing(channel, self.admin.as_deref(), self.journal.clone())
    }

    /// The clients of a server that asks who calls, of the principal `token:NAME` with a role everywhere.
    pub(crate) async fn clients_as(&self, place: usize, principal: &str, role: Role) -> Clients {
        let secret = self.tokens.of(&self.db_url, principal, role).await;
        let channel = self.channel(place).await;
        tokens::accepted(&channel, &secret).await;
        Clients::showing(channel, Some(&secret), self.journal.clone())
    }

    /// A connection to a server.
    pub(crate) async fn channel(&self, place: usize) -> Channel {
        let url = format!("http://{}", self.servers[place].addr());
        // Connections live on the servers' threads too: they are still answered to while the
        // test's own thread tears the world down.
        let runtime = self.runtime.as_ref().unwrap();
        let connect = async move { Channel::from_shared(url).unwrap().connect().await.unwrap() };
        runtime.spawn(connect).await.unwrap()
    }

    /// Waits until exactly `count` callers wait on a server for the accounts of a pool. Metrics are
    /// the process's, so the pool's name must be this test's alone.
    pub(crate) async fn callers_wait(&self, server: usize, pool_id: &str, count: usize) {
        let url = format!("http://{}/metrics", self.servers[server].admin_addr());
        let wanted = format!("holdfast_acquire_waiting{{pool_id=\"{pool_id}\"}} {count}");
        // Thousands take their time to come, in a build without optimization.
        let limit = Duration::from_secs(if count > 1000 { 60 } else { 10 });
        eventually(limit, &wanted, async || {
            let metrics = reqwest::get(&url).await.unwrap().text().await.unwrap();
            metrics.lines().any(|line| line == wanted).then_some(())
        })
        .await;
    }

    /// A connection to the database.
    pub(crate) async fn sql(&self) -> PgConnection {
        PgConnection::connect(&self.db_url).await.unwrap()
    }

    /// How many tasks its servers and its provider have.
    pub(crate) fn tasks(&self) -> usize {
        self.runtime.as_ref().unwrap().metrics().num_alive_tasks()
    }

    /// The servers' settings.
    pub(crate) fn args(&self) -> &ServeArgs {
        &self.args
    }

    /// The servers' secret key.
    pub(crate) fn secret(&self) -> SecretKeys {
        SecretKeys::from_file(self.args.secret_key_file.as_ref().unwrap()).unwrap()
    }

    /// A store of the test's own on the same database.
    pub(crate) fn store(&self) -> Store {
        Store::open(&self.db_url.clone().into(), 4).unwrap()
    }

    /// A code that no other test has.
    pub(crate) fn code(&self, name: &str) -> String {
        code_of(self.number, name)
    }

    /// How many cards the provider was asked about.
    pub(crate) fn inquiries(&self) -> u64 {
        self.provider.as_ref().unwrap().inquiries()
    }

    /// Lets the next requests for a card go wrong, one after another.
    pub(crate) fn fault(&self, code: &str, faults: &[Fault]) {
        self.set_faults(Faults { rules: Faults::of_card(code, faults), ..Faults::default() });
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.provider.as_ref().unwrap().set_faults(faults).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let servers = std::mem::take(&mut self.servers);
        let (Some(runtime), Some(provider)) = (self.runtime.take(), self.provider.take()) else {
            return;
        };
        let (database, folder) = (self.database.take(), self.folder.take());
        let (url, ledger, number) = (self.db_url.clone(), self.ledger.clone(), self.number);
        let journal = self.journal.clone();
        let failed_already = thread::panicking();
        // On a thread of its own: a runtime must not be entered from within another.
        let teardown = thread::spawn(move || {
            runtime.block_on(async move {
                provider.set_faults(Faults::default()).unwrap();
                if !failed_already {
                    checks::everything_settles(&url).await;
                    checks::leases_end(&url).await;
                }
                for server in servers {
                    server.stop().await.unwrap();
                }
                provider.stop().await.unwrap();
                if !failed_already {
                    let scene = Scene {
                        url: &url,
                        ledger: &ledger,
                        others: &[],
                        code_prefix: &format!("{CODE_PREFIX}-{number:04}"),
                        journal: &journal,
                        logs: &[],
                    };
                    checks::assert_invariants(&scene).await;
                }
                if let Some(database) = database {
                    database.drop_database().await;
                }
            });
            drop(folder);
        });
        if let Err(panic) = teardown.join()
            && !failed_already
        {
            std::panic::resume_unwind(panic);
        }
    }
}

fn code_of(number: u32, name: &str) -> String {
    format!("{CODE_PREFIX}-{number:04}-{name}")
}

/// A database with the schema and nothing in it, for tests that need no more.
pub(crate) async fn fresh_database() -> TestDatabase {
    let migrate = async |url: String| {
        let store = Store::open(&url.into(), 2)?;
        store.migrate().await?;
        store.close().await;
        Ok(())
    };
    MIGRATED.fresh_database(migrate).await
}

/// The provider's settings for tests: it can do everything, and nobody is patient.
pub(crate) fn provider_args(url: String) -> ProviderArgs {
    ProviderArgs {
        url,
        token_file: None,
        timeout: Duration::from_secs(2),
        connect_timeout: Duration::from_millis(500),
        send_window: Duration::from_secs(4),
        not_after: Duration::from_secs(60),
        deduplicates: true,
        looks_up: true,
        cancels: true,
        inquires: true,
        key_retention: Duration::from_secs(3600),
        visibility_horizon: Duration::from_millis(200),
        max_processing_time: Duration::from_secs(10),
    }
}

/// Pauses that no test has to wait for.
fn quick_deliveries() -> DeliveryArgs {
    DeliveryArgs {
        timeout: Duration::from_millis(1500),
        first_pause: Duration::from_millis(50),
        longest_pause: Duration::from_millis(400),
        give_up: Duration::from_secs(3600),
    }
}

fn serve_args(url: &str, folder: &TempDir, provider_url: String) -> ServeArgs {
    ServeArgs {
        database_url: Some(url.to_owned().into()),
        database_url_file: None,
        database: Default::default(),
        schema: Default::default(),
        database_connections: 8,
        data_dir: folder.path().join("data"),
        postgres_bin: None,
        secret_key_file: Some(folder.path().join(holdfast::secret::FILE_NAME)),
        secrets_dir: Some(folder.path().join("secrets")),
        listen: ([127, 0, 0, 1], 0).into(),
        admin_listen: ([127, 0, 0, 1], 0).into(),
        webhook_listen: None,
        tls: Default::default(),
        admin_tls: Default::default(),
        webhook_tls: Default::default(),
        access: AccessArgs::off(),
        provider: provider_args(provider_url),
        delivery: quick_deliveries(),
        inquiry_concurrency: 16,
        inquiry_cache: Duration::from_secs(30),
        limits: holdfast::config::LimitArgs::default(),
        sweep_interval: Duration::from_millis(200),
        reconcile_interval: Duration::from_millis(100),
        drain_delay: Duration::ZERO,
        shutdown_timeout: Duration::from_secs(15),
        max_wait: Duration::from_secs(600),
        stream_heartbeat: Duration::from_secs(10),
    }
}

/// The lease of an acquisition.
pub(crate) fn lease(acquired: &pb::AcquireAccountResponse) -> pb::LeaseRef {
    acquired.lease.as_ref().unwrap().r#ref.clone().unwrap()
}

pub(crate) fn eur(amount_minor: i64) -> pb::Money {
    pb::Money { amount_minor, currency_code: "EUR".to_owned() }
}

pub(crate) fn seconds(seconds: f64) -> Option<prost_types::Duration> {
    Some(Duration::from_secs_f64(seconds).try_into().unwrap())
}

/// The reason of an error, by its `ErrorInfo`.
pub(crate) fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "holdfast");
    info.reason.clone()
}

/// The error says `code` and `why`, and names the thing.
pub(crate) fn check_names(error: &Status, code: tonic::Code, why: &str, kind: &str, name: &str) {
    assert_eq!((error.code(), &*reason(error)), (code, why));
    let details = error.get_error_details();
    let named = details.resource_info().unwrap();
    assert_eq!((&*named.resource_type, &*named.resource_name), (kind, name));
}

/// What an error's `ErrorInfo` says of `key`.
pub(crate) fn metadata(status: &Status, key: &str) -> String {
    let details = status.get_error_details();
    details.error_info().unwrap().metadata.get(key).cloned().unwrap_or_default()
}

/// The fields that an error's `BadRequest` names, in order.
pub(crate) fn bad_fields(status: &Status) -> Vec<String> {
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status:?}");
    let details = status.get_error_details();
    let bad = details.bad_request().unwrap_or_else(|| panic!("no BadRequest in {status:?}"));
    bad.field_violations.iter().map(|violation| violation.field.clone()).collect()
}
