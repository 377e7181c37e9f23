//! The limits on callers and their connections.

use std::time::Duration;

use clap::{Args, Command, FromArgMatches as _};

use super::{MAX_SETTING, parse_duration};
use crate::{admission::Limits, listener::Rules};

/// What callers and their connections may have.
#[derive(Args, Clone, Debug)]
pub struct LimitArgs {
    /// The most connections from clients at once; as many as half of the files that may be open, and 10,000, where
    /// that is not given or is less.
    #[arg(long, env = "HOLDFAST_MAX_CONNECTIONS",
          value_parser = clap::value_parser!(u32).range(16..=1_000_000))]
    pub max_connections: Option<u32>,

    /// The most of them from one address; half of all where that is not given.
    #[arg(long, env = "HOLDFAST_MAX_CONNECTIONS_PER_ADDRESS",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_connections_per_address: Option<u32>,

    /// The most calls of one connection at once.
    #[arg(long, env = "HOLDFAST_MAX_STREAMS_PER_CONNECTION", default_value_t = 4096,
          value_parser = clap::value_parser!(u32).range(16..=65_536))]
    pub max_streams_per_connection: u32,

    /// How long a connection may have no call before it is closed, where more than half of all connections are taken.
    #[arg(long, env = "HOLDFAST_CONNECTION_IDLE_TIMEOUT", default_value = "5m", value_parser = parse_duration)]
    pub connection_idle_timeout: Duration,

    /// How long a call whose answer has begun may neither send nor take anything before it is ended.
    #[arg(long, env = "HOLDFAST_STREAM_IDLE_TIMEOUT", default_value = "10m", value_parser = parse_duration)]
    pub stream_idle_timeout: Duration,

    /// How many calls of a connection its client may reset in a second, after 4,096 that it may reset at once.
    #[arg(long, env = "HOLDFAST_MAX_RESETS_PER_SECOND", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_resets_per_second: u32,

    /// The most calls of one caller that are not finished.
    #[arg(long, env = "HOLDFAST_MAX_CALLS_PER_CALLER", default_value_t = 8192,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_calls_per_caller: u32,

    /// The most reads that one caller may begin in a second.
    #[arg(long, env = "HOLDFAST_MAX_READS_PER_SECOND", default_value_t = 2000,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_reads_per_second: u32,

    /// The most cards that the provider is asked about in a second for one caller.
    #[arg(long, env = "HOLDFAST_MAX_INQUIRIES_PER_SECOND", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_inquiries_per_second: u32,

    /// The most MiB that are kept for one caller, of requests that are not complete and of answers that are not read,
    /// each.
    #[arg(long, env = "HOLDFAST_MAX_UNREAD_MIB_PER_CALLER", default_value_t = 32,
          value_parser = clap::value_parser!(u32).range(2..=64))]
    pub max_unread_mib_per_caller: u32,

    /// The most MiB that the selectors of callers who wait for an account may occupy; one pool has at most half of what
    /// is left, and so has one caller.
    #[arg(long, env = "HOLDFAST_MAX_WAITING_MIB", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_waiting_mib: u32,

    /// How long the database may take for a read of a caller.
    #[arg(long, env = "HOLDFAST_READ_TIMEOUT", default_value = "10s", value_parser = parse_duration)]
    pub read_timeout: Duration,

    /// After how long without a call a server lets go of a pool: its accounts in memory, and its tasks.
    #[arg(long, env = "HOLDFAST_IDLE_POOL_TIMEOUT", default_value = "10m", value_parser = parse_duration)]
    pub idle_pool_timeout: Duration,
}

impl Default for LimitArgs {
    /// Those that hold where nothing is given.
    #[expect(clippy::expect_used, reason = "every one of them has a default, or may be left out")]
    fn default() -> Self {
        // No variable is read: `mut_args` takes them away.
        let command = Self::augment_args(Command::new("limits")).mut_args(|arg| arg.env(None));
        let matches = command.get_matches_from(["limits"]);
        Self::from_arg_matches(&matches).expect("the defaults fit")
    }
}

impl LimitArgs {
    /// What one caller may have.
    pub fn of_callers(&self) -> Limits {
        Limits {
            calls: size(self.max_calls_per_caller),
            reads_per_second: self.max_reads_per_second,
            inquiries_per_second: self.max_inquiries_per_second,
            bytes: size(self.max_unread_mib_per_caller) * MIB,
            waiting_bytes: size(self.max_waiting_mib) * MIB,
            read_timeout: self.read_timeout,
            idle_pool: self.idle_pool_timeout,
        }
    }

    /// What a connection has to keep to.
    pub fn of_connections(&self) -> Rules {
        Rules {
            idle: self.connection_idle_timeout,
            stream_idle: self.stream_idle_timeout,
            resets_per_second: self.max_resets_per_second,
        }
    }

    /// What is wrong with them.
    pub(super) fn contradictions(&self) -> impl Iterator<Item = String> {
        let all = [
            ("HOLDFAST_CONNECTION_IDLE_TIMEOUT", self.connection_idle_timeout),
            ("HOLDFAST_STREAM_IDLE_TIMEOUT", self.stream_idle_timeout),
            ("HOLDFAST_READ_TIMEOUT", self.read_timeout),
            ("HOLDFAST_IDLE_POOL_TIMEOUT", self.idle_pool_timeout),
        ];
        all.into_iter().filter_map(|(name, value)| {
            if value < Duration::from_millis(100) {
                return Some(format!("{name} must be at least 100ms"));
            }
            (value > MAX_SETTING).then(|| format!("{name} must be at most 7days"))
        })
        .chain((self.read_timeout > LONGEST_READ).then(|| {
            "HOLDFAST_READ_TIMEOUT must be at most 15s, which is what Postgres gives any statement"
                .to_owned()
        }))
    }
}

/// What Postgres gives any statement.
const LONGEST_READ: Duration = Duration::from_secs(15);
const MIB: usize = 1024 * 1024;

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_a_server_without_settings() {
        let (given, own) = (LimitArgs::default(), Limits::default());
        assert_eq!(format!("{:?}", given.of_callers()), format!("{own:?}"));
        assert_eq!(format!("{:?}", given.of_connections()), format!("{:?}", Rules::default()));
        assert_eq!(given.contradictions().count(), 0);
    }
}
