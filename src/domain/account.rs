//! The account's state machine, on one page.
//!
//! ```text
//!               acquire                        redeem succeeded: resume := PROCESSING
//!  WAITING ───────────────┐                    (COMPLETED when the plan's target is reached,
//!                         │                    WAITING when its day is and another comes)
//!                         ▼                    redeem failed:    resume unchanged
//!                     LOCKING ── release / expire ──▶ resume status
//!                         ▲                              WAITING | PROCESSING | COMPLETED
//!  PROCESSING ────────────┘ acquire
//! ```
//!
//! [`transition`] is the rule. The statements in `store/sql/` are its compiled form, and a test
//! drives every state and every event through both. What decides *which* free account is picked
//! (its login status, plan, country, labels) is not here: that is the statement's `WHERE`.

use super::plan::Filled;

/// Where an account stands, as it is stored and shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccountStatus {
    /// Free, and nothing has been redeemed into it yet; or its plan's next day is not begun yet.
    Waiting,
    /// Free, begun and not yet full. Preferred to `Waiting`.
    Processing,
    /// Under a lease, or holding an open redemption.
    Locking,
    /// Its plan's target is reached. Not picked again.
    Completed,
}

impl AccountStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Processing, Self::Locking, Self::Completed];

    /// As the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Processing => "PROCESSING",
            Self::Locking => "LOCKING",
            Self::Completed => "COMPLETED",
        }
    }

    /// Reads what the database has.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// Whether the provider lets an account in. Only `Active` ones are picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoginStatus {
    /// Can be used.
    Active,
    /// Set aside by a person.
    Inactive,
    /// The provider refused its login.
    Invalid,
}

impl LoginStatus {
    /// Every login status.
    pub const ALL: [Self; 3] = [Self::Active, Self::Inactive, Self::Invalid];

    /// As the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
            Self::Invalid => "INVALID",
        }
    }

    /// Reads what the database, or an account file, has.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// What was wrong with an account that failed. It is left in peace for a while; a card's own failure
/// has no such cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HoldCause {
    /// The provider refused its login.
    LoginInvalid,
    /// It has had as much as the provider allows.
    LimitReached,
    /// The provider wants it to be slower.
    Throttled,
}

impl HoldCause {
    /// Every cause.
    pub const ALL: [Self; 3] = [Self::LoginInvalid, Self::LimitReached, Self::Throttled];

    /// As the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoginInvalid => "LOGIN_INVALID",
            Self::LimitReached => "LIMIT_REACHED",
            Self::Throttled => "THROTTLED",
        }
    }

    /// Reads what the database has.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == text)
    }

    /// What a provider's failure code says about the account.
    pub fn of_failure(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| code.strip_prefix("ACCOUNT_") == Some(cause.as_str()))
    }
}

/// Why an account is not to be used before a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rest {
    /// Its plan's next day is not due.
    NextDay,
    /// Its last redemption is too short ago.
    Cooldown,
    /// It failed, and is left in peace.
    Hold,
}

impl Rest {
    /// Every cause.
    pub const ALL: [Self; 3] = [Self::NextDay, Self::Cooldown, Self::Hold];

    /// As the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NextDay => "next_day",
            Self::Cooldown => "cooldown",
            Self::Hold => "hold",
        }
    }

    /// Reads what the database has.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rest| rest.as_str() == text)
    }
}

/// The status that an account takes when its lease ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resume {
    /// Nothing was redeemed before the lease, nor under it; or a day of its plan has ended.
    Waiting,
    /// Something was, and the plan wants more.
    Processing,
    /// Something was, and the plan's target is reached.
    Completed,
}

/// What of an account decides about its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccountState {
    /// Under nobody's lease: waits for an `Acquire`, or for nothing when `Completed`.
    Free(Resume),
    /// Under a lease: waits for its holder, or for the lease's time to pass.
    Locking(Lock),
}

/// A lease, as far as it decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lock {
    /// The status to go back to.
    pub resume: Resume,
    /// A redemption's outcome is not known. Nothing ends the lease before it is.
    pub redemption_open: bool,
    /// The holder asked for the release while a redemption was open.
    pub release_requested: bool,
    /// The lease's time has passed, by the database's clock.
    pub expired: bool,
}

