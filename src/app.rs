//! A server, put together: the database, the services, the listeners, and the way down.

mod access;
pub mod examine;
pub mod keys;
mod listeners;
mod parts;
pub mod schema;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use secrecy::SecretString;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;

use self::{listeners::Listeners, parts::Parts};
use crate::{
    admin::{self, Metrics},
    config::{ServeArgs, Switch},
    domain::database::Address,
    embedded::{self, Data, Postgres},
    failpoints,
    health::Health,
    listener::{Accepts, ConnectionLimit, address::is_reachable},
    provider::Provider,
    rpc::{CONNECTION_WINDOW, STREAM_WINDOW, layers::Admission, reflection},
    secret::SecretKeys,
    service::{self, admin::tokens::Tokens},
    shutdown::{Patience, Shutdown},
    store::Store,
    telemetry::{self, Rendered},
    webhook,
};

/// The most bytes of one call's headers.
const MAX_HEADERS: u32 = 8 * 1024;
/// Streams of one connection that may be reset for a frame that came too late, before the connection is
/// closed. A message that is refused by its length makes one, and a connection may live for months. They cost no memory.
const MAX_ERROR_RESETS: usize = 65_536;
/// A connection on which nothing is heard is asked whether it lives, and closed if not.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long background tasks may take for what they have begun.
const LOOPS_TIMEOUT: Duration = Duration::from_millis(500);
/// How long Postgres may take to say goodbye, after everything else.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A server that runs.
#[derive(Debug)]
pub struct App {
    addr: SocketAddr,
    admin_addr: SocketAddr,
    webhook_addr: Option<SocketAddr>,
    shutdown: Shutdown,
    running: JoinHandle<anyhow::Result<()>>,
}

