//! Settings of the soak.

use std::{env, fmt, str::FromStr, time::Duration};

use crate::tally::Tally;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) minutes: f64,
    pub(crate) kills: u64,
    pub(crate) redemptions: u64,
    pub(crate) servers: usize,
    pub(crate) seed: u64,
}

impl Settings {
    /// Reads the variables; one that cannot be read is an error, not a default.
    pub(crate) fn from_env() -> Self {
        Self {
            minutes: variable("HOLDFAST_SOAK_MINUTES", 0.4),
            kills: variable("HOLDFAST_SOAK_KILLS", 0),
            redemptions: variable("HOLDFAST_SOAK_REDEMPTIONS", 0),
            servers: variable("HOLDFAST_SOAK_SERVERS", 3),
            seed: variable("HOLDFAST_SOAK_SEED", u64::from(rand::random::<u32>())),
        }
    }

    /// Whether everything that was asked for has been done.
    pub(crate) fn are_met(&self, elapsed: Duration, tally: &Tally) -> bool {
        elapsed.as_secs_f64() >= self.minutes * 60.0
            && tally.kills() >= self.kills
            && tally.redemptions() >= self.redemptions
    }
}

fn variable<T: FromStr>(name: &str, default: T) -> T {
    match env::var(name) {
        Ok(text) if !text.is_empty() => {
            text.parse().unwrap_or_else(|_| panic!("{name}={text} cannot be read"))
        }
        _ => default,
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { minutes, kills, redemptions, servers, seed } = self;
        write!(
            f,
            "{minutes} minutes, at least {kills} kills and {redemptions} redemptions, \
             {servers} servers, seed {seed}"
        )
    }
}
