//! `WatchRedemptions`: callers are told outcomes as they are recorded. One task a pool reads them for all who have been
//! told what was before. Who is behind reads for itself, from its own cursor, as fast as its caller takes them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{broadcast, mpsc},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{Error, pools::Pools};
use crate::{
    admission::{Origin, origin},
    domain::{
        id::{PoolId, RedemptionId},
        outcomes::{Mark, Moment, Position},
        pool::Pool,
        principal::Authority,
        redemption::{Redemption, Reversal},
    },
    store::{Store, StoreError},
};

/// How often the outcomes of a pool are read that somebody watches.
const POLL: Duration = Duration::from_millis(200);
/// How many outcomes are read at once for all. Where there are more, each reads for itself.
const MAX_SHARED: usize = 1000;
/// How many readings for all are kept for those who are slower.
const KEPT: usize = 16;
/// How many outcomes are read at once for one caller.
const MAX_OWN: usize = 200;
/// How many events may wait for a caller to take them.
const UNREAD: usize = 16;

/// From where on somebody wants to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// From the oldest outcome on.
    Nothing,
    /// Only what is recorded from now on.
    Now,
    /// What comes after this.
    Position(Box<Position>),
}

/// What a caller is told.
#[derive(Debug)]
pub enum WatchEvent {
    /// An outcome, and where a caller is who was told it.
    Outcome(Box<Told>, Position),
    /// There is nothing to tell; the cursor.
    Nothing(String),
    /// The last event.
    Ended(Error),
}

/// A redemption as it is when it is read, with its newest reversal.
pub type Told = (Redemption, Option<Reversal>);

/// The watching of outcomes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Watching(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    pools: Pools,
    /// A pool is there while its task runs.
    watched: Mutex<HashMap<PoolId, broadcast::Sender<Shared>>>,
    /// The longest that a caller is told nothing. Proxies cut off what is silent for longer: a minute, mostly.
    heartbeat: Duration,
    closing: CancellationToken,
}

/// What was read for all who watch a pool.
#[derive(Clone, Debug)]
enum Shared {
    /// All that `to` sees and `from` does not.
    Outcomes { from: Moment, to: Moment, outcomes: Arc<Vec<(Mark, Told)>> },
    /// There was too much, or it could not be told: each reads for itself.
    ReadYourself,
}

/// Outcomes, read.
struct Read {
    outcomes: Vec<(Mark, Told)>,
    round: Moment,
    next: Position,
    is_last: bool,
}

impl Watching {
    /// Reads from `store`. When `closing` is cancelled, those who watch are told so.
    pub fn new(
        store: Store,
        pools: Pools,
        heartbeat: Duration,
        closing: CancellationToken,
    ) -> Self {
        Self(Arc::new(Inner { store, pools, watched: Mutex::default(), heartbeat, closing }))
    }

    /// Cancelled when nobody is told anything any more.
    pub fn closing(&self) -> &CancellationToken {
        &self.0.closing
    }

    /// The position from which on somebody is told, where the database still has what is before it.
    pub async fn begin(&self, pool_id: &PoolId, after: After) -> Result<Position, Error> {
        self.0.begin(pool_id, after).await
    }

    /// Reads outcomes of redemptions, as they would be told now.
    pub async fn read_outcomes(
        &self,
        pool_id: &PoolId,
        ids: &[RedemptionId],
    ) -> Result<HashMap<RedemptionId, Told>, StoreError> {
        self.0.read_outcomes(pool_id, ids).await
    }

    /// Tells the outcomes of a pool until the receiver is dropped.
    pub async fn open(
        &self,
        pool_id: &PoolId,
        after: After,
        by: Authority,
    ) -> Result<(Pool, mpsc::Receiver<WatchEvent>), Error> {
        let pool = self.0.pools.settings(pool_id).await?;
        let position = self.0.begin(pool_id, after).await?;
        let (events, receiver) = mpsc::channel(UNREAD);
        let watcher = Watcher {
            of: Arc::clone(&self.0),
            pool_id: pool_id.clone(),
            by,
            position,
            events,
            spoke: Instant::now(),
        };
        let origin: Option<Arc<Origin>> = origin::current();
        tokio::spawn(origin::scope(origin, watcher.run()));
        Ok((pool, receiver))
    }
}

