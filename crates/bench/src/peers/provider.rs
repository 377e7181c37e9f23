//! The provider: the simulator, as a process of its own, over real HTTP.

use std::path::Path;

use tempfile::TempDir;

use crate::{
    ground::Ground,
    peers::holdfast::address,
    process::{Process, START},
};

/// A provider that runs.
pub(crate) struct Provider {
    pub(crate) url: String,
    pub(crate) process: Process,
    _folder: TempDir,
}

impl Provider {
    /// Starts one that answers after `latency`, such as `0ms`. It syncs its ledger before it answers, on a
    /// disk of its own as a provider would: here that is memory, where there is such a file system, so that its
    /// syncs do not stand in the way of Postgres's.
    pub(crate) async fn start(ground: &Ground, latency: &str) -> anyhow::Result<Self> {
        let mut folder = tempfile::Builder::new();
        folder.prefix("holdfast-bench-");
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { folder.tempdir_in(memory) } else { folder.tempdir() }?;
        let mut command = ground.holdfast("simulate-provider");
        command
            .args(["--listen", "127.0.0.1:0", "--fault-latency", latency, "--ledger"])
            .arg(folder.path().join("ledger.jsonl"));
        let mut process = Process::start("holdfast simulate-provider", command, &[])?;
        let addr = process
            .until(START, async |output| address(output, "simulating the provider", "address"))
            .await?;
        Ok(Self { url: format!("http://{addr}"), process, _folder: folder })
    }
}
