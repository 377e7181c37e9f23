//! Bad requests: each is told every field that is bad, at once; nothing is begun, and the server
//! goes on.

use std::{collections::HashMap, fmt::Debug};

use holdfast::rpc::pb::{self, await_redemption_request::Name as AwaitedName};
use prost_types::Duration;
use tonic::{Response, Status};

use crate::support::{
    batch::{Session, item, opening, refusal},
    world::{Clients, POOL, World, bad_fields, lease, seconds},
};

/// An enum's value that the contract does not have.
const NO_SUCH_VALUE: i32 = 77;

#[track_caller]
fn refused<T: Debug>(answer: Result<Response<T>, Status>, fields: &[&str]) {
    assert_eq!(bad_fields(&answer.unwrap_err()), fields);
}

fn money(amount_minor: i64, currency_code: &str) -> Option<pb::Money> {
    Some(pb::Money { amount_minor, currency_code: currency_code.to_owned() })
}

fn mask(path: &str) -> Option<prost_types::FieldMask> {
    Some(prost_types::FieldMask { paths: vec![path.to_owned()] })
}

/// A selector of which every field is bad, and the fields that an error then names.
fn bad_selector(prefix: &str) -> (Option<pb::AccountSelector>, Vec<String>) {
    let mut exclude_account_ids = vec!["fine".to_owned(); 1001];
    exclude_account_ids[7] = "nul\0".to_owned();
    let selector = pb::AccountSelector {
        account_id: " padded ".into(),
        plan_id: "a/b".into(),
        country_code: "Germany".into(),
        min_headroom: money(-1, "euro"),
        labels: (0..33).map(|n| (format!("k{n}"), String::new())).collect(),
        exclude_account_ids,
        expected: money(0, "EUR"),
    };
    let names = [
        "account_id",
        "plan_id",
        "country_code",
        "min_headroom.amount_minor",
        "min_headroom.currency_code",
        "expected.amount_minor",
        "labels",
        "exclude_account_ids",
        "exclude_account_ids[7]",
    ];
    (Some(selector), names.map(|name| format!("{prefix}.{name}")).to_vec())
}

/// The world is as it was begun: a pool and nothing else; and it works.
async fn untouched_and_well(world: &World, clients: &mut Clients) {
    for (table, expected) in [("pools", 1_i64), ("plans", 0), ("accounts", 0), ("redemptions", 0)] {
        let count: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}")))
                .fetch_one(&mut world.sql().await)
                .await
                .unwrap();
        assert_eq!(count, expected, "{table}");
    }
    clients.create_account("good", |_| {}).await;
    let acquired = clients.acquire(|_| {}).await.unwrap();
    let code = world.code("good");
    clients.redeem(&lease(&acquired), &code, |r| r.release_on_completion = true).await.unwrap();
}