impl Inner {
    fn watched(&self) -> MutexGuard<'_, HashMap<PoolId, broadcast::Sender<Shared>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The position from which on somebody is told, where the database still has what is before it.
    async fn begin(&self, pool_id: &PoolId, after: After) -> Result<Position, Error> {
        let position = match after {
            After::Nothing => return Ok(Position::at(Moment::BEFORE_ALL, None)),
            After::Now => return Ok(Position::at(self.store.outcomes_now(pool_id).await?, None)),
            After::Position(position) => *position,
        };
        let now = self.store.outcomes_now(pool_id).await?;
        let has_it = match position.last {
            Some(last) => self.store.has_outcome(pool_id, last).await?,
            None => true,
        };
        match has_it && !position.newest().is_after(&now) {
            true => Ok(position),
            false => Err(Error::CursorLost(pool_id.clone())),
        }
    }

    /// Reads what comes after a position, at most `limit` outcomes.
    async fn read(
        &self,
        pool_id: &PoolId,
        position: &Position,
        limit: usize,
    ) -> Result<Read, Error> {
        let page = self.store.follow_outcomes(pool_id, position, limit).await?;
        if position.newest().is_after(&page.now) {
            return Err(Error::CursorLost(pool_id.clone()));
        }
        let outcomes = self.tell(pool_id, &page.outcomes).await?;
        Ok(Read { outcomes, round: page.round, next: page.next, is_last: page.is_last })
    }

    async fn tell(
        &self,
        pool_id: &PoolId,
        outcomes: &[(Mark, RedemptionId)],
    ) -> Result<Vec<(Mark, Told)>, StoreError> {
        if outcomes.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = outcomes.iter().map(|(_, id)| *id).collect();
        let read = self.read_outcomes(pool_id, &ids).await?;
        let told = outcomes.iter().filter_map(|(mark, id)| Some((*mark, read.get(id)?.clone())));
        Ok(told.collect())
    }

    async fn read_outcomes(
        &self,
        pool_id: &PoolId,
        ids: &[RedemptionId],
    ) -> Result<HashMap<RedemptionId, Told>, StoreError> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let redemptions = self.store.get_outcomes(pool_id, &ids).await?;
        let mut reversals = self.store.newest_reversals(pool_id, &ids).await?;
        let told = redemptions.into_iter().map(|it| {
            let reversal = reversals.remove(&it.redemption_id);
            (it.redemption_id, (it, reversal))
        });
        Ok(told.collect())
    }

    fn subscribe(self: &Arc<Self>, pool_id: &PoolId) -> broadcast::Receiver<Shared> {
        let mut watched = self.watched();
        if let Some(shared) = watched.get(pool_id) {
            return shared.subscribe();
        }
        let (shared, receiver) = broadcast::channel(KEPT);
        watched.insert(pool_id.clone(), shared.clone());
        tokio::spawn(Arc::clone(self).follow(pool_id.clone(), shared));
        receiver
    }

    /// Reads what is recorded in a pool, until nobody watches it.
    async fn follow(self: Arc<Self>, pool_id: PoolId, shared: broadcast::Sender<Shared>) {
        let mut position = None;
        while self.closing.run_until_cancelled(sleep(POLL)).await.is_some() {
            {
                let mut watched = self.watched();
                if shared.receiver_count() == 0 {
                    watched.remove(&pool_id);
                    return;
                }
            }
            match self.follow_on(&pool_id, position.clone()).await {
                Ok((next, news)) => {
                    position = next;
                    if let Some(news) = news {
                        let _ = shared.send(news);
                    }
                }
                Err(error) => {
                    tracing::debug!(%pool_id, %error, "outcomes that are watched were not read");
                }
            }
        }
        self.watched().remove(&pool_id);
    }

    /// What is new since a position, and the next position. While there is nothing new it stays: so a reading begins where
    /// the one before ended.
    async fn follow_on(
        &self,
        pool_id: &PoolId,
        position: Option<Moment>,
    ) -> Result<(Option<Moment>, Option<Shared>), Error> {
        let Some(from) = position else {
            // Who has read before this may lack what was recorded in between.
            let now = self.store.outcomes_now(pool_id).await?;
            return Ok((Some(now), Some(Shared::ReadYourself)));
        };
        let read = match self.read(pool_id, &Position::at(from.clone(), None), MAX_SHARED).await {
            Ok(read) => read,
            // Each finds out for itself what became of its cursor.
            Err(Error::CursorLost(_)) => return Ok((None, Some(Shared::ReadYourself))),
            Err(error) => return Err(error),
        };
        if !read.is_last {
            return Ok((Some(read.round), Some(Shared::ReadYourself)));
        }
        if read.outcomes.is_empty() {
            return Ok((Some(from), None));
        }
        let (to, outcomes) = (read.round, Arc::new(read.outcomes));
        Ok((Some(to.clone()), Some(Shared::Outcomes { from, to, outcomes })))
    }
}

