//! The provider's ledger beside our records, and beside the accounts' balances: pure.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::world::AccountKey;
use crate::cli::redemption::audit::{
    compare::{Difference, Record, State, differences},
    ours::Ours,
};

/// The provider's records, by key.
pub(super) type Ledger = BTreeMap<Uuid, Record>;

/// Every redemption about which the two sides differ, by its key.
pub(super) fn compare(ours: &[Ours], provider: &Ledger) -> Vec<(Uuid, Difference)> {
    let recorded = by_key(ours);
    let from_us = ours.iter().flat_map(|it| {
        let found = differences(&it.record, provider.get(&it.key));
        found.into_iter().map(|difference| (it.key, difference))
    });
    let from_them = provider
        .keys()
        .filter(|key| !recorded.contains_key(*key))
        .map(|key| (*key, Difference::MissingHere));
    from_us.chain(from_them).collect()
}

fn by_key(ours: &[Ours]) -> HashMap<Uuid, &Ours> {
    ours.iter().map(|it| (it.key, it)).collect()
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
    ours: &[Ours],
    provider: &Ledger,
) -> Vec<SumDifference> {
    let ours = by_key(ours);
    let mut credits: BTreeMap<AccountKey, i64> = BTreeMap::new();
    for (key, credit) in provider {
        let (Some((_, amount_minor)), Some(our)) = (credit.credited(), ours.get(key)) else {
            continue;
        };
        if our.record.state != State::NeedsReview {
            let account = (our.pool_id.to_string(), credit.account.to_string());
            *credits.entry(account).or_default() += amount_minor;
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

    fn ours(state: State, amount_minor: i64) -> Ours {
        let record = Record {
            state,
            account: "a".into(),
            amount_minor: Some(amount_minor),
            currency_code: "EUR".into(),
            provider_ref: None,
        };
        Ours::of(Uuid::now_v7(), "p", record)
    }

    fn credits(ours: &[Ours]) -> Ledger {
        let credited = |it: &Ours| Record { state: State::Succeeded, ..it.record.clone() };
        ours.iter().map(|it| (it.key, credited(it))).collect()
    }

    #[test]
    fn what_either_side_lacks_and_what_differs_is_found() {
        let both = [ours(State::Succeeded, 5), ours(State::Failed, 0)];
        let mut provider = credits(&both[..1]);
        assert_eq!(compare(&both, &provider), []);
        assert_eq!(compare(&both[1..], &provider), [(both[0].key, Difference::MissingHere)]);
        provider.clear();
        assert_eq!(compare(&both, &provider), [(both[0].key, Difference::MissingAtProvider)]);
        let provider = credits(&both);
        assert_eq!(compare(&both, &provider), [(both[1].key, Difference::State)]);
    }

    #[test]
    fn balances_change_by_what_was_credited() {
        let key = |account: &str| ("p".to_owned(), account.to_owned());
        let ours =
            [ours(State::Succeeded, 5), ours(State::Succeeded, 7), ours(State::NeedsReview, 9)];
        let provider = credits(&ours);
        let right = BTreeMap::from([(key("a"), 12), (key("b"), 0)]);
        assert_eq!(compare_sums(&right, &ours, &provider), []);
        let wrong = BTreeMap::from([(key("a"), 11), (key("b"), 1)]);
        let found = compare_sums(&wrong, &ours, &provider);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].change_minor, found[0].credited_minor), (11, 12));
        assert_eq!((found[1].change_minor, found[1].credited_minor), (1, 0));
    }
}
