//! State that all requests share: the book, its ledger, and what goes wrong.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::sleep;

use super::{
    SimulatorArgs,
    book::Book,
    faults::{Faults, Injector},
    ledger::Ledger,
};

/// What all requests share.
pub(super) struct Shared {
    pub(super) ledger: Arc<Ledger>,
    pub(super) book: Mutex<Book>,
    pub(super) injector: Mutex<Injector>,
    inquiries: AtomicU64,
    pub(super) looks_up: bool,
    pub(super) cancels: bool,
    pub(super) visibility_lag: Duration,
    pub(super) tells_codes: bool,
}

impl Shared {
    /// Reads the ledger back. What was under way goes on.
    pub(super) fn open(args: &SimulatorArgs) -> anyhow::Result<Arc<Self>> {
        let injector = Injector::new(args.faults.clone(), args.fault_seed)?;
        let (ledger, rows) = Ledger::open(&args.ledger)?;
        let ledger = Arc::new(ledger);
        let book = Book::open(args, ledger.clone(), rows)?;
        let under_way = book.processing();
        let shared = Arc::new(Self {
            ledger,
            book: Mutex::new(book),
            injector: Mutex::new(injector),
            inquiries: AtomicU64::new(0),
            looks_up: args.looks_up,
            cancels: args.cancels,
            visibility_lag: args.visibility_lag,
            tells_codes: args.tells_codes,
        });
        for key in under_way {
            shared.clone().finish_later(key);
        }
        Ok(shared)
    }

    pub(super) fn set_faults(&self, faults: Faults) -> anyhow::Result<()> {
        lock(&self.injector).set(faults)
    }

    pub(super) fn count_inquiry(&self) {
        self.inquiries.fetch_add(1, Ordering::Relaxed);
    }

    /// How many inquiries have come.
    pub(super) fn inquiries(&self) -> u64 {
        self.inquiries.load(Ordering::Relaxed)
    }

    pub(super) fn finish_later(self: Arc<Self>, key: String) {
        let time = lock(&self.injector).faults().processing_time;
        tokio::spawn(async move {
            sleep(time).await;
            lock(&self.book).finish(&key);
        });
    }
}

/// A panic while the lock was held leaves nothing half done that matters more than going on.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
