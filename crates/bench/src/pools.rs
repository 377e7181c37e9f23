//! Pools of any size: of a hundred accounts one is free, and of twenty of those one takes the card.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::postgres::POOL;

/// What each card is worth.
pub(crate) const CARD: i64 = 5_000;

/// A pool with one plan. Every hundredth account is free; of those, every twentieth takes the card today,
/// and the others' day is too full for it, which the choice has to find out. How full
/// their plans are is by chance, so those that fit stand anywhere in the order.
pub(crate) async fn fill(url: &str, accounts: i64) -> anyhow::Result<()> {
    let mut db = PgConnection::connect(url).await?;
    let free = accounts / 100;
    // The last of the free ones fits, so that one does also where there are few.
    let sql = format!(
        "INSERT INTO pools (pool_id, currency_code, default_lease, min_lease, max_lease, amount_mismatch)
         VALUES ('{POOL}', 'EUR', '1 minute', '1 second', '1 hour', 'ACCEPT');
         INSERT INTO plans (pool_id, plan_id, target_minor, day_amounts_minor)
         VALUES ('{POOL}', 'plan', 100000, '{{20000,20000,60000}}');
         SELECT setseed(0.4);
         INSERT INTO accounts (pool_id, account_id, plan_id, status, balance_minor, day_credited_minor,
             labels, country_code)
         SELECT '{POOL}', format('account-%s', lpad(n::text, 8, '0')), 'plan',
             CASE WHEN n % 100 <> 0 THEN 'COMPLETED' WHEN n % 300 = 0 THEN 'WAITING' ELSE 'PROCESSING' END,
             CASE WHEN n % 100 <> 0 THEN 100000 ELSE (random() * 15)::int * 5000 + 20000 END,
             CASE WHEN n % 2000 = 0 OR n = {free} * 100 AND {free} < 20 THEN 10000 ELSE 17500 END,
             '{{\"team\": \"bench\"}}', 'DE'
         FROM generate_series(1, {accounts}) n;"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut db).await?;
    sqlx::raw_sql("VACUUM (ANALYZE)").execute(&mut db).await?;
    sqlx::raw_sql("CHECKPOINT").execute(&mut db).await?;
    Ok(())
}