#[tokio::test]
async fn invalid_argument_names_all_bad_fields_of_leases_and_redemptions() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let rpc = &mut clients.redemptions;

    refused(
        rpc.acquire_account(pb::AcquireAccountRequest::default()).await,
        &["pool_id", "holder"],
    );
    let (selector, selector_fields) = bad_selector("selector");
    let request = pb::AcquireAccountRequest {
        priority: 0,
        not_before: None,
        request_id: "batch:b:i".into(),
        pool_id: "no spaces".into(),
        holder: "x".repeat(257),
        lease_duration: seconds(0.5),
        wait_timeout: seconds(601.0),
        selector,
    };
    let mut fields = vec!["request_id", "pool_id", "holder", "lease_duration", "wait_timeout"];
    fields.extend(selector_fields.iter().map(String::as_str));
    refused(rpc.acquire_account(request).await, &fields);
    let of_pool = pb::AcquireAccountRequest {
        pool_id: POOL.into(),
        holder: "h".into(),
        lease_duration: seconds(3600.0),
        selector: Some(pb::AccountSelector { min_headroom: money(1, "USD"), ..Default::default() }),
        ..Default::default()
    };
    let fields = ["lease_duration", "selector.min_headroom.currency_code"];
    refused(rpc.acquire_account(of_pool).await, &fields);

    let lease = Some(pb::LeaseRef {
        pool_id: "p\0".into(),
        account_id: "a\u{1b}[0m".into(),
        fencing_token: -1,
    });
    let lease_fields = ["lease.pool_id", "lease.account_id", "lease.fencing_token"];
    refused(rpc.renew_lease(pb::RenewLeaseRequest::default()).await, &["lease"]);
    let request = pb::RenewLeaseRequest { lease: lease.clone(), lease_duration: seconds(90_000.0) };
    refused(rpc.renew_lease(request).await, &[&lease_fields[..], &["lease_duration"]].concat());
    refused(rpc.release_account(pb::ReleaseAccountRequest::default()).await, &["lease"]);
    let request = pb::ReleaseAccountRequest { lease: lease.clone() };
    refused(rpc.release_account(request).await, &lease_fields);

    refused(rpc.redeem(pb::RedeemRequest::default()).await, &["request_id", "lease", "code"]);
    let request = pb::RedeemRequest {
        request_id: "x".repeat(129),
        lease,
        code: "kärtchen".into(),
        expected: money(1_000_000_000_000_001, "€"),
        release_on_completion: true,
    };
    let money_fields = ["expected.amount_minor", "expected.currency_code"];
    let fields = [&["request_id"], &lease_fields[..], &["code"], &money_fields].concat();
    refused(rpc.redeem(request).await, &fields);

    let (selector, selector_fields) = bad_selector("open.selector");
    let open = pb::BatchOpen {
        batch_id: "a:b".into(),
        pool_id: String::new(),
        holder: "tab\there".into(),
        selector,
        max_in_flight: 1025,
        item_timeout: seconds(0.5),
    };
    let error = Session::open(&mut clients, open).await.err().unwrap();
    let fields = [
        vec!["open.batch_id".to_owned(), "open.pool_id".into(), "open.holder".into()],
        selector_fields,
        vec!["open.max_in_flight".into(), "open.item_timeout".into()],
    ];
    assert_eq!(bad_fields(&error), fields.concat());
    let negative = pb::BatchOpen { max_in_flight: -1, ..opening("b") };
    let error = Session::open(&mut clients, negative).await.err().unwrap();
    assert_eq!(bad_fields(&error), ["open.max_in_flight"]);
    untouched_and_well(&world, &mut clients).await;
}

