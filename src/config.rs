//! The server's settings: flags, each with a variable. Read once, at start.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::{ArgAction, Args};
use secrecy::SecretString;

use crate::domain::redemption::Capabilities;

/// Reads a duration such as `500ms`, `30s` or `2m`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it as 500ms, 30s or 2m"))
}

/// The longest duration that any setting may be.
const MAX_SETTING: Duration = Duration::from_secs(7 * 24 * 60 * 60);

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

    /// The address that gRPC is served on.
    #[arg(long, env = "HOLDFAST_LISTEN", default_value = "127.0.0.1:50051")]
    pub listen: SocketAddr,

    /// The address that metrics and liveness are served on, over HTTP.
    #[arg(long, env = "HOLDFAST_ADMIN_LISTEN", default_value = "127.0.0.1:50052")]
    pub admin_listen: SocketAddr,

    /// The provider's settings.
    #[command(flatten)]
    pub provider: ProviderArgs,

    /// How many cards this server asks the provider about at once, for items of a batch that say no
    /// amount.
    #[arg(long, env = "HOLDFAST_INQUIRY_CONCURRENCY", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub inquiry_concurrency: u16,

    /// How long what the provider said of a card is kept, so that it is not asked again; 0s: not at
    /// all.
    #[arg(long, env = "HOLDFAST_INQUIRY_CACHE", default_value = "30s", value_parser = parse_duration)]
    pub inquiry_cache: Duration,

    /// How often leases whose time has passed are looked for. Less often, but every 10 s at least, where a look takes
    /// more than a tenth of this.
    #[arg(long, env = "HOLDFAST_SWEEP_INTERVAL", default_value = "500ms", value_parser = parse_duration)]
    pub sweep_interval: Duration,

    /// How often redemptions that are due for a check are looked for.
    #[arg(long, env = "HOLDFAST_RECONCILE_INTERVAL", default_value = "500ms", value_parser = parse_duration)]
    pub reconcile_interval: Duration,

    /// How long health says NOT_SERVING, while calls are still taken, before a shutdown goes on.
    #[arg(long, env = "HOLDFAST_DRAIN_DELAY", default_value = "2s", value_parser = parse_duration)]
    pub drain_delay: Duration,

    /// How long work that is under way may take to finish after the drain delay.
    #[arg(long, env = "HOLDFAST_SHUTDOWN_TIMEOUT", default_value = "30s", value_parser = parse_duration)]
    pub shutdown_timeout: Duration,
}

