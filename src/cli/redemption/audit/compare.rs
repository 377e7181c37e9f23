//! One side's record of a redemption beside the other's: pure, so that every way to differ is tested.

use std::{collections::HashSet, fmt, sync::Arc};

/// What a side says of a redemption: the first six are ours, the last five the provider's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum State {
    /// Being sent.
    Submitted,
    /// The outcome is being found out.
    InDoubt,
    /// A person decides; the amount, where there is one, is what the provider credited, by its answer.
    NeedsReview,
    /// It was credited, and taken back since.
    Reversed,
    /// The card was credited.
    Succeeded,
    /// The card was not credited.
    Failed,
    /// The card was not credited, and will not be; or it was, and was taken back.
    Cancelled,
    /// The provider is at work on it.
    Processing,
    /// A word that the contract does not have.
    Unknown,
}

impl State {
    /// Whether the card was not credited, for certain.
    pub(in crate::cli) fn is_not_credited(self) -> bool {
        matches!(self, Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Submitted => "SUBMITTED",
            Self::InDoubt => "IN_DOUBT",
            Self::NeedsReview => "NEEDS_REVIEW",
            Self::Reversed => "REVERSED",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Processing => "PROCESSING",
            Self::Unknown => "UNKNOWN",
        })
    }
}

/// One side's record of a redemption. There may be millions of them: texts that many of them share
/// are [`Names`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Record {
    /// What became of it.
    pub(in crate::cli) state: State,
    /// The account; empty where it is not known (a key that was cancelled before it arrived).
    pub(in crate::cli) account: Arc<str>,
    /// What was credited, in minor units, as far as it is known.
    pub(in crate::cli) amount_minor: Option<i64>,
    /// The amount's currency; empty where there is none.
    pub(in crate::cli) currency_code: Arc<str>,
    /// The provider's own name for it; `None` where the other's need not be the same.
    pub(in crate::cli) provider_ref: Option<Box<str>>,
}

impl Record {
    /// What was credited by this record: its currency and amount.
    pub(in crate::cli) fn credited(&self) -> Option<(&str, i64)> {
        let credited = matches!(self.state, State::Succeeded | State::NeedsReview);
        let amount_minor = self.amount_minor.filter(|_| credited)?;
        Some((&self.currency_code, amount_minor))
    }

    fn is_open(&self) -> bool {
        match self.state {
            State::Submitted | State::InDoubt | State::Processing | State::Unknown => true,
            State::NeedsReview => self.amount_minor.is_none(),
            State::Reversed | State::Succeeded | State::Failed | State::Cancelled => false,
        }
    }
}

/// Texts, each kept once.
#[derive(Debug, Default)]
pub(in crate::cli) struct Names(HashSet<Arc<str>>);

impl Names {
    /// The text, shared with all who gave the same.
    pub(in crate::cli) fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.0.get(text) {
            return Arc::clone(shared);
        }
        let new: Arc<str> = text.into();
        self.0.insert(Arc::clone(&new));
        new
    }
}

/// How the sides differ about a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) enum Difference {
    /// The provider has it, and we do not.
    MissingHere,
    /// We say that it was credited; the provider has never heard of it.
    MissingAtProvider,
    /// We do not know its outcome yet.
    OpenHere,
    /// One says credited, the other does not, or does not know.
    State,
    /// Different accounts.
    Account,
    /// Both say credited, in different currencies.
    Currency,
    /// Both say credited, but not the same amount.
    Amount,
    /// Both say credited, under different names of the provider's.
    ProviderRef,
    /// The provider says twice, in different words, that it was credited.
    CreditedTwice,
}

impl Difference {
    /// As it is printed for programs.
    pub(in crate::cli) fn name(self) -> &'static str {
        match self {
            Self::MissingHere => "MISSING_HERE",
            Self::MissingAtProvider => "MISSING_AT_PROVIDER",
            Self::OpenHere => "OPEN_HERE",
            Self::State => "STATE",
            Self::Account => "ACCOUNT",
            Self::Currency => "CURRENCY",
            Self::Amount => "AMOUNT",
            Self::ProviderRef => "PROVIDER_REF",
            Self::CreditedTwice => "CREDITED_TWICE",
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingHere => "missing in our records",
            Self::MissingAtProvider => "missing at the provider",
            Self::OpenHere => "open in our records",
            Self::State => "the states differ",
            Self::Account => "the accounts differ",
            Self::Currency => "the currencies differ",
            Self::Amount => "the amounts differ",
            Self::ProviderRef => "the provider's names for it differ",
            Self::CreditedTwice => "credited twice at the provider",
        })
    }
}

