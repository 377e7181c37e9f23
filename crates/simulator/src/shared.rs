//! State that all requests share: the book, its ledger, and what goes wrong.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use time::OffsetDateTime;
use tokio::time::sleep;

use super::{
    SimulatorArgs,
    api::{self, Api},
    book::{Book, Entry},
    faults::{Faults, Injector},
    ledger::{Failure, Ledger, NotDurable, Row},
    logins::Logins,
    vault::Vault,
    webhooks::Webhooks,
};

/// The name of the code in [`Row::extra`].
const SEALED: &str = "sealed_code";

/// What all requests share.
pub(super) struct Shared {
    pub(super) ledger: Arc<Ledger>,
    pub(super) book: Mutex<Book>,
    pub(super) injector: Mutex<Injector>,
    inquiries: AtomicU64,
    /// The caller's key, where one is checked.
    pub(super) api_key: Option<String>,
    /// What requests are signed with, where that is checked.
    pub(super) api_secret: Option<String>,
    pub(super) logins: Logins,
    /// Where the API tells codes again.
    pub(super) vault: Option<Vault>,
    webhooks: Option<Webhooks>,
    looks_up: bool,
    pub(super) cancels: bool,
    visibility_lag: Duration,
    tells_codes: bool,
}

impl Shared {
    /// Reads the ledger back. What was under way goes on.
    pub(super) fn open(args: &SimulatorArgs) -> anyhow::Result<Arc<Self>> {
        let injector = Injector::new(args.faults.clone(), args.fault_seed)?;
        let (ledger, rows) = Ledger::open(&args.ledger)?;
        let ledger = Arc::new(ledger);
        let book = Book::open(args, ledger.clone(), rows)?;
        let vault = match args.api {
            Api::Task | Api::Square => Some(Vault::open(&args.ledger)?),
            Api::Holdfast | Api::Fiserv => None,
        };
        let webhooks = match (args.api, &args.webhook_url) {
            (Api::Task, Some(url)) => Some(Webhooks::new(url, args.webhook_secret.as_deref())?),
            _ => None,
        };
        let under_way = book.processing();
        let shared = Arc::new(Self {
            ledger,
            book: Mutex::new(book),
            injector: Mutex::new(injector),
            inquiries: AtomicU64::new(0),
            api_key: args.api_key.clone(),
            api_secret: args.api_secret.clone(),
            logins: Logins::open(args.accounts.as_deref())?,
            vault,
            webhooks,
            looks_up: args.looks_up,
            cancels: args.cancels,
            visibility_lag: args.visibility_lag,
            tells_codes: args.tells_codes,
        });
        for row in under_way {
            shared.clone().finish_later(row);
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

    pub(super) fn finish_later(self: Arc<Self>, row: Row) {
        let time = self.processing_time();
        tokio::spawn(async move {
            sleep(time).await;
            lock(&self.book).finish(&row.key, &row.provider_ref);
            self.tell_ended(&row.key).await;
        });
    }

    /// Calls the customer about what has ended, once the ledger has it.
    pub(super) async fn tell_ended(&self, key: &str) {
        let Some(webhooks) = &self.webhooks else { return };
        let Some(body) = api::ended_task(self, key).await else { return };
        let times = lock(&self.injector).of_webhook();
        for _ in 0..times {
            webhooks.send(&body).await;
        }
    }

    pub(super) fn processing_time(&self) -> Duration {
        lock(&self.injector).faults().processing_time
    }

    /// Whether a look-up finds it.
    pub(super) fn is_visible(&self, entry: &Entry) -> bool {
        self.looks_up && OffsetDateTime::now_utc() >= entry.since + self.visibility_lag
    }

    /// Waits until the entries are on disk.
    pub(super) async fn durable(&self, entries: &[Entry]) -> Result<(), NotDurable> {
        let last = entries.iter().map(|entry| entry.number).max().unwrap_or(0);
        self.ledger.durable(last).await
    }

    /// The message of a refusal, as the caller gets it.
    pub(super) fn message(&self, failure: &Failure, code: &str) -> String {
        if self.tells_codes {
            format!("{}: {code}", failure.message)
        } else {
            failure.message.clone()
        }
    }

    /// Notes the code in the row's extra, for the APIs that tell it again.
    pub(super) fn seal(&self, code: &str) -> Option<(String, String)> {
        self.vault.as_ref().map(|vault| (SEALED.to_owned(), vault.seal(code)))
    }

    /// The code that was noted so.
    pub(super) fn code_of(&self, row: &Row) -> Option<String> {
        self.vault.as_ref()?.open_sealed(row.extra.get(SEALED)?)
    }
}

/// A panic while the lock was held leaves nothing half done that matters more than going on.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
