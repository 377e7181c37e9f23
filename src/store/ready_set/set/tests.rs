//! What is chosen from a set of accounts is what comes first of those that fit, one by one.

use std::collections::HashMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::{
    account::{Hold, HoldCause, Labels, Lease, Version},
    choice::{Choice, Considered},
    hold::Holds,
    id::{FencingToken, Holder, PlanId, PoolId, RequestId},
    plan::{Denominations, Terms},
    principal::Principal,
    selector::Selector,
};

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn plan_id(number: usize) -> PlanId {
    PlanId::parse(&format!("plan-{number}")).unwrap()
}

fn terms() -> PoolTerms {
    let zero = Duration::ZERO;
    let plan = |target_minor, denominations| Terms {
        day_amounts_minor: vec![30, 30],
        denominations,
        ..Terms::up_to(target_minor)
    };
    let plans = HashMap::from([
        (plan_id(0), plan(90, Denominations::MultiplesOf(10))),
        (plan_id(1), plan(60, Denominations::Fixed(vec![20, 30].into()))),
    ]);
    let holds = Holds { login_invalid: zero, limit_reached: zero, throttled: zero, longest: zero };
    PoolTerms { revision: 1, paused: false, draining: false, holds, plans }
}

fn request(number: usize) -> RequestKey {
    let request_id = RequestId::parse_any(&format!("r-{number}")).unwrap();
    RequestKey::new(Principal::anonymous(), request_id)
}

/// An account with a number, of which many things are made.
fn account(number: usize, kind: u64) -> Account {
    let of = |range: u64, shift: u32| (kind >> shift) % range;
    let plan = [None, Some(0), Some(1), Some(0)][usize::try_from(of(4, 0)).unwrap()];
    let later = NOW + Duration::from_secs(60);
    let is_leased = of(8, 2) == 0;
    let lease = Lease {
        holder: Holder::parse("me").unwrap(),
        request: request(number),
        acquired_at: NOW,
        expires_at: later,
        release_requested: false,
    };
    let status = match of(5, 5) {
        _ if is_leased => AccountStatus::Locking,
        0 => AccountStatus::Completed,
        1 | 2 => AccountStatus::Processing,
        _ => AccountStatus::Waiting,
    };
    let hold = Hold { cause: HoldCause::Throttled, until: later, count: 1 };
    Account {
        pool_id: PoolId::parse("pool").unwrap(),
        account_id: AccountId::parse(&format!("a-{number}")).unwrap(),
        status,
        login_status: if of(9, 8) == 0 { LoginStatus::Inactive } else { LoginStatus::Active },
        plan_id: plan.map(plan_id),
        country_code: (of(3, 11) == 0).then(|| "DE".to_owned()),
        balance_minor: i64::try_from(of(7, 13) * 10).unwrap(),
        labels: if of(3, 16) == 0 { [("k".into(), "v".into())].into() } else { Labels::new() },
        plan_day: if plan.is_some() { 1 + i32::try_from(of(3, 18)).unwrap() } else { 1 },
        day_credited_minor: if plan.is_some() { i64::try_from(of(3, 20) * 10).unwrap() } else { 0 },
        reserved_minor: None,
        day_due_at: None,
        cooldown_until: (of(9, 22) == 0).then_some(later),
        hold: (of(9, 25) == 0).then_some(hold),
        paused: of(9, 28) == 0,
        draining: of(9, 31) == 0,
        token: FencingToken(1),
        resume: None,
        lease: is_leased.then_some(lease),
        lease_end: None,
        bound_by_lease: false,
        open_redemption_id: None,
        idle_since: NOW - Duration::from_secs(of(4, 34)),
        created_at: NOW,
        updated_at: NOW,
        version: Version { number: 1, change_id: Uuid::nil() },
        as_of: NOW,
    }
}

fn whole(accounts: &[Account]) -> ReadySet {
    let mut set = ReadySet::default();
    set.begin_load();
    accounts.iter().for_each(|account| {
        set.note(account.clone());
    });
    set.end_load();
    set
}

