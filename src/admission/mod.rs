//! Admission: which calls may begin work while there is more than the server gets done.
//!
//! Calls are in classes: what ends work comes before what goes on with it, and that before what begins some
//! ([`Class`]). A class has a share of the [`limit`](self::limit) on the calls that are at work at once. The limit
//! moves by what is measured in front of the database ([`Meter`]). A call that waits for something else than the
//! server, such as an account or the provider, is not at work meanwhile. A call is admitted when its message is
//! complete, so one that only begins to send costs nobody else.
//!
//! One pool's calls never keep out another's: each pool has a [share] of every bound. Neither do one caller's those of
//! another of the same pool: each [origin] has one too.
//!
//! The items of a stream are never refused: they wait for a permit, and the stream is slowed by that.

mod budget;
mod caller;
mod fair;
mod limit;
mod meter;
pub mod origin;
mod permit;
mod pressure;
mod share;
mod waiting;

use std::{fmt, sync::Arc};

use tokio::sync::Semaphore;

pub use self::{
    budget::{Budget, Hold},
    caller::Caller,
    fair::{FairPermit, FairPermits},
    meter::Meter,
    origin::{InFlight, Limits, Origin, Origins},
    permit::Permit,
    waiting::{WaitingBytes, Waits},
};
use self::{
    limit::{Bounds, Limit},
    permit::{Kept, Sharing},
    pressure::Pressure,
    share::{Left, Shares, Weights},
};

/// The limit on calls that are at work: two full statements of a lane and more to begin with. So no server refuses
/// before it has measured anything. Where lanes have room and the server itself has not, the limit rises to its
/// ceiling. Callers wait in the server's own queue then, and more of them only wait longer.
const WORK: Bounds = Bounds { floor: 128, start: 1024, ceiling: 4096 };
/// The same for what only reads.
const REST: Bounds = Bounds { floor: 16, start: 256, ceiling: 4096 };
/// Which part of the limit the items of streams may have, in percent. It is beside what the calls have:
/// neither keeps the other out, and both move with the limit.
const ITEMS_SHARE: usize = 50;
/// The most items of all streams that are under way at once, whatever they wait for: memory is bounded too.
const OPEN_ITEMS: usize = 32_768;
/// The most bytes of requests that are not complete yet.
const UNREAD_REQUESTS: usize = 64 * 1024 * 1024;
/// The most bytes of answers that their callers have not read yet.
const UNREAD_ANSWERS: usize = 64 * 1024 * 1024;
/// How steep the pressure may get: each step doubles the time until a refused caller comes again.
pub const MAX_PRESSURE: usize = 6;

/// What a call is for. In the order of rank: who comes later is refused earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Ends work, or keeps it alive: renewals, releases, what a person resolves.
    End,
    /// Goes on with work that has a lease.
    Redeem,
    /// Begins work.
    Acquire,
    /// Reads what is there, or changes what is not under way.
    Rest,
    /// A stream that is open. What it brings is admitted by itself.
    Stream,
}

impl Class {
    /// All, in the order of rank.
    pub const ALL: [Self; 5] = [Self::End, Self::Redeem, Self::Acquire, Self::Rest, Self::Stream];

    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Redeem => "redeem",
            Self::Acquire => "acquire",
            Self::Rest => "rest",
            Self::Stream => "stream",
        }
    }

    /// Up to which part of the limit there is a permit for one more, in percent. What ends work is always
    /// admitted: it makes room. A stream by itself is not at work.
    fn share(self) -> Option<usize> {
        match self {
            Self::End | Self::Stream => None,
            Self::Redeem => Some(100),
            Self::Acquire => Some(80),
            Self::Rest => Some(50),
        }
    }

    /// The most of them that are not answered yet, at work or not: memory is bounded too. Acquirers may
    /// wait for an account, and redemptions for the provider, in their thousands.
    fn most(self) -> u32 {
        match self {
            Self::Rest | Self::Stream => 4096,
            _ => 16_384,
        }
    }
}

