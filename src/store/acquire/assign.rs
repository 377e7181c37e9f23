//! The assignment of chosen accounts to requests: first come, first served.

use std::collections::{HashMap, HashSet};

use rand::seq::SliceRandom as _;

use super::Wanted;
use crate::domain::{account::Account, id::AccountId};

/// After a loss, one of so many times as many accounts as are wanted is taken, at random.
const TIMES_AS_MANY: usize = 4;

/// An account that is to be leased to a request.
pub(super) struct Claim<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) account: Account,
}

/// The amounts that are expected, each once. Their position, counted from 1, is the group of the accounts that fit.
pub(super) fn amounts(wanted: &[Wanted]) -> Vec<Option<i64>> {
    let mut amounts = Vec::new();
    for one in wanted {
        if !amounts.contains(&one.expected_minor) {
            amounts.push(one.expected_minor);
        }
    }
    amounts
}

/// Gives each request, in their order, the first account that fits it and that nobody before it has taken. Where others
/// take the same at this moment (`is_contended`), the first ones are taken at random instead.
///
/// `candidates` are in their order, each with the position of its amount in `amounts`, counted from 1.
pub(super) fn assign<'a>(
    wanted: &[&'a Wanted],
    amounts: &[Option<i64>],
    candidates: Vec<(i32, Account)>,
    is_contended: bool,
) -> Vec<Claim<'a>> {
    let mut groups: HashMap<i32, Vec<Account>> = HashMap::new();
    for (group, account) in candidates {
        groups.entry(group).or_default().push(account);
    }
    if is_contended {
        for group in groups.values_mut() {
            let most = (wanted.len() * TIMES_AS_MANY).max(16).min(group.len());
            group[..most].shuffle(&mut rand::rng());
        }
    }
    let mut groups: HashMap<_, _> =
        groups.into_iter().map(|(group, accounts)| (group, accounts.into_iter())).collect();
    let group_of = |expected_minor: Option<i64>| {
        let index = amounts.iter().position(|amount| *amount == expected_minor);
        index.and_then(|index| i32::try_from(index + 1).ok())
    };
    let mut taken: HashSet<AccountId> = HashSet::new();
    let mut claims = Vec::with_capacity(wanted.len());
    for one in wanted {
        let group = group_of(one.expected_minor).and_then(|group| groups.get_mut(&group));
        let account = group.and_then(|group| group.find(|a| !taken.contains(&a.account_id)));
        if let Some(account) = account {
            taken.insert(account.account_id.clone());
            claims.push(Claim { wanted: one, account });
        }
    }
    claims
}
