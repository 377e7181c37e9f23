//! Lanes: many callers, one statement, one commit.
//!
//! A lane is the queue in front of one kind of statement for one pool. Its worker takes all that
//! wait, up to a bound, runs one statement over them, and answers each caller after the commit.
//! There is no timer. While one statement runs, the next batch gathers, so a caller who is alone
//! pays one round trip, and a thousand callers pay few. What is urgent comes first.
//!
//! The worker is a task of its own: a caller who goes away never interrupts a statement. It ends when nobody has called
//! for long, and the next caller has another. Every
//! statement that runs here may be repeated when its reply was lost; see each for why.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::{Instant, sleep},
};

pub(super) use super::points::at_all_points;
use super::{
    StoreError,
    patience::{PATIENCE, pause},
    pg::error::{Fault, fault, is_foreign_key_violation},
    shrink,
};
use crate::{
    admission::{self, Meter, Overload, Queue},
    domain::id::PoolId,
    failpoints::Step,
};

/// The most rows of one statement: past this, a statement costs more than it saves.
pub(super) const MAX_ROWS: usize = 256;
/// So many of them are not taken by what is urgent, where others wait.
const ROOM: usize = 32;
/// The most callers that wait in one lane. One more waits for room: there are no more of them than
/// [`admission`](crate::admission) lets in.
const MAX_QUEUE: usize = 8192;
/// Rows that are run side by side when their statement failed as a whole.
const MAX_SINGLE: usize = 8;
/// How often a statement that met another is run again before it counts as refused.
const MAX_CONTENTION: u32 = 5;

/// What one run did for an input.
#[derive(Debug)]
pub(super) enum Ran<T> {
    /// It has its output.
    Done(T),
    /// Somebody else holds its row: it waits for that alone.
    Held,
    /// Others of the same row came first: it goes with the next statement.
    Again,
}

/// A kind of statement that does for many inputs at once what it does for one.
pub(super) trait Batch: Send + Sync + 'static {
    /// What a caller wants.
    type Input: Send + Sync + 'static;
    /// What a caller gets.
    type Output: Send + 'static;
    /// For metrics and logs.
    const NAME: &'static str;

    /// What it does for this input: for failpoints.
    fn step(input: &Self::Input) -> Option<Step>;

    /// Whether an input may be dropped when its caller has gone before the statement runs.
    fn may_be_dropped(input: &Self::Input) -> bool;

    /// Whether an input comes before others that have waited for longer.
    fn is_urgent(_: &Self::Input) -> bool {
        false
    }

    /// Runs the statement. The answer says for each input, in their order, what was done. Alone, an input waits for
    /// its row.
    fn run(
        &self,
        pool_id: &PoolId,
        inputs: &[Self::Input],
        is_alone: bool,
    ) -> impl Future<Output = Result<Vec<Ran<Self::Output>>, sqlx::Error>> + Send;

    /// Takes back what a caller who has gone did not take.
    fn take_back(&self, _: &PoolId, _: Self::Output) -> Option<Self::Input> {
        None
    }
}

/// The lanes of one kind, one for each pool that was asked for lately. Pools are known to exist before
/// they get here, so there are no more lanes than pools.
pub(super) struct Lanes<B: Batch> {
    batch: Arc<B>,
    queues: Arc<Queues<B>>,
    overload: Overload,
    /// Permits to wait for a row that somebody holds: each waits on a connection.
    singles: Arc<Semaphore>,
}

impl<B: Batch> Clone for Lanes<B> {
    fn clone(&self) -> Self {
        Self {
            batch: Arc::clone(&self.batch),
            queues: Arc::clone(&self.queues),
            overload: self.overload.clone(),
            singles: Arc::clone(&self.singles),
        }
    }
}

impl<B: Batch> fmt::Debug for Lanes<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lanes({})", B::NAME)
    }
}

struct Job<B: Batch> {
    input: B::Input,
    caller: Caller<B>,
}