fn criteria() -> impl Strategy<Value = Criteria> {
    let plan = prop_oneof![Just(None), Just(Some(0)), Just(Some(1)), Just(Some(2))];
    let amount = prop_oneof![Just(None), (1..5i64).prop_map(|n| Some(n * 10)), Just(Some(7))];
    let least = prop_oneof![Just(None), (1..7i64).prop_map(|n| Some(n * 10))];
    (plan, amount, least, 0..4u8, any::<bool>()).prop_map(
        |(plan, amount, least, country, label)| {
            let country_code = (country == 0).then(|| "DE".to_owned());
            let labels = if label { [("k".into(), "v".into())].into() } else { Labels::new() };
            let selector = Selector {
                plan_id: plan.map(plan_id),
                country_code,
                card_country: (country == 1).then(|| "DE".to_owned()),
                min_headroom_minor: least,
                labels,
                exclude: vec![AccountId::parse("a-1").unwrap()],
                ..Selector::default()
            };
            Criteria { selector: Arc::new(selector), expected_minor: amount }
        },
    )
}

/// All that fit, by the rule for one account, in the order for two.
fn one_by_one(accounts: &[Account], criteria: &Criteria) -> Vec<AccountId> {
    let terms = terms();
    let is_plan_there =
        criteria.selector.plan_id.as_ref().is_none_or(|id| terms.plans.contains_key(id));
    let mut fitting: Vec<_> = accounts
        .iter()
        .filter(|account| {
            is_plan_there && Choice::of(account, criteria, &terms, NOW, false) == Choice::Fits
        })
        .map(|account| Considered::new(Arc::new(account.clone()), Choice::Fits, criteria, &terms))
        .collect();
    fitting.sort_by(Considered::in_order);
    fitting.into_iter().map(|one| one.account.account_id.clone()).collect()
}

fn chosen(set: &mut ReadySet, asked: &[Arc<Criteria>], limit: usize) -> Vec<(usize, AccountId)> {
    let chosen = set.choose(asked, &terms(), &HashSet::new(), limit);
    let ids: Vec<_> = chosen.iter().map(|one| one.account.account_id.clone()).collect();
    set.conclude(&ids);
    chosen.into_iter().map(|one| (one.number, one.account.account_id)).collect()
}

proptest! {
    #[test]
    fn accounts_are_chosen_in_the_order_of_all_that_fit(
        kinds in proptest::collection::vec(any::<u64>(), 0..60),
        criteria in criteria(),
    ) {
        let accounts: Vec<_> = kinds.iter().enumerate().map(|(n, kind)| account(n, *kind)).collect();
        let criteria = Arc::new(criteria);
        let asked: Vec<_> = (0..=accounts.len()).map(|_| Arc::clone(&criteria)).collect();
        let found: Vec<_> = chosen(&mut whole(&accounts), &asked, usize::MAX)
            .into_iter()
            .map(|(_, id)| id)
            .collect();
        prop_assert_eq!(found, one_by_one(&accounts, &asked[0]));
    }

    /// Whatever came before: accounts that were something else, searches that found nothing, and time.
    #[test]
    fn what_was_before_makes_no_difference(
        kinds in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..40),
        all_criteria in proptest::collection::vec(criteria(), 1..6),
    ) {
        let before: Vec<_> =
            kinds.iter().enumerate().map(|(n, (kind, _))| account(n, *kind)).collect();
        let mut set = whole(&before);
        let asked: Vec<_> = all_criteria.into_iter().map(Arc::new).collect();
        chosen(&mut set, &asked, usize::MAX);
        let mut accounts = Vec::new();
        for (number, (_, kind)) in kinds.iter().enumerate() {
            let mut account = account(number, *kind);
            account.version.number = 2;
            set.note(account.clone());
            accounts.push(account);
            // One that nobody has got is there for the next.
            let mut left = accounts.clone();
            left.extend(before.iter().skip(accounts.len()).cloned());
            let mut expected = Vec::new();
            for (number, criteria) in asked.iter().enumerate() {
                let fitting = one_by_one(&left, criteria);
                if let Some(id) = fitting.first() {
                    left.retain(|account| account.account_id != *id);
                    expected.push((number, id.clone()));
                }
            }
            prop_assert_eq!(chosen(&mut set, &asked, usize::MAX), expected);
        }
    }
}