/// How our record of a redemption differs from the provider's, which may have none.
pub(in crate::cli) fn differences(ours: &Record, provider: Option<&Record>) -> Vec<Difference> {
    if ours.is_open() {
        return vec![Difference::OpenHere];
    }
    let Some(provider) = provider else {
        return match ours.credited() {
            Some(_) => vec![Difference::MissingAtProvider],
            // Never sent: the provider could not be reached.
            None => Vec::new(),
        };
    };
    let agreed = match ours.state {
        State::Succeeded | State::NeedsReview => provider.state == State::Succeeded,
        _ => provider.state.is_not_credited(),
    };
    if !agreed {
        return vec![Difference::State];
    }
    let mut found = Vec::new();
    // Under review because of the account: then a person compares it with the provider's own amount.
    let same_account = provider.account.is_empty() || ours.account == provider.account;
    if ours.state != State::NeedsReview && !same_account {
        found.push(Difference::Account);
    }
    if provider.state == State::Succeeded {
        if ours.currency_code != provider.currency_code {
            found.push(Difference::Currency);
        } else if ours.amount_minor != provider.amount_minor {
            found.push(Difference::Amount);
        }
        if !same_ref(ours.provider_ref.as_deref(), provider.provider_ref.as_deref()) {
            found.push(Difference::ProviderRef);
        }
    }
    found
}

