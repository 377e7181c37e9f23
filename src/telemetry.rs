//! Logs and metrics of the process.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal as _},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// How often what was recorded is summed up.
const SUMMING_UP: Duration = Duration::from_secs(5);

/// Starts logging to standard error: text on a terminal, JSON, one object a line, otherwise.
/// `filter` is a level or a list of `target=level`, such as `info,holdfast=debug`.
pub fn init_logs(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)
        .with_context(|| format!("HOLDFAST_LOG: {filter:?} is not a log filter; try info"))?;
    // A line that cannot be written is lost: to say so on the same output would be a panic.
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .log_internal_errors(false);
    let started = if io::stderr().is_terminal() {
        logs.with_target(false).try_init()
    } else {
        logs.json().flatten_event(true).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("logging could not be started: {error}"))
}

/// The process's metrics; recording begins with the first call.
pub fn metrics() -> anyhow::Result<&'static PrometheusHandle> {
    static METRICS: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let handle = METRICS.get_or_init(|| {
        PrometheusBuilder::new()
            .set_buckets(&[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0])
            .and_then(|builder| {
                let rows = Matcher::Full("holdfast_lane_rows".to_owned());
                builder.set_buckets_for_metric(
                    rows,
                    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0],
                )
            })
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(|error| error.to_string())
    });
    handle.as_ref().map_err(|error| anyhow::anyhow!("metrics could not be started: {error}"))
}

/// How many wait for accounts of a pool on this server, until dropped. Not the recorder's: it keeps for ever what it was
/// told once, and pools are callers' to make.
#[derive(Debug)]
pub struct WaitingGauge {
    pool_id: String,
}

/// How many wait, by pool.
static WAITING: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

fn waiting() -> MutexGuard<'static, BTreeMap<String, usize>> {
    WAITING.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WaitingGauge {
    /// Of a pool, of which nobody waits.
    pub fn new(pool_id: &str) -> Self {
        waiting().entry(pool_id.to_owned()).or_default();
        Self { pool_id: pool_id.to_owned() }
    }

    /// So many wait.
    pub fn set(&self, waiters: usize) {
        waiting().insert(self.pool_id.clone(), waiters);
    }
}

impl Drop for WaitingGauge {
    fn drop(&mut self) {
        waiting().remove(&self.pool_id);
    }
}

/// All metrics, in Prometheus's text form.
fn render(metrics: &PrometheusHandle) -> String {
    const NAME: &str = "holdfast_acquire_waiting";
    let mut text = metrics.render();
    let waiting = waiting().clone();
    if !waiting.is_empty() {
        text.push_str(&format!("# TYPE {NAME} gauge\n"));
    }
    for (pool_id, waiters) in waiting {
        let pool_id = pool_id.replace('\\', "\\\\").replace('"', "\\\"");
        text.push_str(&format!("{NAME}{{pool_id=\"{pool_id}\"}} {waiters}\n"));
    }
    text
}

/// Which part of the time metrics are written, at most: one in so many.
const RENDERS_PART: u32 = 5;

/// The metrics as text, for many who ask at once. They are written by one thread at a time, which serves nobody
/// else, and for all who came before it began.
#[derive(Debug)]
pub struct Rendered {
    metrics: &'static PrometheusHandle,
    last: tokio::sync::Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    text: Bytes,
    /// When it was begun.
    at: Option<Instant>,
    /// When the next may begin.
    next: Option<Instant>,
}

impl Rendered {
    /// Of these metrics.
    pub fn new(metrics: &'static PrometheusHandle) -> Self {
        Self { metrics, last: tokio::sync::Mutex::default() }
    }

    /// The metrics as they are now, or were after this was asked for.
    pub async fn text(&self) -> Bytes {
        let asked = Instant::now();
        let mut last = self.last.lock().await;
        if last.at.is_some_and(|at| at >= asked) {
            return last.text.clone();
        }
        if let Some(next) = last.next {
            sleep_until(next).await;
        }
        let (metrics, begun) = (self.metrics, Instant::now());
        let text = tokio::task::spawn_blocking(move || render(metrics)).await;
        *last = Last {
            text: text.unwrap_or_default().into(),
            at: Some(begun),
            next: Some(Instant::now() + begun.elapsed() * (RENDERS_PART - 1)),
        };
        last.text.clone()
    }
}

/// Sums up what was recorded, until `stop`. The recorder keeps every single time that was measured until
/// then, or until somebody reads the metrics, and perhaps nobody does.
pub async fn sum_up(metrics: &'static PrometheusHandle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SUMMING_UP);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        // It goes through all that there is: not on a thread that serves calls.
        let _ = tokio::task::spawn_blocking(|| metrics.run_upkeep()).await;
    }
}
