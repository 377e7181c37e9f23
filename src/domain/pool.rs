//! A pool: accounts that can stand for each other, with one provider and one currency.

use std::{collections::HashMap, time::Duration};

use time::OffsetDateTime;

use super::{
    hold::{Holds, HoldsChange},
    id::{PlanId, PoolId, ProviderId},
    money::Currency,
    plan::Terms,
};

/// What becomes of a redemption that was credited with another amount than expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmountMismatch {
    /// It succeeds with what was credited.
    Accept,
    /// A person decides.
    NeedsReview,
}

impl AmountMismatch {
    /// As the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "ACCEPT",
            Self::NeedsReview => "NEEDS_REVIEW",
        }
    }

    /// Reads what the database has.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Accept, Self::NeedsReview].into_iter().find(|policy| policy.as_str() == text)
    }
}

/// A pool, as it is stored.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Its name.
    pub pool_id: PoolId,
    /// The provider that redeems its cards. Never changes.
    pub provider_id: ProviderId,
    /// Its one currency.
    pub currency: Currency,
    /// The lease of an acquisition that asks for none.
    pub default_lease: Duration,
    /// The shortest lease that can be asked for.
    pub min_lease: Duration,
    /// The longest lease that can be asked for.
    pub max_lease: Duration,
    /// Whether it begins nothing new.
    pub paused: bool,
    /// Whether it gives out no new leases.
    pub draining: bool,
    /// What becomes of a redemption that was credited with another amount than expected.
    pub amount_mismatch: AmountMismatch,
    /// Which part of the leases one holder may get while others wait, in percent.
    pub holder_share_percent: i32,
    /// How long an account is on hold after a failure that was its own.
    pub holds: Holds,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// A pool to create.
#[derive(Clone, Debug)]
pub struct NewPool {
    /// See [`Pool`].
    pub pool_id: PoolId,
    /// See [`Pool`].
    pub provider_id: ProviderId,
    /// See [`Pool`].
    pub currency: Currency,
    /// See [`Pool`].
    pub default_lease: Duration,
    /// See [`Pool`].
    pub min_lease: Duration,
    /// See [`Pool`].
    pub max_lease: Duration,
    /// See [`Pool`].
    pub paused: bool,
    /// See [`Pool`].
    pub draining: bool,
    /// See [`Pool`].
    pub amount_mismatch: AmountMismatch,
    /// See [`Pool`].
    pub holder_share_percent: i32,
    /// See [`Pool`].
    pub holds: Holds,
}

/// What to change of a pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct PoolChange {
    /// See [`Pool`].
    pub default_lease: Option<Duration>,
    /// See [`Pool`].
    pub min_lease: Option<Duration>,
    /// See [`Pool`].
    pub max_lease: Option<Duration>,
    /// See [`Pool`].
    pub paused: Option<bool>,
    /// See [`Pool`].
    pub draining: Option<bool>,
    /// See [`Pool`].
    pub amount_mismatch: Option<AmountMismatch>,
    /// See [`Pool`].
    pub holder_share_percent: Option<i32>,
    /// See [`Pool`].
    pub holds: HoldsChange,
}

/// A plan, as it is stored.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its pool.
    pub pool_id: PoolId,
    /// Its name.
    pub plan_id: PlanId,
    /// What it wants.
    pub terms: Terms,
    /// When it was created.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// What of a pool decides about its accounts, at a revision.
#[derive(Clone, Debug)]
pub struct PoolTerms {
    /// Rises with each change of the pool or of one of its plans.
    pub revision: i64,
    /// Whether it begins nothing new.
    pub paused: bool,
    /// Whether it gives out no new leases.
    pub draining: bool,
    /// How long accounts are on hold.
    pub holds: Holds,
    /// Its plans.
    pub plans: HashMap<PlanId, Terms>,
}

/// What keeps a pool from being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// How many accounts it has; not counted beyond [`PoolUse::MOST`].
    pub accounts: i64,
    /// The same of redemptions.
    pub redemptions: i64,
    /// Whether it has or had an account: its events are kept.
    pub had_accounts: bool,
}

impl PoolUse {
    /// So many are counted.
    pub const MOST: i64 = 1000;
}
