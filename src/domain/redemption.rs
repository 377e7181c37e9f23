//! A redemption's states, and what can be known of its outcome.
//!
//! ```text
//!  SUBMITTED ──▶ IN_DOUBT ──▶ NEEDS_REVIEW       open: the account stays locked
//!      │             │              │
//!      └─────────────┴──────┬───────┘
//!                           ▼
//!                 SUCCEEDED | FAILED             settled: never changes again
//! ```
//!
//! Doubt is sticky: only evidence about this redemption's own key ends it, never its age.

use std::{fmt, time::Duration};

use secrecy::{ExposeSecret, SecretString};

use super::{
    id::{AccountId, InvalidId, RedemptionId},
    money::{Currency, Money},
};

/// What is known of a redemption's outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RedemptionState {
    /// Recorded, and being sent.
    Submitted,
    /// The provider may or may not have acted; the reconciler finds out.
    InDoubt,
    /// What the provider says does not fit; a person decides.
    NeedsReview,
    /// The provider credited the card.
    Succeeded,
    /// The provider did not credit the card.
    Failed,
}

impl RedemptionState {
    /// Every state.
    pub const ALL: [Self; 5] =
        [Self::Submitted, Self::InDoubt, Self::NeedsReview, Self::Succeeded, Self::Failed];

    /// As the database has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submitted => "SUBMITTED",
            Self::InDoubt => "IN_DOUBT",
            Self::NeedsReview => "NEEDS_REVIEW",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
        }
    }

    /// Reads what the database has.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// Whether the outcome is not known: the account stays locked.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Submitted | Self::InDoubt | Self::NeedsReview)
    }
}

/// A card's code. Never printed: its `Debug` is a placeholder, it has no `Display`, and its memory
/// is wiped when it is dropped.
#[derive(Clone)]
pub struct CardCode(SecretString);

impl CardCode {
    /// Reads a code: 4 to 128 printable ASCII characters, without the spaces around it. At least 4 of them must be
    /// other than spaces and hyphens, which a fingerprint ignores.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        let text = text.trim_matches(' ');
        let significant = text.bytes().filter(|b| !matches!(b, b' ' | b'-')).count();
        if text.len() <= 128 && significant >= 4 && text.bytes().all(|b| (b' '..=b'~').contains(&b))
        {
            Ok(Self(text.into()))
        } else {
            Err(InvalidId(
                "must be 4 to 128 printable ASCII characters, 4 of them other than ' ' and '-'",
            ))
        }
    }

    /// The code as it is sent to the provider. For the wire and the cipher alone.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What the fingerprint is made of: people write the same code with and without spaces and
    /// hyphens, and in both cases.
    pub fn normalised(&self) -> SecretString {
        let text: String = self
            .expose()
            .chars()
            .filter(|c| !matches!(c, ' ' | '-'))
            .map(|c| c.to_ascii_uppercase())
            .collect();
        text.into()
    }

    /// The last four characters, for people who hold the card; nothing of a code so short that
    /// four characters would give half of it away.
    pub fn last4(&self) -> &str {
        let code = self.expose();
        if code.len() >= 8 { &code[code.len() - 4..] } else { "" }
    }
}

impl fmt::Debug for CardCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CardCode(…)")
    }
}

/// What the provider is asked to do. The same redemption is always asked for with the same bytes.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The idempotency key.
    pub redemption_id: RedemptionId,
    /// The card.
    pub code: CardCode,
    /// The account to credit.
    pub account_id: AccountId,
    /// The amount that the card should be worth.
    pub expected: Option<Money>,
    /// The pool's currency.
    pub currency: Currency,
    /// The provider is not to begin after this time: RFC 3339, by the database's clock.
    pub not_after: String,
}

/// Definite knowledge about a redemption: what settling it records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The provider credited the card.
    Succeeded {
        /// What was credited.
        amount: Money,
        /// The provider's own name for it.
        provider_ref: String,
    },
    /// The provider did not credit the card, and will not.
    Failed(Failure),
    /// The provider acted, but not as it was asked: a person decides.
    NeedsReview {
        /// What does not fit.
        failure: Failure,
        /// What the provider says that it credited, if it can be read.
        amount: Option<Money>,
        /// The provider's own name for it.
        provider_ref: String,
    },
}

