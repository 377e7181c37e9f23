//! The caller: the call for which work is done, with its permit and deadline.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use super::Permit;

/// The call for which work is done: its permit, and until when somebody waits for it. Nothing is known of
/// one that is the server's own. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Caller(Option<Arc<State>>);

#[derive(Debug)]
struct State {
    /// Empty when an item has stepped aside.
    permit: Mutex<Option<Permit>>,
    is_item: bool,
    deadline: Option<Instant>,
}

impl Caller {
    /// A call that has a permit, and perhaps a deadline.
    pub fn new(permit: Permit, deadline: Option<Instant>) -> Self {
        let is_item = permit.is_item();
        Self(Some(Arc::new(State { permit: Mutex::new(Some(permit)), is_item, deadline })))
    }

    /// The time after which nobody waits for the answer.
    pub fn deadline(&self) -> Option<Instant> {
        self.0.as_ref().and_then(|state| state.deadline)
    }

    /// Whether that time has passed.
    pub fn is_over(&self) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Whether it is an item of a stream: those wait where others are refused.
    pub fn is_item(&self) -> bool {
        self.0.as_ref().is_some_and(|state| state.is_item)
    }

    /// It is bounded in another way from here on: its permit is another's.
    pub fn leave(&self) {
        if let Some(state) = &self.0 {
            state.permit.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }

    /// What is waited for from here on is not this server: others may work meanwhile.
    pub fn step_aside(&self) {
        let Some(state) = &self.0 else { return };
        let mut permit = state.permit.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_item {
            permit.take();
        } else if let Some(permit) = &*permit {
            permit.step_aside();
        }
    }
}