impl App {
    /// Starts a server. It answers when this returns.
    pub async fn start(args: &ServeArgs) -> anyhow::Result<Self> {
        args.check()?;
        failpoints::check()?;
        let metrics = telemetry::metrics()?;
        let mut listeners = Listeners::check(args)?;
        let (postgres, address, secret) = database(args).await?;
        let limits = &args.limits;
        let store = Store::open_with(&address, args.database_connections, limits.of_callers())?;
        schema::prepare(args, &store).await?;
        service::keys::take_up(&store, &secret).await.context("the secret keys cannot be used")?;
        let provider = Provider::built_in(&args.provider)?;
        // Before anything can be begun: the redemptions of a server without a row are taken for a dead one's.
        store.beat().await.context("the server's first beat cannot be written")?;

        let listener = listen(args.listen, "HOLDFAST_LISTEN").await?;
        let admin_listener = listen(args.admin_listen, "HOLDFAST_ADMIN_LISTEN").await?;
        let webhook_listener = match args.webhook_listen {
            Some(addr) => Some(listen(addr, "HOLDFAST_WEBHOOK_LISTEN").await?),
            None => None,
        };
        let (addr, admin_addr) = (listener.local_addr()?, admin_listener.local_addr()?);
        let webhook_addr = webhook_listener.as_ref().map(TcpListener::local_addr).transpose()?;
        listeners.warn();

        let tokens = Tokens::new(store.clone());
        let authenticator = access::open(args, &tokens).await?;
        let shutdown = Shutdown::default();
        let tasks = TaskTracker::new();
        let health = Health::new();
        let parts = Parts::new(args, store.clone(), provider, secret, &shutdown, &tasks);
        let at_the_end = CancellationToken::new();
        let mut loops = parts.spawn_loops(args, &shutdown.closing, &at_the_end);
        health.check(&store).await;
        loops.spawn(health.clone().watch(store.clone(), shutdown.closing.clone()));
        loops.spawn(telemetry::sum_up(metrics, shutdown.closing.clone()));
        // Calls are taken until the end, so that long it is known who may make them.
        if authenticator.is_on() {
            loops.spawn(tokens.clone().follow(at_the_end.clone()));
            loops.spawn(authenticator.clone().follow_file(at_the_end.clone()));
            loops.spawn(authenticator.clone().follow_keys(at_the_end.clone()));
        }
        listeners.spawn_reloads(&mut loops, &shutdown.closing);
        let gate = is_reachable(admin_addr).then(|| authenticator.clone());
        let metrics = Metrics { all: Arc::new(Rendered::new(metrics)), gate };
        tokio::spawn(admin::serve(
            admin_listener,
            listeners.admin.take(),
            health.clone(),
            metrics,
            at_the_end.clone(),
        ));
        if let Some(listener) = webhook_listener {
            let webhooks = parts.webhooks();
            loops.spawn(webhooks.clone().run(args.secrets_dir.clone()));
            tokio::spawn(webhook::serve(
                listener,
                listeners.webhook,
                webhooks,
                shutdown.closing.clone(),
            ));
        }

        let most = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let limit = ConnectionLimit::of_open_files(limits.max_connections.map(most), "grpc")
            .for_each_address(limits.max_connections_per_address.map(most))
            .with_rules(limits.of_connections());
        health.watch_listener(limit.trouble().clone());
        tracing::debug!(connections = limit.size(), "as many connections may be open");
        let closing = shutdown.closing.clone();
        let admission = Admission::new(store.overload().clone(), authenticator, closing)?;
        let reflection = args.access.reflection == Switch::On;
        let serving = Server::builder()
            .layer(admission.clone())
            .max_concurrent_streams(limits.max_streams_per_connection)
            .http2_max_header_list_size(MAX_HEADERS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            // After an outage all callers may have cancelled before the server reads on.
            .http2_max_pending_accept_reset_streams(Some(most(limits.max_streams_per_connection)))
            .http2_max_local_error_reset_streams(Some(MAX_ERROR_RESETS))
            .add_service(health.service())
            .add_optional_service(reflection.then(reflection::v1).transpose()?)
            .add_optional_service(reflection.then(reflection::v1alpha).transpose()?)
            .add_service(parts.redemption_service())
            .add_service(parts.account_service())
            .add_service(parts.pool_service())
            .add_service(parts.provider_service())
            .add_service(parts.subscription_service())
            .add_service(parts.access_service(tokens))
            .serve_with_incoming_shutdown(
                Accepts::new(listener, limit).into_http2(listeners.grpc),
                shutdown.closing.clone().cancelled_owned(),
            );
        let serving = tokio::spawn(serving);

        let patience = Patience { drain_delay: args.drain_delay, timeout: args.shutdown_timeout };
        let steps = shutdown.clone();
        let running = tokio::spawn(async move {
            let mut postgres = postgres;
            let mut is_finished = false;
            let mut deadline = None;
            let ended = tokio::select! {
                stopped = steps.run(patience, &health, &admission, &tasks, serving) => {
                    is_finished = stopped.in_time;
                    deadline = Some(stopped.deadline);
                    Ok(())
                }
                why = postgres_ended(&mut postgres) => Err(why),
                why = loop_ended(&mut loops, &steps.closing) => Err(why),
            };
            // Everything that still runs is told so, whatever ended the server.
            steps.closing.cancel();
            at_the_end.cancel();
            // Among them the beat: one that came after the server's row was removed would make it again.
            let _ = tokio::time::timeout(LOOPS_TIMEOUT, all_ended(&mut loops)).await;
            let _ = tokio::time::timeout(CLOSE_TIMEOUT, close(&store, is_finished)).await;
            let Some(postgres) = postgres else { return ended };
            // It ends with this process in any case.
            let deadline = deadline.unwrap_or_else(|| Instant::now() + patience.timeout);
            let late = || anyhow::anyhow!("the private Postgres did not stop in time");
            let stopped = tokio::time::timeout_at(deadline, postgres.stop()).await;
            ended.and(stopped.unwrap_or_else(|_| Err(late())))
        });
        let webhooks_at = webhook_addr.map(tracing::field::display);
        tracing::info!(%addr, %admin_addr, webhook_addr = webhooks_at, "listening");
        Ok(Self { addr, admin_addr, webhook_addr, shutdown, running })
    }

    /// The address that gRPC is served on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The address that metrics and liveness are served on.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin_addr
    }

