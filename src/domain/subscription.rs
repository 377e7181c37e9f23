//! Subscriptions: outcomes, sent to a URL; and what a receiver's answer means.

pub mod backlog;
pub mod verdict;

use std::{fmt, time::Duration};

use time::OffsetDateTime;

use super::{
    id::{AccountId, InvalidId, PoolId, RedemptionId, SubscriptionId},
    outcomes::Mark,
    redemption::RedemptionState,
};

/// The most subscriptions of one pool.
pub const MAX_SUBSCRIPTIONS: u32 = 20;
/// The longest URL, in bytes.
pub const MAX_URL: usize = 2048;
/// The longest time for which two secrets sign.
pub const MAX_OVERLAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// For how long they do when nothing else is said.
pub const OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

/// What a person decides of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Where outcomes are sent.
    pub url: String,
    /// The URL may be plain http to another machine.
    pub allow_plain: bool,
    /// Only outcomes of these states; all when empty.
    pub states: Vec<RedemptionState>,
    /// Nothing is sent.
    pub paused: bool,
}

/// What to change of a subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionChange {
    /// See [`Terms`].
    pub url: Option<String>,
    /// See [`Terms`].
    pub allow_plain: Option<bool>,
    /// See [`Terms`].
    pub states: Option<Vec<RedemptionState>>,
    /// See [`Terms`].
    pub paused: Option<bool>,
}

impl SubscriptionChange {
    /// The terms as they are with the change.
    pub fn apply(self, terms: &Terms) -> Terms {
        Terms {
            url: self.url.unwrap_or_else(|| terms.url.clone()),
            allow_plain: self.allow_plain.unwrap_or(terms.allow_plain),
            states: self.states.unwrap_or_else(|| terms.states.clone()),
            paused: self.paused.unwrap_or(terms.paused),
        }
    }
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Its pool.
    pub pool_id: PoolId,
    /// Its name there.
    pub subscription_id: SubscriptionId,
    /// What was decided of it.
    pub terms: Terms,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: OffsetDateTime,
    /// When it was changed last.
    pub updated_at: OffsetDateTime,
    /// Until when the secret before the last one signs too.
    pub secret_before_end: Option<OffsetDateTime>,
    /// Since when its receiver takes nothing.
    pub failing_since: Option<OffsetDateTime>,
    /// When that is tried next.
    pub next_try_at: Option<OffsetDateTime>,
    /// What was wrong, in plain words; empty while nothing is.
    pub last_error: String,
}

/// How many deliveries of a subscription were not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NotTaken {
    /// Those that are tried again, or wait behind one.
    pub retrying: i64,
    /// Those that were given up.
    pub dead: i64,
}

/// The name of one outcome's delivery: the same at every try. Made of where the outcome stands, so that names compare as
/// texts in the outcomes' order.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId(String);

/// How every one begins.
const START: &str = "out_";
/// System, timeline, transaction and number, in hex.
const DIGITS: usize = 16 + 8 + 16 + 8;

impl DeliveryId {
    /// The name of an outcome's delivery.
    pub fn of(mark: Mark) -> Self {
        let Mark { era, xid, number } = mark;
        let (system, timeline) = (era.system_id, era.timeline);
        Self(format!("{START}{system:016x}{timeline:08x}{xid:016x}{number:08x}"))
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let digits = text.strip_prefix(START).filter(|digits| digits.len() == DIGITS);
        let is_hex = |c: char| matches!(c, '0'..='9' | 'a'..='f');
        match digits {
            Some(digits) if digits.chars().all(is_hex) => Ok(Self(text.to_owned())),
            _ => Err(InvalidId(
                "must be a delivery_id that ListDeliveries told, or a header webhook-id",
            )),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A delivery that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its name.
    pub delivery_id: DeliveryId,
    /// The redemption whose outcome it is.
    pub redemption_id: RedemptionId,
    /// Its account.
    pub account_id: AccountId,
    /// How often it was tried.
    pub attempts: i32,
    /// What was wrong the last time; empty where it was not tried.
    pub last_error: String,
    /// When it was kept.
    pub created_at: OffsetDateTime,
    /// When it was tried last.
    pub last_try_at: Option<OffsetDateTime>,
    /// When it is tried next.
    pub next_try_at: Option<OffsetDateTime>,
    /// When it was given up.
    pub dead_at: Option<OffsetDateTime>,
}

/// The pauses between tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pauses {
    /// After the first failure.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
    /// After so long a delivery is given up.
    pub give_up: Duration,
}

impl Pauses {
    /// The longest pause between two tries of a receiver that takes nothing.
    const OF_RECEIVER: Duration = Duration::from_secs(60);

    /// The pause after so many failures of one delivery; at least as long as the receiver asked for.
    pub fn after(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20));
        doubled.max(asked.unwrap_or_default()).min(self.longest)
    }

    /// The pause after so many failures of a receiver that takes nothing. It is short, so that what waits for it does not
    /// wait long when it is back.
    pub fn of_receiver(&self, failures: u32, asked: Option<Duration>) -> Duration {
        let pause = self.after(failures, None).min(Self::OF_RECEIVER);
        pause.max(asked.unwrap_or_default()).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::outcomes::Era;

    #[test]
    fn names_of_deliveries_compare_as_the_outcomes_stand() {
        let mark = |system_id, timeline, xid, number| Mark {
            era: Era { system_id, timeline },
            xid,
            number,
        };
        let marks = [
            mark(7, 1, 9, 0),
            mark(7, 1, 9, 1),
            mark(7, 1, 10, 0),
            mark(7, 1, 4_000_000_000, 3),
            mark(7, 2, 1, 0),
            mark(7_301_234_567_890_123_456, 1, 1, 0),
        ];
        let names: Vec<_> = marks.iter().map(|mark| DeliveryId::of(*mark)).collect();
        assert!(names.is_sorted());
        for name in &names {
            assert_eq!(DeliveryId::parse(name.as_str()).as_ref(), Ok(name));
        }
        for bad in ["", "out_", "out_00", &names[0].as_str().to_uppercase(), "out_é"] {
            assert!(DeliveryId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pauses_grow_to_a_bound_and_are_as_long_as_was_asked_for() {
        let seconds = Duration::from_secs;
        let pauses = Pauses { first: seconds(5), longest: seconds(3600), give_up: seconds(1) };
        let grown: Vec<_> = (1..=12).map(|n| pauses.after(n, None).as_secs()).collect();
        assert_eq!(grown, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]);
        assert_eq!(pauses.after(u32::MAX, None), seconds(3600));
        assert_eq!(pauses.after(1, Some(seconds(30))), seconds(30));
        assert_eq!(pauses.after(1, Some(seconds(90_000))), seconds(3600), "but no longer");
        let of_receiver: Vec<_> = (1..=6).map(|n| pauses.of_receiver(n, None).as_secs()).collect();
        assert_eq!(of_receiver, [5, 10, 20, 40, 60, 60]);
        assert_eq!(pauses.of_receiver(1, Some(seconds(600))), seconds(600));
    }
}
