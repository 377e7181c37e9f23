//! Callers of the hour: for a cycle each, and with cards.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::Request;

use super::PLANNED;
use crate::{
    load::Times,
    peers::{
        batch::{Cards, ensure_credited, open_in},
        holdfast::{Client, acquire, release},
    },
};

/// How long a caller waits for an answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a batch goes on, before the next one is opened.
const BATCH: Duration = Duration::from_secs(60);
/// Cards in flight on a batch, at the most.
const IN_FLIGHT: usize = 256;
/// How often cards whose time has come are sent.
const TICK: Duration = Duration::from_millis(5);
/// After a batch that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// What came of them.
pub(super) struct Tally(Mutex<Counts>);

struct Counts {
    /// Acquisitions since the last sample, from the time at which each was to come.
    times: Times,
    credited: u64,
    /// What failed, by why.
    failed: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn new() -> anyhow::Result<Self> {
        let (times, failed) = (Times::new()?, BTreeMap::new());
        Ok(Self(Mutex::new(Counts { times, credited: 0, failed })))
    }

    /// The times since the last sample.
    pub(super) fn take_times(&self) -> anyhow::Result<Times> {
        let fresh = Times::new()?;
        Ok(std::mem::replace(&mut self.counts().times, fresh))
    }

    pub(super) fn credited(&self) -> u64 {
        self.counts().credited
    }

    pub(super) fn failed(&self) -> BTreeMap<String, u64> {
        self.counts().failed.clone()
    }

    fn fail(&self, why: String) {
        *self.counts().failed.entry(why).or_default() += 1;
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One caller: acquires and releases.
pub(super) async fn come(mut client: Client, intended: std::time::Instant, tally: SharedTally) {
    let mut request = Request::new(acquire());
    request.set_timeout(PATIENCE);
    let lease = match client.acquire_account(request).await {
        Ok(answer) => answer.into_inner().lease.and_then(|lease| lease.r#ref),
        Err(status) => return tally.fail(format!("acquire: {}", status.message())),
    };
    tally.counts().times.note(intended.elapsed());
    let Some(lease) = lease else { return tally.fail("an answer without a lease".to_owned()) };
    let mut request = Request::new(release(lease));
    request.set_timeout(PATIENCE);
    if let Err(status) = client.release_account(request).await {
        tally.fail(format!("release: {}", status.message()));
    }
}

pub(super) type SharedTally = std::sync::Arc<Tally>;

/// Sends cards at a rate until `end`, in one batch after the other. A batch that fails is noted.
pub(super) async fn cards(
    mut client: Client,
    per_second: f64,
    end: Instant,
    tally: SharedTally,
) -> anyhow::Result<()> {
    while Instant::now() < end {
        let until = end.min(Instant::now() + BATCH);
        if let Err(error) = batch(&mut client, per_second, until, &tally).await {
            tally.fail(format!("a batch: {error:#}"));
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(())
}

async fn batch(
    client: &mut Client,
    per_second: f64,
    until: Instant,
    tally: &Tally,
) -> anyhow::Result<()> {
    let (mut results, cards) = open_in(client, PLANNED, IN_FLIGHT).await?;
    let sending = tokio::spawn(send(cards, per_second, until));
    while let Some(result) = results.next().await? {
        match ensure_credited(&result) {
            Ok(()) => tally.counts().credited += 1,
            Err(error) => tally.fail(format!("{error:#}")),
        }
    }
    sending.await.context("the sender of cards panicked")
}

/// Sends each card at its time, or as soon after it as there is room.
async fn send(mut cards: Cards, per_second: f64, until: Instant) {
    let begun = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut sent = 0.0;
    while Instant::now() < until {
        ticks.tick().await;
        while sent < begun.elapsed().as_secs_f64() * per_second && Instant::now() < until {
            if !cards.send().await {
                return;
            }
            sent += 1.0;
        }
    }
}