#[tokio::test]
async fn invalid_argument_names_all_bad_fields_of_reading_and_resolving() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let rpc = &mut clients.redemptions;
    let nothing = pb::GetRedemptionRequest::default();
    refused(rpc.get_redemption(nothing).await, &["pool_id", "redemption_id"]);
    let both = pb::GetRedemptionRequest {
        pool_id: POOL.into(),
        redemption_id: "not a uuid".into(),
        request_id: "r".into(),
    };
    refused(rpc.get_redemption(both.clone()).await, &["request_id"]);
    let one = pb::GetRedemptionRequest { request_id: String::new(), ..both.clone() };
    refused(rpc.get_redemption(one).await, &["redemption_id"]);
    let other =
        pb::GetRedemptionRequest { redemption_id: String::new(), request_id: "r\0".into(), ..both };
    refused(rpc.get_redemption(other).await, &["request_id"]);

    let nothing = pb::AwaitRedemptionRequest { timeout: seconds(601.0), ..Default::default() };
    refused(rpc.await_redemption(nothing).await, &["pool_id", "redemption_id", "timeout"]);
    let id = AwaitedName::RedemptionId("not a uuid".into());
    let one =
        pb::AwaitRedemptionRequest { pool_id: POOL.into(), name: Some(id), ..Default::default() };
    refused(rpc.await_redemption(one).await, &["redemption_id"]);

    let request = pb::ListRedemptionsRequest {
        pool_id: String::new(),
        page_size: -1,
        page_token: "?".into(),
        states: vec![1, NO_SUCH_VALUE, -1],
        account_id: "\0".into(),
        batch_id: "a b".into(),
        create_time_from: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
        create_time_to: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
        reversal_states: vec![NO_SUCH_VALUE],
        ..Default::default()
    };
    let fields = [
        "pool_id",
        "page_size",
        "page_token",
        "states[1]",
        "states[2]",
        "reversal_states[0]",
        "account_id",
        "batch_id",
        "create_time_from",
        "create_time_to",
    ];
    refused(rpc.list_redemptions(request).await, &fields);
    let moment = Some(prost_types::Timestamp { seconds: 1_764_000_000, nanos: 5 });
    let no_time = pb::ListRedemptionsRequest {
        pool_id: POOL.into(),
        create_time_from: moment,
        create_time_to: moment,
        ..Default::default()
    };
    refused(rpc.list_redemptions(no_time).await, &["create_time_to"]);

    let nothing = pb::ResolveRedemptionRequest::default();
    let fields = ["pool_id", "redemption_id", "reason", "resolved_by", "state"];
    refused(rpc.resolve_redemption(nothing).await, &fields);
    let request = pb::ResolveRedemptionRequest {
        pool_id: "/".into(),
        redemption_id: "7".into(),
        state: NO_SUCH_VALUE,
        amount: money(0, "EURO"),
        provider_ref: "x".repeat(257),
        code_spent: false,
        reason: "x".repeat(1001),
        resolved_by: "\u{7}".into(),
        evidence: "x".repeat(1001),
        recorded_amount_is_wrong: false,
        corrects_resolution: 0,
    };
    let mut fields = vec![
        "pool_id",
        "redemption_id",
        "reason",
        "resolved_by",
        "evidence",
        "amount.amount_minor",
        "amount.currency_code",
        "provider_ref",
        "state",
    ];
    refused(rpc.resolve_redemption(request.clone()).await, &fields);
    fields.pop();
    let mut failed = request.clone();
    failed.set_state(pb::RedemptionState::Failed);
    fields.push("amount");
    refused(rpc.resolve_redemption(failed).await, &fields);
    let mut credited = pb::ResolveRedemptionRequest {
        pool_id: POOL.into(),
        redemption_id: uuid::Uuid::nil().to_string(),
        reason: "why".into(),
        resolved_by: "anna".into(),
        ..Default::default()
    };
    credited.set_state(pb::RedemptionState::Succeeded);
    refused(rpc.resolve_redemption(credited.clone()).await, &["amount"]);
    credited.code_spent = true;
    refused(rpc.resolve_redemption(credited.clone()).await, &["amount", "code_spent"]);

    let nothing = pb::ReverseRedemptionRequest::default();
    let fields = ["pool_id", "redemption_id", "reason", "reversed_by"];
    refused(rpc.reverse_redemption(nothing).await, &fields);
    let request = pb::ReverseRedemptionRequest {
        pool_id: "/".into(),
        redemption_id: "7".into(),
        reason: "x".repeat(1001),
        reversed_by: "\u{7}".into(),
        evidence: "x".repeat(1001),
        outcome: NO_SUCH_VALUE,
    };
    let fields = ["pool_id", "redemption_id", "reason", "reversed_by", "evidence", "outcome"];
    refused(rpc.reverse_redemption(request).await, &fields);
    credited.code_spent = false;
    credited.set_state(pb::RedemptionState::Submitted);
    refused(rpc.resolve_redemption(credited).await, &["state"]);
    untouched_and_well(&world, &mut clients).await;
}

