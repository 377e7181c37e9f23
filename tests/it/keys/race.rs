//! Two servers that use different secret keys at the same time: no code is begun under both.

use std::time::Duration;

use holdfast::{
    domain::{
        id::{AccountId, FencingToken, PoolId, RedemptionId, RequestId},
        lease::LeaseRef,
        redemption::{BeginRefusal, Begun, NewRedemption, SendLimits},
        secret_key::{Fingerprints, KeyId},
    },
    store::Store,
};
use rand::RngExt as _;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::{
    wait::eventually,
    world::{POOL, World},
};

const HOUR: Duration = Duration::from_secs(3600);
const LIMIT: Duration = Duration::from_secs(10);

fn second() -> KeyId {
    KeyId::parse("2").unwrap()
}

/// A code's fingerprints by both keys.
fn prints(code: u8, current: KeyId) -> Fingerprints {
    Fingerprints { current, all: vec![(KeyId::FIRST, [code; 32]), (second(), [code ^ 0x80; 32])] }
}

fn redemption(
    lease: &holdfast::rpc::pb::LeaseRef,
    request: &str,
    print: Fingerprints,
) -> NewRedemption {
    let first = if print.current == KeyId::FIRST { vec![1] } else { vec![2, 0, 2] };
    NewRedemption {
        redemption_id: RedemptionId::new(),
        lease: LeaseRef {
            pool_id: PoolId::parse(POOL).unwrap(),
            account_id: AccountId::parse(&lease.account_id).unwrap(),
            token: FencingToken(lease.fencing_token),
        },
        request_id: RequestId::parse_any(request).unwrap(),
        release_on_completion: true,
        code_fingerprint: print,
        code_ciphertext: first,
        code_last4: String::new(),
        expected_minor: None,
        expected_learned: false,
        profile: holdfast::provider::profile::Profile::built_in().pinned(),
    }
}

async fn begin(store: &Store, new: NewRedemption) -> Begun {
    store.begin(new, SendLimits { not_after: HOUR, take_over: HOUR }).await.unwrap()
}

async fn run(db: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await.unwrap();
}

/// A world with leased accounts, whose database has two keys. The first is current.
async fn two_keys(accounts: usize) -> (World, PgConnection) {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(accounts).await;
    let mut db = world.sql().await;
    for _ in 0..accounts {
        clients.acquire(|_| {}).await.unwrap();
    }
    run(&mut db, "INSERT INTO secret_keys (key_id, key_check) VALUES (2, '')").await;
    (world, db)
}

async fn leases(db: &mut PgConnection) -> Vec<holdfast::rpc::pb::LeaseRef> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT account_id, fencing_token FROM accounts WHERE lease_expires_at > now() ORDER BY 1",
    )
    .fetch_all(db)
    .await
    .unwrap();
    rows.into_iter()
        .map(|(account_id, fencing_token)| holdfast::rpc::pb::LeaseRef {
            pool_id: POOL.to_owned(),
            account_id,
            fencing_token,
        })
        .collect()
}

/// The one that began before the change is held up in the middle, after it has looked. The other uses the new key, and
/// must not begin the same code.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_that_is_under_way_with_the_old_key_is_seen_by_one_with_the_new() {
    let (world, mut db) = two_keys(2).await;
    let held = leases(&mut db).await;
    let (old, new) = (world.store(), world.store());
    // Somebody inserts the same request, and has not decided yet: the begin waits for that.
    let mut other = world.sql().await;
    run(&mut other, "BEGIN").await;
    run(
        &mut other,
        "INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id, holder, state,
            release_on_completion, code_fingerprint, code_ciphertext, code_last4, not_after)
         VALUES ('pool', gen_random_uuid(), 'x', 1, 'slow', 'h', 'SUBMITTED', true, '\\x01', '\\x01', '', now())",
    )
    .await;
    let first = redemption(&held[0], "slow", prints(7, KeyId::FIRST));
    let slow = tokio::spawn(async move { begin(&old, first).await });
    eventually(LIMIT, "the first begin waits", async || {
        let waits =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'";
        let count: i64 = sqlx::query_scalar(waits).fetch_one(&mut db).await.unwrap();
        (count > 0).then_some(())
    })
    .await;
    // A change would wait for it; this is what happens when nobody does.
    let writers = new.writers(None).await.unwrap();
    assert!(!writers.is_empty(), "the change waits for those that are under way");
    run(&mut db, "UPDATE installation SET current_key = 2").await;
    let second_try = redemption(&held[1], "fast", prints(7, second()));
    let fast = begin(&new, second_try).await;
    run(&mut other, "ROLLBACK").await;
    let slow = slow.await.unwrap();
    assert!(matches!(slow, Begun::Recorded { .. }), "{slow:?}");
    let is_found =
        matches!(fast, Begun::Refused(BeginRefusal::CodeInUse { .. } | BeginRefusal::TryAgain));
    assert!(is_found, "{fast:?}");
    let living: i64 =
        sqlx::query_scalar("SELECT count(*) FROM redemptions").fetch_one(&mut db).await.unwrap();
    assert_eq!(living, 1);
    run(
        &mut db,
        "UPDATE installation SET current_key = 1; DELETE FROM secret_keys WHERE key_id = 2",
    )
    .await;
}

/// Two servers begin the same codes over and over, while the current key changes to and fro under them.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_code_is_begun_twice_while_the_key_changes_to_and_fro() {
    let codes = 40;
    let (world, mut db) = two_keys(2 * codes).await;
    let held = leases(&mut db).await;
    let (ours, theirs) = held.split_at(codes);
    let toggles = tokio::spawn({
        let mut db = world.sql().await;
        async move {
            for _ in 0..400 {
                run(&mut db, "UPDATE installation SET current_key = 3 - current_key").await;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    });
    let mut work = Vec::new();
    for (server, leases) in [ours, theirs].into_iter().enumerate() {
        let store = world.store();
        for (code, lease) in leases.iter().enumerate() {
            let (store, lease) = (store.clone(), lease.clone());
            work.push(tokio::spawn(async move {
                let mut current = if server == 0 { KeyId::FIRST } else { second() };
                for round in 0..200 {
                    let print = prints(code as u8, current);
                    let new = redemption(&lease, &format!("{server}-{code}-{round}"), print);
                    match begin(&store, new).await {
                        Begun::Recorded { .. } => return 1,
                        Begun::Refused(BeginRefusal::CodeInUse { .. }) => return 0,
                        Begun::Refused(BeginRefusal::OldKeys) => {
                            current = if current == KeyId::FIRST { second() } else { KeyId::FIRST };
                        }
                        Begun::Refused(BeginRefusal::TryAgain) => {}
                        other => panic!("{other:?}"),
                    }
                    let pause = rand::rng().random_range(0..3);
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                }
                panic!("code {code} was never begun, nor found");
            }));
        }
    }
    let mut begun = 0;
    for one in work {
        begun += one.await.unwrap();
    }
    toggles.await.unwrap();
    assert_eq!(begun, codes, "each code once");
    let keys: Vec<i32> =
        sqlx::query_scalar("SELECT DISTINCT code_fingerprint_key FROM redemptions ORDER BY 1")
            .fetch_all(&mut db)
            .await
            .unwrap();
    assert_eq!(keys, [1, 2], "under both keys");
    run(&mut db, "UPDATE installation SET current_key = 1").await;
}
