//! Lanes: many callers, one statement, one commit.
//!
//! A lane is the queue in front of one kind of statement for one pool. Its worker takes all that
//! wait, up to a bound, runs one statement over them, and answers each caller after the commit.
//! There is no timer: while one statement runs, the next batch gathers, so a caller who is alone
//! pays one round trip, and a thousand callers pay few.
//!
//! The worker is a task of its own: a caller who goes away never interrupts a statement. Every
//! statement that runs here may be repeated when its reply was lost; see each for why.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use rand::RngExt as _;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

use super::{
    StoreError,
    error::{Fault, fault},
};
use crate::{
    admission::{self, Meter, Overload, Queue},
    domain::id::PoolId,
    failpoints::{self, Side, Step},
};

/// The most rows of one statement: past this, a statement costs more than it saves.
pub(super) const MAX_ROWS: usize = 256;
/// The most callers that wait in one lane. One more waits for room: there are no more of them than
/// [`admission`](crate::admission) lets in.
const MAX_QUEUE: usize = 8192;
/// How long a statement that failed for want of a database is tried again, from when its last caller
/// queued.
const PATIENCE: Duration = Duration::from_secs(5);
/// Rows that are run side by side when their statement failed as a whole.
const MAX_APART: usize = 8;
/// How often a statement that met another is run again before it counts as refused.
const MAX_CONTENTION: u32 = 5;

/// A kind of statement that does for many inputs at once what it does for one.
pub(super) trait Batch: Send + Sync + 'static {
    /// What a caller wants.
    type Input: Send + Sync + 'static;
    /// What a caller gets.
    type Output: Send + 'static;
    /// For metrics, logs and crash points.
    const STEP: Step;
    /// Whether an input may be dropped when its caller has gone before the statement runs.
    const DROPPED_WITH_CALLER: bool;

    /// Runs the statement. The answer has one output for each input, in their order.
    fn run(
        &self,
        pool_id: &PoolId,
        inputs: &[Self::Input],
    ) -> impl Future<Output = Result<Vec<Self::Output>, sqlx::Error>> + Send;
}

/// The lanes of one kind, one for each pool that was asked for. Pools are known to exist before
/// they get here, so there are no more lanes than pools.
pub(super) struct Lanes<B: Batch> {
    batch: Arc<B>,
    queues: Arc<Mutex<HashMap<PoolId, mpsc::Sender<Job<B>>>>>,
    overload: Overload,
}

impl<B: Batch> Clone for Lanes<B> {
    fn clone(&self) -> Self {
        Self {
            batch: Arc::clone(&self.batch),
            queues: Arc::clone(&self.queues),
            overload: self.overload.clone(),
        }
    }
}

impl<B: Batch> fmt::Debug for Lanes<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lanes({})", B::STEP.as_str())
    }
}

struct Job<B: Batch> {
    input: B::Input,
    caller: Caller<B>,
}

struct Caller<B: Batch> {
    came: Instant,
    /// Nobody waits for it after that.
    deadline: Option<Instant>,
    reply: oneshot::Sender<Result<B::Output, StoreError>>,
}

impl<B: Batch> Lanes<B> {
    pub(super) fn new(batch: B, overload: &Overload) -> Self {
        Self { batch: Arc::new(batch), queues: Arc::default(), overload: overload.clone() }
    }

    /// Queues `input` and waits for its output.
    pub(super) async fn call(
        &self,
        pool_id: &PoolId,
        input: B::Input,
    ) -> Result<B::Output, StoreError> {
        self.call_for(&admission::Caller::default(), pool_id, input).await
    }

    /// The same for a call, whose deadline counts until the statement begins where an input may be
    /// dropped at all.
    pub(super) async fn call_for(
        &self,
        caller: &admission::Caller,
        pool_id: &PoolId,
        input: B::Input,
    ) -> Result<B::Output, StoreError> {
        let (reply, answer) = oneshot::channel();
        let caller = Caller { came: Instant::now(), deadline: caller.deadline(), reply };
        let queue = self.queue(pool_id);
        queue.send(Job { input, caller }).await.map_err(|_| StoreError::ShuttingDown)?;
        // The worker answers every job; it only drops one when the runtime stops under it.
        answer.await.unwrap_or(Err(StoreError::ShuttingDown))
    }

    fn queue(&self, pool_id: &PoolId) -> mpsc::Sender<Job<B>> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(pool_id)
            && !queue.is_closed()
        {
            return queue.clone();
        }
        let (queue, jobs) = mpsc::channel(MAX_QUEUE);
        let meter = self.overload.meter(Queue::Work);
        tokio::spawn(work(Arc::clone(&self.batch), pool_id.clone(), jobs, meter));
        queues.insert(pool_id.clone(), queue.clone());
        queue
    }
}

/// The worker of a lane. Ends with the last sender.
async fn work<B: Batch>(
    batch: Arc<B>,
    pool_id: PoolId,
    mut queue: mpsc::Receiver<Job<B>>,
    mut meter: Meter,
) {
    let mut jobs = Vec::new();
    while queue.recv_many(&mut jobs, MAX_ROWS).await > 0 {
        if let Some(last) = jobs.last() {
            meter.begins(last.caller.came);
        }
        let taken = std::mem::take(&mut jobs).into_iter().filter_map(still_wanted);
        run(batch.as_ref(), &pool_id, taken.unzip()).await;
        meter.ends();
    }
}

