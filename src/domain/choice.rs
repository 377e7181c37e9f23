//! Choices: whether an acquisition would pick an account, or why not.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use time::OffsetDateTime;

use super::{
    account::{Account, AccountStatus, LoginStatus},
    plan::{Misfit, Terms},
    pool::PoolTerms,
    selector::Selector,
};

/// What is asked of an account that is to be picked. Two calls with the same criteria can get the same accounts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Criteria {
    /// Which accounts may be picked.
    pub selector: Arc<Selector>,
    /// The amount that the account's plan must take now, in minor units; any when not known.
    pub expected_minor: Option<i64>,
}

impl Criteria {
    /// The terms by which an account is chosen: its plan's, or those of the plan that it would be bound to.
    fn terms<'a>(&self, account: &Account, pool: &'a PoolTerms) -> Option<&'a Terms> {
        let plan_id = account.plan_id.as_ref().or(self.selector.plan_id.as_ref())?;
        pool.plans.get(plan_id)
    }

    /// Why an account's plan does not take what is asked; `None` when it does.
    pub fn misfit(&self, account: &Account, pool: &PoolTerms) -> Option<Misfit> {
        let least_minor = self.selector.min_headroom_minor;
        let terms = self.terms(account, pool)?;
        terms.misfit_for(&account.progress(), self.expected_minor, least_minor)
    }
}

/// How many accounts of a pool there are of each choice.
pub type Counts = BTreeMap<Choice, i64>;

/// An account that was considered.
#[derive(Clone, Debug)]
pub struct Considered {
    /// The account.
    pub account: Arc<Account>,
    /// Whether it would be picked, or why not.
    pub choice: Choice,
    /// What its plan, or the one that it would be bound to, still wants, in minor units.
    pub headroom_minor: Option<i64>,
    /// How much of that today.
    pub day_headroom_minor: Option<i64>,
    /// It is of the plan that was asked for, or none was.
    is_as_asked: bool,
}

impl Considered {
    /// An account and what becomes of it.
    pub fn new(
        account: Arc<Account>,
        choice: Choice,
        criteria: &Criteria,
        pool: &PoolTerms,
    ) -> Self {
        let selector = &criteria.selector;
        let (terms, progress) = (criteria.terms(&account, pool), account.progress());
        Self {
            choice,
            headroom_minor: terms.map(|terms| terms.headroom(&progress)),
            day_headroom_minor: terms.map(|terms| terms.room(&progress)),
            is_as_asked: account.plan_id.is_some() || selector.plan_id.is_none(),
            account,
        }
    }

    /// The order of the choice, for those that fit; they come first.
    pub fn in_order(&self, other: &Self) -> Ordering {
        let cause = |one: &Self| (one.choice != Choice::Fits).then(|| one.choice.as_str());
        let headroom = |one: &Self| match (&one.account.plan_id, one.headroom_minor) {
            (Some(_), Some(headroom)) => headroom,
            _ => i64::MAX,
        };
        let rank =
            |one: &Self| (cause(one), !one.is_as_asked, one.account.status.as_str(), headroom(one));
        let (account, others) = (&self.account, &other.account);
        rank(self)
            .cmp(&rank(other))
            .then_with(|| account.idle_since.cmp(&others.idle_since))
            .then_with(|| account.account_id.cmp(&others.account_id))
    }
}

/// Whether an account would be picked, or the first cause for which it is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Choice {
    /// It would be picked.
    Fits,
    /// The selector does not allow it.
    NotSelected,
    /// It has all that its plan wants.
    Completed,
    /// The provider does not let it in, or a person set it aside.
    Inactive,
    /// A person paused it.
    Paused,
    /// A person drains it.
    Draining,
    /// The database refuses to change its row, or its row cannot be read; it is left out for a while.
    Unwritable,
    /// Its plan wants nothing more, or less than the card's amount.
    TooFull,
    /// Its plan does not take the card's amount.
    Denomination,
    /// What is left of its plan, now or after the card, no cards can fill.
    Remainder,
    /// The card is more than its plan's day still takes.
    DayFull,
    /// It is on hold after a failure.
    OnHold,
    /// Its plan's next day is not due yet.
    NextDay,
    /// The cooldown after its last redemption is not over.
    CoolingDown,
    /// It is under a lease.
    Locked,
}

impl Choice {
    /// Every choice, in the order in which causes are checked.
    pub const ALL: [Self; 15] = [
        Self::Fits,
        Self::NotSelected,
        Self::Completed,
        Self::Inactive,
        Self::Paused,
        Self::Draining,
        Self::Unwritable,
        Self::TooFull,
        Self::Denomination,
        Self::Remainder,
        Self::DayFull,
        Self::OnHold,
        Self::NextDay,
        Self::CoolingDown,
        Self::Locked,
    ];

    /// As a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::NotSelected => "not_selected",
            Self::Completed => "completed",
            Self::Inactive => "inactive",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Unwritable => "unwritable",
            Self::TooFull => "too_full",
            Self::Denomination => "denomination",
            Self::Remainder => "remainder",
            Self::DayFull => "day_full",
            Self::OnHold => "on_hold",
            Self::NextDay => "next_day",
            Self::CoolingDown => "cooling_down",
            Self::Locked => "locked",
        }
    }

    /// For people: `12 …`.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Fits => "became free just now",
            Self::NotSelected => "not selected",
            Self::Completed => "completed",
            Self::Inactive => "inactive",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Unwritable => "that the database refuses to change",
            Self::TooFull => "too full",
            Self::Denomination => "do not take this amount",
            Self::Remainder => "with a remainder that nothing can fill",
            Self::DayFull => "too full today",
            Self::OnHold => "on hold after a failure",
            Self::NextDay => "waiting for their next day",
            Self::CoolingDown => "cooling down",
            Self::Locked => "locked",
        }
    }

    /// What becomes of an account at a time. `is_unwritable`: its row cannot be written or read, as far as is known.
    pub fn of(
        account: &Account,
        criteria: &Criteria,
        pool: &PoolTerms,
        now: OffsetDateTime,
        is_unwritable: bool,
    ) -> Self {
        let selector = &criteria.selector;
        let misfit = criteria.misfit(account, pool);
        let is_ahead = |time: Option<OffsetDateTime>| time.is_some_and(|time| time > now);
        match misfit {
            _ if !selector.allows(account) => Self::NotSelected,
            _ if account.status == AccountStatus::Completed => Self::Completed,
            _ if account.login_status != LoginStatus::Active => Self::Inactive,
            _ if account.paused => Self::Paused,
            _ if account.draining => Self::Draining,
            _ if is_unwritable => Self::Unwritable,
            Some(Misfit::TooFull) => Self::TooFull,
            Some(Misfit::Denomination) => Self::Denomination,
            Some(Misfit::Remainder) => Self::Remainder,
            Some(Misfit::DayFull) => Self::DayFull,
            None if is_ahead(account.hold.map(|hold| hold.until)) => Self::OnHold,
            None if is_ahead(account.day_due_at) => Self::NextDay,
            None if is_ahead(account.cooldown_until) => Self::CoolingDown,
            None if account.status == AccountStatus::Locking => Self::Locked,
            None => Self::Fits,
        }
    }
}
