//! Plans: what a plan takes, and how far an account is in it. This is the rule of which card fits which account.
//!
//! A plan has a target, in days if it has any: each brings its amount, give or take, and the last one whatever is
//! left. A card fits when the plan takes its amount, and when it goes neither beyond the target nor beyond the
//! day. Then what is left afterwards must be nothing, or an amount that can still be filled.
//!
//! It stands here alone: choosing an account, leasing it, beginning a redemption and explaining all ask here.

mod fixed;

use std::{cmp::min, time::Duration};

pub use self::fixed::FixedAmounts;
use super::money::MAX_AMOUNT_MINOR;

/// The most days of a plan.
pub const MAX_DAYS: usize = 366;
/// The most amounts of a fixed set.
pub const MAX_FIXED: usize = 64;
/// The most that the least of a fixed set may be, in steps of their greatest common divisor. It is the
/// length of the table of their sums.
pub const MAX_STEPS: i64 = 1000;
/// The longest time between two days, or two redemptions.
pub const MAX_INTERVAL: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// What an account is being filled for. Amounts are in minor units of the pool's currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The balance at which an account is `COMPLETED`.
    pub target_minor: i64,
    /// What each day brings. The last one has no limit but the target; without any, all is last day.
    pub day_amounts_minor: Vec<i64>,
    /// How far a day may go beyond its amount.
    pub day_tolerance_minor: i64,
    /// From the end of a day until the next is due.
    pub day_interval: Duration,
    /// From the end of a redemption until the next may begin on the same account.
    pub redemption_interval: Duration,
    /// Which cards it takes.
    pub denominations: Denominations,
}

/// Which amounts a plan takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denominations {
    /// Any amount between these.
    Any {
        /// The least.
        smallest_minor: i64,
        /// The most; no end when not given.
        largest_minor: Option<i64>,
    },
    /// Multiples of this.
    MultiplesOf(i64),
    /// These alone, each once, ascending.
    Fixed(FixedAmounts),
}

/// How far an account is in its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What is in it.
    pub balance_minor: i64,
    /// The day that it is on, counted from 1.
    pub day: i32,
    /// What was credited on that day.
    pub day_credited_minor: i64,
}

/// Why a card does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Misfit {
    /// It is more than the plan still wants, or the plan wants nothing more.
    TooFull,
    /// The plan does not take this amount.
    Denomination,
    /// It would leave, or there is, a remainder that no cards can fill.
    Remainder,
    /// It is more than the day still takes.
    DayFull,
}

impl Misfit {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::TooFull, Self::Denomination, Self::Remainder, Self::DayFull];

    /// As the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TooFull => "too_full",
            Self::Denomination => "denomination",
            Self::Remainder => "remainder",
            Self::DayFull => "day_full",
        }
    }

    /// Reads what the database has.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|misfit| misfit.as_str() == text)
    }
}

/// What a credit has filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filled {
    /// The plan wants more today.
    Nothing,
    /// The day, and another one comes.
    Day,
    /// The plan's target.
    Target,
}

impl Terms {
    /// A plan that takes any amount, on any day, until its target is reached.
    pub fn up_to(target_minor: i64) -> Self {
        Self {
            target_minor,
            day_amounts_minor: Vec::new(),
            day_tolerance_minor: 0,
            day_interval: Duration::from_secs(24 * 60 * 60),
            redemption_interval: Duration::ZERO,
            denominations: Denominations::Any { smallest_minor: 1, largest_minor: None },
        }
    }

    /// Every rule that these terms break: the field, and what it must be.
    pub fn violations(&self) -> Vec<(&'static str, String)> {
        let mut broken = Vec::new();
        if !(1..=MAX_AMOUNT_MINOR).contains(&self.target_minor) {
            broken.push(("target", "must be more than 0".to_owned()));
        }
        if self.day_amounts_minor.len() > MAX_DAYS {
            broken.push(("day_amounts", format!("must be at most {MAX_DAYS}")));
        }
        if self.day_amounts_minor.iter().any(|amount| *amount <= 0) {
            broken.push(("day_amounts", "must each be more than 0".to_owned()));
        }
        let sum: i128 = self.day_amounts_minor.iter().map(|amount| i128::from(*amount)).sum();
        if sum > i128::from(self.target_minor) {
            let rule = format!(
                "must add up to at most the target: they are {sum}, and it is {}",
                self.target_minor
            );
            broken.push(("day_amounts", rule));
        }
        for (field, interval) in
            [("day_interval", self.day_interval), ("redemption_interval", self.redemption_interval)]
        {
            if interval > MAX_INTERVAL {
                broken.push((field, "must be at most 366 days".to_owned()));
            }
        }
        match self.denominations.violation() {
            Some(rule) => broken.push(("denominations", rule)),
            None if broken.is_empty() && !self.can_be_filled() => {
                let rule = "must be able to add up to the target".to_owned();
                broken.push(("denominations", rule));
            }
            None => {}
        }
        broken
    }

