//! Postgres driven by hand: one row a statement, one statement a commit, by pgbench.

use std::{fs, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use futures_util::future::BoxFuture;
use tokio::process::Command;

use super::Peer;
use crate::{ground::Ground, postgres, report::progress};

/// The transitions. What one answers is named for the next.
pub(crate) const ACQUIRE: &str = include_str!("../../sql/acquire.sql");
pub(crate) const RELEASE: &str = include_str!("../../sql/release.sql");
pub(crate) const BEGIN: &str = include_str!("../../sql/begin.sql");
pub(crate) const SETTLE: &str = include_str!("../../sql/settle.sql");

/// Clients that are tried. The best number is kept.
const CLIENTS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

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
        statements: &[&str],
        url: &str,
        trial: Duration,
    ) -> anyhow::Result<Self> {
        let script = ground.directory().join(format!("{}.pgbench.sql", name.replace(' ', "-")));
        fs::write(
            &script,
            statements.iter().map(|sql| format!("{sql}\\gset\n")).collect::<String>(),
        )?;
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
        let done = Command::new(&self.program)
            .args(["--no-vacuum", "--protocol=prepared"])
            .arg(format!("--client={clients}"))
            .arg(format!("--jobs={}", clients.min(2)))
            .arg(format!("--time={}", lasting.as_secs().max(1)))
            .arg("--file")
            .arg(&self.script)
            .arg(&self.url)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("pgbench cannot be started")?;
        let said = String::from_utf8_lossy(&done.stdout);
        ensure!(
            done.status.success() && !said.contains("Run was aborted"),
            "pgbench failed: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        transactions_per_second(&said).with_context(|| format!("pgbench says no rate:\n{said}"))
    }
}

/// The rate that pgbench reports, without the time that connecting took.
fn transactions_per_second(said: &str) -> Option<f64> {
    let rate = said.lines().find_map(|line| line.strip_prefix("tps = "))?;
    rate.split(' ').next()?.parse().ok()
}

impl Peer for Pgbench {
    fn name(&self) -> &str {
        &self.name
    }

    fn turn(&mut self, lasting: Duration) -> BoxFuture<'_, anyhow::Result<f64>> {
        Box::pin(self.run(self.clients, lasting))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read() {
        let said = "latency average = 1 ms\ntps = 3300.25 (without initial connection time)\n";
        assert_eq!(transactions_per_second(said), Some(3300.25));
        assert_eq!(transactions_per_second("nothing"), None);
    }
}
