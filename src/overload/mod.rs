//! Who may begin work while there is more of it than the server gets done.
//!
//! Calls are in classes: what ends work comes before what goes on with it, and that before what begins
//! some ([`Class`]). A class has a share of the [`limit`](self::limit) on the calls that are at work at
//! once, and the limit moves by what is measured in front of the database ([`Meter`]). A call that waits
//! for something else than the server, such as an account or the provider, is not at work meanwhile.
//! Whoever finds no place is refused before anything is read of the call.
//!
//! The items of a stream are never refused: they wait for a place, and the stream is slowed by that.

mod caller;
mod limit;
mod meter;
mod place;
mod pressure;

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Semaphore;

pub use self::{caller::Caller, meter::Meter, place::Place};
use self::{
    limit::{Bounds, Limit},
    place::Kept,
    pressure::Pressure,
};

/// The limit on calls that are at work: two full statements of a lane and more to begin with, so that no
/// server refuses before it has measured anything. Where lanes have room and the server itself has not, the
/// limit rises to its ceiling: callers wait in the server's own queue then, and more of them only wait longer.
const WORK: Bounds = Bounds { floor: 128, start: 1024, ceiling: 4096 };
/// The same of what only looks.
const REST: Bounds = Bounds { floor: 16, start: 256, ceiling: 4096 };
/// Which part of the limit the items of streams may have, in percent. It is beside what the calls have:
/// neither keeps the other out, and both move with the limit.
const ITEMS_SHARE: usize = 50;
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
    /// Looks at what is there, or changes what is not under way.
    Rest,
}

impl Class {
    /// All, in the order of rank.
    pub const ALL: [Self; 4] = [Self::End, Self::Redeem, Self::Acquire, Self::Rest];

    /// For metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Redeem => "redeem",
            Self::Acquire => "acquire",
            Self::Rest => "rest",
        }
    }

    /// Up to which part of the limit there is a place for one more, in percent. What ends work always gets
    /// in: it makes room.
    fn share(self) -> Option<usize> {
        match self {
            Self::End => None,
            Self::Redeem => Some(100),
            Self::Acquire => Some(80),
            Self::Rest => Some(50),
        }
    }

    /// The most of them that are not answered yet, at work or not: memory is bounded too. Acquirers may
    /// wait for an account, and redemptions for the provider, in their thousands.
    fn most(self) -> u32 {
        match self {
            Self::Rest => 4096,
            _ => 16_384,
        }
    }
}

/// What is measured, and limited by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// What changes leases and redemptions: lanes and dispatchers.
    Work,
    /// What only looks.
    Rest,
}

/// No place for a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// How many more come than the server takes: from 0 to [`MAX_PRESSURE`].
    pub pressure: usize,
}

/// The places of a server. Cheap to clone.
#[derive(Clone)]
pub struct Overload(Arc<Inner>);

struct Inner {
    work: Limit,
    rest: Limit,
    classes: [Places; Class::ALL.len()],
    items: Items,
    pressure: Pressure,
}

/// The places of a class.
struct Places {
    /// As many as may be unanswered.
    present: Arc<Semaphore>,
    at_work: metrics::Gauge,
    refused: metrics::Counter,
}

