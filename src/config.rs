//! The server's settings: flags, each with a variable. Read once, at start.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use secrecy::SecretString;

pub use self::{
    access::{AccessArgs, Switch},
    database::{MigrationArgs, SchemaArgs, WithinDatabase},
    delivery::DeliveryArgs,
    limits::LimitArgs,
    provider::ProviderArgs,
    tls::{AdminTls, GrpcTls, WebhookTls},
};
use crate::{domain::database::Address, listener::address::parse_address, secret_file};

mod access;
mod database;
mod delivery;
mod limits;
mod provider;
mod tls;

/// Reads a duration such as `500ms`, `30s` or `2m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it as 500ms, 30s or 2m"))
}

/// The longest duration that any setting may be.
const MAX_SETTING: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The longest wait that a call may ask for.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// What the contract promises of streams: something between, such as a proxy, ends one that is silent for a minute.
const MAX_HEARTBEAT: Duration = Duration::from_secs(10);

/// Settings of `holdfast serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// Postgres to use: postgres://user:password@host/database. Without one, a private Postgres is
    /// started in --data-dir.
    #[arg(long, env = "HOLDFAST_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<SecretString>,

    /// A file that holds the database URL.
    #[arg(long, env = "HOLDFAST_DATABASE_URL_FILE", conflicts_with = "database_url")]
    pub database_url_file: Option<PathBuf>,

    /// Where in the database, and by which password.
    #[command(flatten)]
    pub database: WithinDatabase,

    /// Who brings its schema up to date.
    #[command(flatten)]
    pub schema: SchemaArgs,

    /// Connections to Postgres that this server may open.
    #[arg(long, env = "HOLDFAST_DATABASE_CONNECTIONS", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(4..=500))]
    pub database_connections: u32,

    /// Where the private Postgres keeps its data, and the secret key made for it.
    #[arg(long, env = "HOLDFAST_DATA_DIR", default_value = "holdfast-data")]
    pub data_dir: PathBuf,

    /// The folder that holds Postgres's programs (initdb, postgres), for the private Postgres.
    #[arg(long, env = "HOLDFAST_POSTGRES_BIN")]
    pub postgres_bin: Option<PathBuf>,

    /// 32 bytes in hex or base64, from which fingerprints and encryption keys are derived. Required
    /// with a database URL.
    #[arg(long, env = "HOLDFAST_SECRET_KEY_FILE")]
    pub secret_key_file: Option<PathBuf>,

    /// The folder of providers' secrets: `secret.NAME` in the profile of provider ID is the file ID/NAME in it.
    #[arg(long, env = "HOLDFAST_SECRETS_DIR")]
    pub secrets_dir: Option<PathBuf>,

    /// The address that gRPC is served on.
    #[arg(long, env = "HOLDFAST_LISTEN", default_value = "127.0.0.1:50051", value_parser = parse_address)]
    pub listen: SocketAddr,

    /// The address that metrics and liveness are served on, over HTTP.
    #[arg(long, env = "HOLDFAST_ADMIN_LISTEN", default_value = "127.0.0.1:50052", value_parser = parse_address)]
    pub admin_listen: SocketAddr,

    /// The address that providers' webhooks are served on, over HTTP: with TLS of its own, on loopback, or behind a
    /// proxy that ends TLS. Without one, none are served.
    #[arg(long, env = "HOLDFAST_WEBHOOK_LISTEN", value_parser = parse_address)]
    pub webhook_listen: Option<SocketAddr>,

    /// TLS of gRPC.
    #[command(flatten)]
    pub tls: GrpcTls,

    /// TLS of the admin address.
    #[command(flatten)]
    pub admin_tls: AdminTls,

    /// TLS of webhooks.
    #[command(flatten)]
    pub webhook_tls: WebhookTls,

    /// Who may call.
    #[command(flatten)]
    pub access: AccessArgs,

    /// The provider's settings.
    #[command(flatten)]
    pub provider: ProviderArgs,

    /// What is sent to the receivers of subscriptions.
    #[command(flatten)]
    pub delivery: DeliveryArgs,

    /// How many cards this server asks the provider about at once, for items of a batch that say no
    /// amount.
    #[arg(long, env = "HOLDFAST_INQUIRY_CONCURRENCY", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub inquiry_concurrency: u16,

    /// How long the provider's answer about a card is kept, so that it is not asked again; 0s: not at
    /// all.
    #[arg(long, env = "HOLDFAST_INQUIRY_CACHE", default_value = "30s", value_parser = parse_duration)]
    pub inquiry_cache: Duration,

    /// The limits on callers and their connections.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// The longest that a call waits for an account or for an outcome, whatever it asks for: 1s to 10m.
    #[arg(long, env = "HOLDFAST_MAX_WAIT", default_value = "10m", value_parser = parse_duration)]
    pub max_wait: Duration,

    /// How often a stream of answers says at least that it lives, where there is nothing to tell: 1s to 10s.
    #[arg(long, env = "HOLDFAST_STREAM_HEARTBEAT", default_value = "10s", value_parser = parse_duration)]
    pub stream_heartbeat: Duration,

    /// The poll interval of the sweeper: how often it reads leases whose time has passed. It polls less often, but at
    /// least every 10 s, where a poll takes more than a tenth of this.
    #[arg(long, env = "HOLDFAST_SWEEP_INTERVAL", default_value = "500ms", value_parser = parse_duration)]
    pub sweep_interval: Duration,

    /// The poll interval of the reconciler: how often it reads redemptions that are due for a check.
    #[arg(long, env = "HOLDFAST_RECONCILE_INTERVAL", default_value = "500ms", value_parser = parse_duration)]
    pub reconcile_interval: Duration,

    /// How long health says NOT_SERVING, while calls are still taken, before a shutdown goes on.
    #[arg(long, env = "HOLDFAST_DRAIN_DELAY", default_value = "2s", value_parser = parse_duration)]
    pub drain_delay: Duration,

    /// How long a shutdown may take, from the signal to the end of the process, the drain delay included. What is under
    /// way by then is left to other servers.
    #[arg(long, env = "HOLDFAST_SHUTDOWN_TIMEOUT", default_value = "25s", value_parser = parse_duration)]
    pub shutdown_timeout: Duration,
}

