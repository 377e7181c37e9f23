//! What a transition decided: the next row of an account, and what must still be so when it is written.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    entity::{Account, Hold, Labels, Lease, Version},
    status::{AccountStatus, LeaseEnd, LoginStatus, Resume},
};
use crate::domain::{
    hold::HoldCause,
    id::{FencingToken, Holder, PlanId, RedemptionId},
    principal::{Authority, Principal, RequestKey},
};

/// What must be so by the database's clock when a change is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Nothing.
    None,
    /// The lease has not run out; for a begin, the account is usable, too.
    LeaseAlive,
    /// The lease has run out.
    LeaseEnded,
    /// The account is idle, and usable now.
    Usable,
    /// The day of its plan has begun.
    DayDue,
}

impl Guard {
    /// As the statement takes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LeaseAlive => "alive",
            Self::LeaseEnded => "ended",
            Self::Usable => "free",
            Self::DayDue => "due",
        }
    }
}

/// A time of the next row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// This one, or none.
    At(Option<OffsetDateTime>),
    /// This time after the change is written.
    In(Duration),
}

impl Until {
    /// No time.
    pub const NEVER: Self = Self::At(None);

    /// This time after the change; none where there is nothing to wait for.
    pub(super) fn after(pause: Option<Duration>) -> Self {
        pause.filter(|pause| !pause.is_zero()).map_or(Self::NEVER, Self::In)
    }

    /// The time that is given, if one is.
    pub fn at(self) -> Option<OffsetDateTime> {
        match self {
            Self::At(at) => at,
            Self::In(_) => None,
        }
    }

    /// The duration that is given, if one is.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::At(_) => None,
            Self::In(duration) => Some(duration),
        }
    }

    fn from(self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        match self {
            Self::At(at) => at,
            Self::In(duration) => Some(now + duration),
        }
    }
}

/// A lease that begins with the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLease {
    /// Who holds it, by its own word.
    pub holder: Holder,
    /// For which request, and whose.
    pub request: RequestKey,
}

/// The next row of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// See [`Account`].
    pub status: AccountStatus,
    /// See [`Account`].
    pub resume: Option<Resume>,
    /// See [`Account`].
    pub token: FencingToken,
    /// A lease that begins; `None` keeps the one that is there, if the account stays locked.
    pub lease: Option<NewLease>,
    /// The lease ends this time after the change; `None` keeps its end.
    pub lease_for: Option<Duration>,
    /// See [`Account`].
    pub bound_by_lease: bool,
    /// See [`Lease`].
    pub release_requested: bool,
    /// See [`Account`].
    pub lease_end: Option<LeaseEnd>,
    /// See [`Account`].
    pub login_status: LoginStatus,
    /// See [`Account`].
    pub plan_id: Option<PlanId>,
    /// See [`Account`].
    pub country_code: Option<String>,
    /// `None` keeps them.
    pub labels: Option<Labels>,
    /// See [`Account`].
    pub paused: bool,
    /// See [`Account`].
    pub draining: bool,
    /// What is added to the balance, in minor units.
    pub credit_minor: i64,
    /// See [`Account`].
    pub plan_day: i32,
    /// See [`Account`].
    pub day_credited_minor: i64,
    /// See [`Account`].
    pub reserved_minor: Option<i64>,
    /// See [`Account`].
    pub day_due: Until,
    /// See [`Account`].
    pub cooldown: Until,
    /// Until when it is on hold.
    pub hold: Until,
    /// See [`Hold`].
    pub hold_cause: Option<HoldCause>,
    /// See [`Hold`].
    pub hold_count: i32,
    /// It is idle from the change on.
    pub goes_idle: bool,
    /// See [`Account`].
    pub open_redemption_id: Option<RedemptionId>,
}

