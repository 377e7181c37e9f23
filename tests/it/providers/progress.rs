//! What is committed about a redemption before anything follows from it: the provider's id of its work, that it is sent
//! again, and the key that it has at the provider.

use std::time::Duration;

use holdfast::{
    domain::id::{PoolId, ProviderId, RedemptionId},
    rpc::pb::RedemptionState,
    simulator::{
        faults::{Fault, Faults},
        ledger,
    },
};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::versions::{POOL as REAL, Square, redeem, without_cases};
use crate::support::{
    fleet::{Able, Fleet, Setup},
    real::{Real, prepare},
    wait::eventually,
    world::{POOL, World, lease},
};

const LIMIT: Duration = Duration::from_secs(30);

/// A redemption in doubt over the built-in contract, which nothing can be asked about.
async fn in_doubt(world: &World) -> RedemptionId {
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let code = world.code("DOUBT");
    let rules = Faults::of_card(&code, &[Fault::ApplyThenDrop]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let redeemed = clients.redeem(&held, &code, |_| {}).await.unwrap().redemption.unwrap();
    assert_eq!(redeemed.state(), RedemptionState::InDoubt);
    RedemptionId::parse(&redeemed.redemption_id).unwrap()
}

/// Lets a redemption be looked up, and waits for its outcome.
async fn settle(world: &World, id: RedemptionId) {
    world.set_faults(Faults::default());
    let mut clients = world.clients(0).await;
    eventually(LIMIT, "it is settled", async || {
        let now = clients.redemption(&id.0.to_string()).await;
        (now.state() == RedemptionState::Succeeded).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_first_id_of_the_providers_work_stays() {
    let world = World::start().await;
    let id = in_doubt(&world).await;
    let (store, pool) = (world.store(), PoolId::parse(POOL).unwrap());
    let record = async |task| store.record_task(&pool, id, task).await.unwrap();
    assert_eq!(record("t-1").await.as_deref(), Some("t-1"));
    assert_eq!(record("t-2").await.as_deref(), Some("t-1"), "another is told later");
    assert_eq!(record("t-1").await.as_deref(), Some("t-1"));
    settle(&world, id).await;
    assert_eq!(record("t-2").await, None, "nothing is recorded of what is settled");
    let kept = "SELECT provider_task FROM redemptions WHERE redemption_id = $1";
    let kept: String =
        sqlx::query_scalar(kept).bind(id.0).fetch_one(&mut world.sql().await).await.unwrap();
    assert_eq!(kept, "t-1");
}

#[tokio::test]
async fn a_check_that_is_no_longer_the_last_does_not_send_again() {
    let world = World::start().await;
    let id = in_doubt(&world).await;
    let (store, pool) = (world.store(), PoolId::parse(POOL).unwrap());
    let mut db = world.sql().await;
    let checks = "SELECT checks FROM redemptions WHERE checks > 0";
    let checks = eventually(LIMIT, "it is checked", async || {
        sqlx::query_scalar::<_, i32>(checks).fetch_optional(&mut db).await.unwrap()
    })
    .await;
    // One before: whoever made it has been overtaken.
    assert!(!store.note_send(&pool, id, checks - 1).await.unwrap());
    let noted = "SELECT count(*) FROM redemptions WHERE sent_again_at IS NOT NULL";
    let noted: i64 = sqlx::query_scalar(noted).fetch_one(&mut db).await.unwrap();
    assert_eq!(noted, 0);
    settle(&world, id).await;
    for checks in 0..=checks + 10 {
        assert!(!store.note_send(&pool, id, checks).await.unwrap(), "it is settled");
    }
}

/// Kills a server at a point on its way to send a redemption again. Answers with whether that was recorded, and how
/// often the provider was reached.
async fn killed_at(point: &str) -> (bool, usize) {
    let able = Able { deduplicates: true, looks_up: true, cancels: true };
    let mut fleet = Fleet::start(Setup { able, serve: Vec::new(), provider: Vec::new() }).await;
    fleet.start_server(&[("HOLDFAST_CRASH_POINTS", point)]).await;
    let mut clients = fleet.clients(0);
    clients.create_pool(POOL).await;
    clients.create_account("a", |_| {}).await;
    let code = fleet.code("AGAIN");
    let rules = Faults::of_card(&code, &[Fault::DropBeforeApply]);
    fleet.set_faults(&Faults { rules, ..Faults::default() }).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let redeem = clients.redeem(&held, &code, |request| request.request_id = "again".to_owned());
    let begun = redeem.await.unwrap().redemption.unwrap();
    eventually(LIMIT, "the server is killed", async || fleet.first_is_gone().then_some(())).await;
    let mut db = PgConnection::connect(&fleet.db_url).await.unwrap();
    let noted = "SELECT sent_again_at IS NOT NULL AND sent_again_at > created_at FROM redemptions";
    let noted: bool = sqlx::query_scalar(noted).fetch_one(&mut db).await.unwrap();
    let reached = ledger::read(&fleet.ledger()).unwrap().len();

    let place = fleet.start_server(&[]).await;
    let mut clients = fleet.clients(place);
    eventually(LIMIT, "another server settles it", async || {
        let now = clients.redemption(&begun.redemption_id).await;
        (now.state() == RedemptionState::Succeeded).then_some(())
    })
    .await;
    (noted, reached)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_redemption_is_sent_again_is_recorded_before_it_is_sent() {
    assert_eq!(killed_at("note_send.before=kill").await, (false, 0));
    assert_eq!(killed_at("send_again.before=kill").await, (true, 0));
    assert_eq!(killed_at("send_again.after=kill").await, (true, 1));
}

/// The first keys that are reserved are ones that another redemption has.
const COLLISIONS: &str = "
    CREATE SEQUENCE tries;
    INSERT INTO provider_keys VALUES ('square', 'taken', gen_random_uuid());
    CREATE FUNCTION collide() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('tries') <= TG_ARGV[0]::bigint THEN
            NEW.key := 'taken';
        END IF;
        RETURN NEW;
    END $$;
";

#[tokio::test]
async fn a_key_that_is_shorter_than_the_id_is_no_other_redemptions() {
    let world = World::start().await;
    Real::Square.give_secrets(world.args().secrets_dir.as_ref().unwrap());
    let mut clients = world.clients(0).await;
    let square = Square::start().await;
    let text = square.profile();
    let with_key = |kind: &str, version: i32| {
        let key = format!("key = \"{kind}\"\nlength = 16");
        let text = text.replacen("version = 1", &format!("version = {version}"), 1);
        without_cases(&text).replacen("key = \"uuid\"", &key, 1)
    };
    prepare(&mut clients, Real::Square, with_key("hex", 1), REAL, 3).await;
    let mut db = world.sql().await;

    // A hex key is the end of the id, and is reserved.
    let redeemed = redeem(&mut clients, &world.code("HEX")).await.unwrap();
    assert_eq!(redeemed.state(), RedemptionState::Succeeded);
    let id: Uuid = redeemed.redemption_id.parse().unwrap();
    let hex = id.simple().to_string()[16..].to_owned();
    assert_eq!(reserved(&mut db).await, [(hex.clone(), id)]);
    assert_eq!(square.credited(), [hex]);

    // Two ids in a row have the key of another: a third is drawn.
    sqlx::raw_sql(COLLISIONS).execute(&mut db).await.unwrap();
    let trigger = "CREATE TRIGGER collide BEFORE INSERT ON provider_keys
                   FOR EACH ROW EXECUTE FUNCTION collide(2)";
    sqlx::raw_sql(trigger).execute(&mut db).await.unwrap();
    super::apply(&mut clients, &with_key("digits", 2)).await.unwrap();
    let mut cards = 0;
    let redeemed = eventually(LIMIT, "the new version is used", async || {
        cards += 1;
        let redeemed = redeem(&mut clients, &world.code(&format!("D{cards}"))).await.unwrap();
        (redeemed.provider_version == 2).then_some(redeemed)
    })
    .await;
    let tries: i64 =
        sqlx::query_scalar("SELECT last_value FROM tries").fetch_one(&mut db).await.unwrap();
    assert_eq!(tries, cards + 2);
    let id: Uuid = redeemed.redemption_id.parse().unwrap();
    let digits = format!("{:016}", id.as_u128() % 10_u128.pow(16));
    assert!(reserved(&mut db).await.contains(&(digits.clone(), id)));
    assert!(square.credited().contains(&digits));

    // Where each one that is drawn has another's key, nothing is begun.
    let always =
        trigger.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER").replace("(2)", "(100)");
    sqlx::raw_sql(sqlx::AssertSqlSafe(always)).execute(&mut db).await.unwrap();
    let credits = square.credited().len();
    let error = redeem(&mut clients, &world.code("NONE")).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::Internal, "{error:?}");
    assert_eq!(square.credited().len(), credits);
    let begun = "SELECT count(*) FROM redemptions WHERE provider_id = 'square'";
    let begun: i64 = sqlx::query_scalar(begun).fetch_one(&mut db).await.unwrap();
    assert_eq!(begun, cards + 1);

    // Keys are a provider's own.
    let (store, other) = (world.store(), RedemptionId::new());
    let reserve = async |provider: &str| {
        let provider = ProviderId::parse(provider).unwrap();
        store.reserve_key(&provider, &digits, other).await.unwrap()
    };
    sqlx::raw_sql("DROP TRIGGER collide ON provider_keys").execute(&mut db).await.unwrap();
    assert!(!reserve("square").await);
    assert!(reserve("elsewhere").await);
}

/// The keys that redemptions have.
async fn reserved(db: &mut PgConnection) -> Vec<(String, Uuid)> {
    let keys = "SELECT key, redemption_id FROM provider_keys WHERE key <> 'taken'";
    sqlx::query_as(keys).fetch_all(db).await.unwrap()
}