/// Whether two texts may be the same name. Ours is kept without control characters and spaces around
/// it; where `…` stands for what was left out of it (a card's code, or too long an end) it tells
/// nothing.
fn same_ref(ours: Option<&str>, provider: Option<&str>) -> bool {
    let Some(ours) = ours.filter(|ours| !ours.contains('…')) else { return true };
    let provider = provider.unwrap_or_default();
    let kept: String = provider.chars().filter(|c| !c.is_control()).collect();
    ours == kept.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [State; 6] = [
        State::Submitted,
        State::InDoubt,
        State::NeedsReview,
        State::Reversed,
        State::Succeeded,
        State::Failed,
    ];
    const PROVIDERS: [State; 5] =
        [State::Succeeded, State::Failed, State::Cancelled, State::Processing, State::Unknown];

    fn record(state: State) -> Record {
        Record {
            state,
            account: "a".into(),
            amount_minor: Some(5),
            currency_code: "EUR".into(),
            provider_ref: Some("ref-1".into()),
        }
    }

    fn credited(change: impl FnOnce(&mut Record)) -> Record {
        let mut record = record(State::Succeeded);
        change(&mut record);
        record
    }

    /// What is found when the provider's record is changed so, and when ours is.
    fn both_ways(change: fn(&mut Record)) -> [Vec<Difference>; 2] {
        let (plain, changed) = (credited(|_| {}), credited(change));
        [differences(&plain, Some(&changed)), differences(&changed, Some(&plain))]
    }

    #[test]
    fn every_state_beside_every_other() {
        for ours in OURS {
            for provider in PROVIDERS {
                let expected = match (ours, provider) {
                    (State::Submitted | State::InDoubt, _) => vec![Difference::OpenHere],
                    (State::Succeeded | State::NeedsReview, State::Succeeded)
                    | (State::Failed | State::Reversed, State::Failed | State::Cancelled) => vec![],
                    _ => vec![Difference::State],
                };
                let found = differences(&record(ours), Some(&record(provider)));
                assert_eq!(found, expected, "{ours} {provider}");
            }
        }
    }

    #[test]
    fn what_the_provider_lacks_is_found_where_we_say_that_it_was_credited() {
        for (ours, expected) in [
            (State::Succeeded, vec![Difference::MissingAtProvider]),
            (State::NeedsReview, vec![Difference::MissingAtProvider]),
            (State::Failed, vec![]),
            (State::Reversed, vec![]),
            (State::InDoubt, vec![Difference::OpenHere]),
            (State::Submitted, vec![Difference::OpenHere]),
        ] {
            assert_eq!(differences(&record(ours), None), expected, "{ours}");
        }
    }

    #[test]
    fn a_review_without_an_amount_is_open() {
        let review = Record { amount_minor: None, ..record(State::NeedsReview) };
        assert_eq!(differences(&review, None), [Difference::OpenHere]);
        assert_eq!(differences(&review, Some(&record(State::Succeeded))), [Difference::OpenHere]);
        assert_eq!(review.credited(), None);
    }

    #[test]
    fn accounts_currencies_amounts_and_names_that_differ_are_found_either_way() {
        let found = both_ways(|it| it.account = "b".into());
        assert_eq!(found, [[Difference::Account], [Difference::Account]]);
        let found = both_ways(|it| it.currency_code = "USD".into());
        assert_eq!(found, [[Difference::Currency], [Difference::Currency]]);
        let found = both_ways(|it| it.amount_minor = Some(6));
        assert_eq!(found, [[Difference::Amount], [Difference::Amount]]);
        let found = both_ways(|it| it.provider_ref = Some("ref-2".into()));
        assert_eq!(found, [[Difference::ProviderRef], [Difference::ProviderRef]]);
        let all = both_ways(|it| {
            it.account = "b".into();
            it.amount_minor = Some(6);
            it.provider_ref = Some("".into());
        });
        let named = [Difference::Account, Difference::Amount, Difference::ProviderRef];
        assert_eq!(all, [named, named]);
    }

    #[test]
    fn an_amount_that_the_provider_does_not_tell_is_another_amount() {
        let untold = credited(|it| it.amount_minor = None);
        assert_eq!(differences(&record(State::Succeeded), Some(&untold)), [Difference::Amount]);
    }

    #[test]
    fn what_is_not_known_is_no_difference() {
        let tombstone = Record { account: "".into(), ..record(State::Cancelled) };
        assert_eq!(differences(&record(State::Failed), Some(&tombstone)), []);
        let elsewhere = Record { account: "b".into(), ..record(State::Failed) };
        assert_eq!(differences(&record(State::Failed), Some(&elsewhere)), [Difference::Account]);
        // A person closed it, and named nothing.
        let unnamed = credited(|it| it.provider_ref = None);
        assert_eq!(differences(&unnamed, Some(&record(State::Succeeded))), []);
        // The amount and the name of what was not credited tell nothing.
        let refused = Record {
            amount_minor: Some(0),
            currency_code: "".into(),
            provider_ref: None,
            ..record(State::Failed)
        };
        assert_eq!(differences(&record(State::Failed), Some(&refused)), []);
    }

    #[test]
    fn a_review_of_the_account_agrees_with_whichever_was_credited_but_not_with_another_amount() {
        let review = record(State::NeedsReview);
        let elsewhere = credited(|it| it.account = "b".into());
        assert_eq!(differences(&review, Some(&elsewhere)), []);
        let more = credited(|it| it.amount_minor = Some(6));
        assert_eq!(differences(&review, Some(&more)), [Difference::Amount]);
    }

    #[test]
    fn a_name_is_compared_as_it_is_kept() {
        let same = |ours: &str, provider: &str| same_ref(Some(ours), Some(provider));
        assert!(same("ref 1", " ref\u{0} 1\n") && same("…", "the code") && same("ref…", "ref-1"));
        assert!(!same("ref 1", "ref 2") && !same("", "ref 2") && !same("ref 1", ""));
        assert!(same_ref(None, Some("x")) && same_ref(Some(""), None));
    }

    #[test]
    fn only_what_was_credited_adds_up() {
        let sum = |state| record(state).credited().map(|(_, amount)| amount);
        assert_eq!(sum(State::Succeeded), Some(5));
        assert_eq!(sum(State::NeedsReview), Some(5));
        for state in
            [State::Reversed, State::Failed, State::Cancelled, State::Processing, State::InDoubt]
        {
            assert_eq!(sum(state), None, "{state}");
        }
    }
}
