//! Pools, plans and accounts: created, read, listed, changed and imported.

use std::collections::HashMap;

use holdfast::rpc::pb::{self, AccountStatus, AmountMismatchPolicy, LoginStatus};
use tonic::{Code, Status};

use crate::support::world::{
    Clients, POOL, World, bad_fields, check_names, eur, lease, reason, seconds,
};

fn mask(paths: &[&str]) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

async fn update_pool(
    clients: &mut Clients,
    pool: pb::Pool,
    paths: &[&str],
) -> Result<pb::Pool, Status> {
    let pool = pb::Pool { pool_id: POOL.into(), ..pool };
    let request = pb::UpdatePoolRequest { pool: Some(pool), update_mask: mask(paths) };
    Ok(clients.pools.update_pool(request).await?.into_inner().pool.unwrap())
}

async fn update_account(
    clients: &mut Clients,
    account: pb::Account,
    paths: &[&str],
) -> Result<pb::Account, Status> {
    let account = pb::Account { pool_id: POOL.into(), account_id: "a".into(), ..account };
    let request = pb::UpdateAccountRequest { account: Some(account), update_mask: mask(paths) };
    Ok(clients.accounts.update_account(request).await?.into_inner().account.unwrap())
}

async fn get_pool(clients: &mut Clients, pool_id: &str) -> Result<pb::Pool, Status> {
    let request = pb::GetPoolRequest { pool_id: pool_id.into() };
    Ok(clients.pools.get_pool(request).await?.into_inner().pool.unwrap())
}

#[tokio::test]
async fn create_pool_fills_in_the_defaults() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let pool = get_pool(&mut clients, POOL).await.unwrap();
    assert_eq!(pool.currency_code, "EUR");
    assert_eq!(
        [pool.min_lease_duration, pool.default_lease_duration, pool.max_lease_duration],
        [seconds(1.0), seconds(60.0), seconds(600.0)]
    );
    assert_eq!(pool.paused, Some(false));
    assert_eq!(pool.amount_mismatch_policy(), AmountMismatchPolicy::Accept);
    assert!(pool.create_time.is_some() && pool.create_time == pool.update_time);

    let long = pb::Pool {
        pool_id: "long".into(),
        currency_code: "USD".into(),
        default_lease_duration: seconds(7200.0),
        ..Default::default()
    };
    let request = pb::CreatePoolRequest { pool: Some(long.clone()) };
    let created = clients.pools.create_pool(request.clone()).await.unwrap().into_inner().pool;
    assert_eq!(created.as_ref().unwrap().max_lease_duration, seconds(7200.0), "the longer of two");
    assert_eq!(created.unwrap(), get_pool(&mut clients, "long").await.unwrap());

    let error = clients.pools.create_pool(request).await.unwrap_err();
    check_names(&error, Code::AlreadyExists, "POOL_ALREADY_EXISTS", "pool", "long");
    let error = get_pool(&mut clients, "nowhere").await.unwrap_err();
    check_names(&error, Code::NotFound, "POOL_NOT_FOUND", "pool", "nowhere");
}

#[tokio::test]
async fn update_pool_changes_only_what_is_named_or_set() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let before = get_pool(&mut clients, POOL).await.unwrap();
    let policy = AmountMismatchPolicy::NeedsReview;
    let given = pb::Pool {
        paused: Some(true),
        max_lease_duration: seconds(900.0),
        amount_mismatch_policy: policy.into(),
        ..Default::default()
    };
    let changed = update_pool(&mut clients, given.clone(), &["max_lease_duration"]).await.unwrap();
    let update_time = changed.update_time;
    let expected = pb::Pool { max_lease_duration: seconds(900.0), update_time, ..before.clone() };
    assert_eq!(changed, expected, "set, but not named by the mask");

    let changed = update_pool(&mut clients, given, &[]).await.unwrap();
    assert_eq!((changed.paused, changed.amount_mismatch_policy()), (Some(true), policy));
    assert_eq!(changed.default_lease_duration, before.default_lease_duration);
    let changed = update_pool(&mut clients, pb::Pool::default(), &["paused"]).await.unwrap();
    assert_eq!(changed.paused, Some(false), "named and not set");
    assert_eq!(get_pool(&mut clients, POOL).await.unwrap(), changed);

    let cases = [
        (pb::Pool::default(), &["pool_id"][..], vec!["update_mask"]),
        (pb::Pool::default(), &["min_lease_duration"], vec!["pool.min_lease_duration"]),
        (
            pb::Pool { currency_code: "USD".into(), ..Default::default() },
            &[],
            vec!["pool.currency_code"],
        ),
        (
            pb::Pool { min_lease_duration: seconds(90.0), ..Default::default() },
            &[],
            vec!["pool.min_lease_duration"],
        ),
        (
            pb::Pool {
                currency_code: "usd".into(),
                max_lease_duration: seconds(0.5),
                ..Default::default()
            },
            &[],
            vec!["pool.currency_code", "pool.max_lease_duration"],
        ),
    ];
    for (pool, paths, fields) in cases {
        let error = update_pool(&mut clients, pool, paths).await.unwrap_err();
        assert_eq!(bad_fields(&error), fields);
    }
    assert_eq!(get_pool(&mut clients, POOL).await.unwrap(), changed, "nothing was changed");
}