/// Why a redemption failed or needs review.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The provider's failure code, or one of [`reason`].
    pub reason: String,
    /// For a person. Never contains the card's code.
    pub message: String,
    /// Whether trying the code elsewhere is no use.
    pub code_spent: bool,
}

/// The reasons of failures that are Holdfast's own words, not the provider's.
pub mod reason {
    /// No request ever left: DNS, refused, TLS or connect timeout.
    pub const PROVIDER_UNREACHABLE: &str = "PROVIDER_UNREACHABLE";
    /// By every answer nothing was executed, until the time to send was over.
    pub const PROVIDER_BUSY: &str = "PROVIDER_BUSY";
    /// Cancelled by its key at the provider, before it was executed.
    pub const CANCELLED: &str = "CANCELLED";
    /// The provider credited another account than the one asked for.
    pub const ACCOUNT_MISMATCH: &str = "ACCOUNT_MISMATCH";
    /// The provider credited in another currency than the one asked for.
    pub const CURRENCY_MISMATCH: &str = "CURRENCY_MISMATCH";
    /// The provider credited another amount than the one expected, and the pool wants a person to review it.
    pub const AMOUNT_MISMATCH: &str = "AMOUNT_MISMATCH";
    /// The provider does not have it, asked when it could no longer come to have it.
    pub const NOT_EXECUTED: &str = "NOT_EXECUTED";
    /// The code was redeemed before this redemption was recorded: by whom is for a person to find out.
    pub const REDEEMED_BEFORE: &str = "REDEEMED_BEFORE";
    /// The provider's profile sends a value that the redemption does not have: nothing was sent.
    pub const VALUE_MISSING: &str = "VALUE_MISSING";
    /// The provider's profile sends a value that cannot stand where it is to be sent: nothing was sent.
    pub const VALUE_UNUSABLE: &str = "VALUE_UNUSABLE";
    /// Nothing that can be asked of the provider tells the outcome. Or the stored code can no longer be read, so
    /// that nothing can be asked.
    pub const UNRESOLVED: &str = "UNRESOLVED";
    /// A failure code of the provider's contract: the account's login was refused.
    pub const ACCOUNT_LOGIN_INVALID: &str = "ACCOUNT_LOGIN_INVALID";
}

/// What an answer of the provider calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The outcome is known: record it.
    Settle(Verdict),
    /// Nothing was executed, for certain: send again with the same key, after a while.
    SendAgain {
        /// The failure to record when the time to send is over.
        failure: Failure,
        /// How long the provider asked to wait.
        after: Option<Duration>,
    },
    /// The provider is at work on it: look it up by its key, after a while.
    LookUp {
        /// How long the provider asked to wait.
        after: Option<Duration>,
        /// What was answered, for people.
        answer: String,
    },
    /// The provider is busy, and did nothing about this call; earlier ones may have been executed.
    Busy {
        /// How long the provider asked to wait.
        after: Option<Duration>,
        /// What was answered, for people.
        answer: String,
    },
    /// An answer to the first send that may be to another request: it is in doubt, and looked up by its
    /// key at once.
    Unproven {
        /// What was answered, for people.
        answer: String,
    },
    /// The provider has never seen the key. Not proof: the request may still be on its way.
    NotFound,
    /// The provider may or may not have acted.
    InDoubt {
        /// What was answered, for people. Never contains the card's code.
        answer: String,
    },
}

/// How often in a row the provider must not know a key before more is done than a look-up. The first request may
/// still be on its way.
const CHECKS_BEFORE_MORE: i32 = 2;

