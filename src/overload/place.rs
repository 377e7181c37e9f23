//! A place at work.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::OwnedSemaphorePermit;

use super::{Class, Overload};

/// Somebody's place. Ends when dropped.
#[derive(Debug)]
pub struct Place {
    overload: Overload,
    kept: Kept,
    at_work: AtomicBool,
}

/// What a place is made of.
#[derive(Debug)]
pub(super) enum Kept {
    /// A call, with its place among those who are not answered yet.
    Call(Class, #[allow(dead_code, reason = "it is kept, not read")] OwnedSemaphorePermit),
    /// An item of a stream.
    Item(Option<OwnedSemaphorePermit>),
}

impl Place {
    pub(super) fn new(overload: Overload, kept: Kept) -> Self {
        Self { overload, kept, at_work: AtomicBool::new(true) }
    }

    /// What is waited for from here on is not this server: others may work meanwhile. The call is still
    /// counted among those that are not answered; an item gives its place back when it is dropped.
    pub fn step_aside(&self) {
        if let Kept::Call(class, _) = self.kept
            && self.at_work.swap(false, Ordering::Relaxed)
        {
            self.overload.leave(class);
        }
    }

    /// Whether it is an item of a stream, which waits where a call is refused.
    pub(super) fn is_item(&self) -> bool {
        matches!(self.kept, Kept::Item(_))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.step_aside();
        if let Kept::Item(place) = &mut self.kept {
            let items = &self.overload.0.items;
            items.at_work.decrement(1.0);
            if let Some(place) = place.take()
                && items.pay(1) == 1
            {
                place.forget();
            }
        }
    }
}
