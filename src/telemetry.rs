//! Logs and metrics of the process.

use std::{
    io::{self, IsTerminal as _},
    sync::OnceLock,
    time::Duration,
};

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
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

/// Sums up what was recorded, until `stop`. The recorder keeps every single time that was measured until
/// then, or until somebody reads the metrics, and perhaps nobody does.
pub async fn sum_up(metrics: &'static PrometheusHandle, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(SUMMING_UP);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        metrics.run_upkeep();
    }
}
