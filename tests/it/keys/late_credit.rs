//! A late credit overturns a failure whose code was not redeemed again, under whichever secret key.

use std::time::Duration;

use holdfast::{
    domain::{
        id::{PoolId, RedemptionId, RequestId},
        money::{Currency, Money},
        redemption::{BeginRefusal, Begun, LateCredit, Redemption},
        secret_key::KeyId,
    },
    rpc::pb::{self, RedemptionState},
    store::Store,
};
use sqlx::{Connection as _, PgConnection};

use super::{
    first_key,
    race::{begin, leases, prints, redemption, run, second, two_keys},
    rotate, write_keys,
};
use crate::{
    redeem::review::{left_for_review, resolve, word},
    support::{
        wait::eventually,
        world::{Clients, INVALID_ACCOUNT, POOL, World, eur, lease},
    },
};

const LIMIT: Duration = Duration::from_secs(10);

/// Redeems a card into the account that is free, and answers with the redemption.
async fn redeem(clients: &mut Clients, code: &str) -> pb::Redemption {
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let request = |it: &mut pb::RedeemRequest| {
        it.request_id = RequestId::random().to_string();
        it.release_on_completion = true;
    };
    clients.redeem(&held, code, request).await.unwrap().redemption.unwrap()
}

/// What is made of the provider's word that it credited a redemption, which is recorded as failed.
async fn credited(store: &Store, redemption_id: &str, minor: i64) -> LateCredit {
    let redemption = read(store, redemption_id).await;
    assert_eq!(redemption.state.as_str(), "FAILED");
    let amount = Money { amount_minor: minor, currency: Currency::parse("EUR").unwrap() };
    store.credit_late(&redemption, (amount, None), 1, "a test").await.unwrap()
}

async fn read(store: &Store, redemption_id: &str) -> Redemption {
    let id = RedemptionId(redemption_id.parse().unwrap());
    store.get_redemption(&PoolId::parse(POOL).unwrap(), id).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_whose_code_was_redeemed_again_under_another_key_is_not_overturned() {
    let world = World::start().await;
    let (mut clients, store) = (world.clients(0).await, world.store());
    let codes = ["after", "before", "alone"].map(|name| world.code(name));
    clients.create_account("one", |_| {}).await;
    // Nobody redeems this one's code again. The provider did credit it.
    let (_, alone) = left_for_review(&world, &mut clients, &codes[2]).await;
    let failed = word(&alone, RedemptionState::Failed);
    let failed = pb::ResolveRedemptionRequest { recorded_amount_is_wrong: true, ..failed };
    resolve(&mut clients, failed).await.unwrap();
    clients.create_account(INVALID_ACCOUNT, |_| {}).await;
    let mut failed = Vec::new();
    for code in &codes[..2] {
        let works = |it: &mut pb::Account| it.login_status = pb::LoginStatus::Active.into();
        clients.update_account(INVALID_ACCOUNT, &["login_status"], works).await.unwrap();
        let redemption = redeem(&mut clients, code).await;
        assert_eq!(redemption.state(), RedemptionState::Failed, "{redemption:?}");
        failed.push(redemption.redemption_id);
    }
    // The code of one is open again when the key changes, and that of the other is redeemed after it.
    clients.create_account("two", |_| {}).await;
    let (_, open) = left_for_review(&world, &mut clients, &codes[1]).await;
    write_keys(&world, &first_key(&world), &[2, 1]);
    rotate(&world, &mut |_| {}).await.unwrap();
    clients.create_account("three", |_| {}).await;
    let again = redeem(&mut clients, &codes[0]).await;
    assert_eq!(again.state(), RedemptionState::Succeeded, "{again:?}");

    for redemption_id in &failed {
        assert_eq!(credited(&store, redemption_id, 1000).await, LateCredit::CodeRedeemedAgain);
        assert_eq!(read(&store, redemption_id).await.state.as_str(), "FAILED");
    }
    assert_eq!(credited(&store, &alone.redemption_id, 1100).await, LateCredit::Recorded);
    let word = word(&open, RedemptionState::Succeeded);
    let word = pb::ResolveRedemptionRequest { amount: Some(eur(1100)), ..word };
    resolve(&mut clients, word).await.unwrap();
}

/// A person closes a redemption that was begun by the store alone.
async fn close(clients: &mut Clients, redemption_id: RedemptionId) {
    let open = eventually(LIMIT, "it is for a person", async || {
        let open = clients.redemption(&redemption_id.to_string()).await;
        (open.state() == RedemptionState::NeedsReview).then_some(open)
    })
    .await;
    resolve(clients, word(&open, RedemptionState::Failed)).await.unwrap();
}

/// A late credit holds the row of its failure until it is committed. Which of the two comes first is not known before
/// that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_is_not_begun_under_another_key_while_its_failure_is_being_credited() {
    let (world, mut db) = two_keys(2).await;
    let (mut clients, store) = (world.clients(0).await, world.store());
    let held = leases(&mut db).await;
    let first = redemption(&held[0], "first", prints(7, KeyId::FIRST));
    let first_id = first.1.redemption_id;
    assert!(matches!(begin(&store, first).await, Begun::Recorded { .. }));
    close(&mut clients, first_id).await;
    run(&mut db, "UPDATE installation SET current_key = 2").await;

    let mut other = world.sql().await;
    let mut credits = other.begin().await.unwrap();
    let hold = "SELECT FROM redemptions FOR NO KEY UPDATE";
    sqlx::query(hold).execute(&mut *credits).await.unwrap();
    let again = || redemption(&held[1], "again", prints(7, second()));
    let refused = begin(&store, again()).await;
    assert!(matches!(refused, Begun::Refused(BeginRefusal::TryAgain)), "{refused:?}");
    credits.rollback().await.unwrap();

    let begun = again();
    let again_id = begun.1.redemption_id;
    let begun = begin(&store, begun).await;
    assert!(matches!(begun, Begun::Recorded { .. }), "{begun:?}");
    assert_eq!(fingerprint_keys(&mut db).await, [2, 2], "both are found by one key");
    let credited = credited(&store, &first_id.to_string(), 1000).await;
    assert_eq!(credited, LateCredit::CodeRedeemedAgain);
    let one_key = "UPDATE redemptions SET code_fingerprint_key = 1;
        UPDATE installation SET current_key = 1; DELETE FROM secret_keys WHERE key_id = 2";
    run(&mut db, one_key).await;
    close(&mut clients, again_id).await;
}

async fn fingerprint_keys(db: &mut PgConnection) -> Vec<i32> {
    let keys = sqlx::query_scalar("SELECT code_fingerprint_key FROM redemptions");
    keys.fetch_all(db).await.unwrap()
}