/// The provider's settings.
#[derive(Args, Clone, Debug)]
pub struct ProviderArgs {
    /// The provider's base URL.
    #[arg(
        id = "provider_url",
        long = "provider-url",
        env = "HOLDFAST_PROVIDER_URL",
        default_value = "http://127.0.0.1:50080"
    )]
    pub url: String,

    /// A file that holds a bearer token for the provider.
    #[arg(
        id = "provider_token_file",
        long = "provider-token-file",
        env = "HOLDFAST_PROVIDER_TOKEN_FILE"
    )]
    pub token_file: Option<PathBuf>,

    /// The longest that one call to the provider may take, from connecting to the last byte.
    #[arg(id = "provider_timeout", long = "provider-timeout", env = "HOLDFAST_PROVIDER_TIMEOUT",
          default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,

    /// The longest that connecting to the provider may take.
    #[arg(id = "provider_connect_timeout", long = "provider-connect-timeout",
          env = "HOLDFAST_PROVIDER_CONNECT_TIMEOUT", default_value = "2s", value_parser = parse_duration)]
    pub connect_timeout: Duration,

    /// How long a redemption may be sent, sent again and polled before it is in doubt and left to
    /// the reconciler.
    #[arg(id = "provider_send_window", long = "provider-send-window",
          env = "HOLDFAST_PROVIDER_SEND_WINDOW", default_value = "30s", value_parser = parse_duration)]
    pub send_window: Duration,

    /// How long after a redemption was recorded the provider may still begin it.
    #[arg(id = "provider_not_after", long = "provider-not-after",
          env = "HOLDFAST_PROVIDER_NOT_AFTER", default_value = "15m", value_parser = parse_duration)]
    pub not_after: Duration,

    /// Whether the provider counts an idempotency key once, however often it is sent. Only then is a
    /// redemption in doubt sent again.
    #[arg(id = "provider_deduplicates", long = "provider-deduplicates",
          env = "HOLDFAST_PROVIDER_DEDUPLICATES", default_value_t = true, action = ArgAction::Set)]
    pub deduplicates: bool,

    /// Whether the provider tells what became of a key.
    #[arg(id = "provider_looks_up", long = "provider-looks-up",
          env = "HOLDFAST_PROVIDER_LOOKS_UP", default_value_t = true, action = ArgAction::Set)]
    pub looks_up: bool,

    /// Whether the provider cancels a key, also one that it has never seen, so that a later arrival is
    /// refused, and refuses to cancel one that has succeeded, however long ago.
    #[arg(id = "provider_cancels", long = "provider-cancels",
          env = "HOLDFAST_PROVIDER_CANCELS", default_value_t = true, action = ArgAction::Set)]
    pub cancels: bool,

    /// Whether the provider tells what a card is worth without redeeming it. Only then is an account
    /// chosen by the amount of a batch's item that says none.
    #[arg(id = "provider_inquires", long = "provider-inquires",
          env = "HOLDFAST_PROVIDER_INQUIRES", default_value_t = true, action = ArgAction::Set)]
    pub inquires: bool,

    /// How long after it was first seen the provider counts a key once. Longer than a redemption may
    /// be begun, and than the provider is at work on one.
    #[arg(id = "provider_key_retention", long = "provider-key-retention",
          env = "HOLDFAST_PROVIDER_KEY_RETENTION", default_value = "24h", value_parser = parse_duration)]
    pub key_retention: Duration,

    /// How long after a request arrived the provider may still not know its key when it is asked.
    #[arg(id = "provider_visibility_horizon", long = "provider-visibility-horizon",
          env = "HOLDFAST_PROVIDER_VISIBILITY_HORIZON", default_value = "5s", value_parser = parse_duration)]
    pub visibility_horizon: Duration,

    /// The longest that the provider is at work on a redemption. One that takes longer is cancelled,
    /// or in the end left to a person.
    #[arg(id = "provider_max_processing_time", long = "provider-max-processing-time",
          env = "HOLDFAST_PROVIDER_MAX_PROCESSING_TIME", default_value = "2m", value_parser = parse_duration)]
    pub max_processing_time: Duration,
}

impl ProviderArgs {
    /// Pairs of settings of which the first must be shorter than the second.
    fn in_order(&self) -> Vec<[(&'static str, Duration); 2]> {
        let timeout = ("HOLDFAST_PROVIDER_TIMEOUT", self.timeout);
        let send_window = ("HOLDFAST_PROVIDER_SEND_WINDOW", self.send_window);
        let not_after = ("HOLDFAST_PROVIDER_NOT_AFTER", self.not_after);
        let retention = ("HOLDFAST_PROVIDER_KEY_RETENTION", self.key_retention);
        let processing = ("HOLDFAST_PROVIDER_MAX_PROCESSING_TIME", self.max_processing_time);
        let mut pairs = vec![
            [("HOLDFAST_PROVIDER_CONNECT_TIMEOUT", self.connect_timeout), timeout],
            [timeout, send_window],
            [send_window, not_after],
        ];
        if self.deduplicates {
            // A request that arrives late, or is done late, must still meet its own key.
            pairs.push([not_after, retention]);
            pairs.push([processing, retention]);
        }
        if self.looks_up {
            let horizon = ("HOLDFAST_PROVIDER_VISIBILITY_HORIZON", self.visibility_horizon);
            pairs.push([horizon, processing]);
        }
        pairs
    }

    /// What the provider can do for a redemption in doubt.
    pub fn capabilities(&self) -> Capabilities {
        Capabilities {
            deduplicates: self.deduplicates,
            looks_up: self.looks_up,
            cancels: self.cancels,
            key_retention: self.key_retention,
            visibility_horizon: self.visibility_horizon,
            max_processing_time: self.max_processing_time,
        }
    }
}

impl ServeArgs {
    /// The database URL, from the setting or from its file; `None` for a private Postgres.
    pub fn database_url(&self) -> anyhow::Result<Option<SecretString>> {
        database_url(self.database_url.as_ref(), self.database_url_file.as_deref())
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
        for [(short_name, short), (long_name, long)] in provider.in_order() {
            if short >= long {
                wrong.push(format!(
                    "{short_name} ({}) must be shorter than {long_name} ({})",
                    humantime::format_duration(short),
                    humantime::format_duration(long),
                ));
            }
        }
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
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the database URL from {}", file.display()))?;
            Ok(Some(text.trim().to_owned().into()))
        }
        (None, None) => Ok(None),
    }
}