impl Next {
    /// The same as now.
    pub(super) fn of(account: &Account) -> Self {
        Self {
            status: account.status,
            resume: account.resume,
            token: account.token,
            lease: None,
            lease_for: None,
            bound_by_lease: account.bound_by_lease,
            release_requested: account.lease.as_ref().is_some_and(|lease| lease.release_requested),
            lease_end: account.lease_end,
            login_status: account.login_status,
            plan_id: account.plan_id.clone(),
            country_code: account.country_code.clone(),
            labels: None,
            paused: account.paused,
            draining: account.draining,
            credit_minor: 0,
            plan_day: account.plan_day,
            day_credited_minor: account.day_credited_minor,
            reserved_minor: account.reserved_minor,
            day_due: Until::At(account.day_due_at),
            cooldown: Until::At(account.cooldown_until),
            hold: Until::At(account.hold.map(|hold| hold.until)),
            hold_cause: account.hold.map(|hold| hold.cause),
            hold_count: account.hold.map_or(0, |hold| hold.count),
            goes_idle: false,
            open_redemption_id: account.open_redemption_id,
        }
    }

    /// Another plan, or none, which begins on its first day.
    pub(super) fn set_plan(&mut self, plan_id: Option<PlanId>) {
        self.plan_id = plan_id;
        self.plan_day = 1;
        self.day_credited_minor = 0;
        self.day_due = Until::NEVER;
    }
}

/// A decided change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The version from which it was decided.
    pub from: Version,
    /// What must be so by the database's clock.
    pub guard: Guard,
    /// Who makes it, by its own word.
    pub actor: String,
    /// Who makes it, as authentication found it.
    pub principal: Principal,
    /// Why, in the account's event.
    pub reason: &'static str,
    /// What the account is then.
    pub next: Next,
}

impl Change {
    pub(super) fn new(
        account: &Account,
        guard: Guard,
        actor: impl ToString,
        reason: &'static str,
        next: Next,
    ) -> Self {
        let principal = Principal::server();
        Self { from: account.version, guard, actor: actor.to_string(), principal, reason, next }
    }

    /// The same, made by a caller and not by the server.
    pub(super) fn by(self, principal: &Principal) -> Self {
        Self { principal: principal.clone(), ..self }
    }

    /// The same, made by a person where one says so.
    pub(super) fn by_person(self, person: Option<&Authority>) -> Self {
        match person {
            Some(person) => self.by(&person.principal),
            None => self,
        }
    }

    /// The account after the change, which was written as `change_id` at the database's time `at`.
    pub fn apply(self, account: Account, change_id: Uuid, at: OffsetDateTime) -> Account {
        let next = self.next;
        let hold = next.hold_cause.zip(next.hold.from(at));
        Account {
            status: next.status,
            login_status: next.login_status,
            plan_id: next.plan_id,
            country_code: next.country_code,
            balance_minor: account.balance_minor + next.credit_minor,
            labels: next.labels.unwrap_or(account.labels),
            plan_day: next.plan_day,
            day_credited_minor: next.day_credited_minor,
            reserved_minor: next.reserved_minor,
            day_due_at: next.day_due.from(at),
            cooldown_until: next.cooldown.from(at),
            hold: hold.map(|(cause, until)| Hold { cause, until, count: next.hold_count }),
            paused: next.paused,
            draining: next.draining,
            token: next.token,
            resume: next.resume,
            lease: (next.status == AccountStatus::Locking)
                .then(|| {
                    let (before, ttl) = (account.lease, next.lease_for);
                    lease_after(before, next.lease, ttl, next.release_requested, at)
                })
                .flatten(),
            lease_end: next.lease_end,
            bound_by_lease: next.bound_by_lease,
            open_redemption_id: next.open_redemption_id,
            idle_since: if next.goes_idle { at } else { account.idle_since },
            updated_at: at,
            version: Version { number: self.from.number + 1, change_id },
            as_of: at,
            pool_id: account.pool_id,
            account_id: account.account_id,
            created_at: account.created_at,
        }
    }
}

fn lease_after(
    before: Option<Lease>,
    new: Option<NewLease>,
    ttl: Option<Duration>,
    release_requested: bool,
    at: OffsetDateTime,
) -> Option<Lease> {
    let lease = match new {
        Some(NewLease { holder, request }) => {
            Some(Lease { holder, request, acquired_at: at, expires_at: at, release_requested })
        }
        None => before,
    };
    lease.map(|lease| Lease {
        expires_at: ttl.map_or(lease.expires_at, |ttl| at + ttl),
        release_requested,
        ..lease
    })
}