/// What can happen to an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccountEvent {
    /// Somebody wants a lease.
    Acquire,
    /// The holder wants the lease to end later.
    Renew,
    /// The holder begins a redemption.
    Begin,
    /// The redemption's outcome is known.
    Settle(Settle),
    /// The holder gives the account back.
    Release,
    /// The sweeper, or an acquirer that found nothing free, looks at the lease's time.
    Expire,
    /// The provider credited what was recorded as failed before.
    CreditLate,
    /// A person gives it another plan, of which it has all already, or not.
    Replan {
        /// Whether the balance is at or above the plan's target.
        target_reached: bool,
    },
    /// Its plan was changed, and its day has nothing left to take.
    EndDay,
}

/// A redemption's outcome, as far as it concerns the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settle {
    /// Whether the provider credited the card.
    pub outcome: SettleOutcome,
    /// The holder wanted the lease to end with the redemption.
    pub release: bool,
}

/// See [`Settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SettleOutcome {
    /// Credited, and that has filled so much.
    Succeeded(Filled),
    /// Not credited.
    Failed,
}

/// Why an event cannot happen to an account as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It is under a lease already.
    AlreadyLocked,
    /// It is full.
    Completed,
    /// It is under no lease.
    NotLocked,
    /// The lease's time has passed.
    LeaseExpired,
    /// The lease's time has not passed yet.
    LeaseAlive,
    /// The holder has asked for the release.
    ReleaseRequested,
    /// A redemption's outcome is not known yet.
    RedemptionOpen,
    /// There is no redemption to settle.
    NoRedemptionOpen,
}

/// What becomes of an account in `state` when `event` happens to it.
pub fn transition(state: AccountState, event: AccountEvent) -> Result<AccountState, Refusal> {
    use AccountEvent as E;
    use AccountState::{Free, Locking};

    match (state, event) {
        // Facts are not fenced, and move nothing but the balance.
        (state, E::CreditLate) => Ok(state),

        (Free(_), E::Replan { target_reached: true }) => Ok(Free(Resume::Completed)),
        (Free(Resume::Completed), E::Replan { .. }) => Ok(Free(Resume::Waiting)),
        (Free(resume), E::Replan { .. }) => Ok(Free(resume)),
        (Free(Resume::Completed), E::EndDay) => Err(Refusal::Completed),
        (Free(_), E::EndDay) => Ok(Free(Resume::Waiting)),
        (Locking(_), E::Replan { .. } | E::EndDay) => Err(Refusal::AlreadyLocked),

        (Free(Resume::Completed), E::Acquire) => Err(Refusal::Completed),
        (Free(resume), E::Acquire) => Ok(Locking(Lock {
            resume,
            redemption_open: false,
            release_requested: false,
            expired: false,
        })),
        (Locking(_), E::Acquire) => Err(Refusal::AlreadyLocked),
        (Free(_), E::Renew | E::Begin | E::Settle(_) | E::Release | E::Expire) => {
            Err(Refusal::NotLocked)
        }

        // Time that has passed is not given back, even when nobody has taken the account since.
        (Locking(lock), E::Renew | E::Begin) if lock.expired => Err(Refusal::LeaseExpired),
        (Locking(lock), E::Renew | E::Begin) if lock.release_requested => {
            Err(Refusal::ReleaseRequested)
        }
        (Locking(lock), E::Renew) => Ok(Locking(lock)),
        (Locking(lock), E::Begin) if lock.redemption_open => Err(Refusal::RedemptionOpen),
        (Locking(lock), E::Begin) => Ok(Locking(Lock { redemption_open: true, ..lock })),

        (Locking(lock), E::Settle(settle)) => settled(lock, settle),

        (Locking(lock), E::Release) if lock.redemption_open => {
            Ok(Locking(Lock { release_requested: true, ..lock }))
        }
        (Locking(lock), E::Release) => Ok(Free(lock.resume)),

        (Locking(lock), E::Expire) if !lock.expired => Err(Refusal::LeaseAlive),
        (Locking(lock), E::Expire) if lock.redemption_open => Err(Refusal::RedemptionOpen),
        (Locking(lock), E::Expire) => Ok(Free(lock.resume)),
    }
}

/// A settled redemption sets the status to go back to, and ends the lease if that was wished or due.
fn settled(lock: Lock, settle: Settle) -> Result<AccountState, Refusal> {
    if !lock.redemption_open {
        return Err(Refusal::NoRedemptionOpen);
    }
    let resume = match settle.outcome {
        SettleOutcome::Succeeded(filled) => Resume::after(filled),
        SettleOutcome::Failed => lock.resume,
    };
    if settle.release || lock.release_requested || lock.expired {
        Ok(AccountState::Free(resume))
    } else {
        Ok(AccountState::Locking(Lock { resume, redemption_open: false, ..lock }))
    }
}