    /// The address that webhooks are served on, if they are.
    pub fn webhook_addr(&self) -> Option<SocketAddr> {
        self.webhook_addr
    }

    /// Cancelled, it asks the server to stop; [`App::stopped`] waits until it has.
    pub fn stopper(&self) -> CancellationToken {
        self.shutdown.wanted.clone()
    }

    /// Waits until the server has stopped.
    pub async fn stopped(self) -> anyhow::Result<()> {
        self.running.await.context("the server's own task ended early")?
    }

    /// Stops the server: health first, then the drain delay, then what is under way.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stopper().cancel();
        self.stopped().await
    }
}

/// Waits until the private Postgres, if there is one, ends by itself, and says why.
async fn postgres_ended(postgres: &mut Option<Postgres>) -> anyhow::Error {
    match postgres {
        Some(postgres) => postgres.ended().await,
        None => std::future::pending().await,
    }
}

/// Waits until a loop that should run as long as the server does ends before it: a server that does
/// not sweep or reconcile any more had better be started anew.
async fn loop_ended(loops: &mut JoinSet<()>, closing: &CancellationToken) -> anyhow::Error {
    let ended = loops.join_next().await;
    if closing.is_cancelled() {
        std::future::pending::<()>().await;
    }
    match ended {
        Some(Err(error)) => anyhow::anyhow!("a background task of the server ended: {error}"),
        _ => anyhow::anyhow!("a background task of the server ended"),
    }
}

async fn all_ended(loops: &mut JoinSet<()>) {
    while loops.join_next().await.is_some() {}
}

pub use self::access::{NewToken, TOKEN_FILE, create_token, write_secret};

/// Closes the database, and says first that this server is gone, if it left nothing under way.
async fn close(store: &Store, is_finished: bool) {
    if is_finished && let Err(error) = store.remove_this_server().await {
        tracing::debug!(%error, "this server's row could not be removed: another server removes it");
    }
    store.close().await;
}

/// The database to use, started if it is a private one, and the secret key that goes with it.
async fn database(args: &ServeArgs) -> anyhow::Result<(Option<Postgres>, Address, SecretKeys)> {
    let key_file = args.secret_key_file.as_deref();
    if let Some(url) = args.database_url()? {
        let key_file = key_file.context(
            "a database URL is given, so a secret key is needed too: put 32 random bytes in hex \
             in a file (openssl rand -hex 32) and name it with HOLDFAST_SECRET_KEY_FILE. Keep it: \
             the codes in the database cannot be read without it",
        )?;
        return Ok((None, args.database.at(url), SecretKeys::from_file(key_file)?));
    }
    let data_dir = &args.data_dir;
    tracing::info!(
        data_dir = %data_dir.display(),
        "no HOLDFAST_DATABASE_URL is set: starting a private Postgres"
    );
    let postgres = Postgres::start(embedded::Options {
        bin_dir: args.postgres_bin.clone(),
        ..embedded::Options::new(Data::Kept(data_dir.clone()))
    })
    .await?;
    let secret = private_key(key_file, data_dir)?;
    let url = SecretString::from(postgres.url(embedded::DATABASE));
    Ok((Some(postgres), args.database.at(url), secret))
}

fn private_key(key_file: Option<&Path>, data_dir: &Path) -> anyhow::Result<SecretKeys> {
    match key_file {
        Some(file) => SecretKeys::from_file(file),
        None => SecretKeys::create_beside(data_dir),
    }
}

async fn listen(addr: SocketAddr, variable: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(addr).await.with_context(|| {
        format!("cannot listen on {addr}; is another server there? Choose another with {variable}")
    })
}
