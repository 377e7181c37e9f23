//! Versions of accounts and revisions of pools: each change raises them by one, whoever makes it and however.

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;
use holdfast::{
    domain::{
        account::LeaseAnswer,
        id::{AccountId, FencingToken, PoolId},
        lease::{LeaseLoss, LeaseRef},
        principal::{Authority, Principal},
    },
    rpc::pb,
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use uuid::Uuid;

use crate::support::{
    plans::psql,
    world::{Clients, POOL, World, lease},
};

/// As it is sent, but that the changes are given as JSON.
const APPLY: &str = include_str!("../../../src/store/sql/account/apply.sql");
const CHANGES: &str = "$3::account_change[]";
const CHANGES_OF_JSON: &str = "ARRAY(SELECT jsonb_populate_record(NULL::account_change, c)
                                     FROM jsonb_array_elements($3::jsonb) AS c)";
const ACCOUNT: &str = "a-000";

/// A world with one account.
async fn one_account() -> (World, Clients, PgConnection) {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let db = world.sql().await;
    (world, clients, db)
}

/// The account's version, and the change that made it.
async fn version(db: &mut PgConnection) -> (i64, Uuid) {
    let version = "SELECT version, change_id FROM accounts WHERE account_id = $1";
    sqlx::query_as(version).bind(ACCOUNT).fetch_one(db).await.unwrap()
}

/// Who made each version of the account, why, and by which change.
async fn events(db: &mut PgConnection) -> Vec<(i64, String, String, Uuid)> {
    let events = "SELECT version, actor, reason, change_id FROM account_events
                  WHERE account_id = $1 ORDER BY version";
    sqlx::query_as(events).bind(ACCOUNT).fetch_all(db).await.unwrap()
}

async fn revision(db: &mut PgConnection) -> i64 {
    let revision = "SELECT revision FROM pools WHERE pool_id = $1";
    sqlx::query_scalar(revision).bind(POOL).fetch_one(db).await.unwrap()
}

#[tokio::test]
async fn a_version_that_does_not_follow_the_one_before_it_is_refused() {
    let (_world, _, mut db) = one_account().await;
    let before = version(&mut db).await;
    for other in ["version + 2", "version - 1", "0"] {
        let update = AssertSqlSafe(format!("UPDATE accounts SET version = {other}"));
        let error = sqlx::query(update).execute(&mut db).await.unwrap_err();
        assert!(error.to_string().contains("does not follow"), "{other}: {error}");
    }
    assert_eq!(version(&mut db).await, before);
}

#[tokio::test]
async fn a_change_by_hand_raises_the_version_and_leaves_an_event() {
    let (_world, mut clients, mut db) = one_account().await;
    let before = version(&mut db).await;
    psql(&mut db, "UPDATE accounts SET country_code = 'DE'").await;
    let after = version(&mut db).await;
    assert_eq!(after.0, before.0 + 1);
    assert_ne!(after.1, before.1);
    let events = events(&mut db).await;
    let (number, actor, reason, change_id) = events.last().unwrap();
    assert_eq!((*number, *change_id), after);
    assert!(actor.starts_with("database user "), "{actor}");
    assert_eq!(reason, "changed");
    assert_eq!(clients.account(ACCOUNT).await.country_code, "DE");
}

#[tokio::test]
async fn an_account_created_by_hand_has_its_first_version_and_event() {
    let (_world, _, mut db) = one_account().await;
    let create = "INSERT INTO accounts (pool_id, account_id) VALUES ('pool', 'by-hand')";
    psql(&mut db, create).await;
    let made = "SELECT a.version, a.change_id = e.change_id, e.reason
                FROM accounts a JOIN account_events e USING (pool_id, account_id, version)
                WHERE account_id = 'by-hand'";
    let made: (i64, bool, String) = sqlx::query_as(made).fetch_one(&mut db).await.unwrap();
    assert_eq!(made, (1, true, "created".to_owned()));
}

#[tokio::test]
async fn every_change_of_a_pool_and_of_its_plans_raises_the_revision() {
    let (_world, mut clients, mut db) = one_account().await;
    let mut before = revision(&mut db).await;
    for change in [
        "UPDATE pools SET paused = true",
        "INSERT INTO plans (pool_id, plan_id, target_minor) VALUES ('pool', 'plan', 1000)",
        "UPDATE plans SET target_minor = 500",
        "DELETE FROM plans",
    ] {
        psql(&mut db, change).await;
        let after = revision(&mut db).await;
        assert!(after > before, "{change}");
        before = after;
    }
    clients.create_plan("other", 1000).await;
    assert!(revision(&mut db).await > before);
}

