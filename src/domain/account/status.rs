//! The words of an account: its statuses, and why it may not be used.

use crate::domain::plan::Filled;

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
    /// Taken out of use by a person.
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

/// Why an account is not to be used before a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rest {
    /// Its plan's next day is not due.
    NextDay,
    /// Its last redemption ended too short a time ago.
    Cooldown,
    /// It failed, and is on hold.
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

impl Resume {
    /// After a success that has filled so much.
    pub(super) fn after(filled: Filled) -> Self {
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

    /// The status as a status to go back to. `None` for `Locking`.
    pub fn of(status: AccountStatus) -> Option<Self> {
        match status {
            AccountStatus::Waiting => Some(Self::Waiting),
            AccountStatus::Processing => Some(Self::Processing),
            AccountStatus::Completed => Some(Self::Completed),
            AccountStatus::Locking => None,
        }
    }
}

/// How the last lease of an account ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseEnd {
    /// Its holder, or its redemption, ended it.
    Released,
    /// Its time passed.
    Expired,
}

impl LeaseEnd {
    /// As the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }

    /// Reads what the database has.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Released, Self::Expired].into_iter().find(|end| end.as_str() == text)
    }
}