#[tokio::test]
async fn plans_are_created_read_and_changed() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let plan = |pool_id: &str, plan_id: &str, target: Option<pb::Money>| pb::Plan {
        pool_id: pool_id.into(),
        plan_id: plan_id.into(),
        target,
        ..Default::default()
    };
    let create = |plan| pb::CreatePlanRequest { plan: Some(plan) };
    let get = |plan_id: &str| pb::GetPlanRequest { pool_id: POOL.into(), plan_id: plan_id.into() };

    let made = clients.pools.create_plan(create(plan(POOL, "p", Some(eur(5000))))).await.unwrap();
    let made = made.into_inner().plan.unwrap();
    assert_eq!(made.target, Some(eur(5000)));
    let read = clients.pools.get_plan(get("p")).await.unwrap().into_inner().plan.unwrap();
    assert_eq!(read, made);

    let again = clients.pools.create_plan(create(plan(POOL, "p", Some(eur(1))))).await.unwrap_err();
    check_names(&again, Code::AlreadyExists, "PLAN_ALREADY_EXISTS", "plan", "p");
    let nowhere = create(plan("nowhere", "p", Some(eur(1))));
    let error = clients.pools.create_plan(nowhere).await.unwrap_err();
    check_names(&error, Code::NotFound, "POOL_NOT_FOUND", "pool", "nowhere");
    let error = clients.pools.get_plan(get("none")).await.unwrap_err();
    check_names(&error, Code::NotFound, "PLAN_NOT_FOUND", "plan", "none");

    let update =
        |plan, paths: &[&str]| pb::UpdatePlanRequest { plan: Some(plan), update_mask: mask(paths) };
    for paths in [&["target"][..], &[]] {
        let request = update(plan(POOL, "p", Some(eur(700))), paths);
        let changed = clients.pools.update_plan(request).await.unwrap().into_inner().plan.unwrap();
        assert_eq!(changed.target, Some(eur(700)));
    }
    let error =
        clients.pools.update_plan(update(plan(POOL, "none", Some(eur(7))), &[])).await.unwrap_err();
    check_names(&error, Code::NotFound, "PLAN_NOT_FOUND", "plan", "none");
}

