//! How long an acquisition takes in a large pool with a long past, beside a small pool without one.
//!
//! By the store, without gRPC, whose constant share would only hide the difference.

use std::sync::Arc;

use holdfast::{domain::choice::Criteria, store::Store};

use super::alone::{by_store, note};
use crate::{args::Args, goals::Row, ground::Ground, pools, postgres, report::progress};

const SMALL: i64 = 1_000;
/// Turns before those that count.
const WARM_UP: usize = 10;

pub(super) async fn measure(args: &Args, ground: &Ground, row: &mut Row) -> anyhow::Result<()> {
    let (accounts, past) = (args.accounts(), args.past_redemptions());
    progress(&format!("a pool of {accounts} accounts with {past} past redemptions: filling it"));
    let large_url = ground.new_database("large").await?;
    pools::fill(&large_url, accounts).await?;
    postgres::fill_past(&large_url, accounts, past).await?;
    let small_url = ground.new_database("small").await?;
    pools::fill(&small_url, SMALL).await?;
    let stores = [large_url, small_url]
        .map(|url| Store::open(&url.into(), 2))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    ground.level().await?;
    progress("  acquiring in turns");
    let expected_minor = Some(pools::CARD);
    let criteria = Arc::new(Criteria { selector: Arc::default(), expected_minor });
    let mut times = [const { Vec::new() }; 2];
    let (in_a_row, turns) = args.calls_alone();
    for turn in 0..WARM_UP + turns {
        for (store, times) in stores.iter().zip(&mut times) {
            for _ in 0..in_a_row {
                let took = by_store(store, &criteria).await?;
                if turn >= WARM_UP {
                    times.push(took);
                }
            }
        }
    }
    for store in stores {
        store.close().await;
    }
    let large = format!("acquire p50, {accounts} accounts and {past} past redemptions");
    let small = format!("acquire p50, {SMALL} accounts and none");
    note(row, &times, &[&large, &small]);
    if accounts < 1_000_000 || past < 10_000_000 {
        row.notes.push(format!("with {accounts} accounts and {past} past redemptions only"));
    }
    ground.drop_database("large").await?;
    ground.drop_database("small").await
}
