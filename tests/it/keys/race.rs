//! Two servers that use different secret keys at the same time: no code is begun under both.

use std::time::Duration;

use holdfast::{
    domain::{
        id::{AccountId, FencingToken, PoolId, RedemptionId, RequestId},
        lease::LeaseRef,
        principal::{Principal, RequestKey},
        redemption::{BeginRefusal, Begun, NewRedemption, SendLimits},
        secret_key::{Fingerprints, KeyId},
    },
    rpc::pb::RedemptionState,
    store::{Store, StoreError},
};
use rand::RngExt as _;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::{
    redeem::review::{resolve, word},
    support::{
        wait::eventually,
        world::{POOL, World},
    },
};

const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn second() -> KeyId {
    KeyId::parse("2").unwrap()
}

/// A code's fingerprints by both keys.
pub(super) fn prints(code: u8, current: KeyId) -> Fingerprints {
    Fingerprints { current, all: vec![(KeyId::FIRST, [code; 32]), (second(), [code ^ 0x80; 32])] }
}

pub(super) fn redemption(
    lease: &holdfast::rpc::pb::LeaseRef,
    request: &str,
    print: Fingerprints,
) -> (LeaseRef, NewRedemption) {
    let lease = LeaseRef {
        pool_id: PoolId::parse(POOL).unwrap(),
        account_id: AccountId::parse(&lease.account_id).unwrap(),
        token: FencingToken(lease.fencing_token),
    };
    let new = NewRedemption {
        redemption_id: RedemptionId::new(),
        attempt: 1,
        request: RequestKey::new(Principal::anonymous(), RequestId::parse_any(request).unwrap()),
        release_on_completion: true,
        code_fingerprint: print,
        code_ciphertext: vec![1],
        code_last4: String::new(),
        expected_minor: None,
        expected_learned: false,
        profile: holdfast::provider::profile::Profile::built_in().pinned(),
    };
    (lease, new)
}

/// Nothing is sent, and the codes cannot be read: a person settles them in the end.
pub(super) async fn begin(store: &Store, (lease, new): (LeaseRef, NewRedemption)) -> Begun {
    let moment = Duration::from_millis(1);
    match store.begin(&lease, new, SendLimits { not_after: moment, take_over: moment }).await {
        Err(StoreError::Overloaded) => Begun::Refused(BeginRefusal::TryAgain),
        begun => begun.unwrap(),
    }
}

/// A person closes all that was begun.
async fn close_all(world: &World, db: &mut PgConnection) {
    run(db, "UPDATE installation SET current_key = 1; DELETE FROM secret_keys WHERE key_id = 2")
        .await;
    let mut clients = world.clients(0).await;
    let ids = sqlx::query_scalar("SELECT redemption_id::text FROM redemptions");
    let ids: Vec<String> = ids.fetch_all(db).await.unwrap();
    for id in ids {
        let open = eventually(LIMIT, "it is for a person", async || {
            let open = clients.redemption(&id).await;
            (open.state() == RedemptionState::NeedsReview).then_some(open)
        })
        .await;
        resolve(&mut clients, word(&open, RedemptionState::Failed)).await.unwrap();
    }
}

pub(super) async fn run(db: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await.unwrap();
}

/// A world with leased accounts, whose database has two keys. The first is current.
pub(super) async fn two_keys(accounts: usize) -> (World, PgConnection) {
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

pub(super) async fn leases(db: &mut PgConnection) -> Vec<holdfast::rpc::pb::LeaseRef> {
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

/// Holds a begin up in the middle, after it has looked, until the gate is open.
const GATE: &str = "
    CREATE TABLE gate (is_open bool);
    CREATE FUNCTION wait_at_the_gate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        WHILE NOT EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.02); END LOOP;
        RETURN NEW;
    END $$;
    CREATE TRIGGER gate BEFORE INSERT ON redemptions FOR EACH ROW WHEN (NEW.request_id = 'slow')
        EXECUTE FUNCTION wait_at_the_gate()";

/// The one that began before the change is held up in the middle, after it has looked. The other uses the new key, and
/// must not begin the same code.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_begin_that_is_under_way_with_the_old_key_is_seen_by_one_with_the_new() {
    let (world, mut db) = two_keys(2).await;
    let held = leases(&mut db).await;
    let (old, new) = (world.store(), world.store());
    run(&mut db, GATE).await;
    let first = redemption(&held[0], "slow", prints(7, KeyId::FIRST));
    let slow = tokio::spawn(async move { begin(&old, first).await });
    eventually(LIMIT, "the first begin stands still", async || {
        let sleeps = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event = 'PgSleep'";
        let count: i64 = sqlx::query_scalar(sleeps).fetch_one(&mut db).await.unwrap();
        (count > 0).then_some(())
    })
    .await;
    // A change would wait for it; this is what happens when nobody does.
    let writers = new.writers(None).await.unwrap();
    assert!(!writers.is_empty(), "the change waits for those that are under way");
    run(&mut db, "UPDATE installation SET current_key = 2").await;
    let second_try = redemption(&held[1], "fast", prints(7, second()));
    let fast = begin(&new, second_try).await;
    run(&mut db, "INSERT INTO gate VALUES (true)").await;
    let slow = slow.await.unwrap();
    assert!(matches!(slow, Begun::Recorded { .. }), "{slow:?}");
    assert!(matches!(fast, Begun::Refused(BeginRefusal::TryAgain)), "{fast:?}");
    let again = redemption(&held[1], "fast", prints(7, second()));
    let again = begin(&new, again).await;
    assert!(matches!(again, Begun::Refused(BeginRefusal::CodeInUse { .. })), "{again:?}");
    let living: i64 =
        sqlx::query_scalar("SELECT count(*) FROM redemptions").fetch_one(&mut db).await.unwrap();
    assert_eq!(living, 1);
    close_all(&world, &mut db).await;
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
    close_all(&world, &mut db).await;
}
