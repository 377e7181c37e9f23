//! The provider's ledger beside our records: pure, so that every way to differ is tested.

use std::{collections::BTreeMap, fmt};

use super::world::AccountKey;

/// What one side says of a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The card was credited.
    Credited,
    /// The card was not credited, and will not be.
    NotCredited,
    /// A person decides; the amount is what the provider said that it credited. Ours alone.
    Review,
    /// Not known, or not done yet.
    Open,
}

/// One side's record of a redemption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The redemption's id, which is the provider's idempotency key.
    pub(super) key: String,
    /// The pool. Ours alone.
    pub(super) pool_id: String,
    /// What became of it.
    pub(super) state: State,
    /// The account; empty where it is not known (a key that was cancelled before it arrived).
    pub(super) account: String,
    /// What was credited, in minor units.
    pub(super) amount_minor: i64,
    /// The amount's currency.
    pub(super) currency_code: String,
}

/// How the sides differ about a redemption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// We say that it was credited; the provider has never heard of it.
    MissingAtProvider,
    /// The provider has it, and we do not.
    MissingWithUs,
    /// One says credited, the other does not, or does not know.
    State,
    /// Different accounts.
    Account,
    /// Both say credited, but not the same amount.
    Amount,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MissingAtProvider => "missing at the provider",
            Self::MissingWithUs => "missing in our records",
            Self::State => "the states differ",
            Self::Account => "the accounts differ",
            Self::Amount => "the amounts differ",
        })
    }
}

/// Every redemption about which the two sides differ, by its key.
pub(super) fn compare(ours: &[Entry], provider: &[Entry]) -> Vec<(String, Difference)> {
    let ours = by_key(ours);
    let provider = by_key(provider);
    let from_us = ours.iter().filter_map(|(key, entry)| {
        let difference = differs(entry, provider.get(key).copied())?;
        Some(((*key).to_owned(), difference))
    });
    let from_them = provider
        .keys()
        .filter(|key| !ours.contains_key(*key))
        .map(|key| ((*key).to_owned(), Difference::MissingWithUs));
    from_us.chain(from_them).collect()
}

fn by_key(entries: &[Entry]) -> BTreeMap<&str, &Entry> {
    entries.iter().map(|entry| (entry.key.as_str(), entry)).collect()
}

fn differs(ours: &Entry, provider: Option<&Entry>) -> Option<Difference> {
    let Some(provider) = provider else {
        return match ours.state {
            State::Credited | State::Review => Some(Difference::MissingAtProvider),
            State::Open => Some(Difference::State),
            // Never sent: the provider could not be reached.
            State::NotCredited => None,
        };
    };
    let agreed = match (ours.state, provider.state) {
        (State::Credited | State::Review, State::Credited) => true,
        (ours, theirs) => ours == theirs && ours != State::Open,
    };
    // Under review because of the account: then the provider's own is what a person looks at.
    let same_account = provider.account.is_empty() || ours.account == provider.account;
    if !agreed {
        Some(Difference::State)
    } else if ours.state != State::Review && !same_account {
        Some(Difference::Account)
    } else if provider.state == State::Credited && money(ours) != money(provider) {
        Some(Difference::Amount)
    } else {
        None
    }
}

fn money(entry: &Entry) -> (i64, &str) {
    (entry.amount_minor, &entry.currency_code)
}

/// An account whose balance did not change by what the provider credited to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SumDifference {
    /// The account.
    pub(super) account: AccountKey,
    /// The balance after less the balance before, in minor units.
    pub(super) change_minor: i64,
    /// The sum of the provider's credits, in minor units.
    pub(super) credited_minor: i64,
}