    /// Whether cards that it takes can add up to the target. An account that begins with a balance
    /// may still be left with what nothing fills.
    fn can_be_filled(&self) -> bool {
        self.denominations.fills(self.target_minor)
    }

    /// Whether a card of `amount_minor` fits an account that is so far; without an amount, whether
    /// there is any card that would.
    pub fn misfit(&self, progress: &Progress, amount_minor: Option<i64>) -> Option<Misfit> {
        let remaining = self.target_minor - progress.balance_minor;
        if remaining <= 0 {
            return Some(Misfit::TooFull);
        }
        let room = self.room(progress);
        match amount_minor {
            None => (!self.denominations.some_fits(remaining, room)).then_some(Misfit::Remainder),
            Some(amount) if amount > remaining => Some(Misfit::TooFull),
            Some(amount) if !self.denominations.take(amount) => Some(Misfit::Denomination),
            Some(amount) if !self.denominations.fills(remaining - amount) => {
                Some(Misfit::Remainder)
            }
            Some(amount) if amount > room => Some(Misfit::DayFull),
            Some(_) => None,
        }
    }

    /// The same for an account that is to be chosen, whose plan must still want `least_minor` in all and today.
    pub fn misfit_for(
        &self,
        progress: &Progress,
        amount_minor: Option<i64>,
        least_minor: Option<i64>,
    ) -> Option<Misfit> {
        let is_less = |minor: i64| least_minor.is_some_and(|least| minor < least);
        if is_less(self.headroom(progress)) {
            return Some(Misfit::TooFull);
        }
        let is_little_today = is_less(self.room(progress)).then_some(Misfit::DayFull);
        self.misfit(progress, amount_minor).or(is_little_today)
    }

    /// How much more the plan takes.
    pub fn headroom(&self, progress: &Progress) -> i64 {
        self.target_minor - progress.balance_minor
    }

    /// How much more the day takes.
    pub fn room(&self, progress: &Progress) -> i64 {
        let remaining = self.target_minor - progress.balance_minor;
        match self.limited_day(progress.day) {
            Some(amount) => {
                min(remaining, amount + self.day_tolerance_minor - progress.day_credited_minor)
            }
            None => remaining,
        }
    }

    /// The amount of a day that is not the last.
    fn limited_day(&self, day: i32) -> Option<i64> {
        let days = &self.day_amounts_minor;
        let index = usize::try_from(day - 1).ok()?;
        if index + 1 < days.len() { days.get(index).copied() } else { None }
    }

    /// Whether the day of a free account has nothing left to take: its amount is reached, or no card fits what it
    /// still takes. The last day ends with the target alone; nor does a day end where no later one could be filled.
    pub fn is_day_over(&self, progress: &Progress) -> bool {
        let remaining = self.target_minor - progress.balance_minor;
        let Some(amount) = self.limited_day(progress.day).filter(|_| remaining > 0) else {
            return false;
        };
        progress.day_credited_minor >= amount
            || self.misfit(progress, None).is_some() && self.denominations.fills(remaining)
    }

    /// How far an account is after a credit, and what that has filled. A day has ended when its amount
    /// is reached, or when no card fits what it still takes.
    pub fn credit(&self, progress: &Progress, amount_minor: i64) -> (Progress, Filled) {
        let after = Progress {
            balance_minor: progress.balance_minor + amount_minor,
            day: progress.day,
            day_credited_minor: progress.day_credited_minor + amount_minor,
        };
        if after.balance_minor >= self.target_minor {
            return (after, Filled::Target);
        }
        match self.limited_day(progress.day) {
            Some(amount)
                if after.day_credited_minor >= amount || self.misfit(&after, None).is_some() =>
            {
                let next = Progress { day: after.day + 1, day_credited_minor: 0, ..after };
                (next, Filled::Day)
            }
            _ => (after, Filled::Nothing),
        }
    }
}

