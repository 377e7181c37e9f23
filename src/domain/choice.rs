//! Choices: whether an acquisition would pick an account, or why not.

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

    /// As the database has it.
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

    /// Reads what the database has.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|choice| choice.as_str() == text)
    }
}