struct Caller<B: Batch> {
    since: Instant,
    /// Nobody waits for it after that.
    deadline: Option<Instant>,
    reply: oneshot::Sender<Result<B::Output, StoreError>>,
}

/// The queues of the lanes, by pool.
type Queues<B> = Mutex<HashMap<PoolId, Sender<B>>>;

/// The ends of a lane's two queues. Jobs are boxed: a queue has room for 32 of them from the start, and a server may have
/// queues of thousands of pools.
struct Sender<B: Batch> {
    urgent: mpsc::Sender<Box<Job<B>>>,
    others: mpsc::Sender<Box<Job<B>>>,
}

impl<B: Batch> Clone for Sender<B> {
    fn clone(&self) -> Self {
        Self { urgent: self.urgent.clone(), others: self.others.clone() }
    }
}

impl<B: Batch> Lanes<B> {
    pub(super) fn new(batch: B, overload: &Overload) -> Self {
        Self {
            batch: Arc::new(batch),
            queues: Arc::default(),
            overload: overload.clone(),
            singles: Arc::new(Semaphore::new(MAX_SINGLE)),
        }
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
        let caller = Caller { since: Instant::now(), deadline: caller.deadline(), reply };
        let is_urgent = B::is_urgent(&input);
        let mut job = Box::new(Job { input, caller });
        // One whose worker has just ended takes no more: there is another then.
        loop {
            let queue = self.queue(pool_id);
            let queue = if is_urgent { queue.urgent } else { queue.others };
            match queue.send(job).await {
                Ok(()) => break,
                Err(refused) => job = refused.0,
            }
        }
        // The worker answers every job; it only drops one when the runtime stops under it.
        answer.await.unwrap_or(Err(StoreError::ShuttingDown))
    }

    fn queue(&self, pool_id: &PoolId) -> Sender<B> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = queues.get(pool_id)
            && !queue.others.is_closed()
            && !queue.urgent.is_closed()
        {
            return queue.clone();
        }
        let (urgent, first) = mpsc::channel(MAX_QUEUE);
        let (others, then) = mpsc::channel(MAX_QUEUE);
        let worker = Worker {
            batch: Arc::clone(&self.batch),
            pool_id: pool_id.clone(),
            queues: [first, then],
            meter: self.overload.meter(Queue::Work),
            singles: Arc::clone(&self.singles),
            again: Vec::new(),
            idle_limit: self.overload.limits().idle_small_pool(),
            lanes: Arc::downgrade(&self.queues),
        };
        tokio::spawn(worker.work());
        let queue = Sender { urgent, others };
        queues.insert(pool_id.clone(), queue.clone());
        queue
    }
}

/// The worker of a lane. Ends with the last sender, or when there was no job for long.
struct Worker<B: Batch> {
    batch: Arc<B>,
    pool_id: PoolId,
    /// The urgent ones first.
    queues: [mpsc::Receiver<Box<Job<B>>>; 2],
    meter: Meter,
    singles: Arc<Semaphore>,
    /// Those that go with the next statement, because others of their row came first.
    again: Vec<Box<Job<B>>>,
    idle_limit: Duration,
    lanes: Weak<Queues<B>>,
}

impl<B: Batch> Worker<B> {
    async fn work(mut self) {
        let mut jobs: Vec<Box<Job<B>>> = Vec::new();
        while self.gather(&mut jobs).await {
            if let Some(last) = jobs.iter().map(|job| job.caller.since).max() {
                self.meter.begins(last);
            }
            let taken = std::mem::take(&mut jobs).into_iter().filter_map(|job| still_wanted(*job));
            // A lane without work has no room for what runs its statements.
            self.again = Box::pin(self.run(taken.unzip())).await;
            self.meter.ends();
        }
    }