impl AccountState {
    /// Every state that can be told apart: what the table test walks.
    pub fn all() -> impl Iterator<Item = Self> {
        const BOTH: [bool; 2] = [false, true];
        let resumes = [Resume::Waiting, Resume::Processing, Resume::Completed];
        let free = resumes.into_iter().map(Self::Free);
        let locking = resumes.into_iter().flat_map(|resume| {
            BOTH.into_iter().flat_map(move |redemption_open| {
                BOTH.into_iter().flat_map(move |release_requested| {
                    BOTH.into_iter().map(move |expired| {
                        Self::Locking(Lock { resume, redemption_open, release_requested, expired })
                    })
                })
            })
        });
        // A release is only ever noted while a redemption is open; otherwise it happens.
        free.chain(locking).filter(|state| match state {
            Self::Locking(lock) => lock.redemption_open || !lock.release_requested,
            Self::Free(_) => true,
        })
    }

    /// The status that is stored and shown.
    pub fn status(self) -> AccountStatus {
        match self {
            Self::Free(resume) => resume.status(),
            Self::Locking(_) => AccountStatus::Locking,
        }
    }
}

impl Resume {
    /// After a success that has filled so much.
    fn after(filled: Filled) -> Self {
        match filled {
            Filled::Nothing => Self::Processing,
            Filled::Day => Self::Waiting,
            Filled::Target => Self::Completed,
        }
    }

    /// The same as a status.
    pub fn status(self) -> AccountStatus {
        match self {
            Self::Waiting => AccountStatus::Waiting,
            Self::Processing => AccountStatus::Processing,
            Self::Completed => AccountStatus::Completed,
        }
    }
}

impl AccountEvent {
    /// Every event: what the table test walks.
    pub fn all() -> impl Iterator<Item = Self> {
        let outcomes = [
            SettleOutcome::Succeeded(Filled::Nothing),
            SettleOutcome::Succeeded(Filled::Day),
            SettleOutcome::Succeeded(Filled::Target),
            SettleOutcome::Failed,
        ];
        let settles = outcomes.into_iter().flat_map(|outcome| {
            [false, true].map(|release| Self::Settle(Settle { outcome, release }))
        });
        let replans = [false, true].map(|target_reached| Self::Replan { target_reached });
        [Self::Acquire, Self::Renew, Self::Begin, Self::Release, Self::Expire]
            .into_iter()
            .chain([Self::CreditLate, Self::EndDay])
            .chain(replans)
            .chain(settles)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_but_settling_ends_a_lock_that_has_a_redemption_open() {
        for state in AccountState::all() {
            let AccountState::Locking(lock) = state else { continue };
            if !lock.redemption_open {
                continue;
            }
            for event in AccountEvent::all() {
                let ended = matches!(transition(state, event), Ok(AccountState::Free(_)));
                assert!(!ended || matches!(event, AccountEvent::Settle(_)), "{state:?} {event:?}");
            }
        }
    }

    fn any_event() -> impl Strategy<Value = AccountEvent> {
        proptest::sample::select(AccountEvent::all().collect::<Vec<_>>())
    }

    proptest! {
        /// Whatever happens in whatever order: a lease without a success gives back the status
        /// that it found, and one with a success gives back PROCESSING or COMPLETED.
        #[test]
        fn a_lease_without_a_success_restores_what_it_found(
            events in proptest::collection::vec((any_event(), any::<bool>()), 1..60),
        ) {
            let mut state = AccountState::Free(Resume::Waiting);
            let mut found = Resume::Waiting;
            let mut last_success = None;
            for (event, time_passes) in events {
                if let (AccountState::Locking(lock), true) = (&mut state, time_passes) {
                    lock.expired = true;
                }
                let before = state;
                let Ok(after) = transition(state, event) else { continue };
                state = after;
                match (before, after, event) {
                    (AccountState::Free(resume), AccountState::Locking(_), _) => {
                        found = resume;
                        last_success = None;
                    }
                    (_, _, AccountEvent::Settle(Settle {
                        outcome: SettleOutcome::Succeeded(filled), ..
                    })) => last_success = Some(Resume::after(filled)),
                    // Between leases a person, or a change of the plan, moves it.
                    (AccountState::Free(_), AccountState::Free(resume), _) => {
                        found = resume;
                        last_success = None;
                    }
                    _ => {}
                }
                if let AccountState::Free(resume) = state {
                    prop_assert_eq!(resume, last_success.unwrap_or(found));
                }
                prop_assert!(AccountState::all().any(|known| known == state));
            }
        }
    }
}
