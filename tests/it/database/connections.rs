//! Connections that nobody uses are given back.

use std::time::Duration;

use futures_util::future::join_all;
use holdfast::{domain::id::PoolId, store::Store};
use sqlx::{Connection as _, PgConnection};

use crate::support::{
    wait::eventually,
    world::{POOL, fresh_database},
};

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn connections_that_nobody_uses_are_closed_and_opened_again_when_they_are_needed() {
    let database = fresh_database().await;
    let store = Store::open(&database.url.clone().into(), 4).unwrap();
    let mut db = PgConnection::connect(&database.url).await.unwrap();
    let mut others = async || {
        let count = "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()
               AND backend_type = 'client backend'";
        sqlx::query_scalar::<_, i64>(count).fetch_one(&mut db).await.unwrap()
    };
    let pool_id = PoolId::parse(POOL).unwrap();
    for read in join_all((0..8).map(|_| store.get_pool(&pool_id))).await {
        assert!(read.unwrap().is_none());
    }
    store.close_unused(Duration::from_secs(3600)).await;
    assert!(others().await > 1, "several were needed");
    store.close_unused(Duration::ZERO).await;
    eventually(LIMIT, "they are closed", async || (others().await == 0).then_some(())).await;
    assert!(store.get_pool(&pool_id).await.unwrap().is_none());
    assert_eq!(others().await, 1);
}