#[tokio::test]
async fn invalid_argument_names_all_bad_fields_of_accounts() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let rpc = &mut clients.accounts;
    refused(rpc.create_account(pb::CreateAccountRequest::default()).await, &["account"]);
    let bad = pb::Account {
        pool_id: "p\n".into(),
        account_id: "x".repeat(257),
        status: NO_SUCH_VALUE,
        login_status: NO_SUCH_VALUE,
        plan_id: "p q".into(),
        country_code: "d\0".into(),
        balance: money(i64::MIN, "eu\0"),
        labels: HashMap::from([(String::new(), "v".into())]),
        lease: Some(pb::Lease::default()),
        open_redemption_id: "r".into(),
        ..Default::default()
    };
    let named =
        ["account.pool_id", "account.account_id", "account.plan_id", "account.login_status"];
    let fields = [
        &named[..],
        &[
            "account.country_code",
            "account.balance.amount_minor",
            "account.balance.currency_code",
            "account.labels",
            "account.status",
            "account.lease",
            "account.open_redemption_id",
        ],
    ];
    let request = pb::CreateAccountRequest { account: Some(bad.clone()) };
    refused(rpc.create_account(request).await, &fields.concat());
    let labels = [
        (HashMap::from([("a\0".into(), "v".into()), ("b\0".into(), "v".into())]), "account.labels"),
        (HashMap::from([("nul\0".to_owned(), "v".to_owned())]), "account.labels"),
        (HashMap::from([("x".repeat(64), "v".into())]), "account.labels"),
        (HashMap::from([("k".into(), "nul\0".into())]), "account.labels[k]"),
        (HashMap::from([("k".into(), "x".repeat(257))]), "account.labels[k]"),
        ((0..33).map(|n| (n.to_string(), String::new())).collect(), "account.labels"),
    ];
    for (labels, field) in labels {
        let account = pb::Account {
            pool_id: POOL.into(),
            account_id: "a".into(),
            labels,
            ..Default::default()
        };
        let request = pb::CreateAccountRequest { account: Some(account) };
        refused(rpc.create_account(request).await, &[field]);
    }

    let request = pb::UpdateAccountRequest { account: None, update_mask: mask("balance") };
    refused(rpc.update_account(request).await, &["update_mask", "account"]);
    let request = pb::UpdateAccountRequest { account: Some(bad), update_mask: mask("no\0such") };
    let fields =
        [&["update_mask"], &named[..], &["account.country_code", "account.labels"]].concat();
    refused(rpc.update_account(request).await, &fields);

    let request = pb::GetAccountRequest { pool_id: "ä".into(), account_id: "\0".into() };
    refused(rpc.get_account(request).await, &["pool_id", "account_id"]);
    let request = pb::ListAccountsRequest {
        pool_id: "x".repeat(129),
        page_size: 1001,
        page_token: "AA".into(),
        status: NO_SUCH_VALUE,
        login_status: -1,
        plan_id: "\0".into(),
        holder: "\0".into(),
        update_time_from: Some(prost_types::Timestamp { seconds: 9, nanos: 0 }),
        update_time_to: Some(prost_types::Timestamp { seconds: 9, nanos: 0 }),
    };
    let fields = [
        "pool_id",
        "page_size",
        "page_token",
        "status",
        "login_status",
        "plan_id",
        "holder",
        "update_time_to",
    ];
    refused(rpc.list_accounts(request).await, &fields);
    let request = pb::ListAccountEventsRequest {
        pool_id: String::new(),
        account_id: String::new(),
        page_size: i32::MIN,
        page_token: "bm90IGEgbnVtYmVy".into(),
        event_time_from: Some(prost_types::Timestamp { seconds: 9, nanos: 0 }),
        event_time_to: Some(prost_types::Timestamp { seconds: 9, nanos: 0 }),
        reason: "x".repeat(65),
        redemption_id: "none".into(),
        actor: "x".repeat(257),
    };
    let fields = [
        "pool_id",
        "account_id",
        "page_size",
        "page_token",
        "reason",
        "redemption_id",
        "actor",
        "event_time_to",
    ];
    refused(rpc.list_account_events(request).await, &fields);
    untouched_and_well(&world, &mut clients).await;
}

