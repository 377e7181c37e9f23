//! The store: the statements that the database runs. The only code that uses sqlx.
//!
//! Every statement is a file in `sql/`, checked against the schema when the program is compiled, and runs by
//! itself. No transaction is ever opened, so none can be left open. The hot ones go through [`lane`]s, which make
//! one statement of what many callers want at once.

pub mod account;
pub mod acquire;
pub mod apply;
pub mod audit;
mod controls;
pub mod credentials;
pub mod delivery;
pub mod keys;
mod lane;
pub mod lease;
pub mod outcomes;
mod page;
mod patience;
pub mod pg;
pub mod plan;
mod points;
pub mod pool;
pub mod provider;
pub mod provider_limits;
mod quarantine;
pub mod ready_set;
pub mod redemption;
mod redemption_row;
pub mod reversal;
pub mod servers;
pub mod subscription;
mod terms;
pub mod token;

use std::{collections::HashMap, hash::Hash, ops::Deref, sync::Arc, time::Duration};

use sqlx::postgres::types::PgInterval;
use time::OffsetDateTime;
use uuid::Uuid;

pub use pg::error::StoreError;
pub use quarantine::Done;
pub use redemption::{begin, outcome};

use self::{
    apply::{Apply, Decider},
    begin::Begin,
    db::Db,
    lane::Lanes,
    outcome::Defer,
    pg::{db, error, target::Target},
    quarantine::Quarantine,
    ready_set::ReadySets,
    terms::TermsCache,
};
use crate::{
    admission::{Limits, Overload},
    domain::database::Address,
};

/// The database, as the services see it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>);

/// What the clones of a [`Store`] share.
#[derive(Debug)]
pub struct Shared {
    /// Which server this is: see [`servers`].
    server_id: Uuid,
    db: Db,
    /// The same for what only reads, and may read much.
    rest: Db,
    overload: Overload,
    ready: ReadySets,
    /// Rows that statements leave out.
    quarantine: Quarantine,
    apply: Lanes<Apply>,
    begin: Lanes<Begin>,
    defer: Lanes<Defer>,
}

impl Deref for Store {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Store {
    /// Opens a pool of at most `connections` connections. Connects when it is first used.
    pub fn open(address: &Address, connections: u32) -> Result<Self, StoreError> {
        Self::open_with(address, connections, Limits::default())
    }

    /// The same, with these limits of one caller.
    pub fn open_with(
        address: &Address,
        connections: u32,
        limits: Limits,
    ) -> Result<Self, StoreError> {
        let target = Target::of(address)?;
        let overload = Overload::with(limits);
        let db = Db::new(target, connections, &overload);
        let rest = db.for_rest(&overload);
        let (terms, quarantine) = (TermsCache::default(), Quarantine::default());
        let server_id = Uuid::now_v7();
        let ready =
            ReadySets::new(db.clone(), rest.clone(), terms.clone(), quarantine.clone(), server_id);
        let decider = Decider { db: db.clone(), terms, ready: ready.clone(), server_id };
        Ok(Self(Arc::new(Shared {
            apply: Lanes::new(Apply(decider.clone()), &overload),
            begin: Lanes::new(Begin(decider), &overload),
            defer: Lanes::new(Defer { db: db.clone() }, &overload),
            ready,
            rest: rest.within(limits.read_timeout),
            quarantine,
            server_id,
            db,
            overload,
        })))
    }

    /// Whether the database answers, and takes writes.
    pub async fn ping(&self) -> Result<(), StoreError> {
        Ok(self.db.ping().await?)
    }

    /// Whether the database answers, takes writes, and commits them.
    pub async fn check_health(&self) -> Result<(), StoreError> {
        self.db.ping().await?;
        Ok(self.db.commits(self.server_id).await?)
    }

    /// How long it is until a time, by the database's clock; nothing where it has passed.
    pub async fn time_until(&self, time: OffsetDateTime) -> Result<Duration, StoreError> {
        let left = sqlx::query_file_scalar!("src/store/sql/pg/time_until.sql", time);
        Ok(duration(&left.fetch_one(&self.rest).await?))
    }

    /// The permits of those who use it, and what is measured in front of it.
    pub fn overload(&self) -> &Overload {
        &self.overload
    }

    /// Closes the connections that nobody has used for this time.
    pub async fn close_unused(&self, time: Duration) {
        self.db.close_unused(time).await;
    }

    /// Closes the connections, after the statements that are running.
    pub async fn close(&self) {
        self.db.close().await;
    }
}

/// Gives back the room of a map of pools from which most have gone.
fn shrink<K: Eq + Hash, V>(pools: &mut HashMap<K, V>) {
    /// So few may leave room behind that nobody needs.
    const KEPT: usize = 256;
    if pools.capacity() > 4 * pools.len().max(KEPT) {
        pools.shrink_to(2 * pools.len());
    }
}

/// A duration as Postgres takes it, to the microsecond.
fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}

/// A duration that Postgres has. Ours are made of microseconds alone; a person's may have days.
fn duration(interval: &PgInterval) -> Duration {
    const DAY: i64 = 24 * 60 * 60 * 1_000_000;
    let days = i64::from(interval.months) * 30 + i64::from(interval.days);
    let micros = days.saturating_mul(DAY).saturating_add(interval.microseconds);
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