/// Drops what nobody waits for any more, where it may be dropped.
fn still_wanted<B: Batch>(job: Job<B>) -> Option<(B::Input, Caller<B>)> {
    let Job { input, caller } = job;
    let late = caller.deadline.is_some_and(|deadline| deadline <= Instant::now());
    if !B::DROPPED_WITH_CALLER || !(late || caller.reply.is_closed()) {
        return Some((input, caller));
    }
    admission::note_dropped(B::STEP.as_str());
    let _ = caller.reply.send(Err(StoreError::DeadlinePassed));
    None
}

type Jobs<B> = (Vec<<B as Batch>::Input>, Vec<Caller<B>>);

/// Runs one statement over the jobs. When it fails as a whole, they are run one by one, side by side,
/// so that one bad row fails alone, and one that a stranger holds is waited for alone.
async fn run<B: Batch>(batch: &B, pool_id: &PoolId, jobs: Jobs<B>) {
    let (inputs, callers) = jobs;
    if inputs.is_empty() {
        return;
    }
    let error = match run_patiently(batch, pool_id, &inputs, &callers).await {
        Ok(outputs) => return answer(callers, outputs),
        Err(error) => error,
    };
    if inputs.len() == 1 || matches!(fault(&error), Fault::Unavailable) {
        return refuse(pool_id, callers, error);
    }
    let single = |(input, caller)| async move {
        match run_patiently(batch, pool_id, &[input], std::slice::from_ref(&caller)).await {
            Ok(outputs) => answer(vec![caller], outputs),
            Err(error) => refuse(pool_id, vec![caller], error),
        }
    };
    stream::iter(inputs.into_iter().zip(callers)).for_each_concurrent(MAX_APART, single).await;
}

fn answer<B: Batch>(callers: Vec<Caller<B>>, outputs: Vec<B::Output>) {
    debug_assert_eq!(outputs.len(), callers.len(), "an output for each input");
    for (caller, output) in callers.into_iter().zip(outputs) {
        let _ = caller.reply.send(Ok(output));
    }
}

fn refuse<B: Batch>(pool_id: &PoolId, callers: Vec<Caller<B>>, error: sqlx::Error) {
    let error = StoreError::from(error);
    tracing::error!(lane = B::STEP.as_str(), %pool_id, %error, rows = callers.len(), "statement failed");
    for caller in callers {
        let _ = caller.reply.send(Err(error.clone()));
    }
}

/// Runs the statement again while that can help: at once after it met another statement, and while
/// its callers still wait when there was no database.
async fn run_patiently<B: Batch>(
    batch: &B,
    pool_id: &PoolId,
    inputs: &[B::Input],
    callers: &[Caller<B>],
) -> Result<Vec<B::Output>, sqlx::Error> {
    let give_up_at = callers.iter().map(|caller| caller.came + PATIENCE).max();
    let mut tries = 0;
    loop {
        let begun = Instant::now();
        let error = match at_points(B::STEP, batch.run(pool_id, inputs)).await {
            Ok(outputs) => {
                metrics::histogram!("holdfast_lane_rows", "lane" => B::STEP.as_str())
                    .record(inputs.len() as f64);
                metrics::histogram!("holdfast_lane_seconds", "lane" => B::STEP.as_str())
                    .record(begun.elapsed());
                return Ok(outputs);
            }
            Err(error) => error,
        };
        tries += 1;
        metrics::counter!("holdfast_lane_retries_total", "lane" => B::STEP.as_str()).increment(1);
        match fault(&error) {
            Fault::Contention if tries <= MAX_CONTENTION => sleep(pause(tries)).await,
            // Once more in any case: the one try may have taken all the time, without an answer.
            Fault::Unavailable
                if tries == 1 || give_up_at.is_some_and(|at| Instant::now() < at) =>
            {
                sleep(pause(tries)).await;
            }
            _ => return Err(error),
        }
    }
}

/// Runs a statement between its crash points.
pub(super) async fn at_points<T>(
    step: Step,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    failpoints::reach(step, Side::Before).await?;
    let answered = statement.await;
    failpoints::reach(step, Side::After).await?;
    answered
}

/// A pause that doubles from about 5 ms to about 300 ms, of which a random part is left out, so that
/// statements that met once do not meet again.
fn pause(tries: u32) -> Duration {
    let most_ms = 10 * 2u64.pow(tries.min(5));
    Duration::from_millis(rand::rng().random_range(most_ms / 4..=most_ms))
}

/// Reads, again while there is no database, for as long as a lane's callers wait for one.
pub(super) async fn read_patiently<T, F>(mut read: impl FnMut() -> F) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let give_up_at = Instant::now() + PATIENCE;
    let mut tries = 0;
    loop {
        match read().await {
            Err(error)
                if fault(&error) == Fault::Unavailable
                    && (tries == 0 || Instant::now() < give_up_at) =>
            {
                tries += 1;
                sleep(pause(tries)).await;
            }
            answer => return answer,
        }
    }
}

/// Runs a statement that is not a lane's, again after it met another one.
pub(super) async fn run_again_after_contention<T, F>(
    step: Step,
    mut statement: impl FnMut() -> F,
    also: impl Fn(&sqlx::Error) -> bool,
) -> Result<T, sqlx::Error>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let mut tries = 0;
    loop {
        match at_points(step, statement()).await {
            Ok(value) => return Ok(value),
            Err(error)
                if tries < MAX_CONTENTION
                    && (fault(&error) == Fault::Contention || also(&error)) =>
            {
                tries += 1;
                sleep(pause(tries)).await;
            }
            Err(error) => return Err(error),
        }
    }
}