/// What is measured, and limited by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// What changes leases and redemptions: lanes and dispatchers.
    Work,
    /// What only reads.
    Rest,
}

/// No permit for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// How many more come than the server takes: from 0 to [`MAX_PRESSURE`].
    pub pressure: usize,
}

/// The permits of a server. Cheap to clone.
#[derive(Clone)]
pub struct Overload(Arc<Inner>);

struct Inner {
    work: Limit,
    rest: Limit,
    classes: [ClassPermits; Class::ALL.len()],
    shares: Shares,
    origins: Origins,
    /// Of origins, in all pools and in each.
    origin_shares: Shares,
    in_pool_shares: Shares,
    items: Items,
    unread_requests: Budget,
    unread_answers: Budget,
    waiting_bytes: WaitingBytes,
    pressure: Pressure,
}

/// The permits of a class.
struct ClassPermits {
    /// As many as may be unanswered.
    present: Arc<Semaphore>,
    at_work: metrics::Gauge,
    refused: metrics::Counter,
}

/// Room for an item that is under way, until dropped.
#[derive(Debug)]
pub struct OpenItem {
    _permits: [FairPermit; 3],
}

/// The name of an origin's share in a pool. No pool's name has a space in it.
fn in_pool(origin: &str, pool: &str) -> String {
    format!("{origin} {pool}")
}

/// The permits of streams' items.
struct Items {
    /// Those at work.
    permits: FairPermits,
    /// Those under way, whatever they wait for.
    open: FairPermits,
    /// The same, shared by origins.
    open_of_origins: FairPermits,
    /// The same, shared by origins in each pool. There are fewer, so that none has all that a pool may have.
    open_in_pool: FairPermits,
    at_work: metrics::Gauge,
}

impl Default for Overload {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Overload({} of {} at work)", self.0.work.at_work(), self.0.work.now())
    }
}

impl Overload {
    /// Nothing measured yet.
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    /// The same, with these limits of one caller.
    pub fn with(limits: Limits) -> Self {
        let permits = |class: Class| ClassPermits {
            present: Arc::new(Semaphore::new(class.most() as usize + share::RESERVE)),
            at_work: metrics::gauge!("holdfast_calls_at_work", "class" => class.as_str()),
            refused: metrics::counter!("holdfast_calls_refused_total", "class" => class.as_str()),
        };
        let size = WORK.start * ITEMS_SHARE / 100;
        Self(Arc::new(Inner {
            work: Limit::new(WORK, metrics::gauge!("holdfast_work_limit", "of" => "work")),
            rest: Limit::new(REST, metrics::gauge!("holdfast_work_limit", "of" => "rest")),
            classes: Class::ALL.map(permits),
            shares: Shares::default(),
            origins: Origins::new(limits),
            origin_shares: Shares::default(),
            in_pool_shares: Shares::new(Weights::IN_POOL),
            items: Items {
                permits: FairPermits::new(size, share::AT_WORK),
                open: FairPermits::new(OPEN_ITEMS, share::WAITING),
                open_of_origins: FairPermits::new(OPEN_ITEMS, share::WAITING),
                open_in_pool: FairPermits::new(OPEN_ITEMS / 2, share::WAITING),
                at_work: metrics::gauge!("holdfast_calls_at_work", "class" => "item"),
            },
            unread_requests: Budget::new(UNREAD_REQUESTS, limits.bytes, "requests"),
            unread_answers: Budget::new(UNREAD_ANSWERS, limits.bytes, "answers"),
            waiting_bytes: WaitingBytes::new(limits.waiting_bytes),
            pressure: Pressure::default(),
        }))
    }

    /// A permit for a call, or the refusal. `pool` is the pool that it is about, where it is about one.
    pub fn admit(&self, class: Class, pool: Option<&str>) -> Result<Permit, Refused> {
        self.admit_from(class, pool, None)
    }

