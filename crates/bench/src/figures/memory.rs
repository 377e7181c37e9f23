//! The memory of the server: while many redemptions wait for a provider that is slow, and over a long stream.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use holdfast::rpc::pb::BatchItemResult;
use tokio::task::JoinSet;

use crate::{
    args::Args,
    goals::{Row, part},
    ground::Ground,
    peers::{
        batch::{ensure_credited, open},
        holdfast::{Server, connect},
        provider::Provider,
        silent::SilentProvider,
    },
    postgres,
    report::progress,
    stats,
};

/// The most cards that one stream may have in flight.
const STREAM_IN_FLIGHT: usize = 1_000;
/// As many callers: one alone has only a share of what may wait.
const CALLERS: usize = 4;
/// How long the redemptions may take to be begun.
const BEGINNING: Duration = Duration::from_secs(120);
/// How long the memory is sampled once all wait, and how often.
const LOOKING: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Redemptions that wait for a provider over HTTP/1.1: each call has a connection of its own.
pub(super) async fn waiting(args: &Args, ground: &Ground, row: &mut Row) -> anyhow::Result<()> {
    let provider = Provider::start(ground, "10m").await?;
    let settings = [format!("--provider-url={}", provider.url)];
    let waiting = Waiting { part: part::WAITING, over: "HTTP/1.1", settings, variables: &[] };
    waiting.measure(args, ground, row).await
}

/// The same over HTTP/2: the calls share a connection.
pub(super) async fn waiting_http2(
    args: &Args,
    ground: &Ground,
    row: &mut Row,
) -> anyhow::Result<()> {
    let provider = SilentProvider::start().await?;
    let settings = [format!("--provider-url={}", provider.url)];
    let ca_file = provider.ca_file.to_str().context("a temporary folder without a name")?;
    // What the program trusts where it is not told otherwise.
    let variables = &[("SSL_CERT_FILE", ca_file)];
    let waiting = Waiting { part: part::WAITING_HTTP2, over: "HTTP/2", settings, variables };
    waiting.measure(args, ground, row).await
}

/// Redemptions that wait for a provider.
struct Waiting<'a> {
    part: usize,
    over: &'a str,
    settings: [String; 1],
    variables: &'a [(&'a str, &'a str)],
}

impl Waiting<'_> {
    async fn measure(&self, args: &Args, ground: &Ground, row: &mut Row) -> anyhow::Result<()> {
        let wanted = args.waiting();
        let over = self.over;
        progress(&format!("memory with {wanted} redemptions waiting on a slow provider, {over}"));
        let url = ground.new_database("waiting").await?;
        postgres::fill_with_past(&url, wanted + 1_000).await?;
        let mut settings = self.settings.to_vec();
        settings.push("--provider-timeout=11m".to_owned());
        settings.push("--provider-send-window=12m".to_owned());
        let server = Server::start_with(ground, &url, &settings, self.variables).await?;
        let idle = server.process.memory_mb()?;
        let mut streams = JoinSet::new();
        let mut clients = connect(&server.url, CALLERS).await?;
        let mut opened = 0;
        while opened < wanted {
            let in_flight = STREAM_IN_FLIGHT.min(wanted - opened);
            let client = &mut clients[opened / STREAM_IN_FLIGHT % CALLERS];
            let (mut results, mut cards) = open(client, in_flight).await?;
            streams.spawn(async move {
                for _ in 0..in_flight {
                    cards.send().await;
                }
                // None comes while this is measured.
                results.next().await
            });
            opened += in_flight;
            // One stream after the other: more cards at once than the server queues would be refused.
            wait_until_held(&url, opened, &mut streams).await?;
        }
        let seen = sample(&server).await?;
        let sent = postgres::number(&url, SUBMITTED).await?;
        let (_, most) = stats::spread(&seen);
        row.set(self.part, most, None);
        let measured = |what: &str, seen: &[f64]| stats::measured(what, "MB", seen);
        row.measured.push(measured(&format!("memory, nothing to do, {over}"), &[idle]));
        row.measured.push(measured(&format!("memory, {wanted} waiting, {over}"), &seen));
        row.notes.push(format!(
            "{over}: {sent} of the {wanted} redemptions were recorded and sent, the others waited for a permit"
        ));
        if wanted < 10_000 {
            row.notes.push(format!("{over}: with {wanted} redemptions waiting only"));
        }
        drop(streams);
        drop(server);
        ground.drop_database("waiting").await
    }
}

