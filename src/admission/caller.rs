//! What is known of the call for which work is done.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::Place;

/// The call for which work is done: its place, and until when somebody waits for it. Nothing is known of
/// one that is the server's own. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Caller(Option<Arc<Known>>);

#[derive(Debug)]
struct Known {
    /// Empty when an item has stepped aside.
    place: Mutex<Option<Place>>,
    is_item: bool,
    deadline: Option<Instant>,
}

impl Caller {
    /// A call that has a place, and perhaps a deadline.
    pub fn new(place: Place, deadline: Option<Instant>) -> Self {
        let is_item = place.is_item();
        Self(Some(Arc::new(Known { place: Mutex::new(Some(place)), is_item, deadline })))
    }

    /// The time after which nobody waits for the answer.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.as_ref().and_then(|known| known.deadline)
    }

    /// Whether that time has passed.
    pub fn is_over(&self) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Whether it is an item of a stream: those wait where others are refused.
    pub fn is_item(&self) -> bool {
        self.0.as_ref().is_some_and(|known| known.is_item)
    }

    /// It is bounded in another way from here on: its place is another's.
    pub fn leave(&self) {
        if let Some(known) = &self.0 {
            known.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// What is waited for from here on is not this server: others may work meanwhile.
    pub fn step_aside(&self) {
        let Some(known) = &self.0 else { return };
        let mut place = known.place.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_item {
            place.take();
        } else if let Some(place) = &*place {
            place.step_aside();
        }
    }
}
