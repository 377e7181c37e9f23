//! Polls for what is due: they read their look-back window, and now and then all that is due.
//! `service/poll.rs` says how often.

use std::time::Duration;

use holdfast::{domain::id::PoolId, store::Store};
use sqlx::{Connection as _, PgConnection};

use crate::support::{
    plans::psql,
    statements::{plan_as_the_store, run, statement},
    world::fresh_database,
};

const LATELY: Option<Duration> = Some(Duration::from_secs(30));

/// Leases that run out in an hour, `leases` in each pool; and as many redemptions that are due then, of other
/// accounts.
async fn fill(db: &mut PgConnection, pools: &[&str], leases: usize) {
    for pool_id in pools {
        let pool = format!(
            "INSERT INTO pools VALUES ('{pool_id}', 'EUR', '1 minute', '1 second', '1 hour', false, 'ACCEPT');
             INSERT INTO accounts (pool_id, account_id, status, resume_status, fencing_token, holder,
                 lease_request_id, lease_acquired_at, lease_expires_at)
             SELECT '{pool_id}', kind || n, 'LOCKING', 'WAITING', 1, 'h', kind || n, now(), now() + interval '1 hour'
             FROM generate_series(1, {leases}) n, unnest('{{leased-,redeemed-}}'::text[]) kind;
             INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id, holder,
                 state, release_on_completion, code_fingerprint, code_ciphertext, code_last4, not_after,
                 next_check_at)
             SELECT pool_id, gen_random_uuid(), account_id, 1, account_id, 'h', 'SUBMITTED', true,
                 account_id::bytea, 'x', '', now(), now() + interval '1 hour'
             FROM accounts WHERE pool_id = '{pool_id}' AND account_id LIKE 'redeemed%';
             UPDATE accounts a SET open_redemption_id = r.redemption_id FROM redemptions r
             WHERE r.pool_id = '{pool_id}' AND a.pool_id = '{pool_id}' AND r.account_id = a.account_id"
        );
        psql(db, &pool).await;
    }
}

/// Lets it be so long since the time of the leases and the redemptions of a pool.
async fn came_due(db: &mut PgConnection, pool_id: &str, ago: &str) {
    let came_due = format!(
        "UPDATE accounts SET lease_acquired_at = now() - interval '1 day',
             lease_expires_at = now() - interval '{ago}' WHERE pool_id = '{pool_id}';
         UPDATE redemptions SET next_check_at = now() - interval '{ago}' WHERE pool_id = '{pool_id}'"
    );
    psql(db, &came_due).await;
}

#[tokio::test]
async fn a_poll_reads_what_came_due_in_its_look_back_window_or_all_that_is_due() {
    let database = fresh_database().await;
    let mut db = PgConnection::connect(&database.url).await.unwrap();
    let store = Store::open(&database.url.clone().into(), 2).unwrap();
    fill(&mut db, &["later", "lately", "before"], 1).await;
    came_due(&mut db, "lately", "10 seconds").await;
    came_due(&mut db, "before", "1 minute").await;
    let [later, lately, before] =
        ["later", "lately", "before"].map(|id| PoolId::parse(id).unwrap());

    for (within, due) in [(LATELY, vec![&lately]), (None, vec![&before, &lately])] {
        for mut pools in [
            store.pools_with_expired_leases(within).await.unwrap(),
            store.pools_with_due_checks(within).await.unwrap(),
        ] {
            pools.sort();
            assert_eq!(pools.iter().collect::<Vec<_>>(), due, "{within:?}");
        }
    }
    for (pool_id, within, count) in [
        (&later, None, 0),
        (&lately, LATELY, 1),
        (&before, LATELY, 0),
        (&before, None, 1),
        (&before, None, 0),
    ] {
        let ended = store.expire(pool_id, within, 10, "test").await.unwrap().rows;
        assert_eq!(ended.len(), count, "leases of {pool_id}, {within:?}");
        let hold = Duration::from_secs(60);
        let claimed = store.claim_checks(pool_id, within, 10, hold).await.unwrap().rows;
        assert_eq!(claimed.len(), count, "redemptions of {pool_id}, {within:?}");
    }
    store.close().await;
    database.drop_database().await;
}

#[tokio::test]
async fn a_poll_reads_as_little_during_a_long_running_transaction() {
    /// What came due for each lease and redemption, and was seen to.
    const TIMES: usize = 100;
    let database = fresh_database().await;
    let mut db = PgConnection::connect(&database.url).await.unwrap();
    fill(&mut db, &["p"], 100).await;
    psql(&mut db, "ANALYZE").await;
    let mut other_program = PgConnection::connect(&database.url).await.unwrap();
    psql(&mut other_program, "BEGIN").await;
    psql(&mut other_program, "CREATE TABLE of_another_program ()").await;
    for _ in 0..TIMES {
        came_due(&mut db, "p", "1 minute").await;
        // As renewals and looks do.
        let again = "UPDATE accounts SET lease_expires_at = now() + interval '1 hour';
                     UPDATE redemptions SET next_check_at = now() + interval '1 hour'";
        psql(&mut db, again).await;
    }
    plan_as_the_store(&mut db).await;
    for (name, before, after) in [
        ("pools_with_expired_leases", "", ""),
        ("list_due_leases", "'p', 100, ", ", '{}'"),
        ("pools_with_due_checks", "", ""),
        ("claim_checks", "'p', 100, '1 minute', ", ", '{}', false"),
    ] {
        let sql = statement(name);
        let lately = run(&mut db, &sql, &format!("{before}'30 seconds'{after}")).await;
        let all = run(&mut db, &sql, &format!("{before}NULL{after}")).await;
        assert_eq!((lately.rows, all.rows), (0, 0), "{name}");
        assert!(lately.pages < 20, "{name}: {} pages", lately.pages);
        assert!(all.pages > 200, "{name}: all are {} pages, and nothing was in the way", all.pages);
    }
    other_program.close().await.unwrap();
    database.drop_database().await;
}
