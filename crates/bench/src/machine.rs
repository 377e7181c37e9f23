//! The machine that the figures are of.

use std::{
    fmt, fs,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::{ground::Ground, postgres};

/// Writes that are synced to see how long one takes.
const SYNCS: usize = 100;

/// See the module.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gb: f64,
    pub(crate) kernel: String,
    pub(crate) postgres: String,
    pub(crate) fsync: String,
    pub(crate) synchronous_commit: String,
    /// The median of writes of 8 KiB that are synced, one after the other, where the databases are.
    pub(crate) sync_ms: f64,
    /// Processes that wanted to run when it began, by the kernel's count over a minute.
    pub(crate) load_before: f64,
}

impl Machine {
    pub(crate) async fn read(ground: &Ground) -> anyhow::Result<Self> {
        let url = ground.url("postgres");
        Ok(Self {
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gb: memory_gb(),
            kernel: read("/proc/sys/kernel/osrelease"),
            postgres: postgres::setting(&url, "server_version").await?,
            fsync: postgres::setting(&url, "fsync").await?,
            synchronous_commit: postgres::setting(&url, "synchronous_commit").await?,
            sync_ms: sync_ms(ground.directory())?,
            load_before: read("/proc/loadavg")
                .split(' ')
                .next()
                .unwrap_or("")
                .parse()
                .unwrap_or(0.0),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {} cores, {:.0} GB, kernel {}, Postgres {} (fsync {}, synchronous_commit {}), a synced \
             write takes {:.2} ms, load before {:.1}",
            self.cpu,
            self.cores,
            self.memory_gb,
            self.kernel,
            self.postgres,
            self.fsync,
            self.synchronous_commit,
            self.sync_ms,
            self.load_before,
        )
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

/// The first value of a name in a file of `name: value` lines.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_gb() -> f64 {
    let kib = field("/proc/meminfo", "MemTotal");
    let kib = kib.and_then(|text| text.trim_end_matches("kB").trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) * 1024.0 / 1e9
}

fn sync_ms(directory: &Path) -> anyhow::Result<f64> {
    let path = directory.join("sync-test");
    let mut file = fs::File::create(&path)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begun = Instant::now();
        file.write_all(&[0; 8192])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times.get(SYNCS / 2).map_or(0.0, Duration::as_secs_f64) * 1_000.0)
}