impl Denominations {
    /// The least amount that is taken.
    pub fn smallest_minor(&self) -> i64 {
        match self {
            Self::Any { smallest_minor, .. } => *smallest_minor,
            Self::MultiplesOf(base) => *base,
            Self::Fixed(amounts) => amounts.first().copied().unwrap_or(i64::MAX),
        }
    }

    /// The most that is taken; `None` where there is no end.
    pub fn largest_minor(&self) -> Option<i64> {
        match self {
            Self::Any { largest_minor, .. } => *largest_minor,
            Self::MultiplesOf(_) => None,
            Self::Fixed(amounts) => amounts.last().copied(),
        }
    }

    /// What every amount is a multiple of, where they are.
    pub fn step_minor(&self) -> Option<i64> {
        match self {
            Self::Any { .. } => None,
            Self::MultiplesOf(base) => Some(*base),
            Self::Fixed(amounts) => amounts.step_minor(),
        }
    }

    fn violation(&self) -> Option<String> {
        let in_bounds = |amount: &i64| (1..=MAX_AMOUNT_MINOR).contains(amount);
        match self {
            Self::Any { smallest_minor, largest_minor } => {
                let largest = largest_minor.unwrap_or(MAX_AMOUNT_MINOR);
                (!in_bounds(smallest_minor) || !in_bounds(&largest) || *smallest_minor > largest)
                    .then(|| "must go from more than 0 to at least as much".to_owned())
            }
            Self::MultiplesOf(base) => {
                (!in_bounds(base)).then(|| "must be multiples of more than 0".to_owned())
            }
            Self::Fixed(amounts) if amounts.is_empty() || amounts.len() > MAX_FIXED => {
                Some(format!("must be 1 to {MAX_FIXED} fixed amounts"))
            }
            Self::Fixed(amounts) if !amounts.iter().all(in_bounds) => {
                Some("must each be more than 0".to_owned())
            }
            Self::Fixed(amounts) if !amounts.is_sorted_by(|a, b| a < b) => {
                Some("must each be there once".to_owned())
            }
            Self::Fixed(_) => {
                let steps = self.smallest_minor() / self.step_minor().unwrap_or(1);
                (steps > MAX_STEPS).then(|| {
                    format!(
                        "must have more in common: the least of them is {steps} times what all are \
                         multiples of, and may be {MAX_STEPS} times"
                    )
                })
            }
        }
    }

    /// Whether a card of this amount is taken at all.
    fn take(&self, amount: i64) -> bool {
        match self {
            Self::Any { smallest_minor, largest_minor } => {
                amount >= *smallest_minor && largest_minor.is_none_or(|largest| amount <= largest)
            }
            Self::MultiplesOf(base) => amount > 0 && amount % base == 0,
            Self::Fixed(amounts) => amounts.binary_search(&amount).is_ok(),
        }
    }

    /// Whether amounts that are taken can add up to this one.
    fn fills(&self, amount: i64) -> bool {
        match self {
            _ if amount == 0 => true,
            Self::Any { smallest_minor, largest_minor: None } => amount >= *smallest_minor,
            Self::Any { smallest_minor, largest_minor: Some(largest) } => {
                // So few cards can bring it; if they cannot be so small, more of them cannot either.
                let cards = amount / largest + i64::from(amount % largest > 0);
                cards * smallest_minor <= amount
            }
            Self::MultiplesOf(base) => amount % base == 0,
            Self::Fixed(amounts) => amounts.add_up_to(amount),
        }
    }

    /// Whether a card that is taken fits into `room` and leaves of `remaining` what can be filled.
    fn some_fits(&self, remaining: i64, room: i64) -> bool {
        let smallest = self.smallest_minor();
        if room < smallest {
            return false;
        }
        match self {
            Self::MultiplesOf(base) => remaining % base == 0,
            Self::Fixed(amounts) => amounts
                .iter()
                .take_while(|amount| **amount <= room)
                .any(|amount| self.fills(remaining - amount)),
            Self::Any { largest_minor, .. } => {
                let most = min(room, largest_minor.unwrap_or(room));
                if remaining <= most {
                    return true;
                }
                // After one card of at most `most`, some number of cards must still reach the rest.
                let more = match largest_minor {
                    None => 1,
                    Some(largest) => (remaining - most + largest - 1) / largest,
                };
                (1 + more) * smallest <= remaining
            }
        }
    }
}

#[cfg(test)]
mod tests;
