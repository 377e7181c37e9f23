//! What is drawn by lot: pools, plans, accounts and cards, small enough to be tried out by hand and
//! varied enough that every rule decides something.

use std::collections::BTreeMap;

use rand::{Rng, RngExt as _, rngs::StdRng};

use super::model::{Holds, Plan, Takes, Wish};

/// Times are whole numbers of these: far longer than a test takes, so that nothing is due by the mere
/// time that it takes.
pub(super) const MINUTES: i64 = 60_000_000;
const COUNTRIES: [&str; 3] = ["DE", "FR", "NL"];
const LABELS: [&str; 2] = ["a", "b"];

/// One of these.
pub(super) fn one_of<T: Clone>(random: &mut StdRng, of: &[T]) -> T {
    of[random.random_range(0..of.len())].clone()
}

/// True so many times in a hundred.
pub(super) fn percent(random: &mut StdRng, percent: u32) -> bool {
    random.random_range(0..100) < percent
}

pub(super) fn plans(random: &mut StdRng) -> BTreeMap<String, Plan> {
    let count = random.random_range(2..=5);
    (0..count).map(|n| (format!("plan-{n}"), plan(random))).collect()
}

fn plan(random: &mut StdRng) -> Plan {
    let takes = takes(random);
    let mut plan = loop {
        let target = random.random_range(40..=240);
        let plan = Plan::new(target, takes.clone());
        if plan.can_be_filled(target) {
            break plan;
        }
    };
    if percent(random, 55) {
        let mut left = plan.target;
        for _ in 0..random.random_range(1..=4) {
            let day = random.random_range(15..=90);
            if day <= left {
                plan.days.push(day);
                left -= day;
            }
        }
        plan.tolerance = one_of(random, &[0, 0, 5, 20]);
    }
    plan.day_interval = one_of(random, &[0, 6, 24, 24, 48]) * 60 * MINUTES;
    plan.redemption_interval = one_of(random, &[0, 0, 10, 60, 180]) * MINUTES;
    plan
}

fn takes(random: &mut StdRng) -> Takes {
    match random.random_range(0..8) {
        0 => Takes::From(1, None),
        1 => Takes::From(random.random_range(5..=20), None),
        2 => Takes::From(1, Some(random.random_range(10..=60))),
        3 => {
            let least = random.random_range(8..=25);
            Takes::From(least, Some(least + random.random_range(0..=8)))
        }
        4 => Takes::MultiplesOf(one_of(random, &[3, 5, 10, 25])),
        5 => Takes::Only(vec![30, 50]),
        6 => Takes::Only(one_of(random, &[vec![10, 25, 50], vec![15, 35], vec![20], vec![7, 11]])),
        _ => {
            let mut amounts: Vec<_> =
                (0..random.random_range(2..=4)).map(|_| random.random_range(6..=45)).collect();
            amounts.sort_unstable();
            amounts.dedup();
            Takes::Only(amounts)
        }
    }
}

pub(super) fn holds(random: &mut StdRng) -> Holds {
    let mut minutes = |of: &[i64]| one_of(random, of) * MINUTES;
    Holds {
        login_invalid: minutes(&[30, 60, 120]),
        limit_reached: minutes(&[60, 240]),
        throttled: minutes(&[10, 20]),
        longest: minutes(&[150, 24 * 60]),
    }
}

pub(super) fn country(random: &mut StdRng) -> Option<String> {
    percent(random, 80).then(|| one_of(random, &COUNTRIES).to_owned())
}

pub(super) fn labels(random: &mut StdRng) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    for key in ["tier", "team"] {
        if percent(random, 60) {
            labels.insert(key.to_owned(), one_of(random, &LABELS).to_owned());
        }
    }
    labels
}

/// A card's amount: mostly one that some plan of the pool takes.
pub(super) fn amount(random: &mut StdRng, plans: &BTreeMap<String, Plan>) -> i64 {
    let plans: Vec<_> = plans.values().collect();
    match &one_of(random, &plans).takes {
        _ if percent(random, 10) => random.random_range(1..=70),
        Takes::From(least, None) => least + random.random_range(0..=40),
        Takes::From(least, Some(most)) => random.random_range(*least..=*most),
        Takes::MultiplesOf(base) => base * random.random_range(1..=(60 / base)),
        Takes::Only(amounts) => one_of(random, amounts),
    }
}

/// A card, and which accounts are wanted for it.
pub(super) fn wish(
    random: &mut StdRng,
    plans: &BTreeMap<String, Plan>,
    accounts: &[String],
) -> Wish {
    let expected = percent(random, 85).then(|| amount(random, plans));
    let mut wish = Wish { expected, ..Wish::default() };
    if percent(random, 50) {
        return wish;
    }
    if percent(random, 50) {
        let names: Vec<_> = plans.keys().cloned().collect();
        wish.plan = Some(one_of(random, &names));
    }
    if percent(random, 15) {
        wish.country = Some(one_of(random, &COUNTRIES).to_owned());
    }
    if percent(random, 20) {
        wish.card_country = Some(one_of(random, &COUNTRIES).to_owned());
    }
    if percent(random, 15) {
        wish.min_headroom = Some(random.random_range(1..=80));
    }
    if percent(random, 15) {
        wish.labels.insert("tier".to_owned(), one_of(random, &LABELS).to_owned());
    }
    if percent(random, 20) {
        wish.exclude = (0..random.random_range(1..=6)).map(|_| one_of(random, accounts)).collect();
    }
    if percent(random, 6) {
        wish.account = Some(one_of(random, accounts));
    }
    wish
}

/// A new name.
pub(super) fn bytes(random: &mut StdRng) -> [u8; 16] {
    let mut bytes = [0; 16];
    random.fill_bytes(&mut bytes);
    bytes
}