/// Redemptions that are recorded as sent, and without an outcome.
const SUBMITTED: &str = "SELECT count(*) FROM redemptions WHERE state = 'SUBMITTED'";
/// Accounts that are held: each by a card that was sent to the provider, or waits for a permit to be.
const HELD: &str = "SELECT count(*) FROM accounts WHERE status = 'LOCKING'";

async fn sample(server: &Server) -> anyhow::Result<Vec<f64>> {
    let mut seen = Vec::new();
    let end = Instant::now() + LOOKING;
    while Instant::now() < end {
        seen.push(server.process.memory_mb()?);
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(seen)
}

/// Waits until as many accounts are held by cards. No card may have an outcome meanwhile.
async fn wait_until_held(
    url: &str,
    wanted: usize,
    streams: &mut JoinSet<anyhow::Result<Option<BatchItemResult>>>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    while usize::try_from(postgres::number(url, HELD).await?)? < wanted {
        ensure!(begun.elapsed() < BEGINNING, "the redemptions were not begun in time");
        if let Some(ended) = streams.try_join_next() {
            let result = ended.context("a stream panicked")??;
            let result = result.context("a stream ended")?;
            ensure_credited(&result)?;
            bail!("the provider is not slow");
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

pub(super) async fn stream(args: &Args, ground: &Ground, row: &mut Row) -> anyhow::Result<()> {
    let items = args.stream_items();
    progress(&format!("memory over a stream of {items} items"));
    let provider = Provider::start(ground, "0ms").await?;
    let url = ground.new_database("stream").await?;
    postgres::fill_with_past(&url, super::cycles::ACCOUNTS).await?;
    let settings = [format!("--provider-url={}", provider.url)];
    let server = Server::start(ground, &url, &settings).await?;
    let mut client = connect(&server.url, 1).await?.remove(0);
    let (mut results, mut cards) = open(&mut client, STREAM_IN_FLIGHT).await?;
    let begun = Instant::now();
    let limit = args.stream_limit();
    let sending = tokio::spawn(async move {
        let mut sent = 0;
        while sent < items && begun.elapsed() < limit && cards.send().await {
            sent += 1;
        }
        sent
    });
    let mut samples = Vec::new();
    let mut done = 0_u64;
    let mut ticks = tokio::time::interval(POLL_INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => samples.push((done, server.process.memory_mb()?)),
            result = results.next() => match result? {
                Some(result) => {
                    ensure_credited(&result)?;
                    done += 1;
                    if done.is_multiple_of(100_000) {
                        progress(&format!("  {done} items after {} s", begun.elapsed().as_secs()));
                    }
                }
                None => break,
            },
        }
    }
    let sent = sending.await.context("the sender of cards panicked")?;
    ensure!(done == sent, "{sent} cards were sent, and {done} had an outcome");
    let seconds = begun.elapsed().as_secs();
    let [second, last] = [(1, 2), (3, 4)].map(|(from, to)| {
        let quarter = done * from / 4..done * to / 4;
        let mb = samples.iter().filter(|(done, _)| quarter.contains(done)).map(|(_, mb)| *mb);
        mb.collect::<Vec<_>>()
    });
    row.set(part::STREAM, stats::median(&last) / stats::median(&second), None);
    row.measured.push(stats::measured("memory, second quarter of the stream", "MB", &second));
    row.measured.push(stats::measured("memory, last quarter of the stream", "MB", &last));
    row.curve = samples;
    row.notes.push(format!("the stream had {done} items in {seconds} s"));
    drop((server, provider));
    ground.drop_database("stream").await
}