/// What a provider can do for a redemption in doubt, as an operator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The same key counts once, however often it is sent.
    pub deduplicates: bool,
    /// It tells what became of a key.
    pub looks_up: bool,
    /// It cancels a key, also one that it has never seen: a later arrival is refused.
    pub cancels: bool,
    /// How long after a key was first seen it still counts once.
    pub key_retention: Duration,
    /// How long after a request arrived a look-up may still not find its key.
    pub visibility_horizon: Duration,
    /// The longest that it is at work on a redemption.
    pub max_processing_time: Duration,
}

/// A redemption in doubt, as far as it decides what is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubtful {
    /// Since it was recorded, by the database's clock: it was not sent before that.
    pub age: Duration,
    /// How long what is decided now may take to be done.
    pub lead_time: Duration,
    /// How often in a row a look-up did not find the key, this time included.
    pub not_found: i32,
    /// The provider may not begin it any more.
    pub not_after_passed: bool,
}

/// What to do about a redemption in doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask what became of the key.
    LookUp,
    /// Nothing for now; check once more, later.
    Wait,
    /// Send the same bytes under the same key: whether or not the first arrived, it counts once.
    SendAgain,
    /// Cancel the key, so that nothing can happen under it any more.
    Cancel,
    /// Nothing more can be found out: a person has to review.
    Review,
}

impl Capabilities {
    /// The action to begin with.
    pub fn first_action(&self, doubtful: &Doubtful) -> Action {
        if self.looks_up { Action::LookUp } else { self.without_look_up(doubtful) }
    }

    /// The action after a look-up that did not find the key.
    pub fn action_after_not_found(&self, doubtful: &Doubtful) -> Action {
        let may_be_on_its_way =
            doubtful.not_found <= CHECKS_BEFORE_MORE || doubtful.age < self.visibility_horizon;
        if may_be_on_its_way { Action::Wait } else { self.without_look_up(doubtful) }
    }

    /// The action when the provider has been at work on it for this long.
    pub fn action_after_processing(&self, doubtful: &Doubtful) -> Action {
        if doubtful.age < self.max_processing_time {
            Action::Wait
        } else if self.cancels {
            Action::Cancel
        } else if doubtful.age < self.max_processing_time.saturating_mul(2) {
            Action::Wait
        } else {
            Action::Review
        }
    }

    /// The action after a cancellation that was refused because the key is at work or has succeeded.
    pub fn action_after_vain_cancel(&self, doubtful: &Doubtful) -> Action {
        // The next look-up tells which, where there are look-ups; but not for ever.
        let has_had_its_time = doubtful.age >= self.max_processing_time.saturating_mul(4);
        if !self.looks_up || has_had_its_time { Action::Review } else { Action::Wait }
    }

