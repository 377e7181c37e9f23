//! Providers that fail as a whole, and who finds out that they work again.

use std::time::Duration;

use holdfast::rpc::pb;
use tokio::{net::TcpListener, task::JoinSet};
use tonic::Status;

use super::{
    apply,
    limits::{Fake, POOL, profile},
};
use crate::support::{
    wait::eventually,
    world::{Clients, World, eur, reason},
};

const LIMIT: Duration = Duration::from_secs(60);

async fn redeem_card(mut clients: Clients, code: String) -> Result<pb::Redemption, Status> {
    let request = pb::RedeemCardRequest {
        request_id: uuid::Uuid::now_v7().to_string(),
        pool_id: POOL.to_owned(),
        holder: "till".to_owned(),
        code,
        expected: Some(eur(1000)),
        ..Default::default()
    };
    let redemption =
        clients.redemptions.redeem_card(request).await?.into_inner().redemption.unwrap();
    clients.journal().redemption(&redemption);
    Ok(redemption)
}

/// Nothing is in doubt, so no look-up finds out that it can be reached again: cards that are begun at once must.
#[tokio::test]
async fn cards_alone_find_out_that_a_provider_can_be_reached_again() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    apply(&mut clients, &profile(&format!("http://{addr}"), "")).await.unwrap();
    let pool = pb::Pool {
        pool_id: POOL.to_owned(),
        provider_id: "limited".to_owned(),
        currency_code: "EUR".to_owned(),
        ..Default::default()
    };
    clients.pools.create_pool(pb::CreatePoolRequest { pool: Some(pool) }).await.unwrap();
    for number in 0..16 {
        clients
            .create_account(&format!("a{number}"), |account| account.pool_id = POOL.to_owned())
            .await;
    }
    let mut first = JoinSet::new();
    for number in 0..16 {
        first.spawn(redeem_card(clients.clone(), world.code(&format!("lost-{number}"))));
    }
    for redeemed in first.join_all().await {
        assert!(redeemed.is_ok_and(|it| it.state() == pb::RedemptionState::Failed));
    }
    // Between the first and this one may have been time enough for a try, which fails.
    let mut number = 0;
    let refused = eventually(LIMIT, "a card is refused", async || {
        number += 1;
        redeem_card(clients.clone(), world.code(&format!("refused-{number}"))).await.err()
    })
    .await;
    assert_eq!(reason(&refused), "PROVIDER_UNAVAILABLE");
    let (_fake, app) = Fake::make();
    let listener = TcpListener::bind(addr).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut number = 0;
    let redeemed = eventually(LIMIT, "a card is redeemed", async || {
        number += 1;
        redeem_card(clients.clone(), world.code(&format!("again-{number}"))).await.ok()
    })
    .await;
    assert_eq!(redeemed.state(), pb::RedemptionState::Succeeded, "{redeemed:?}");
}