/// Every account whose balance changed by another amount than the provider's credits to it. What a
/// person has yet to decide about is on no balance, and is left out.
pub(super) fn compare_sums(
    changes: &BTreeMap<AccountKey, i64>,
    ours: &[Entry],
    provider: &[Entry],
) -> Vec<SumDifference> {
    let ours = by_key(ours);
    let mut credits: BTreeMap<AccountKey, i64> = BTreeMap::new();
    for credit in provider.iter().filter(|entry| entry.state == State::Credited) {
        let Some(record) = ours.get(credit.key.as_str()) else { continue };
        if record.state != State::Review {
            let account = (record.pool_id.clone(), credit.account.clone());
            *credits.entry(account).or_default() += credit.amount_minor;
        }
    }
    let mut accounts: Vec<&AccountKey> = changes.keys().chain(credits.keys()).collect();
    accounts.sort();
    accounts.dedup();
    accounts
        .into_iter()
        .map(|account| SumDifference {
            account: account.clone(),
            change_minor: changes.get(account).copied().unwrap_or_default(),
            credited_minor: credits.get(account).copied().unwrap_or_default(),
        })
        .filter(|it| it.change_minor != it.credited_minor)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, state: State, amount_minor: i64) -> Entry {
        Entry {
            key: key.into(),
            pool_id: "p".into(),
            state,
            account: "a".into(),
            amount_minor,
            currency_code: "EUR".into(),
        }
    }

    fn difference(ours: Option<Entry>, provider: Option<Entry>) -> Option<Difference> {
        let found = compare(ours.as_slice(), provider.as_slice());
        assert!(found.len() <= 1);
        found.first().map(|(_, difference)| *difference)
    }

    #[test]
    fn records_that_agree_do_not_differ() {
        for state in [State::Credited, State::NotCredited] {
            let side = || Some(entry("k", state, 5));
            assert_eq!(difference(side(), side()), None);
        }
        let review = Some(entry("k", State::Review, 5));
        assert_eq!(difference(review, Some(entry("k", State::Credited, 5))), None);
        // Never sent, or cancelled before it arrived: nobody knows an account there.
        let failed = || Some(entry("k", State::NotCredited, 0));
        assert_eq!(difference(failed(), None), None);
        let tombstone = Entry { account: String::new(), ..entry("k", State::NotCredited, 0) };
        assert_eq!(difference(failed(), Some(tombstone)), None);
    }

    #[test]
    fn what_one_side_lacks_is_found() {
        let credited = || Some(entry("k", State::Credited, 5));
        assert_eq!(difference(credited(), None), Some(Difference::MissingAtProvider));
        assert_eq!(difference(None, credited()), Some(Difference::MissingWithUs));
        let failed = Some(entry("k", State::NotCredited, 0));
        assert_eq!(difference(None, failed), Some(Difference::MissingWithUs));
        let review = Some(entry("k", State::Review, 5));
        assert_eq!(difference(review, None), Some(Difference::MissingAtProvider));
    }

    #[test]
    fn states_that_differ_are_found_and_not_knowing_is_a_difference() {
        let all = [State::Credited, State::NotCredited, State::Review, State::Open];
        for ours in all {
            for provider in [State::Credited, State::NotCredited, State::Open] {
                let agree = matches!(
                    (ours, provider),
                    (State::Credited | State::Review, State::Credited)
                        | (State::NotCredited, State::NotCredited)
                );
                let found = difference(Some(entry("k", ours, 5)), Some(entry("k", provider, 5)));
                let expected = (!agree).then_some(Difference::State);
                assert_eq!(found, expected, "{ours:?} {provider:?}");
            }
        }
        assert_eq!(difference(Some(entry("k", State::Open, 0)), None), Some(Difference::State));
    }

    #[test]
    fn amounts_currencies_and_accounts_that_differ_are_found() {
        let ours = || Some(entry("k", State::Credited, 5));
        let other = Some(entry("k", State::Credited, 6));
        assert_eq!(difference(ours(), other), Some(Difference::Amount));
        let other = Entry { currency_code: "USD".into(), ..entry("k", State::Credited, 5) };
        assert_eq!(difference(ours(), Some(other)), Some(Difference::Amount));
        let other = Entry { account: "b".into(), ..entry("k", State::Credited, 5) };
        assert_eq!(difference(ours(), Some(other)), Some(Difference::Account));
    }

    #[test]
    fn balances_change_by_what_was_credited() {
        let key = |account: &str| ("p".to_owned(), account.to_owned());
        let ours = [
            entry("1", State::Credited, 5),
            entry("2", State::Credited, 7),
            entry("3", State::Review, 9),
        ];
        let provider = ours.clone().map(|it| Entry { state: State::Credited, ..it });
        let right = BTreeMap::from([(key("a"), 12), (key("b"), 0)]);
        assert_eq!(compare_sums(&right, &ours, &provider), []);
        let wrong = BTreeMap::from([(key("a"), 11), (key("b"), 1)]);
        let found = compare_sums(&wrong, &ours, &provider);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].change_minor, found[0].credited_minor), (11, 12));
        assert_eq!((found[1].change_minor, found[1].credited_minor), (1, 0));
    }
}