#[test]
fn an_older_version_does_not_replace_a_later_one() {
    let mut set = whole(&[]);
    let mut account = account(0, u64::MAX);
    account.version.number = 7;
    set.note(account.clone());
    account.version.number = 6;
    account.balance_minor = 1;
    set.note(account.clone());
    assert_eq!(set.get(&account.account_id).unwrap().version.number, 7);
}

#[test]
fn an_account_that_a_load_does_not_find_is_forgotten() {
    let accounts: Vec<_> = (0..3).map(|number| account(number, u64::MAX)).collect();
    let mut set = whole(&accounts);
    set.begin_load();
    set.note(accounts[0].clone());
    set.note(accounts[2].clone());
    set.end_load();
    let mut ids: Vec<_> =
        set.part(0, 1 << 20).0.iter().map(|account| account.account_id.to_string()).collect();
    ids.sort();
    assert_eq!(ids, ["a-0", "a-2"]);
}

#[test]
fn a_set_that_is_not_whole_keeps_what_is_leased_alone() {
    let mut set = ReadySet::default();
    // Leased, and free.
    for kind in [0, u64::MAX] {
        set.note(account(usize::try_from(kind % 2).unwrap(), kind));
    }
    assert_eq!(set.part(0, 1 << 20).0.len(), 1);
    assert!(set.has_lease(&request(0)));
}

#[test]
fn an_account_that_somebody_holds_is_left_out_for_a_while() {
    let mut free = account(0, u64::MAX);
    free.status = AccountStatus::Waiting;
    free.plan_id = None;
    (free.login_status, free.paused, free.draining) = (LoginStatus::Active, false, false);
    (free.hold, free.cooldown_until) = (None, None);
    let mut set = whole(&[free.clone()]);
    let selector = Arc::new(Selector::default());
    let asked = [Arc::new(Criteria { selector, expected_minor: None })];
    assert_eq!(chosen(&mut set, &asked, 1).len(), 1);
    set.note_held(&free.account_id);
    assert_eq!(chosen(&mut set, &asked, 1), []);
    std::thread::sleep(HELD + Duration::from_millis(1));
    assert_eq!(chosen(&mut set, &asked, 1).len(), 1);
}

/// What stays is in one part, however much is noted, forgotten and added between two parts.
#[test]
fn accounts_that_stay_are_gone_through_once_while_all_of_them_change() {
    const STAY: usize = 1_000;
    let told = |number: usize, version: i64| {
        let mut told = account(number, 0);
        told.version = Version { number: version, change_id: Uuid::from_u128(1) };
        told
    };
    let mut set = ReadySet { is_whole: true, ..ReadySet::default() };
    for number in 0..STAY + 200 {
        set.note(told(number, 1));
    }
    let (mut seen, mut from, mut step) = (HashMap::new(), 0, 0);
    loop {
        let (accounts, next) = set.part(from, 64);
        for account in accounts {
            *seen.entry(account.account_id.clone()).or_insert(0) += 1;
        }
        let Some(next) = next else { break };
        (from, step) = (next, step + 1);
        // All that stay are noted anew, in another order; of the others one goes and one comes.
        for number in (0..STAY).rev() {
            set.note(told(number * 7 % STAY, 1 + step));
        }
        set.forget(&told(STAY + usize::try_from(step).unwrap(), 1).account_id);
        set.note(told(2 * STAY + usize::try_from(step).unwrap(), 1));
    }
    assert!(step > 10);
    let of = |number: usize| seen.get(&told(number, 1).account_id).copied();
    assert_eq!((0..STAY).filter(|number| of(*number) != Some(1)).count(), 0);
}