#[tokio::test]
async fn pages_hold_everything_exactly_once() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(7).await;
    for n in 0..7 {
        clients.create_plan(&format!("p-{n}"), 100).await;
        clients.create_pool(&format!("pool-{n}")).await;
    }
    for page_size in [1, 2, 3, 7, 8] {
        let (mut pools, mut plans, mut accounts) = (Vec::new(), Vec::new(), Vec::new());
        let mut page_token = String::new();
        loop {
            let request = pb::ListPoolsRequest { page_size, page_token };
            let page = clients.pools.list_pools(request).await.unwrap().into_inner();
            assert!(page.pools.len() <= usize::try_from(page_size).unwrap());
            pools.extend(page.pools.into_iter().map(|pool| pool.pool_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        loop {
            let request = pb::ListPlansRequest { pool_id: POOL.into(), page_size, page_token };
            let page = clients.pools.list_plans(request).await.unwrap().into_inner();
            plans.extend(page.plans.into_iter().map(|plan| plan.plan_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        loop {
            let request = pb::ListAccountsRequest {
                pool_id: POOL.into(),
                page_size,
                page_token,
                ..Default::default()
            };
            let page = clients.accounts.list_accounts(request).await.unwrap().into_inner();
            accounts.extend(page.accounts.into_iter().map(|account| account.account_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let named = |prefix: &str, width| (0..7).map(|n| format!("{prefix}-{n:0width$}")).collect();
        let mut all_pools: Vec<String> = named("pool", 1);
        all_pools.insert(0, POOL.to_owned());
        assert_eq!(pools, all_pools, "pages of {page_size}");
        assert_eq!(plans, named("p", 1) as Vec<String>, "pages of {page_size}");
        assert_eq!(accounts, named("a", 3) as Vec<String>, "pages of {page_size}");
    }
}

#[tokio::test]
async fn list_accounts_by_status_login_and_plan() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 1000).await;
    clients.create_account("free", |_| {}).await;
    clients.create_account("off", |a| a.set_login_status(LoginStatus::Inactive)).await;
    clients.create_account("planned", |a| a.plan_id = "plan".into()).await;
    let full = clients
        .create_account("full", |a| {
            a.plan_id = "plan".into();
            a.balance = Some(eur(1000));
        })
        .await;
    assert_eq!(full.status(), AccountStatus::Completed, "its target is reached already");
    clients
        .acquire(|r| {
            let selector =
                pb::AccountSelector { account_id: "planned".into(), ..Default::default() };
            r.selector = Some(selector);
        })
        .await
        .unwrap();
    let mut list = async |change: &dyn Fn(&mut pb::ListAccountsRequest)| -> Vec<String> {
        let mut request = pb::ListAccountsRequest { pool_id: POOL.into(), ..Default::default() };
        change(&mut request);
        let page = clients.accounts.list_accounts(request).await.unwrap().into_inner();
        page.accounts.into_iter().map(|account| account.account_id).collect()
    };
    assert_eq!(list(&|_| {}).await, ["free", "full", "off", "planned"]);
    assert_eq!(list(&|r| r.set_status(AccountStatus::Waiting)).await, ["free", "off"]);
    assert_eq!(list(&|r| r.set_status(AccountStatus::Locking)).await, ["planned"]);
    assert_eq!(list(&|r| r.set_status(AccountStatus::Completed)).await, ["full"]);
    assert_eq!(list(&|r| r.set_login_status(LoginStatus::Inactive)).await, ["off"]);
    assert_eq!(list(&|r| r.plan_id = "plan".into()).await, ["full", "planned"]);
    let both = |r: &mut pb::ListAccountsRequest| {
        r.plan_id = "plan".into();
        r.set_status(AccountStatus::Completed);
    };
    assert_eq!(list(&both).await, ["full"]);
}

#[tokio::test]
async fn update_account_changes_only_what_is_named_or_set() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 1000).await;
    let tint = HashMap::from([("tint".to_owned(), "red".to_owned())]);
    let before = clients
        .create_account("a", |account| {
            account.country_code = "DE".into();
            account.labels = tint.clone();
        })
        .await;
    assert_eq!(
        (before.status(), before.login_status()),
        (AccountStatus::Waiting, LoginStatus::Active)
    );
    assert_eq!(before.balance, Some(eur(0)));

    let given =
        pb::Account { plan_id: "plan".into(), country_code: "FR".into(), ..Default::default() };
    let changed = update_account(&mut clients, given.clone(), &["plan_id"]).await.unwrap();
    let update_time = changed.update_time;
    let expected = pb::Account { plan_id: "plan".into(), update_time, ..before };
    assert_eq!(changed, expected, "set, but not named by the mask");
    let changed = update_account(&mut clients, given, &[]).await.unwrap();
    assert_eq!((&*changed.country_code, &changed.labels), ("FR", &tint));
    let cleared = ["plan_id", "country_code", "labels"];
    let changed = update_account(&mut clients, pb::Account::default(), &cleared).await.unwrap();
    assert_eq!((&*changed.plan_id, &*changed.country_code), ("", ""));
    assert!(changed.labels.is_empty());
    let mut off = pb::Account::default();
    off.set_login_status(LoginStatus::Inactive);
    let changed = update_account(&mut clients, off, &[]).await.unwrap();
    assert_eq!(changed.login_status(), LoginStatus::Inactive);
    assert_eq!(clients.account("a").await, changed);

    let unset = pb::Account::default;
    let error = update_account(&mut clients, unset(), &["login_status"]).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["account.login_status"]);
    let error = update_account(&mut clients, unset(), &["balance", "status"]).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["update_mask"]);
    let planless = pb::Account { plan_id: "none".into(), ..unset() };
    let error = update_account(&mut clients, planless, &[]).await.unwrap_err();
    check_names(&error, Code::NotFound, "PLAN_NOT_FOUND", "plan", "none");
}

#[tokio::test]
async fn account_locked_refuses_another_plan_and_the_rest_may_change() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 1000).await;
    clients.create_account("a", |_| {}).await;
    let held = clients.acquire(|_| {}).await.unwrap();
    let planned = || pb::Account { plan_id: "plan".into(), ..Default::default() };
    let error = update_account(&mut clients, planned(), &[]).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::FailedPrecondition, "ACCOUNT_LOCKED"));
    let error =
        update_account(&mut clients, pb::Account::default(), &["plan_id"]).await.unwrap_err();
    assert_eq!(reason(&error), "ACCOUNT_LOCKED");
    let abroad = pb::Account { country_code: "FR".into(), ..Default::default() };
    let changed = update_account(&mut clients, abroad, &[]).await.unwrap();
    assert_eq!((changed.status(), &*changed.country_code), (AccountStatus::Locking, "FR"));
    assert_eq!(changed.lease.unwrap().r#ref, Some(lease(&held)));
    clients.release(&lease(&held)).await.unwrap();
    assert_eq!(update_account(&mut clients, planned(), &[]).await.unwrap().plan_id, "plan");
}

