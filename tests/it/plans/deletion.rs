//! A plan that accounts are bound to is not deleted, also not while one is being bound to it.

use std::time::Duration;

use holdfast::rpc::pb;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;
use tonic::Status;

use crate::support::{
    wait::eventually,
    world::{Clients, POOL, World, lease, metadata, reason},
};

const LIMIT: Duration = Duration::from_secs(10);

async fn delete(clients: &mut Clients, plan_id: &str) -> Result<(), Status> {
    let request = pb::DeletePlanRequest { pool_id: POOL.to_owned(), plan_id: plan_id.to_owned() };
    clients.pools.delete_plan(request).await.map(drop)
}

async fn acquire_by_plan(clients: &mut Clients, plan_id: &str) -> Result<pb::LeaseRef, Status> {
    let plan_id = plan_id.to_owned();
    let acquired = clients
        .acquire(|r| r.selector = Some(pb::AccountSelector { plan_id, ..Default::default() }));
    Ok(lease(&acquired.await?))
}

async fn give(clients: &mut Clients, account_id: &str, plan_id: &str) -> Result<(), Status> {
    let plan_id = plan_id.to_owned();
    let given = clients.update_account(account_id, &["plan_id"], |a| a.plan_id = plan_id);
    given.await.map(drop)
}

#[tokio::test]
async fn plan_in_use_until_nobody_is_bound_to_it_any_more() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 9000).await;
    clients.create_account("bound", |account| account.plan_id = "plan".to_owned()).await;
    let error = delete(&mut clients, "plan").await.unwrap_err();
    assert_eq!(reason(&error), "PLAN_IN_USE");
    assert_eq!(error.code(), tonic::Code::FailedPrecondition);
    assert_eq!(
        (metadata(&error, "plan_id"), metadata(&error, "account_id")),
        ("plan".to_owned(), "bound".to_owned())
    );
    give(&mut clients, "bound", "").await.unwrap();
    // Bound by a lease alone.
    let held = acquire_by_plan(&mut clients, "plan").await.unwrap();
    let error = delete(&mut clients, "plan").await.unwrap_err();
    assert_eq!(reason(&error), "PLAN_IN_USE");
    clients.release(&held).await.unwrap();
    delete(&mut clients, "plan").await.unwrap();
    let error = delete(&mut clients, "plan").await.unwrap_err();
    assert_eq!(reason(&error), "PLAN_NOT_FOUND");
    let error = acquire_by_plan(&mut clients, "plan").await.unwrap_err();
    assert_eq!(reason(&error), "PLAN_NOT_FOUND");
    clients.create_plan("plan", 5000).await;
    acquire_by_plan(&mut clients, "plan").await.unwrap();
}

/// Whether a statement of the servers waits for a lock.
async fn waits_for_a_lock(db: &mut PgConnection) -> bool {
    let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock')";
    sqlx::query_scalar(waiting).fetch_one(db).await.unwrap()
}

#[tokio::test]
async fn update_account_that_binds_a_plan_while_it_is_deleted_is_told_that_there_is_none() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let (mut other_program, mut db) = (world.sql().await, world.sql().await);
    for (n, way) in ["acquire", "update", "create"].into_iter().enumerate() {
        let plan_id = format!("plan-{n}");
        clients.create_plan(&plan_id, 9000).await;
        let mut deletion = other_program.begin().await.unwrap();
        sqlx::query("DELETE FROM plans WHERE plan_id = $1")
            .bind(&plan_id)
            .execute(&mut *deletion)
            .await
            .unwrap();
        let (mut other, plan) = (clients.clone(), plan_id.clone());
        let binding = tokio::spawn(async move {
            match way {
                "acquire" => acquire_by_plan(&mut other, &plan).await.map(drop),
                "update" => give(&mut other, "a-000", &plan).await,
                _ => {
                    let account = pb::Account {
                        pool_id: POOL.to_owned(),
                        account_id: "new".to_owned(),
                        plan_id: plan,
                        ..Default::default()
                    };
                    let request = pb::CreateAccountRequest { account: Some(account) };
                    other.accounts.create_account(request).await.map(drop)
                }
            }
        });
        eventually(LIMIT, "it waits for the deletion", async || {
            waits_for_a_lock(&mut db).await.then_some(())
        })
        .await;
        deletion.commit().await.unwrap();
        let error = binding.await.unwrap().unwrap_err();
        assert_eq!(reason(&error), "PLAN_NOT_FOUND", "{way}");
    }
}

#[tokio::test]
async fn deletions_and_bindings_that_meet_leave_no_account_without_its_plan() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(8).await;
    let expected = ["PLAN_NOT_FOUND", "PLAN_IN_USE", "NO_ACCOUNT_AVAILABLE", "ACCOUNT_LOCKED"];
    let mut deleted = 0;
    for round in 0..15 {
        let plan_id = format!("plan-{round}");
        clients.create_plan(&plan_id, 9000).await;
        let mut tasks = JoinSet::new();
        for n in 0..6 {
            let (mut clients, plan_id) = (clients.clone(), plan_id.clone());
            tasks.spawn(async move {
                match n {
                    0 | 1 => delete(&mut clients, &plan_id).await.map(|()| true),
                    2 => give(&mut clients, "a-007", &plan_id).await.map(|()| false),
                    _ => {
                        let held = acquire_by_plan(&mut clients, &plan_id).await?;
                        clients.release(&held).await.map(|_| false)
                    }
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            match done.unwrap() {
                Ok(was_deleted) => deleted += i32::from(was_deleted),
                Err(error) => {
                    let reason = reason(&error);
                    assert!(expected.contains(&&*reason), "{error:?}");
                }
            }
        }
        give(&mut clients, "a-007", "").await.unwrap();
    }
    assert!(deleted > 0, "the deletion never came first");
}