/// The places of streams' items, first come, first served.
struct Items {
    places: Arc<Semaphore>,
    size: Mutex<usize>,
    /// Places that are to go when those who have them leave.
    debt: AtomicUsize,
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
        let places = |class: Class| Places {
            present: Arc::new(Semaphore::new(class.most() as usize)),
            at_work: metrics::gauge!("holdfast_calls_at_work", "class" => class.as_str()),
            refused: metrics::counter!("holdfast_calls_refused_total", "class" => class.as_str()),
        };
        let size = WORK.start * ITEMS_SHARE / 100;
        Self(Arc::new(Inner {
            work: Limit::new(WORK, metrics::gauge!("holdfast_work_limit", "of" => "work")),
            rest: Limit::new(REST, metrics::gauge!("holdfast_work_limit", "of" => "rest")),
            classes: Class::ALL.map(places),
            items: Items {
                places: Arc::new(Semaphore::new(size)),
                size: Mutex::new(size),
                debt: AtomicUsize::new(0),
                at_work: metrics::gauge!("holdfast_calls_at_work", "class" => "item"),
            },
            pressure: Pressure::default(),
        }))
    }

    /// A place for a call, or the refusal.
    pub fn admit(&self, class: Class) -> Result<Place, Refused> {
        let inner = &*self.0;
        let places = inner.places(class);
        let Ok(present) = Arc::clone(&places.present).try_acquire_owned() else {
            return Err(self.refuse(class));
        };
        let entered = match class.share() {
            None => {
                inner.work.enter();
                true
            }
            Some(share) if class == Class::Rest => {
                inner.work.has_room(share) && inner.rest.try_enter(100)
            }
            Some(share) => inner.work.try_enter(share),
        };
        if !entered {
            return Err(self.refuse(class));
        }
        inner.pressure.note_admitted();
        places.at_work.increment(1.0);
        Ok(Place::new(self.clone(), Kept::Call(class, present)))
    }

    /// A place for an item of a stream, as soon as there is one.
    pub async fn admit_item(&self) -> Place {
        let items = &self.0.items;
        let place = match Arc::clone(&items.places).try_acquire_owned() {
            Ok(place) => Some(place),
            Err(_) => {
                self.0.work.reach();
                // Never closed: see `Items`.
                Arc::clone(&items.places).acquire_owned().await.ok()
            }
        };
        items.at_work.increment(1.0);
        Place::new(self.clone(), Kept::Item(place))
    }

    /// Measures one queue in front of the database.
    pub fn meter(&self, queue: Queue) -> Meter {
        Meter::new(self.clone(), queue)
    }

    /// Waits until no admitted call is left to answer. Nothing is admitted any more then.
    pub async fn all_answered(&self) {
        for class in Class::ALL {
            // Every place at once: what takes them never gives them back, so nothing comes after.
            if let Ok(places) = self.0.places(class).present.acquire_many(class.most()).await {
                places.forget();
            }
        }
    }

    fn refuse(&self, class: Class) -> Refused {
        self.0.places(class).refused.increment(1);
        Refused { pressure: self.0.pressure.note_refused() }
    }

    /// What a meter has measured.
    fn see(&self, queue: Queue, seen: limit::Seen) {
        match queue {
            Queue::Rest => drop(self.0.rest.see(seen)),
            Queue::Work => {
                if let Some(limit) = self.0.work.see(seen) {
                    self.0.items.resize((limit * ITEMS_SHARE / 100).max(1));
                }
            }
        }
    }

    /// Somebody is at work no more.
    fn leave(&self, class: Class) {
        let limit = if class == Class::Rest { &self.0.rest } else { &self.0.work };
        limit.leave();
        self.0.places(class).at_work.decrement(1.0);
    }
}

/// Counts work that was dropped before it was begun, because nobody waits for it any more. `at` is where.
pub fn note_dropped(at: &'static str) {
    metrics::counter!("holdfast_calls_dropped_total", "at" => at).increment(1);
}

impl Inner {
    fn places(&self, class: Class) -> &Places {
        &self.classes[class as usize]
    }
}

impl Items {
    fn resize(&self, size: usize) {
        let mut now = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let more = size.saturating_sub(*now);
        let fewer = now.saturating_sub(size);
        *now = size;
        let forgiven = self.pay(more);
        self.places.add_permits(more - forgiven);
        let gone = self.places.forget_permits(fewer);
        self.debt.fetch_add(fewer - gone, Ordering::Relaxed);
    }

    /// Takes up to `most` off the debt, and answers how many.
    fn pay(&self, most: usize) -> usize {
        let paid = self.debt.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |debt| {
            Some(debt.saturating_sub(most))
        });
        paid.unwrap_or_default().min(most)
    }
}

#[cfg(test)]
mod tests;
