//! graphile-worker: redemptions as jobs of a queue in Postgres, in Node, where it is installed.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, ensure};
use futures_util::future::BoxFuture;
use serde::Deserialize;

use super::Peer;
use crate::{
    args::Args,
    ground::Ground,
    postgres::POOL,
    process::{Process, START},
    report::progress,
};

/// The program of the worker and its task.
const WORKER: &str = include_str!("../../graphile/worker.mjs");
/// Processes, and jobs at once of each, that are tried. The best is kept. Node runs on one core.
const SETTINGS: [(usize, usize); 4] = [(1, 16), (1, 64), (2, 24), (2, 64)];
/// Jobs that are there before the clock runs, by the second that it runs: more than are done.
const JOBS_PER_SECOND: u64 = 5_000;

/// A worker at its best concurrency.
pub(crate) struct Graphile {
    name: String,
    folder: PathBuf,
    socket: PathBuf,
    database: String,
    provider: String,
    setting: (usize, usize),
}

#[derive(Deserialize)]
struct Report {
    jobs_per_second: f64,
    left: i64,
    failed: u64,
}

/// Where graphile-worker is, if it is installed.
pub(crate) fn folder(args: &Args) -> Option<PathBuf> {
    let folder = args.peers.join("graphile-worker");
    let node = Command::new("node").arg("--version").output();
    let installed = folder.join("node_modules/graphile-worker").is_dir();
    (installed && node.is_ok_and(|node| node.status.success())).then_some(folder)
}

impl Graphile {
    pub(crate) async fn prepare(
        ground: &Ground,
        folder: PathBuf,
        database: &str,
        provider: &str,
        trial: Duration,
    ) -> anyhow::Result<Self> {
        fs::write(folder.join("worker.mjs"), WORKER)?;
        let mut worker = Self {
            name: String::new(),
            folder,
            socket: ground.socket_dir()?,
            database: database.to_owned(),
            provider: provider.to_owned(),
            setting: SETTINGS[0],
        };
        let mut best = 0.0;
        for setting in SETTINGS {
            let per_second = worker.run(setting, trial).await?;
            let (processes, jobs) = setting;
            let name = format!("graphile-worker, {processes} × {jobs} jobs at once");
            progress(&format!("  {name}: {per_second:.0}/s"));
            if per_second > best {
                best = per_second;
                (worker.setting, worker.name) = (setting, name);
            }
        }
        Ok(worker)
    }

    async fn run(
        &self,
        (processes, concurrency): (usize, usize),
        lasting: Duration,
    ) -> anyhow::Result<f64> {
        let seconds = lasting.as_secs().max(1);
        let jobs = (seconds + 2) * JOBS_PER_SECOND;
        let mut command = Command::new("node");
        command.current_dir(&self.folder).arg("worker.mjs").arg(&self.socket);
        command.args([&self.database, &self.provider, POOL]);
        let numbers = [seconds, processes as u64, concurrency as u64, jobs];
        command.args(numbers.map(|number| number.to_string()));
        let mut process = Process::start("graphile-worker", command, &[])?;
        let report = process
            .until(START + lasting, async |output| {
                output.lines().find_map(|line| serde_json::from_str::<Report>(line).ok())
            })
            .await
            .context("graphile-worker did not end")?;
        ensure!(report.failed == 0, "{} jobs of graphile-worker failed", report.failed);
        ensure!(report.left > 0, "graphile-worker ran out of jobs: JOBS_PER_SECOND is too low");
        Ok(report.jobs_per_second)
    }
}

impl Peer for Graphile {
    fn name(&self) -> &str {
        &self.name
    }

    fn run_for(&mut self, lasting: Duration) -> BoxFuture<'_, anyhow::Result<f64>> {
        Box::pin(self.run(self.setting, lasting))
    }
}
