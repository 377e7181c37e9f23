//! Permits: the right of one call or item to be at work.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::OwnedSemaphorePermit;

use super::{Class, FairPermit, Overload};

/// The permit of a call or item. Ends when dropped.
#[derive(Debug)]
pub struct Permit {
    overload: Overload,
    kept: Kept,
    at_work: AtomicBool,
}

/// What a permit holds.
#[derive(Debug)]
pub(super) enum Kept {
    /// A call: its permit among those that are not answered yet, and the pool and the origin whose shares it counts in.
    Call(Class, Sharing, #[allow(dead_code, reason = "it is kept, not read")] OwnedSemaphorePermit),
    /// An item of a stream.
    Item(#[allow(dead_code, reason = "it is kept, not read")] FairPermit),
}

/// The names of the shares that a call counts in: its pool's, its origin's, and its origin's in its pool.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    pub(super) pool: Option<Arc<str>>,
    pub(super) origin: Option<Arc<str>>,
    pub(super) in_pool: Option<Arc<str>>,
}

impl Permit {
    pub(super) fn new(overload: Overload, kept: Kept) -> Self {
        Self { overload, kept, at_work: AtomicBool::new(true) }
    }

    /// What is waited for from here on is not this server: others may work meanwhile. The call is still
    /// counted among those that are not answered; an item gives its permit back when it is dropped.
    pub fn step_aside(&self) {
        if let Kept::Call(class, sharing, _) = &self.kept
            && self.at_work.swap(false, Ordering::Relaxed)
        {
            self.overload.leave(*class);
            let shares = self.overload.0.shares_of(sharing);
            shares.for_each(|(shares, name)| shares.step_aside(name, *class));
        }
    }

    /// Whether it is an item of a stream, which waits where a call is refused.
    pub(super) fn is_item(&self) -> bool {
        matches!(self.kept, Kept::Item(_))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Kept::Call(class, sharing, _) = &self.kept else {
            self.overload.0.items.at_work.decrement(1.0);
            return;
        };
        let is_at_work = *self.at_work.get_mut();
        if is_at_work {
            self.overload.leave(*class);
        }
        self.overload.0.leave_shares(sharing, *class, is_at_work);
    }
}