#[tokio::test]
async fn invalid_argument_names_all_bad_fields_of_pools_and_plans() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let rpc = &mut clients.pools;
    refused(rpc.create_pool(pb::CreatePoolRequest::default()).await, &["pool"]);
    let bad = pb::Pool {
        pool_id: "a/b".into(),
        currency_code: "EURO".into(),
        default_lease_duration: seconds(0.1),
        max_lease_duration: seconds(86_401.0),
        min_lease_duration: Some(Duration { seconds: -5, nanos: 0 }),
        amount_mismatch_policy: NO_SUCH_VALUE,
        ..Default::default()
    };
    let fields = [
        "pool.pool_id",
        "pool.currency_code",
        "pool.min_lease_duration",
        "pool.default_lease_duration",
        "pool.max_lease_duration",
        "pool.amount_mismatch_policy",
    ];
    let request = pb::CreatePoolRequest { pool: Some(bad.clone()) };
    refused(rpc.create_pool(request).await, &fields);
    let request = pb::UpdatePoolRequest { pool: None, update_mask: mask("currency_code") };
    refused(rpc.update_pool(request).await, &["update_mask", "pool"]);
    let request = pb::UpdatePoolRequest { pool: Some(bad), update_mask: mask("") };
    refused(rpc.update_pool(request).await, &[&["update_mask"], &fields[..]].concat());
    let crossed = pb::Pool {
        pool_id: "crossed".into(),
        currency_code: "EUR".into(),
        min_lease_duration: seconds(20.0),
        default_lease_duration: seconds(10.0),
        max_lease_duration: seconds(5.0),
        ..Default::default()
    };
    let request = pb::CreatePoolRequest { pool: Some(crossed) };
    let fields = ["pool.min_lease_duration", "pool.max_lease_duration"];
    refused(rpc.create_pool(request).await, &fields);
    refused(rpc.get_pool(pb::GetPoolRequest { pool_id: "p\0".into() }).await, &["pool_id"]);
    let request = pb::ListPoolsRequest { page_size: 1001, page_token: "_w".into() };
    refused(rpc.list_pools(request).await, &["page_size", "page_token"]);

    refused(rpc.create_plan(pb::CreatePlanRequest::default()).await, &["plan"]);
    let nothing = pb::CreatePlanRequest { plan: Some(pb::Plan::default()) };
    let fields = ["plan.pool_id", "plan.plan_id", "plan.target"];
    refused(rpc.create_plan(nothing).await, &fields);
    let bad = pb::Plan {
        pool_id: "\u{202e}".into(),
        plan_id: "x".repeat(129),
        target: money(0, ""),
        ..Default::default()
    };
    let fields =
        ["plan.pool_id", "plan.plan_id", "plan.target.amount_minor", "plan.target.currency_code"];
    refused(rpc.create_plan(pb::CreatePlanRequest { plan: Some(bad.clone()) }).await, &fields);
    let request = pb::UpdatePlanRequest { plan: Some(bad), update_mask: mask("plan_id") };
    refused(rpc.update_plan(request).await, &[&["update_mask"], &fields[..]].concat());
    let dollars = pb::Plan {
        pool_id: POOL.into(),
        plan_id: "p".into(),
        target: money(1, "USD"),
        ..Default::default()
    };
    let request = pb::CreatePlanRequest { plan: Some(dollars) };
    refused(rpc.create_plan(request).await, &["plan.target.currency_code"]);
    let request = pb::GetPlanRequest { pool_id: String::new(), plan_id: "\0".into() };
    refused(rpc.get_plan(request).await, &["pool_id", "plan_id"]);
    let request =
        pb::ListPlansRequest { pool_id: " ".into(), page_size: -7, page_token: "=".into() };
    refused(rpc.list_plans(request).await, &["pool_id", "page_size", "page_token"]);
    untouched_and_well(&world, &mut clients).await;
}

#[tokio::test]
async fn invalid_argument_names_every_name_that_looks_like_another() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    for (n, bad) in ["an\u{200b}na", "\u{202e}anna", "an\u{a0}na", "a\u{308}nna", "an\u{ad}na"]
        .iter()
        .enumerate()
    {
        let bad = || (*bad).to_owned();
        let account = pb::Account {
            pool_id: POOL.into(),
            account_id: bad(),
            labels: HashMap::from([("k".into(), bad())]),
            ..Default::default()
        };
        let request = pb::CreateAccountRequest { account: Some(account) };
        let fields = ["account.account_id", "account.labels[k]"];
        refused(clients.accounts.create_account(request).await, &fields);
        let account = pb::Account {
            pool_id: POOL.into(),
            account_id: "fine".into(),
            labels: HashMap::from([(bad(), "v".into())]),
            ..Default::default()
        };
        let request = pb::CreateAccountRequest { account: Some(account) };
        refused(clients.accounts.create_account(request).await, &["account.labels"]);
        let request = pb::AcquireAccountRequest {
            request_id: bad(),
            pool_id: POOL.into(),
            holder: bad(),
            ..Default::default()
        };
        let rpc = &mut clients.redemptions;
        refused(rpc.acquire_account(request).await, &["request_id", "holder"]);
        let mut resolve = pb::ResolveRedemptionRequest {
            pool_id: POOL.into(),
            redemption_id: uuid::Uuid::nil().to_string(),
            reason: "why".into(),
            resolved_by: bad(),
            ..Default::default()
        };
        resolve.set_state(pb::RedemptionState::Failed);
        refused(rpc.resolve_redemption(resolve).await, &["resolved_by"]);
        let open = opening(&format!("b{n}"));
        let mut session = Session::open(&mut clients, open).await.unwrap();
        session.send(item(&bad(), "ABCD-1234")).await;
        let result = session.result().await;
        assert_eq!(bad_fields(&refusal(&result)), ["item.item_id"]);
    }
    untouched_and_well(&world, &mut clients).await;
}