    /// Waits for work, and takes as much as one statement does. False when there will be no more.
    async fn gather(&mut self, jobs: &mut Vec<Box<Job<B>>>) -> bool {
        let [urgent, others] = &mut self.queues;
        jobs.append(&mut self.again);
        if jobs.is_empty() {
            let first = tokio::select! {
                biased;
                Some(job) = urgent.recv() => Some(job),
                Some(job) = others.recv() => Some(job),
                () = sleep(self.idle_limit), if !others.is_closed() => None,
                else => return false,
            };
            match first {
                Some(first) => jobs.push(first),
                // What has come is done all the same.
                None => self.close(),
            }
        }
        let [urgent, others] = &mut self.queues;
        // However much is urgent, some room is left to the others.
        take(urgent, jobs, MAX_ROWS - ROOM);
        take(others, jobs, MAX_ROWS);
        take(urgent, jobs, MAX_ROWS);
        true
    }

    /// Takes no more jobs: the next caller begins another lane.
    fn close(&mut self) {
        self.queues.iter_mut().for_each(mpsc::Receiver::close);
        let Some(lanes) = self.lanes.upgrade() else { return };
        let mut lanes = lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.get(&self.pool_id).is_some_and(|lane| lane.others.is_closed()) {
            lanes.remove(&self.pool_id);
            shrink(&mut lanes);
        }
    }

    /// Runs one statement over the jobs. When it fails as a whole, they are run one by one, side by side,
    /// so that one bad row fails alone. One whose row somebody holds waits alone, and holds up nobody.
    /// Answers with those that go with the next statement.
    async fn run(&self, (inputs, callers): Jobs<B>) -> Vec<Box<Job<B>>> {
        let mut again = Vec::new();
        if inputs.is_empty() {
            return again;
        }
        let (batch, pool_id) = (&self.batch, &self.pool_id);
        let error = match run_patiently(batch.as_ref(), pool_id, &inputs, &callers, false).await {
            Ok(outputs) => {
                for ((input, caller), output) in inputs.into_iter().zip(callers).zip(outputs) {
                    match output {
                        Ran::Done(output) => answer(batch, pool_id, caller, output),
                        Ran::Held => self.run_alone((input, caller)),
                        Ran::Again => again.push(Box::new(Job { input, caller })),
                    }
                }
                return again;
            }
            Err(error) => error,
        };
        if inputs.len() == 1 || matches!(fault(&error), Fault::Unavailable) {
            for caller in callers {
                refuse::<B>(pool_id, caller, &error);
            }
            return again;
        }
        // Postgres tells of an error before it lets go of the rows that the statement has locked.
        sleep(pause(1)).await;
        stream::iter(inputs.into_iter().zip(callers))
            .for_each_concurrent(MAX_SINGLE, |job| alone(Arc::clone(batch), pool_id.clone(), job))
            .await;
        again
    }

    fn run_alone(&self, (input, caller): (B::Input, Caller<B>)) {
        let (batch, pool_id) = (Arc::clone(&self.batch), self.pool_id.clone());
        let singles = Arc::clone(&self.singles);
        tokio::spawn(async move {
            // Never closed.
            let _permit = singles.acquire_owned().await;
            if let Some(job) = still_wanted(Job { input, caller }) {
                alone(batch, pool_id, job).await;
            }
        });
    }
}

/// Takes what waits, until there are so many.
fn take<B: Batch>(
    queue: &mut mpsc::Receiver<Box<Job<B>>>,
    jobs: &mut Vec<Box<Job<B>>>,
    most: usize,
) {
    while jobs.len() < most
        && let Ok(job) = queue.try_recv()
    {
        jobs.push(job);
    }
}

/// Drops what nobody waits for any more, where it may be dropped.
fn still_wanted<B: Batch>(job: Job<B>) -> Option<(B::Input, Caller<B>)> {
    let Job { input, caller } = job;
    let late = caller.deadline.is_some_and(|deadline| deadline <= Instant::now());
    if !B::may_be_dropped(&input) || !(late || caller.reply.is_closed()) {
        return Some((input, caller));
    }
    admission::note_dropped(B::step(&input).map_or(B::NAME, Step::as_str));
    let _ = caller.reply.send(Err(StoreError::DeadlinePassed));
    None
}