    /// The same for a call of an origin.
    pub fn admit_from(
        &self,
        class: Class,
        pool: Option<&str>,
        origin: Option<&str>,
    ) -> Result<Permit, Refused> {
        let inner = &*self.0;
        let permits = inner.permits(class);
        let Ok(present) = Arc::clone(&permits.present).try_acquire_owned() else {
            return Err(self.refuse(class));
        };
        let left = inner.left(class);
        if pool.is_none() && left.present <= share::RESERVE {
            return Err(self.refuse(class));
        }
        let Some((sharing, is_first)) = inner.take_shares(class, pool, origin, left) else {
            if class.share().is_some() {
                inner.limit(class).reach();
            }
            return Err(self.refuse(class));
        };
        if !inner.enter(class, is_first) {
            inner.leave_shares(&sharing, class, true);
            return Err(self.refuse(class));
        }
        inner.pressure.note_admitted();
        permits.at_work.increment(1.0);
        Ok(Permit::new(self.clone(), Kept::Call(class, sharing, present)))
    }

    /// What it was made with.
    pub fn limits(&self) -> &Limits {
        self.0.origins.limits()
    }

    /// Those who call, and what one of them may have.
    pub fn origins(&self) -> &Origins {
        &self.0.origins
    }

    /// A permit for an item of a stream, as soon as there is one for the pool.
    pub async fn admit_item(&self, pool: &str) -> Permit {
        let items = &self.0.items;
        let permit = match items.permits.try_acquire(pool) {
            Some(permit) => permit,
            None => {
                self.0.work.reach();
                items.permits.acquire(pool).await
            }
        };
        items.at_work.increment(1.0);
        Permit::new(self.clone(), Kept::Item(permit))
    }

    /// Room for one more item of the pool's streams, as soon as there is some. It is held for as long as the
    /// item is under way, at work or not.
    pub async fn open_item(&self, pool: &str, origin: &str) -> OpenItem {
        let items = &self.0.items;
        let in_pool = items.open_in_pool.acquire(&in_pool(origin, pool)).await;
        let of_origin = items.open_of_origins.acquire(origin).await;
        OpenItem { _permits: [in_pool, of_origin, items.open.acquire(pool).await] }
    }

    /// The bound on requests that are not complete yet.
    pub fn unread_requests(&self) -> &Budget {
        &self.0.unread_requests
    }

    /// The bound on answers that are not read yet.
    pub fn unread_answers(&self) -> &Budget {
        &self.0.unread_answers
    }

    /// The bound on what callers who wait for an account ask for.
    pub fn waiting_bytes(&self) -> &WaitingBytes {
        &self.0.waiting_bytes
    }

    /// Measures one queue in front of the database.
    pub fn meter(&self, queue: Queue) -> Meter {
        Meter::new(self.clone(), queue)
    }

    /// Waits until no admitted call is left to answer, and no item is at work. Nothing is admitted any more
    /// then. Streams that are only open are not waited for: what they have begun is.
    pub async fn all_answered(&self) {
        self.0.items.permits.all_free().await;
        for class in Class::ALL.into_iter().filter(|class| *class != Class::Stream) {
            // Every permit at once: what takes them never gives them back, so nothing comes after.
            let all = class.most() + u32::try_from(share::RESERVE).unwrap_or_default();
            if let Ok(permits) = self.0.permits(class).present.acquire_many(all).await {
                permits.forget();
            }
        }
    }

    /// Refuses a call that has no permit.
    pub fn refuse(&self, class: Class) -> Refused {
        self.0.permits(class).refused.increment(1);
        Refused { pressure: self.0.pressure.note_refused() }
    }

    /// What a meter has measured.
    fn see(&self, queue: Queue, seen: limit::Seen) {
        match queue {
            Queue::Rest => drop(self.0.rest.see(seen)),
            Queue::Work => {
                if let Some(limit) = self.0.work.see(seen) {
                    self.0.items.permits.resize((limit * ITEMS_SHARE / 100).max(1));
                }
            }
        }
    }