#[tokio::test]
async fn a_revision_that_was_told_does_not_come_again_where_its_commit_was_lost() {
    let (_world, _, mut db) = one_account().await;
    for _ in 0..3 {
        psql(&mut db, "UPDATE pools SET paused = false").await;
    }
    let told = revision(&mut db).await;
    // As after a failover to a standby that had not heard of it.
    let lost = "ALTER TABLE pools DISABLE TRIGGER USER; UPDATE pools SET revision = 1;
                ALTER TABLE pools ENABLE TRIGGER USER";
    psql(&mut db, lost).await;
    psql(&mut db, "UPDATE pools SET paused = true").await;
    psql(&mut db, "UPDATE pools SET paused = false").await;
    let after = revision(&mut db).await;
    assert!(after > told, "{told}, then {after}");
}

/// The statement itself: one of them wins, and only that is told.
#[tokio::test]
async fn of_two_changes_of_one_account_in_one_statement_one_is_written() {
    let (_world, _, mut db) = one_account().await;
    let (number, seen) = version(&mut db).await;
    let change = |country_code: &str| {
        json!({
            "account_id": ACCOUNT, "version": number, "seen": seen, "seen_token": 0,
            "change_id": Uuid::new_v4(), "guard": "none", "actor": "tester", "principal": "", "reason": "updated",
            "status": "WAITING", "fencing_token": 0, "bound_by_lease": false,
            "release_requested": false, "login_status": "ACTIVE", "country_code": country_code,
            "paused": false, "draining": false, "credit_minor": 0, "plan_day": 1,
            "day_credited_minor": 0, "hold_count": 0, "goes_idle": false,
        })
    };
    assert_eq!(APPLY.matches(CHANGES).count(), 1);
    let apply = AssertSqlSafe(APPLY.replace(CHANGES, CHANGES_OF_JSON));
    let revision = revision(&mut db).await;
    let changes = Value::Array(vec![change("DE"), change("FR")]);
    let told = sqlx::query(apply).bind(POOL).bind(revision).bind(changes).bind(Uuid::now_v7());
    let told = told.bind(Vec::<String>::new()).fetch_all(&mut db).await.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].get::<String, _>("account_id!"), ACCOUNT);
    let after = version(&mut db).await;
    assert_eq!(after.0, number + 1);
    let events = events(&mut db).await;
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!((events[1].0, events[1].3), after);
}

#[tokio::test]
async fn changes_of_one_account_that_are_asked_for_at_once_are_made_one_after_the_other() {
    let (world, mut clients, mut db) = one_account().await;
    let store = world.store();
    let held = lease_ref(&lease(&clients.acquire(|_| {}).await.unwrap()));
    let (before, _) = version(&mut db).await;
    let renew = || store.renew(&held, Duration::from_secs(60), Principal::anonymous());
    let renewed = join_all((0..20).map(|_| renew())).await;
    let versions = renewed.into_iter().map(|answer| match answer.unwrap() {
        LeaseAnswer::Done(account) => account.version.number,
        other => panic!("{other:?}"),
    });
    let versions: HashSet<_> = versions.collect();
    assert_eq!(versions, (before + 1..=before + 20).collect(), "each is told its own version");

    let (one, other) = {
        let release = || store.release(&held, Authority::default());
        tokio::join!(release(), release())
    };
    let is_released = |answer: &LeaseAnswer| matches!(answer, LeaseAnswer::Done(_));
    let was_released =
        |answer: &LeaseAnswer| matches!(answer, LeaseAnswer::Lost(LeaseLoss::Released, _));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(
        is_released(&one) && was_released(&other) || was_released(&one) && is_released(&other),
        "{one:?}, {other:?}"
    );
    assert_eq!(version(&mut db).await.0, before + 21);
    let made = events(&mut db).await.into_iter().map(|event| event.0);
    assert!(made.eq(1..=before + 21));
    store.close().await;
}

fn lease_ref(lease: &pb::LeaseRef) -> LeaseRef {
    LeaseRef {
        pool_id: PoolId::parse(&lease.pool_id).unwrap(),
        account_id: AccountId::parse(&lease.account_id).unwrap(),
        token: FencingToken(lease.fencing_token),
    }
}