impl ServeArgs {
    /// The database URL, from the setting or from its file; `None` for a private Postgres.
    pub fn database_url(&self) -> anyhow::Result<Option<SecretString>> {
        database_url(self.database_url.as_ref(), self.database_url_file.as_deref())
    }

    /// The database for migrations, where it has a URL of its own.
    pub fn migration_address(&self) -> anyhow::Result<Option<Address>> {
        self.schema.migrations.address(&self.database)
    }

    /// Whether the database is one of this server's own.
    pub fn has_private_postgres(&self) -> bool {
        self.database_url.is_none() && self.database_url_file.is_none()
    }

    /// Refuses settings that contradict each other, and names all of them.
    pub fn check(&self) -> anyhow::Result<()> {
        let provider = &self.provider;
        let mut wrong = Vec::new();
        let zero = [
            ("HOLDFAST_SWEEP_INTERVAL", self.sweep_interval),
            ("HOLDFAST_RECONCILE_INTERVAL", self.reconcile_interval),
            ("HOLDFAST_PROVIDER_TIMEOUT", provider.timeout),
            ("HOLDFAST_PROVIDER_CONNECT_TIMEOUT", provider.connect_timeout),
        ];
        for (name, value) in zero {
            if value.is_zero() {
                wrong.push(format!("{name} must be more than 0"));
            }
        }
        let all = [
            ("HOLDFAST_SWEEP_INTERVAL", self.sweep_interval),
            ("HOLDFAST_RECONCILE_INTERVAL", self.reconcile_interval),
            ("HOLDFAST_INQUIRY_CACHE", self.inquiry_cache),
            ("HOLDFAST_DRAIN_DELAY", self.drain_delay),
            ("HOLDFAST_SHUTDOWN_TIMEOUT", self.shutdown_timeout),
            ("HOLDFAST_PROVIDER_NOT_AFTER", provider.not_after),
            ("HOLDFAST_PROVIDER_MAX_PROCESSING_TIME", provider.max_processing_time),
        ];
        for (name, value) in all {
            if value > MAX_SETTING {
                wrong.push(format!("{name} must be at most 7days"));
            }
        }
        if self.drain_delay >= self.shutdown_timeout {
            wrong.push(
                "HOLDFAST_DRAIN_DELAY must be less than HOLDFAST_SHUTDOWN_TIMEOUT".to_owned(),
            );
        }
        let second = Duration::from_secs(1);
        if !(second..=MAX_WAIT).contains(&self.max_wait) {
            wrong.push("HOLDFAST_MAX_WAIT must be 1s to 10m".to_owned());
        }
        if !(second..=MAX_HEARTBEAT).contains(&self.stream_heartbeat) {
            wrong.push("HOLDFAST_STREAM_HEARTBEAT must be 1s to 10s".to_owned());
        }
        let migrations = &self.schema.migrations;
        let has_migration_url = migrations.migration_database_url.is_some()
            || migrations.migration_database_url_file.is_some();
        if self.has_private_postgres() {
            if self.database.database_password_file.is_some() {
                wrong.push("HOLDFAST_DATABASE_PASSWORD_FILE goes with a database URL".to_owned());
            }
            if has_migration_url {
                wrong.push("HOLDFAST_MIGRATION_DATABASE_URL goes with a database URL".to_owned());
            }
        }
        if self.schema.no_migrate && has_migration_url {
            wrong.push("HOLDFAST_NO_MIGRATE applies none, and HOLDFAST_MIGRATION_DATABASE_URL says who does".to_owned());
        }
        wrong.extend(provider.contradictions());
        wrong.extend(self.delivery.contradictions());
        wrong.extend(self.limits.contradictions());
        wrong.extend(self.access.contradictions());
        anyhow::ensure!(wrong.is_empty(), "the settings do not fit together: {}", wrong.join("; "));
        Ok(())
    }
}

/// A database URL from a setting or from a file, whichever is given.
pub fn database_url(
    url: Option<&SecretString>,
    file: Option<&Path>,
) -> anyhow::Result<Option<SecretString>> {
    match (url, file) {
        (Some(url), _) => Ok(Some(url.clone())),
        (None, Some(file)) => {
            let text = secret_file::read(file, "the database URL's file")?;
            Ok(Some(text.trim().into()))
        }
        (None, None) => Ok(None),
    }
}
