//! The client that keeps to everything: cycles at a rate, a redemption now and then, and now and then a new connection.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use holdfast::rpc::pb::{LeaseRef, Money, RedeemRequest};
use tokio::time::timeout;
use tonic::Status;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::{
    load::Times,
    open_loop::open_loop,
    peers::holdfast::{Client, acquire, connect_to, release},
    secure::Target,
};

/// Cycles a second.
const CYCLES: f64 = 50.0;
/// Of so many, one redeems a card.
const REDEEMS: u64 = 25;
/// Of so many, one has a connection of its own. What it waits for is not in the times, but its failures count.
const CONNECTS: u64 = 50;
const CONNECTIONS: usize = 2;
/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// Cycles under way at once.
const MOST: u32 = 1_000;

/// What became of its calls.
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) failed: BTreeMap<String, u64>,
    pub(super) times: Times,
}

type SharedTally = Arc<Mutex<Tally>>;

/// The client, connected.
pub(super) struct Steady {
    target: Target,
    clients: Vec<Client>,
    /// Cycles so far.
    number: Arc<AtomicU64>,
}

impl Steady {
    pub(super) async fn connect(target: &Target) -> anyhow::Result<Self> {
        let clients = connect_to(target, CONNECTIONS).await?;
        Ok(Self { target: target.clone(), clients, number: Arc::default() })
    }

    /// Comes for a while.
    pub(super) async fn come_for(&self, lasting: Duration) -> anyhow::Result<Tally> {
        let tally = Tally { calls: 0, failed: BTreeMap::new(), times: Times::new()? };
        let tally = Arc::new(Mutex::new(tally));
        let come = |intended| {
            let number = self.number.fetch_add(1, Ordering::Relaxed);
            let client = self.clients[number as usize % self.clients.len()].clone();
            let target = number.is_multiple_of(CONNECTS).then(|| self.target.clone());
            let tally = Arc::clone(&tally);
            async move {
                let _ = cycle(client, target, intended, number, &tally).await;
            }
        };
        open_loop(CYCLES, lasting, MOST, come).await;
        let tally = Arc::try_unwrap(tally).ok().context("a cycle goes on")?;
        Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Acquires, perhaps redeems, and releases. The first call has waited since it was to come.
async fn cycle(
    mut client: Client,
    own_connection: Option<Target>,
    intended: Instant,
    number: u64,
    tally: &SharedTally,
) -> Option<()> {
    let is_timed = own_connection.is_none();
    let note = |what: &str, since: Instant, failed: Option<String>| {
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.calls += 1;
        if is_timed {
            tally.times.note(since.elapsed());
        }
        if let Some(why) = failed {
            *tally.failed.entry(format!("{what}: {why}")).or_default() += 1;
        }
    };
    if let Some(target) = own_connection {
        let connected = timeout(DEADLINE, connect_to(&target, 1)).await;
        match connected.map_err(anyhow::Error::from).and_then(|connected| connected) {
            Ok(mut connected) => client = connected.remove(0),
            Err(error) => {
                note("connect", intended, Some(format!("{error:#}")));
                return None;
            }
        }
    }
    let acquired = in_time(client.acquire_account(acquire())).await;
    let acquired = acquired.and_then(|answer| {
        answer.lease.and_then(|lease| lease.r#ref).ok_or_else(|| "no lease".to_owned())
    });
    note("acquire", intended, acquired.as_ref().err().cloned());
    let lease = acquired.ok()?;
    if number % REDEEMS == 1 {
        let since = Instant::now();
        let redeemed = in_time(client.redeem(redeem(&lease))).await;
        note("redeem", since, redeemed.err());
    }
    let since = Instant::now();
    let released = in_time(client.release_account(release(lease))).await;
    note("release", since, released.err());
    Some(())
}

async fn in_time<T>(
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, String> {
    match timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(match status.get_details_error_info() {
            Some(info) => info.reason,
            None => format!("{:?}, {}", status.code(), status.message()),
        }),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

fn redeem(lease: &LeaseRef) -> RedeemRequest {
    let id = Uuid::now_v7();
    RedeemRequest {
        request_id: id.to_string(),
        lease: Some(lease.clone()),
        code: id.simple().to_string().to_uppercase(),
        expected: Some(Money { amount_minor: 1_000, currency_code: "EUR".to_owned() }),
        ..RedeemRequest::default()
    }
}
