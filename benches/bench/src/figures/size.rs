//! How long an acquisition takes in a large pool with a long past, beside a small pool without one.
//!
//! By the store, without gRPC, whose constant share would only make the ratio look better.

use holdfast::store::{Store, walks::Walks};

use super::alone::{by_store, note};
use crate::{args::Args, goals::Row, ground::Ground, postgres, report::progress};

// The pools of `cargo bench --bench acquire`: of a hundred accounts one is free, and of twenty of those one
// takes the card.
#[allow(dead_code, clippy::unwrap_used, reason = "they belong to another benchmark")]
#[path = "../../../acquire/pools.rs"]
mod pools;

const SMALL: i64 = 1_000;
/// Turns before those that count.
const WARM_UP: usize = 10;

pub(super) async fn measure(args: &Args, ground: &Ground, row: &mut Row) -> anyhow::Result<()> {
    let (accounts, past) = (args.accounts(), args.past_redemptions());
    progress(&format!("a pool of {accounts} accounts with {past} past redemptions: filling it"));
    let large_url = ground.new_database("large").await?;
    pools::fill(&large_url, accounts).await;
    fill_past(&large_url, accounts, past).await?;
    let small_url = ground.new_database("small").await?;
    pools::fill(&small_url, SMALL).await;
    let mut stores = [large_url, small_url]
        .map(|url| Store::open(&url.into(), 2).map(|store| (store, Walks::default())))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    ground.level().await?;
    progress("  acquiring in turns");
    let mut times = [const { Vec::new() }; 2];
    let (in_a_row, turns) = args.calls_alone();
    for turn in 0..WARM_UP + turns {
        for ((store, walks), times) in stores.iter_mut().zip(&mut times) {
            for _ in 0..in_a_row {
                let took = by_store(store, walks, Some(pools::CARD)).await?;
                if turn >= WARM_UP {
                    times.push(took);
                }
            }
        }
    }
    for (store, _) in stores {
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

/// Redemptions that were settled long ago, all over the accounts. The table is new in the transaction, so
/// nothing of it is written twice; its indexes and checks of keys come afterwards, or are left out.
async fn fill_past(url: &str, accounts: i64, past: i64) -> anyhow::Result<()> {
    let pool = pools::POOL;
    let sql = format!(
        "SET maintenance_work_mem = '1GB';
         SET session_replication_role = replica;
         DO $$
         DECLARE
             later text[] := '{{}}';
             found record;
             command text;
         BEGIN
             TRUNCATE redemptions;
             FOR found IN
                 SELECT conname, pg_get_constraintdef(oid) AS definition
                 FROM pg_constraint WHERE conrelid = 'redemptions'::regclass AND contype IN ('p', 'u')
             LOOP
                 later := later || format(
                     'ALTER TABLE redemptions ADD CONSTRAINT %I %s', found.conname, found.definition
                 );
                 EXECUTE format('ALTER TABLE redemptions DROP CONSTRAINT %I', found.conname);
             END LOOP;
             FOR found IN SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'redemptions' LOOP
                 later := later || found.indexdef;
                 EXECUTE format('DROP INDEX %I', found.indexname);
             END LOOP;
             INSERT INTO redemptions (
                 pool_id, redemption_id, account_id, fencing_token, request_id, holder, state,
                 release_on_completion, code_fingerprint, code_last4, expected_minor, not_after,
                 amount_minor, amount_currency, provider_ref, attempts, created_at, updated_at, finished_at
             )
             SELECT
                 '{pool}',
                 (lpad(to_hex(1700000000000 + n * 60), 12, '0') || '-7000-8000-'
                     || lpad(to_hex(n), 12, '0'))::uuid,
                 'account-' || lpad((1 + n * 7919 % {accounts})::text, 8, '0'),
                 1, 'batch:past:item-' || n, 'bench', 'SUCCEEDED', true, sha256(int8send(n)), '1234',
                 5000, now(), 5000, 'EUR', 'sim-' || n, 1, now(), now(), now()
             FROM generate_series(1::bigint, {past}) n;
             FOREACH command IN ARRAY later LOOP
                 EXECUTE command;
             END LOOP;
         END
         $$"
    );
    postgres::run(url, &sql).await?;
    postgres::run(url, "VACUUM (ANALYZE) redemptions").await
}