/// The caller is gone.
struct Gone;

/// One caller who watches.
struct Watcher {
    of: Arc<Inner>,
    pool_id: PoolId,
    by: Authority,
    position: Position,
    events: mpsc::Sender<WatchEvent>,
    /// When it was told something.
    spoke: Instant,
}

impl Watcher {
    async fn run(mut self) {
        let watchers = metrics::gauge!("holdfast_outcome_watchers");
        watchers.increment(1.0);
        let closing = self.of.closing.clone();
        let (events, of) = (self.events.clone(), Arc::clone(&self.of));
        tokio::select! {
            () = closing.cancelled() => {}
            () = events.closed() => {}
            _ = self.watch(&of) => {}
        }
        watchers.decrement(1.0);
    }

    /// Tells until nobody takes it any more, or it cannot go on.
    async fn watch(&mut self, of: &Arc<Inner>) -> Result<(), Gone> {
        // Who begins has a cursor at once.
        self.tell_cursor().await?;
        loop {
            // First this, so that nothing is missed between what is read here and there.
            let mut shared = of.subscribe(&self.pool_id);
            if let Err(error) = self.catch_up().await? {
                return self.send(WatchEvent::Ended(error)).await;
            }
            self.listen(&mut shared).await?;
        }
    }

    /// Reads for itself until there is nothing more. A database that does not answer is asked again.
    async fn catch_up(&mut self) -> Result<Result<(), Error>, Gone> {
        loop {
            let read = tokio::select! {
                read = self.of.read(&self.pool_id, &self.position, MAX_OWN) => read,
                () = sleep_until(self.spoke + self.of.heartbeat) => {
                    self.tell_cursor().await?;
                    continue;
                }
            };
            let read = match read {
                Ok(read) => read,
                Err(Error::DatabaseUnavailable(_) | Error::Overloaded) => {
                    sleep(POLL).await;
                    self.tell_cursor_if_silent().await?;
                    continue;
                }
                Err(error) => return Ok(Err(error)),
            };
            let before = self.position.clone();
            for (mark, told) in read.outcomes {
                self.tell(before.told(&read.round, mark), &told).await?;
            }
            self.position = read.next;
            // The end of a round that began before: more may have come since.
            if read.is_last && before.round.is_none() {
                return Ok(Ok(()));
            }
        }
    }

    /// Tells what is read for all, until it has to read for itself.
    async fn listen(&mut self, shared: &mut broadcast::Receiver<Shared>) -> Result<(), Gone> {
        loop {
            let news = tokio::select! {
                news = shared.recv() => news,
                () = sleep_until(self.spoke + self.of.heartbeat) => {
                    self.tell_cursor().await?;
                    continue;
                }
            };
            let Ok(Shared::Outcomes { from, to, outcomes }) = news else { return Ok(()) };
            if from.is_after(&self.position.seen) {
                return Ok(());
            }
            if !to.is_after(&self.position.seen) {
                continue;
            }
            let before = self.position.clone();
            for (mark, told) in outcomes.iter().filter(|(mark, _)| before.wants(*mark)) {
                self.tell(before.told(&to, *mark), told).await?;
            }
            let last = outcomes.last().map(|(mark, _)| *mark).or(before.last);
            self.position = Position::at(to, last);
        }
    }

    /// Tells an outcome, unless it is another's. Then the caller is after it.
    async fn tell(&mut self, position: Position, told: &Told) -> Result<(), Gone> {
        self.position = position;
        if !self.by.may_read(&told.0.principal) {
            return Ok(());
        }
        self.send(WatchEvent::Outcome(Box::new(told.clone()), self.position.clone())).await
    }

    async fn tell_cursor_if_silent(&mut self) -> Result<(), Gone> {
        match self.spoke.elapsed() >= self.of.heartbeat {
            true => self.tell_cursor().await,
            false => Ok(()),
        }
    }

    async fn tell_cursor(&mut self) -> Result<(), Gone> {
        let cursor = self.position.cursor(&self.pool_id);
        self.send(WatchEvent::Nothing(cursor)).await
    }

    async fn send(&mut self, event: WatchEvent) -> Result<(), Gone> {
        self.events.send(event).await.map_err(|_| Gone)?;
        self.spoke = Instant::now();
        Ok(())
    }
}