#[tokio::test]
async fn what_is_there_or_is_not_is_named() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let account = |pool_id: &str, account_id: &str, plan_id: &str| pb::Account {
        pool_id: pool_id.into(),
        account_id: account_id.into(),
        plan_id: plan_id.into(),
        ..Default::default()
    };
    for (new, code, why, kind, name) in [
        (account(POOL, "a", ""), Code::AlreadyExists, "ACCOUNT_ALREADY_EXISTS", "account", "a"),
        (account(POOL, "b", "none"), Code::NotFound, "PLAN_NOT_FOUND", "plan", "none"),
        (account("nowhere", "b", ""), Code::NotFound, "POOL_NOT_FOUND", "pool", "nowhere"),
    ] {
        let request = pb::CreateAccountRequest { account: Some(new) };
        let error = clients.accounts.create_account(request).await.unwrap_err();
        check_names(&error, code, why, kind, name);
    }
    let missing = || (POOL.to_owned(), "none".to_owned());
    let (pool_id, account_id) = missing();
    let request = pb::GetAccountRequest { pool_id, account_id };
    let error = clients.accounts.get_account(request).await.unwrap_err();
    check_names(&error, Code::NotFound, "ACCOUNT_NOT_FOUND", "account", "none");
    let (pool_id, account_id) = missing();
    let request = pb::ListAccountEventsRequest { pool_id, account_id, ..Default::default() };
    let error = clients.accounts.list_account_events(request).await.unwrap_err();
    check_names(&error, Code::NotFound, "ACCOUNT_NOT_FOUND", "account", "none");
    let request =
        pb::UpdateAccountRequest { account: Some(account(POOL, "none", "")), update_mask: None };
    let error = clients.accounts.update_account(request).await.unwrap_err();
    check_names(&error, Code::NotFound, "ACCOUNT_NOT_FOUND", "account", "none");
    let request = pb::ListAccountsRequest { pool_id: "nowhere".into(), ..Default::default() };
    let error = clients.accounts.list_accounts(request).await.unwrap_err();
    check_names(&error, Code::NotFound, "POOL_NOT_FOUND", "pool", "nowhere");
}

#[tokio::test]
async fn an_account_whose_name_is_not_given_any_more_can_be_used_still() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    // As versions before made them: it has a no-break space.
    let account_id = "an\u{a0}na";
    sqlx::query("INSERT INTO accounts (pool_id, account_id) VALUES ($1, $2)")
        .bind(POOL)
        .bind(account_id)
        .execute(&mut world.sql().await)
        .await
        .unwrap();
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    assert_eq!(held.account_id, account_id);
    clients.renew(&held, std::time::Duration::from_secs(30)).await.unwrap();
    clients.redeem(&held, &world.code("old"), |_| {}).await.unwrap();
    clients.release(&held).await.unwrap();
    assert!(clients.events(account_id).await.len() >= 4);
    let only = pb::AccountSelector { account_id: account_id.to_owned(), ..Default::default() };
    let held = clients.acquire(|request| request.selector = Some(only)).await.unwrap();
    clients.release(&lease(&held)).await.unwrap();
    assert_eq!(clients.account(account_id).await.account_id, account_id);
}
