//! A server that ends, or whose statement's reply is lost, while an operator ends another's lease: what was done has one
//! event, and what was not has none.

use holdfast::domain::access::Role;
use sqlx::{Connection as _, PgConnection};

use crate::support::{
    fleet::{Able, Fleet, Setup},
    world::{POOL, lease, seconds},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_act_has_its_event_once_where_it_was_done_and_none_where_it_was_not() {
    let cases = [
        ("release.before=kill", 0),
        ("release.after=kill", 1),
        ("release.before=error", 1),
        ("release.after=error", 1),
    ];
    for (points, expected) in cases {
        let able = Able { deduplicates: true, looks_up: true, cancels: true };
        let setup = Setup { able, serve: Vec::new(), provider: Vec::new() };
        let mut fleet = Fleet::start(setup).await;
        fleet.ask_who_calls().await;
        fleet.start_server(&[("HOLDFAST_CRASH_POINTS", points)]).await;
        fleet.start_server(&[]).await;
        let mut other = fleet.clients(1);
        other.create_pool(POOL).await;
        other.create_account("a", |_| {}).await;
        let mut a = fleet.clients_as(1, "token:a", Role::Redeemer).await;
        let held = lease(&a.acquire(|r| r.lease_duration = seconds(60.0)).await.unwrap());
        let mut ops = fleet.clients_as(0, "token:ops", Role::Operator).await;
        let released = ops.release(&held).await;
        assert_eq!(released.is_err(), points.ends_with("kill"), "{points}: {released:?}");
        let mut db = PgConnection::connect(&fleet.db_url).await.unwrap();
        let counted: (i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM audit_events WHERE action = 'ReleaseAccount'),
                 (SELECT count(*) FROM account_events WHERE reason = 'released')",
        )
        .fetch_one(&mut db)
        .await
        .unwrap();
        assert_eq!(counted, (expected, expected), "{points}");
        if expected == 0 {
            a.release(&held).await.unwrap();
        }
        drop(db);
        let broken = fleet.finish().await;
        assert!(broken.is_empty(), "{points}: {broken:#?}");
    }
}