type Jobs<B> = (Vec<<B as Batch>::Input>, Vec<Caller<B>>);

/// Runs a statement for one job.
async fn alone<B: Batch>(batch: Arc<B>, pool_id: PoolId, (input, caller): (B::Input, Caller<B>)) {
    let callers = std::slice::from_ref(&caller);
    match run_patiently(batch.as_ref(), &pool_id, &[input], callers, true).await {
        Ok(outputs) => match outputs.into_iter().next() {
            Some(Ran::Done(output)) => answer(&batch, &pool_id, caller, output),
            Some(Ran::Held | Ran::Again) | None => {
                let _ = caller.reply.send(Err(StoreError::Overloaded));
            }
        },
        Err(error) => refuse::<B>(&pool_id, caller, &error),
    }
}

fn answer<B: Batch>(batch: &Arc<B>, pool_id: &PoolId, caller: Caller<B>, output: B::Output) {
    if let Err(Ok(output)) = caller.reply.send(Ok(output))
        && let Some(input) = batch.take_back(pool_id, output)
    {
        let (batch, pool_id) = (Arc::clone(batch), pool_id.clone());
        let (reply, _) = oneshot::channel();
        let caller = Caller { since: Instant::now(), deadline: None, reply };
        tokio::spawn(alone(batch, pool_id, (input, caller)));
    }
}

fn refuse<B: Batch>(pool_id: &PoolId, caller: Caller<B>, error: &sqlx::Error) {
    let error = StoreError::of(error);
    if matches!(error, StoreError::CodeRedeemedAgain) {
        let _ = caller.reply.send(Err(error));
        return;
    }
    tracing::error!(lane = B::NAME, %pool_id, %error, "statement failed");
    let _ = caller.reply.send(Err(error));
}

/// Runs the statement again while that can help. It does so at once after it met another statement, and while
/// its callers still wait when there was no database.
async fn run_patiently<B: Batch>(
    batch: &B,
    pool_id: &PoolId,
    inputs: &[B::Input],
    callers: &[Caller<B>],
    is_alone: bool,
) -> Result<Vec<Ran<B::Output>>, sqlx::Error> {
    let until = callers.iter().map(|caller| caller.since + PATIENCE).max();
    let mut tries = 0;
    loop {
        let begun = Instant::now();
        let error = match batch.run(pool_id, inputs, is_alone).await {
            Ok(outputs) => {
                debug_assert_eq!(outputs.len(), callers.len(), "an output for each input");
                metrics::histogram!("holdfast_lane_rows", "lane" => B::NAME)
                    .record(inputs.len() as f64);
                metrics::histogram!("holdfast_lane_seconds", "lane" => B::NAME)
                    .record(begun.elapsed());
                return Ok(outputs);
            }
            Err(error) => error,
        };
        tries += 1;
        metrics::counter!("holdfast_lane_retries_total", "lane" => B::NAME).increment(1);
        // A plan was deleted while an account was bound to it: next time it is not there.
        let is_of_plan = is_foreign_key_violation(&error);
        match fault(&error) {
            _ if is_of_plan && tries <= MAX_CONTENTION => sleep(pause(tries)).await,
            Fault::Contention if tries <= MAX_CONTENTION => sleep(pause(tries)).await,
            // Once more in any case: the one try may have taken all the time, without an answer.
            Fault::Unavailable if tries == 1 || until.is_some_and(|at| Instant::now() < at) => {
                sleep(pause(tries)).await;
            }
            _ => return Err(error),
        }
    }
}

/// The failpoints of a statement, each once.
pub(super) fn steps_of<B: Batch>(inputs: &[B::Input]) -> Vec<Step> {
    let mut steps = Vec::new();
    for step in inputs.iter().filter_map(B::step) {
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    steps
}