    /// The action where look-ups do not help.
    fn without_look_up(&self, doubtful: &Doubtful) -> Action {
        let remembered =
            self.deduplicates && doubtful.age + doubtful.lead_time < self.key_retention;
        // Past its time it would be refused, which is an outcome too, where there is no better one.
        if remembered && !(doubtful.not_after_passed && self.cancels) {
            Action::SendAgain
        } else if self.cancels {
            Action::Cancel
        } else if self.looks_up && doubtful.age < self.max_processing_time {
            // A request that is slow to arrive would be found in the end.
            Action::Wait
        } else {
            Action::Review
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_never_prints() {
        let code = CardCode::parse("SECRET-CODE-1234").unwrap();
        assert!(!format!("{code:?}").contains("SECRET"));
    }

    #[test]
    fn codes_are_bounded_and_printable() {
        for bad in
            ["", "abc", "   ", "----", "a - b - c", "ab\tcd", "abcé", "ab\ncd", &"x".repeat(129)]
        {
            assert!(CardCode::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(CardCode::parse("  AB-12  ").unwrap().expose(), "AB-12");
    }

    #[test]
    fn writing_a_code_differently_does_not_change_its_fingerprint() {
        let normal = |text| CardCode::parse(text).unwrap().normalised().expose_secret().to_owned();
        assert_eq!(normal("ab12-cd34 ef"), normal("AB12CD34EF"));
        assert_ne!(normal("AB12CD34EF"), normal("AB12CD34EG"));
    }

    #[test]
    fn four_characters_are_shown_only_of_a_longer_code() {
        assert_eq!(CardCode::parse("ABCD-1234").unwrap().last4(), "1234");
        assert_eq!(CardCode::parse("ABC1234").unwrap().last4(), "");
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn able(deduplicates: bool, looks_up: bool, cancels: bool) -> Capabilities {
        Capabilities {
            deduplicates,
            looks_up,
            cancels,
            key_retention: SECOND * 1000,
            visibility_horizon: SECOND * 5,
            max_processing_time: SECOND * 60,
        }
    }

    fn doubtful(age: u32, not_found: i32) -> Doubtful {
        Doubtful {
            age: SECOND * age,
            lead_time: SECOND * 10,
            not_found,
            not_after_passed: age >= 500,
        }
    }

    #[test]
    fn a_key_that_is_not_found_is_looked_for_past_the_horizon_before_more_is_done() {
        let provider = able(true, true, true);
        assert_eq!(provider.first_action(&doubtful(9, 0)), Action::LookUp);
        assert_eq!(provider.action_after_not_found(&doubtful(9, 1)), Action::Wait, "once only");
        assert_eq!(provider.action_after_not_found(&doubtful(4, 9)), Action::Wait, "too early");
        assert_eq!(provider.action_after_not_found(&doubtful(5, 3)), Action::SendAgain);
    }

    #[test]
    fn a_key_is_sent_again_while_it_is_remembered_and_cancelled_after() {
        let provider = able(true, true, true);
        assert_eq!(provider.action_after_not_found(&doubtful(499, 3)), Action::SendAgain);
        assert_eq!(provider.action_after_not_found(&doubtful(500, 3)), Action::Cancel);
        let without_cancel = able(true, true, false);
        assert_eq!(without_cancel.action_after_not_found(&doubtful(989, 3)), Action::SendAgain);
        assert_eq!(without_cancel.action_after_not_found(&doubtful(990, 3)), Action::Review);
    }

    #[test]
    fn what_a_provider_cannot_do_is_never_asked_of_it() {
        for bits in 0..8u8 {
            let provider = able(bits & 1 > 0, bits & 2 > 0, bits & 4 > 0);
            for age in [0, 4, 5, 59, 60, 119, 120, 499, 500, 989, 990, 5000] {
                for not_found in 0..5 {
                    let doubtful = doubtful(age, not_found);
                    for action in [
                        provider.first_action(&doubtful),
                        provider.action_after_not_found(&doubtful),
                        provider.action_after_processing(&doubtful),
                    ] {
                        let able = match action {
                            Action::LookUp => provider.looks_up,
                            Action::SendAgain => provider.deduplicates && age < 990,
                            Action::Cancel => provider.cancels,
                            Action::Wait => true,
                            Action::Review => !provider.cancels,
                        };
                        assert!(able, "{provider:?} {doubtful:?} {action:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn where_nothing_helps_a_person_looks_at_the_latest_after_twice_the_longest_processing() {
        assert_eq!(able(false, false, false).first_action(&doubtful(0, 0)), Action::Review);
        let looks_up = able(false, true, false);
        assert_eq!(looks_up.action_after_not_found(&doubtful(59, 9)), Action::Wait);
        assert_eq!(looks_up.action_after_not_found(&doubtful(60, 9)), Action::Review);
        let cancels = able(false, true, true);
        assert_eq!(cancels.action_after_vain_cancel(&doubtful(239, 0)), Action::Wait);
        assert_eq!(cancels.action_after_vain_cancel(&doubtful(240, 0)), Action::Review);
        let blind = able(false, false, true);
        assert_eq!(blind.action_after_vain_cancel(&doubtful(0, 0)), Action::Review);
        assert_eq!(looks_up.action_after_processing(&doubtful(119, 0)), Action::Wait);
        assert_eq!(looks_up.action_after_processing(&doubtful(120, 0)), Action::Review);
    }
}
