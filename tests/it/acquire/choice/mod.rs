//! The choice of accounts twice: for every card the database must choose the account that a plain model
//! of the rules names, and none exactly when the model has none.
//!
//! One thing happens after another in each pool; the pools have nothing to do with each other.

mod bench;
mod leases;
mod model;
mod random;
mod rules;
mod steps;

use std::time::Instant;

use tokio::task::JoinSet;

use self::bench::{Bench, Tally};
use crate::support::world::fresh_database;

/// How many accounts each pool has.
const POOLS: [usize; 8] = [12, 20, 30, 30, 40, 50, 60, 120];

/// A number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |value| value.parse().unwrap())
}

/// The same unless another is named: what fails once fails again.
fn seed() -> u64 {
    setting("HOLDFAST_TEST_SEED", 20_261_125)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_card_gets_the_account_that_the_rules_name() {
    let seed = seed();
    let cards = usize::try_from(setting("HOLDFAST_TEST_CARDS", 10_000)).unwrap();
    println!("HOLDFAST_TEST_SEED={seed} HOLDFAST_TEST_CARDS={cards}");
    let begun = Instant::now();
    let database = fresh_database().await;
    let mut pools = JoinSet::new();
    for (number, accounts) in POOLS.into_iter().enumerate() {
        let (url, seed) = (database.url.clone(), seed + number as u64);
        let share = cards.div_ceil(POOLS.len());
        pools.spawn(async move {
            let name = format!("pool-{number}");
            let mut bench = Bench::new(&url, &name, seed, accounts).await;
            let mut done = 0;
            while done < share {
                done += bench.step().await;
            }
            bench.compare().await;
            bench.tally
        });
    }
    let mut all = Tally::default();
    while let Some(tally) = pools.join_next().await {
        let tally = tally.unwrap();
        tally
            .counts
            .into_iter()
            .for_each(|(what, count)| *all.counts.entry(what).or_default() += count);
        all.verdicts.extend(tally.verdicts);
    }
    println!("{cards} cards in {:?}: {all:#?}", begun.elapsed());
    assert_eq!(all.verdicts.len(), 14, "every verdict was met");
    let rare = all.counts.iter().filter(|(_, count)| **count < cards / 1000);
    assert_eq!(rare.collect::<Vec<_>>(), [], "each of these happens often");
    assert!(all.counts["many fit"] > cards / 4, "there was much to choose from");
    assert!(all.counts["none fits"] > cards / 20);
    database.drop_database().await;
}
