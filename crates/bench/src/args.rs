//! Arguments: the figures that are asked for, and how long a run may take.

use std::{path::PathBuf, time::Duration};

use crate::attacker::{Attack, AttackArgs};
use clap::{Parser, Subcommand, ValueEnum};

/// Measures Holdfast beside what it replaces.
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 100)]
pub(crate) struct Args {
    /// Small and short, to try things: the figures mean little.
    #[arg(long)]
    pub(crate) quick: bool,

    /// Only these, by comma.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<Figure>,

    /// How many rounds a figure has; each peer runs once in a round [default: 5, quick: 3].
    #[arg(long)]
    rounds: Option<usize>,

    /// How long a run lasts, in seconds [default: 5, quick: 2].
    #[arg(long)]
    seconds: Option<u64>,

    /// Accounts of the large pool [default: 1000000, quick: 50000].
    #[arg(long)]
    accounts: Option<i64>,

    /// Past redemptions beside the large pool [default: 10000000, quick: 200000].
    #[arg(long)]
    past_redemptions: Option<i64>,

    /// Redemptions that wait for a slow provider [default: 10000, quick: 1000].
    #[arg(long)]
    waiting: Option<usize>,

    /// Items of the long stream [default: 1000000, quick: 20000].
    #[arg(long)]
    stream_items: Option<u64>,

    /// When the long stream ends even if not all items are through, in seconds; 0: never [default: 240,
    /// quick: 30].
    #[arg(long)]
    stream_seconds: Option<u64>,

    /// How long the run at half load lasts (`--only bloat`), in minutes [default: 60, quick: 2].
    #[arg(long)]
    bloat_minutes: Option<u64>,

    /// Which attacks there are (`--only attacks`), by comma [default: all].
    #[arg(long, value_delimiter = ',')]
    attack: Vec<Attack>,

    /// How long each attack lasts, in seconds [default: 15, quick: 5].
    #[arg(long)]
    attack_seconds: Option<u64>,

    /// What the server logs, as with `holdfast serve --log`. What it says is read, and dropped.
    #[arg(long, default_value = "info")]
    pub(crate) server_log: String,

    /// The server that is measured [default: the program `holdfast` beside this one].
    #[arg(long)]
    server: Option<PathBuf>,

    /// Where the databases are, on a disk [default: a new directory in /var/tmp or the directory for
    /// temporary files].
    #[arg(long)]
    pub(crate) data_dir: Option<PathBuf>,

    /// Where the results go.
    #[arg(long, default_value = "target/bench")]
    pub(crate) out: PathBuf,

    /// Where `make bench-peers` installs what the server is compared with.
    #[arg(long, default_value = "target/bench/peers")]
    pub(crate) peers: PathBuf,

    /// Renew the table and the plots of this directory's performance.md. Only for a run of everything at
    /// full size.
    #[arg(long)]
    pub(crate) docs: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What this program does besides.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    /// Answers the messages of a cycle and touches nothing, until standard input ends.
    #[command(hide = true)]
    Echo,
    /// Attacks a server, until standard input ends.
    #[command(hide = true)]
    Attack(AttackArgs),
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Figure {
    /// Cycles beside pgbench.
    Cycles,
    /// Cycles beside etcd.
    Etcd,
    /// Cycles beside a server that touches nothing.
    Echo,
    /// One caller beside a bare statement.
    Alone,
    /// Redemptions beside pgbench.
    Redeem,
    /// Redemptions beside graphile-worker.
    Graphile,
    /// A large pool with a past beside a small one.
    Size,
    /// Ten times the load that saturates.
    Overload,
    /// Memory while redemptions wait for a slow provider.
    Waiting,
    /// Memory over a long stream.
    Stream,
    /// What a cycle and a redemption take, by statement and process. Only when it is named.
    Costs,
    /// Cycles where callers are asked who they are beside cycles where they are not.
    Auth,
    /// Cards by one call beside cards by three.
    Card,
    /// A well-behaved client beside attacks. Only when it is named.
    Attacks,
    /// Sizes of tables and times at half load, for an hour. Only when it is named.
    Bloat,
}

impl Figure {
    /// Whether it is none of the table's, and has to be named.
    fn is_apart(self) -> bool {
        matches!(self, Self::Costs | Self::Bloat | Self::Attacks)
    }
}

impl Args {
    /// Whether a figure is wanted.
    pub(crate) fn wants(&self, figure: Figure) -> bool {
        self.only.contains(&figure) || self.only.is_empty() && !figure.is_apart()
    }

