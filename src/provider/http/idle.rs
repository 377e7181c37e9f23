//! Idle connections: those between two calls.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::connect::Connection;

/// Connections that are kept while idle: as many as the redemptions that one batch may have in progress.
const MAX_IDLE: usize = 1024;

/// The connections that no call uses.
pub(super) struct Idle {
    timeout: Duration,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    /// Since when each is idle, the longest first.
    connections: VecDeque<(Instant, Connection)>,
    /// Whether a task waits to close those that nobody uses.
    is_swept: bool,
}

impl Idle {
    /// A connection that is idle for longer than `timeout` is not used any more.
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, shelf: Mutex::default() }
    }

    /// The one that was used last, if it is still good.
    pub(super) fn take(&self) -> Option<Connection> {
        loop {
            let (since, mut connection) = self.shelf().connections.pop_back()?;
            if since.elapsed() < self.timeout && connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// Keeps one for the next call, unless there are many already.
    pub(super) fn put(self: &Arc<Self>, connection: Connection) {
        let mut shelf = self.shelf();
        if shelf.connections.len() >= MAX_IDLE {
            return;
        }
        shelf.connections.push_back((Instant::now(), connection));
        if !shelf.is_swept {
            shelf.is_swept = true;
            let (idle, timeout) = (Arc::downgrade(self), self.timeout);
            tokio::spawn(async move {
                loop {
                    sleep(timeout).await;
                    if !idle.upgrade().is_some_and(|idle| idle.sweep()) {
                        break;
                    }
                }
            });
        }
    }

    /// Closes what is too old to be used. Answers whether there are any others.
    fn sweep(&self) -> bool {
        let mut shelf = self.shelf();
        let fresh = shelf.connections.partition_point(|(since, _)| since.elapsed() >= self.timeout);
        let stale: Vec<_> = shelf.connections.drain(..fresh).collect();
        shelf.is_swept = !shelf.connections.is_empty();
        let more = shelf.is_swept;
        // Closed when others may use the shelf again.
        drop(shelf);
        drop(stale);
        more
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shelf().connections.len()
    }
}
