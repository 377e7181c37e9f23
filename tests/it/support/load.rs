//! Callers who acquire, redeem and release over and over, as callers should: what found no database
//! is called again, for the same request.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast::rpc::pb;
use tokio::{task::JoinSet, time::timeout};
use tonic::Status;

use super::{
    wait::eventually,
    world::{Clients, World, lease, reason, seconds},
};

/// No call may take longer, whatever happens to the database.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long a success may be waited for.
const LIMIT: Duration = Duration::from_secs(30);
/// As clients wait before they call again.
const PAUSE: Duration = Duration::from_millis(20);

/// Callers at work.
pub(crate) struct Load {
    observer: Clients,
    callers: JoinSet<()>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

/// What the callers were answered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The redemptions that they were told had succeeded.
    pub(crate) succeeded: HashSet<String>,
    /// The redemptions that they were told were in doubt.
    pub(crate) in_doubt: HashSet<String>,
    /// When each whole cycle was begun, and when it was through.
    cycles: Vec<(Instant, Instant)>,
}

impl Load {
    /// Starts `callers` of a world's server, for the accounts that are there, of which there must be
    /// more.
    pub(crate) async fn start(world: &World, callers: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let (clients, shared) = (world.clients(0).await, Arc::clone(&shared));
            let codes = world.code(&format!("load-{caller}"));
            tasks.spawn(call(clients, codes, caller, shared));
        }
        Self { observer: world.clients(0).await, callers: tasks, shared }
    }

    /// What was answered so far.
    pub(crate) fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until `count` more redemptions have succeeded.
    pub(crate) async fn more(&self, count: usize) {
        let before = self.seen().succeeded.len();
        let what = format!("{count} more redemptions to succeed");
        eventually(LIMIT, &what, async || {
            (self.seen().succeeded.len() >= before + count).then_some(())
        })
        .await;
    }

    /// Waits until callers are told that there is no database. Asked by one more caller: the others may
    /// all be waiting for an outcome to be recorded, which is never given up.
    pub(crate) async fn refused(&self) {
        let mut pools = self.observer.pools.clone();
        eventually(LIMIT, "a call to find no database", async || {
            let listed = timeout(CALL_LIMIT, pools.list_pools(pb::ListPoolsRequest::default()));
            let error = listed.await.expect("a call to be answered").err()?;
            assert_eq!(reason(&error), "DATABASE_UNAVAILABLE", "{error:?}");
            Some(())
        })
        .await;
    }

    /// Waits for the first whole cycle after `since`; answers how long after it was through.
    pub(crate) async fn first_cycle_after(&self, since: Instant) -> Duration {
        eventually(LIMIT, "a cycle to go through", async || {
            let cycles = self.seen().cycles.into_iter();
            cycles.filter(|(begin, _)| *begin > since).map(|(_, end)| end - since).min()
        })
        .await
    }

    /// Lets the callers finish what they have begun.
    pub(crate) async fn stop(mut self) -> Seen {
        self.shared.stop.store(true, Ordering::SeqCst);
        while let Some(ended) = self.callers.join_next().await {
            ended.unwrap();
        }
        self.seen()
    }
}

async fn call(mut clients: Clients, codes: String, caller: usize, shared: Arc<Shared>) {
    for turn in 0.. {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let begun = Instant::now();
        cycle(&mut clients, &format!("{codes}-{turn}"), &format!("{caller}-{turn}"), &shared).await;
        shared.see(|seen| seen.cycles.push((begun, Instant::now())));
    }
}

async fn cycle(clients: &mut Clients, code: &str, name: &str, shared: &Shared) {
    let lease = loop {
        let acquire = clients.acquire(|request| {
            request.request_id = format!("load {name}");
            request.wait_timeout = seconds(5.0);
        });
        if let Some(acquired) = shared.judge(acquire).await {
            break lease(&acquired);
        }
    };
    let redemption = loop {
        if let Some(redeemed) = shared.judge(clients.redeem(&lease, code, |_| {})).await {
            break redeemed.redemption.unwrap();
        }
    };
    shared.see(|seen| match redemption.state() {
        pb::RedemptionState::Succeeded => seen.succeeded.insert(redemption.redemption_id.clone()),
        pb::RedemptionState::InDoubt => seen.in_doubt.insert(redemption.redemption_id.clone()),
        _ => panic!("{redemption:?}"),
    });
    while shared.judge(clients.release(&lease)).await.is_none() {}
}

impl Shared {
    fn see<T>(&self, note: impl FnOnce(&mut Seen) -> T) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The answer of a call; `None` when it is to be made again, because there was no database. No
    /// other error may come.
    async fn judge<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Option<T> {
        match timeout(CALL_LIMIT, call).await.expect("a call to be answered") {
            Ok(answer) => return Some(answer),
            Err(status) => assert_eq!(reason(&status), "DATABASE_UNAVAILABLE", "{status:?}"),
        }
        tokio::time::sleep(PAUSE).await;
        None
    }
}
