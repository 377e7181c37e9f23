//! Postgres driven by hand: one row a statement, one statement a commit, by pgbench.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use futures_util::future::BoxFuture;
use tokio::process::Command;

use super::{
    Peer,
    by_hand::{self, Statement},
};
use crate::{ground::Ground, postgres, report::progress};

/// Clients that are tried. The best number is kept: as many as there may be connections, nearly, because a
/// sync that many commits share is what is slow.
const CLIENTS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 96, 128];
/// What a run takes before it counts: connections are made, and each plans its statements.
const WARM_UP_SECONDS: u64 = 1;

/// A script at its best number of clients.
pub(crate) struct Pgbench {
    name: String,
    program: PathBuf,
    script: PathBuf,
    url: String,
    clients: usize,
}

impl Pgbench {
    /// A script of some statements over a database.
    pub(crate) async fn prepare(
        ground: &Ground,
        name: &str,
        statements: &[Statement],
        url: &str,
        trial: Duration,
    ) -> anyhow::Result<Self> {
        let script = ground.directory().join(format!("{}.pgbench.sql", name.replace(' ', "-")));
        fs::write(
            &script,
            statements.iter().map(|it| format!("{}\\gset\n", it.sql)).collect::<String>(),
        )?;
        by_hand::ensure_direct(url, statements).await?;
        let program = postgres::program("pgbench")?;
        let mut pgbench =
            Self { name: name.to_owned(), program, script, url: url.to_owned(), clients: 1 };
        let mut best = (0.0, 1);
        for clients in CLIENTS {
            let per_second = pgbench.run(clients, trial).await?;
            progress(&format!("  pgbench with {clients} clients: {per_second:.0}/s"));
            if per_second > best.0 {
                best = (per_second, clients);
            }
        }
        pgbench.clients = best.1;
        pgbench.name = format!("pgbench, {} clients, {name}", best.1);
        Ok(pgbench)
    }

    async fn run(&self, clients: usize, lasting: Duration) -> anyhow::Result<f64> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let done = Command::new(&self.program)
            .args(["--no-vacuum", "--protocol=prepared"])
            .arg(format!("--client={clients}"))
            .arg(format!("--jobs={}", clients.min(threads)))
            .arg(format!("--time={}", WARM_UP_SECONDS + lasting.as_secs().max(1)))
            .arg("--progress=1")
            .arg("--file")
            .arg(&self.script)
            .arg(&self.url)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("pgbench cannot be started")?;
        let output = String::from_utf8_lossy(&done.stdout);
        let progress = String::from_utf8_lossy(&done.stderr);
        ensure!(
            done.status.success() && !output.contains("Run was aborted"),
            "pgbench failed: {progress}"
        );
        transactions_per_second(&progress)
            .with_context(|| format!("pgbench says no rate:\n{progress}"))
    }
}

/// The rate that pgbench reports second by second, without those that it takes to be warm.
fn transactions_per_second(progress: &str) -> Option<f64> {
    let mut intervals = Vec::new();
    for line in progress.lines().filter_map(|line| line.strip_prefix("progress: ")) {
        let (until, rest) = line.split_once(" s, ")?;
        let (rate, _) = rest.split_once(" tps")?;
        intervals.push((until.parse::<f64>().ok()?, rate.parse::<f64>().ok()?));
    }
    #[allow(clippy::cast_precision_loss, reason = "a few seconds")]
    let from = intervals.iter().position(|(until, _)| *until >= WARM_UP_SECONDS as f64 - 0.2)?;
    let (begun, _) = intervals[from];
    let (ended, _) = *intervals.last()?;
    let pairs = intervals[from..].windows(2);
    let done: f64 = pairs.map(|pair| (pair[1].0 - pair[0].0) * pair[1].1).sum();
    (ended > begun).then(|| done / (ended - begun))
}

impl Peer for Pgbench {
    fn name(&self) -> &str {
        &self.name
    }

    fn run_for(&mut self, lasting: Duration) -> BoxFuture<'_, anyhow::Result<f64>> {
        Box::pin(self.run(self.clients, lasting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read() {
        let line = |until, rate| {
            format!("progress: {until} s, {rate} tps, lat 1.000 ms stddev 0.1, 0 failed\n")
        };
        let output = [line("1.0", "100.0"), line("2.0", "3000.0"), line("3.0", "3100.0")].concat();
        assert_eq!(transactions_per_second(&output), Some(3050.0));
        assert_eq!(transactions_per_second(&line("1.0", "100.0")), None);
        assert_eq!(transactions_per_second("nothing"), None);
    }
}
