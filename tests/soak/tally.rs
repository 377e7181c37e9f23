//! Counts of what has happened so far.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use sqlx::{Connection as _, PgConnection, Row as _};

use crate::settings::Settings;

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    /// A server was killed.
    Kill,
    /// A provider was killed.
    ProviderKill,
    /// A server stood still for a while.
    Stop,
    /// Connections were cut, or stood still.
    Cut,
    /// Postgres was stopped at once, and started again.
    Restart,
    /// A card was credited.
    Ok,
    /// A card was refused, or cancelled before it was credited.
    Failed,
    /// A caller was told that the outcome is not known.
    InDoubt,
    /// A caller was told that nothing was begun, or got no answer, and asked again.
    AskedAgain,
}

const COUNTED: usize = 9;

#[derive(Debug, Default)]
pub(crate) struct Tally {
    counts: [AtomicU64; COUNTED],
    settled_after: Mutex<Option<Duration>>,
    /// What the database tells in the end.
    found: Mutex<serde_json::Value>,
}

impl Tally {
    pub(crate) fn count(&self, counted: Counted) {
        self.counts[counted as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn get(&self, counted: Counted) -> u64 {
        self.counts[counted as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn kills(&self) -> u64 {
        self.get(Counted::Kill)
    }

    /// Cards whose outcome a caller was told.
    pub(crate) fn redemptions(&self) -> u64 {
        self.get(Counted::Ok) + self.get(Counted::Failed)
    }

    pub(crate) fn set_settled_after(&self, time: Duration) {
        *self.settled_after.lock().unwrap_or_else(PoisonError::into_inner) = Some(time);
    }

    /// Reads what the database can tell of the whole run.
    pub(crate) async fn look_at(&self, url: &str) {
        let mut db = PgConnection::connect(url).await.unwrap();
        let states = "SELECT state, count(*) FROM redemptions GROUP BY state ORDER BY state";
        let states = sqlx::query(states).fetch_all(&mut db).await.unwrap();
        let states: serde_json::Map<_, _> =
            states.iter().map(|row| (row.get(0), json!(row.get::<i64, _>(1)))).collect();
        // How long after its time a lease was ended whose holder was gone.
        let late = "SELECT percentile_cont(ARRAY[0.5, 0.99, 1]) WITHIN GROUP (ORDER BY late)
                    FROM (SELECT reason, extract(epoch FROM happened_at - lag(lease_expires_at)
                              OVER (PARTITION BY pool_id, account_id ORDER BY version))::float8 AS late
                          FROM account_events) e WHERE reason = 'expired'";
        let late: Option<Vec<Option<f64>>> =
            sqlx::query_scalar(late).fetch_one(&mut db).await.unwrap();
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) =
            json!({"states": states, "leases_ended_late_s": late});
    }

    /// The last line.
    pub(crate) fn json(&self, settings: &Settings, broken: usize) -> serde_json::Value {
        let settled = *self.settled_after.lock().unwrap_or_else(PoisonError::into_inner);
        json!({
            "seed": settings.seed,
            "kills": self.kills(),
            "provider_kills": self.get(Counted::ProviderKill),
            "stops": self.get(Counted::Stop),
            "cuts": self.get(Counted::Cut),
            "restarts": self.get(Counted::Restart),
            "redemptions": self.redemptions(),
            "ok": self.get(Counted::Ok),
            "failed": self.get(Counted::Failed),
            "told_in_doubt": self.get(Counted::InDoubt),
            "asked_again": self.get(Counted::AskedAgain),
            "settled_after_s": settled.map(|time| time.as_secs_f64()),
            "found": *self.found.lock().unwrap_or_else(PoisonError::into_inner),
            "broken": broken,
        })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ok, {} failed, {} told in doubt, {} asked again; {} kills, {} stops, {} cuts, {} restarts",
            self.get(Counted::Ok),
            self.get(Counted::Failed),
            self.get(Counted::InDoubt),
            self.get(Counted::AskedAgain),
            self.kills(),
            self.get(Counted::Stop),
            self.get(Counted::Cut),
            self.get(Counted::Restart),
        )
    }
}
