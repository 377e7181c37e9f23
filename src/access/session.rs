//! What a caller showed, as long as it is valid.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::domain::{
    access::{Grants, Need, PoolFilter},
    principal::Principal,
};

/// Who makes a call, and what they may do. Cheap to clone. By default what it is where nobody is asked: everything.
#[derive(Clone, Debug)]
pub struct Access(Arc<State>);

#[derive(Debug)]
struct State {
    principal: Principal,
    grants: Grants,
    /// When it is over by itself.
    until: Option<Instant>,
    /// When it is revoked, or granted other things, it is noted here and those who wait are told.
    is_revoked: AtomicBool,
    revoked: CancellationToken,
    used: AtomicBool,
}

/// Where nobody is asked.
static ANYBODY: LazyLock<Access> =
    LazyLock::new(|| Access::new(Principal::anonymous(), Grants::all(), None));

/// The longest name of a principal, in characters. It is kept with what the principal does.
const MAX_NAME: usize = 256;

/// Whether a principal may have this name.
pub(super) fn is_kept(name: &str) -> bool {
    name.chars().count() <= MAX_NAME && !name.chars().any(char::is_control)
}

impl Default for Access {
    fn default() -> Self {
        ANYBODY.clone()
    }
}

impl Access {
    /// The caller of a server where nobody is asked who they are.
    pub fn anybody() -> &'static Self {
        &ANYBODY
    }

    pub(super) fn new(principal: Principal, grants: Grants, until: Option<Instant>) -> Self {
        Self(Arc::new(State {
            principal,
            grants,
            until,
            is_revoked: AtomicBool::new(false),
            revoked: CancellationToken::new(),
            used: AtomicBool::new(false),
        }))
    }

    /// Who calls.
    pub fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// What they may do.
    pub fn grants(&self) -> &Grants {
        &self.0.grants
    }

    /// Whether a need is met in a pool.
    pub fn may(&self, need: Need, pool_id: &str) -> bool {
        self.0.grants.may(need, pool_id)
    }

    /// Whether a need is met in all pools.
    pub fn may_everywhere(&self, need: Need) -> bool {
        self.0.grants.may_everywhere(need)
    }

    /// Whether a need is met in some pool.
    pub fn may_somewhere(&self, need: Need) -> bool {
        self.0.grants.may_somewhere(need)
    }

    /// The pools in which a need is met.
    pub fn pools(&self, need: Need) -> PoolFilter {
        self.0.grants.pools(need)
    }

    /// Whether what was shown is not valid any more. Takes no lock.
    pub fn is_over(&self, now: Instant) -> bool {
        self.0.until.is_some_and(|until| until <= now) || self.0.is_revoked.load(Ordering::Relaxed)
    }

    /// Waits until it is not.
    pub async fn ended(&self) {
        let over = async {
            match self.0.until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.0.revoked.cancelled() => {}
            () = over => {}
        }
    }

    pub(super) fn is_for(&self, principal: &Principal, grants: &Grants) -> bool {
        self.0.principal == *principal && self.0.grants == *grants
    }

    /// Whether it is over at about this time. Each reading of the database tells it a little differently.
    pub(super) fn is_until(&self, until: Option<Instant>) -> bool {
        const NEARLY: Duration = Duration::from_secs(5);
        match (self.0.until, until) {
            (None, None) => true,
            (Some(one), Some(other)) => one.max(other) - one.min(other) < NEARLY,
            _ => false,
        }
    }

    pub(super) fn end(&self) {
        self.0.is_revoked.store(true, Ordering::Relaxed);
        self.0.revoked.cancel();
    }

    /// Notes that it was used. Nearly always it is noted already, and nothing is written.
    pub(super) fn note_use(&self) {
        if !self.0.used.load(Ordering::Relaxed) {
            self.0.used.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since the last time that this was asked.
    pub(super) fn take_use(&self) -> bool {
        self.0.used.swap(false, Ordering::Relaxed)
    }
}