    /// Somebody is at work no more.
    fn leave(&self, class: Class) {
        if class != Class::Stream {
            self.0.limit(class).leave();
        }
        self.0.permits(class).at_work.decrement(1.0);
    }
}

/// Counts work that was dropped before it was begun, because nobody waits for it any more. `at` is where.
pub fn note_dropped(at: &'static str) {
    metrics::counter!("holdfast_calls_dropped_total", "at" => at).increment(1);
}

impl Inner {
    fn permits(&self, class: Class) -> &ClassPermits {
        &self.classes[class as usize]
    }

    fn limit(&self, class: Class) -> &Limit {
        if class == Class::Rest { &self.rest } else { &self.work }
    }

    /// What is left for a call, which has its permit among those that are not answered already.
    fn left(&self, class: Class) -> Left {
        let limit = self.limit(class);
        let at_work = class.share().map(|share| {
            // The rest has a limit of its own, and may have the whole of it.
            let share = if class == Class::Rest { 100 } else { share };
            (limit.now() * share / 100).saturating_sub(limit.at_work())
        });
        Left { present: self.permits(class).present.available_permits() + 1, at_work }
    }

    /// Counts a call in the shares of its pool and of its origin, if both allow one more. The flag tells whether it is
    /// the only one at work of either.
    fn take_shares(
        &self,
        class: Class,
        pool: Option<&str>,
        origin: Option<&str>,
        left: Left,
    ) -> Option<(Sharing, bool)> {
        let mut sharing = Sharing::default();
        let mut is_first = false;
        if let Some(origin) = origin {
            let Some(share) = self.origin_shares.take(origin, class, left, false) else {
                origin::note_limited("share");
                return None;
            };
            // Beyond the limit also where another caller has calls in more pools than may each have one there.
            is_first = share.is_first;
            sharing.origin = Some(share.name);
        }
        if let Some(pool) = pool {
            let Some(share) = self.shares.take(pool, class, left, is_first) else {
                self.leave_shares(&sharing, class, true);
                return None;
            };
            is_first |= share.is_first;
            sharing.pool = Some(share.name);
        }
        if let (Some(pool), Some(origin)) = (pool, origin) {
            let name = in_pool(origin, pool);
            let Some(share) = self.in_pool_shares.take(&name, class, left, is_first) else {
                self.leave_shares(&sharing, class, true);
                origin::note_limited("share");
                return None;
            };
            is_first |= share.is_first;
            sharing.in_pool = Some(share.name);
        }
        Some((sharing, is_first))
    }

    /// Each share that a call counts in, with its name there.
    fn shares_of<'a>(
        &'a self,
        sharing: &'a Sharing,
    ) -> impl Iterator<Item = (&'a Shares, &'a Arc<str>)> {
        let Sharing { pool, origin, in_pool } = sharing;
        let all =
            [(&self.shares, pool), (&self.origin_shares, origin), (&self.in_pool_shares, in_pool)];
        all.into_iter().filter_map(|(shares, name)| Some((shares, name.as_ref()?)))
    }

    fn leave_shares(&self, sharing: &Sharing, class: Class, is_at_work: bool) {
        self.shares_of(sharing).for_each(|(shares, name)| shares.leave(name, class, is_at_work));
    }

    /// Goes to work, if there is room, or beyond the limit as the first call of its pool. The rest begins nothing while
    /// more than its part of the work is being done, for any caller.
    fn enter(&self, class: Class, is_first: bool) -> bool {
        match class.share() {
            None if class == Class::Stream => true,
            None => {
                self.work.enter();
                true
            }
            Some(share) if class == Class::Rest => {
                self.work.has_room(share) && self.rest.enter_as(100, is_first)
            }
            Some(share) => self.work.enter_as(share, is_first),
        }
    }
}

#[cfg(test)]
mod tests;
