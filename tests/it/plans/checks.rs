//! The checks of plans that run after each test: each is shown to notice what it checks.

use sqlx::{Connection as _, PgConnection};

use crate::support::{checks, plans::psql, world::fresh_database};

/// Takes away what keeps the table from being broken.
const OPEN: &str = "ALTER TABLE accounts DISABLE TRIGGER USER;
     ALTER TABLE redemptions DISABLE TRIGGER USER;
     DO $$ DECLARE c record; BEGIN
         FOR c IN SELECT conrelid::regclass AS of, conname FROM pg_constraint
             WHERE contype = 'c' AND conrelid IN ('accounts'::regclass, 'redemptions'::regclass)
         LOOP EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', c.of, c.conname); END LOOP;
     END $$";

/// A plan of two days, an account of it, and a card of 800 on its first day, as it should be.
const RIGHT: &str = "INSERT INTO pools VALUES
         ('p', 'EUR', '1 minute', '1 second', '1 hour', false, 'ACCEPT');
     INSERT INTO plans (pool_id, plan_id, target_minor, day_amounts_minor)
         VALUES ('p', 'plan', 2000, '{1000,1000}');
     INSERT INTO accounts (pool_id, account_id, plan_id) VALUES ('p', 'a', 'plan')";
const CARD: &str = "INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id,
         holder, state, release_on_completion, code_fingerprint, code_last4, not_after, expected_minor,
         amount_minor, amount_currency, finished_at, plan_day)
     VALUES ('p', gen_random_uuid(), 'a', 1, 'r', 'h', 'SUCCEEDED', true, '\\x01', '', now(), 800, 800,
         'EUR', now(), 1);
     UPDATE accounts SET balance_minor = 800, day_credited_minor = 800, status = 'PROCESSING'";

#[tokio::test]
async fn each_promise_of_plans_that_is_broken_is_found() {
    let cases = [
        ("reserved_minor = 5", "headroom is held under a lease alone"),
        ("day_credited_minor = 700", "what was credited on a day is what its redemptions brought"),
        ("day_credited_minor = 900", "what was credited on a day is what its redemptions brought"),
        ("plan_id = NULL", "an account without a plan has no days"),
        ("bound_by_lease = true", "a lease alone binds an account for a while"),
        ("hold_cause = 'THROTTLED'", "a hold has a cause and its failures"),
        ("hold_count = 1", "a hold has a cause and its failures"),
        ("balance_minor = 2001", "no plan and no day of one is overfilled"),
    ];
    for (set, promise) in cases {
        let broken = found_after(&format!("UPDATE accounts SET {set}")).await;
        assert!(broken.iter().any(|b| b.starts_with(promise)), "{set}: {broken:?}");
    }
    let cases = [
        ("plan_day = 2", "the day of a plan only rises"),
        ("amount_minor = 1001, expected_minor = 1001", "no plan and no day of one is overfilled"),
        ("state = 'IN_DOUBT'", "what an open redemption expects is held"),
    ];
    for (set, promise) in cases {
        let open = "UPDATE accounts SET open_redemption_id = r.redemption_id, status = 'LOCKING'
             FROM redemptions r";
        let broken = found_after(&format!("{open}; UPDATE redemptions SET {set}")).await;
        assert!(broken.iter().any(|b| b.starts_with(promise)), "{set}: {broken:?}");
    }
    let broken = found_after("SELECT 1").await;
    assert!(broken.is_empty(), "{broken:?}");
}

async fn found_after(sql: &str) -> Vec<checks::Broken> {
    let database = fresh_database().await;
    let mut db = PgConnection::connect(&database.url).await.unwrap();
    for step in [RIGHT, OPEN, CARD, sql] {
        psql(&mut db, step).await;
    }
    let broken = checks::broken_plans(&mut db).await;
    drop(db);
    database.drop_database().await;
    broken
}