    /// Whether any of the table's figures is wanted.
    pub(crate) fn wants_table(&self) -> bool {
        self.only.is_empty() || self.only.iter().any(|figure| !figure.is_apart())
    }

    /// Whether this run is one whose figures may be shown.
    pub(crate) fn is_whole(&self) -> bool {
        !self.quick && self.only.is_empty()
    }

    fn sized<T>(&self, given: Option<T>, full: T, quick: T) -> T {
        given.unwrap_or(if self.quick { quick } else { full })
    }

    pub(crate) fn rounds(&self) -> usize {
        self.sized(self.rounds, 5, 3).max(1)
    }

    /// How long a run lasts. Whole seconds: pgbench knows no others.
    pub(crate) fn run_duration(&self) -> Duration {
        Duration::from_secs(self.sized(self.seconds, 5, 2).max(1))
    }

    /// How long each setting of a peer is tried before the best is taken.
    pub(crate) fn trial(&self) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { 2 })
    }

    pub(crate) fn accounts(&self) -> i64 {
        self.sized(self.accounts, 1_000_000, 50_000).max(1_000)
    }

    pub(crate) fn past_redemptions(&self) -> i64 {
        self.sized(self.past_redemptions, 10_000_000, 200_000).max(0)
    }

    /// Calls of each kind, one at a time, in each group of the latency figures, and groups.
    pub(crate) fn calls_alone(&self) -> (usize, usize) {
        if self.quick { (20, 20) } else { (20, 150) }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.sized(self.waiting, 10_000, 1_000).max(1)
    }

    pub(crate) fn stream_items(&self) -> u64 {
        self.sized(self.stream_items, 1_000_000, 20_000).max(8)
    }

    pub(crate) fn stream_limit(&self) -> Duration {
        match self.sized(self.stream_seconds, 240, 30) {
            0 => Duration::MAX,
            seconds => Duration::from_secs(seconds),
        }
    }

    /// How long the overload lasts.
    pub(crate) fn overload(&self) -> Duration {
        Duration::from_secs(if self.quick { 4 } else { 15 })
    }

    /// The attacks that are asked for.
    pub(crate) fn attacks(&self) -> Vec<Attack> {
        if self.attack.is_empty() { Attack::value_variants().to_vec() } else { self.attack.clone() }
    }

    /// How long each lasts.
    pub(crate) fn attack_duration(&self) -> Duration {
        Duration::from_secs(self.sized(self.attack_seconds, 15, 5).max(1))
    }

    /// Whether that is what may be shown.
    pub(crate) fn is_whole_attack(&self) -> bool {
        !self.quick && self.attack.is_empty() && self.accounts() >= 1_000_000
    }

    /// How long the run at half load lasts.
    pub(crate) fn bloat(&self) -> Duration {
        Duration::from_secs(60 * self.sized(self.bloat_minutes, 60, 2).max(1))
    }

    /// How long its windows are, and how often it is looked at.
    pub(crate) fn bloat_intervals(&self) -> (Duration, Duration) {
        let seconds = if self.bloat() < Duration::from_secs(1_200) { (5, 1) } else { (60, 10) };
        (Duration::from_secs(seconds.0), Duration::from_secs(seconds.1))
    }

    /// Whether that is long enough to be shown.
    pub(crate) fn is_whole_bloat(&self) -> bool {
        !self.quick && self.bloat() >= Duration::from_secs(3_600)
    }

    /// The program that is measured.
    pub(crate) fn server(&self) -> anyhow::Result<PathBuf> {
        let server = match &self.server {
            Some(server) => server.clone(),
            None => std::env::current_exe()?.with_file_name("holdfast"),
        };
        anyhow::ensure!(
            server.exists(),
            "there is no {}: build it with cargo build --release, or name it with --server",
            server.display()
        );
        Ok(server)
    }
}
