//! The audit trail: each change by a person or of a setting is recorded with who, from where, what, before and after.

use std::collections::HashMap;

use holdfast::{
    domain::access::Role,
    rpc::pb::{self, RedemptionState, ReversalOutcome},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection};
use tonic::Code;

use crate::{
    providers::{give_secret, profile},
    redeem::review::{left_for_review, resolve, word},
    support::{
        logs, program,
        tokens::ADMIN,
        world::{Clients, POOL, World, bad_fields, eur, lease, reason},
    },
};

const OPS: &str = "token:ops";

/// A server, and somebody who may do everything in the pool.
async fn start() -> (World, Clients) {
    let world = super::world(1, |_| {}).await;
    let ops = world.clients_as(0, OPS, Role::Admin).await;
    (world, ops)
}

/// What the trail has, the oldest first.
async fn trail(
    clients: &mut Clients,
    change: impl FnOnce(&mut pb::ListAuditEventsRequest),
) -> Vec<pb::AuditEvent> {
    let mut request = pb::ListAuditEventsRequest { page_size: 1000, ..Default::default() };
    change(&mut request);
    let mut events = clients.access.list_audit_events(request).await.unwrap().into_inner().events;
    events.reverse();
    events
}

/// What the operator did.
async fn own(clients: &mut Clients) -> Vec<pb::AuditEvent> {
    let events = trail(clients, |r| r.principal = OPS.into()).await;
    for event in &events {
        assert_eq!((&*event.principal, &*event.peer), (OPS, "127.0.0.1"), "{event:?}");
        assert!(event.create_time.is_some() && event.event_id > 0, "{event:?}");
    }
    assert!(events.windows(2).all(|two| two[0].event_id < two[1].event_id), "{events:?}");
    events
}

/// An event without when and who: action, subject, before and after.
fn what(event: &pb::AuditEvent) -> (&str, &str, Value, Value) {
    let read = |text: &str| match text {
        "" => Value::Null,
        text => serde_json::from_str(text).unwrap(),
    };
    (&event.action, &event.subject, read(&event.before), read(&event.after))
}

#[tokio::test]
async fn a_pool_and_its_changes_are_recorded() {
    let (_world, mut ops) = start().await;
    ops.create_pool("shop").await;
    let drain = pb::Pool { pool_id: "shop".into(), draining: Some(true), ..Default::default() };
    let update = pb::UpdatePoolRequest { pool: Some(drain), update_mask: None };
    ops.pools.update_pool(update.clone()).await.unwrap();
    // The same again changes nothing, and one that is refused neither.
    ops.pools.update_pool(update).await.unwrap();
    let wrong = pb::Pool { pool_id: "none".into(), draining: Some(true), ..Default::default() };
    let wrong = pb::UpdatePoolRequest { pool: Some(wrong), update_mask: None };
    assert_eq!(reason(&ops.pools.update_pool(wrong).await.unwrap_err()), "POOL_NOT_FOUND");

    let events = own(&mut ops).await;
    assert_eq!(events.len(), 2, "{events:?}");
    let (action, subject, before, after) = what(&events[0]);
    assert_eq!((action, subject, before), ("CreatePool", "shop", Value::Null));
    assert_eq!((&after["currency_code"], &after["draining"]), (&json!("EUR"), &json!(false)));
    let updated = ("UpdatePool", "shop", json!({ "draining": false }), json!({ "draining": true }));
    assert_eq!(what(&events[1]), updated);
    assert!(events.iter().all(|event| event.pool_id == "shop"));
}

#[tokio::test]
async fn a_plan_and_its_changes_are_recorded() {
    let (_world, mut ops) = start().await;
    ops.create_plan("small", 500).await;
    let plan = pb::Plan {
        pool_id: POOL.into(),
        plan_id: "small".into(),
        target: Some(eur(700)),
        ..Default::default()
    };
    let update = pb::UpdatePlanRequest { plan: Some(plan), update_mask: None };
    ops.pools.update_plan(update).await.unwrap();
    ops.create_account("a", |account| account.plan_id = "small".into()).await;
    let delete = || pb::DeletePlanRequest { pool_id: POOL.into(), plan_id: "small".into() };
    let in_use = ops.pools.delete_plan(delete()).await.unwrap_err();
    assert_eq!(reason(&in_use), "PLAN_IN_USE");
    ops.update_account("a", &["plan_id"], |account| account.plan_id.clear()).await.unwrap();
    ops.pools.delete_plan(delete()).await.unwrap();

    let events = own(&mut ops).await;
    let actions: Vec<_> = events.iter().map(|event| &*event.action).collect();
    let expected = ["CreatePlan", "UpdatePlan", "CreateAccount", "UpdateAccount", "DeletePlan"];
    assert_eq!(actions, expected);
    assert_eq!(what(&events[0]).3["target_minor"], 500);
    let targets = (json!({ "target_minor": 500 }), json!({ "target_minor": 700 }));
    assert_eq!(what(&events[1]), ("UpdatePlan", "small", targets.0, targets.1));
    let plans = (json!({ "plan_id": "small" }), json!({ "plan_id": null }));
    assert_eq!(what(&events[3]), ("UpdateAccount", "a", plans.0, plans.1));
    assert_eq!(what(&events[4]).2["target_minor"], 700, "what was deleted");
}

#[tokio::test]
async fn accounts_are_recorded_each_and_an_import_by_its_counts_and_credentials_nowhere() {
    let (world, mut ops) = start().await;
    let secret = "a-login-that-nobody-sees";
    let credentials = || HashMap::from([("login".to_owned(), secret.to_owned())]);
    ops.create_account("a", |account| {
        account.balance = Some(eur(70));
        account.credentials = credentials();
    })
    .await;
    ops.create_accounts(3).await;
    let inactive = |account: &mut pb::Account| {
        account.set_login_status(pb::LoginStatus::Inactive);
        account.labels.insert("vip".into(), "1".into());
        account.credentials = credentials();
    };
    ops.update_account("a", &["login_status", "labels", "credentials"], inactive).await.unwrap();
    ops.update_account("a", &["credentials"], |_| {}).await.unwrap();

    let events = own(&mut ops).await;
    let seen: Vec<_> = events.iter().map(what).collect();
    let created = json!({ "login_status": "ACTIVE", "balance_minor": 70, "labels": {} });
    let counts = json!({ "received": 3, "created": 3, "failed": 0 });
    let (before, after) = (
        json!({ "login_status": "ACTIVE", "labels": {} }),
        json!({ "login_status": "INACTIVE", "labels": { "vip": "1" } }),
    );
    let expected = [
        ("CreateAccount", "a", Value::Null, created),
        ("ImportAccounts", POOL, Value::Null, counts),
        ("UpdateAccount", "a", Value::Null, json!({ "credentials": "set" })),
        ("UpdateAccount", "a", before, after),
        ("UpdateAccount", "a", Value::Null, json!({ "credentials": "removed" })),
    ];
    assert_eq!(seen, expected);
    let kept: i64 = count(&mut world.sql().await, secret).await;
    assert_eq!(kept, 0);
    assert_eq!(ops.events("a").await.last().unwrap().principal, OPS);
}

async fn count(db: &mut PgConnection, text: &str) -> i64 {
    let found = "SELECT count(*) FROM audit_events e WHERE position($1 IN e::text) > 0";
    sqlx::query_scalar(found).bind(text).fetch_one(db).await.unwrap()
}

#[tokio::test]
async fn a_person_s_word_is_recorded_with_its_reason_and_codes_nowhere() {
    let (world, mut ops) = start().await;
    ops.create_account("a", |_| {}).await;
    let code = world.code("review");
    let (held, open) = left_for_review(&world, &mut ops, &code).await;
    let word = pb::ResolveRedemptionRequest {
        recorded_amount_is_wrong: true,
        ..word(&open, RedemptionState::Succeeded)
    };
    resolve(&mut ops, word.clone()).await.unwrap();
    // The same word again changes nothing.
    resolve(&mut ops, word).await.unwrap();
    ops.release(&held).await.unwrap();
    let reverse = pb::ReverseRedemptionRequest {
        pool_id: POOL.into(),
        redemption_id: open.redemption_id.clone(),
        reversed_by: "anna".into(),
        reason: "taken back by hand".into(),
        outcome: ReversalOutcome::Reversed.into(),
        ..Default::default()
    };
    let reversed = ops.redemptions.reverse_redemption(reverse).await.unwrap().into_inner();
    let reversal = reversed.redemption.unwrap().reversal.unwrap();
    let closed = reversal.resolution.unwrap();
    assert_eq!((&*reversal.principal, &*closed.principal), (OPS, OPS));

    let events = own(&mut ops).await;
    let id = &*open.redemption_id;
    let of: Vec<_> = events.iter().filter(|event| event.subject == id).collect();
    let seen: Vec<_> = of.iter().map(|event| what(event)).collect();
    let after = json!({ "state": "SUCCEEDED", "amount_minor": 1000, "currency_code": "EUR" });
    let expected = [
        ("ResolveRedemption", id, json!({ "state": "NEEDS_REVIEW" }), after),
        ("ReverseRedemption", id, Value::Null, json!({ "reversal": 1, "state": "NEEDS_REVIEW" })),
        (
            "ReverseRedemption",
            id,
            json!({ "balance_minor": 1000, "reversed": false }),
            json!({ "balance_minor": 0, "reversed": true }),
        ),
    ];
    assert_eq!(seen, expected);
    let reasons: Vec<_> = of.iter().map(|event| &*event.reason).collect();
    let by_hand = "taken back by hand";
    assert_eq!(reasons, ["seen in the provider's own records", by_hand, by_hand]);
    assert_eq!(count(&mut world.sql().await, &code).await, 0);
}

#[tokio::test]
async fn an_operator_who_ends_another_s_lease_is_recorded_and_nobody_who_ends_its_own() {
    let (world, mut ops) = start().await;
    ops.create_account("a", |_| {}).await;
    let mut a = world.clients_as(0, "token:a", Role::Redeemer).await;
    for clients in [&mut a, &mut ops] {
        let held = clients.acquire(|_| {}).await.unwrap();
        clients.release(&lease(&held)).await.unwrap();
    }
    let held = a.acquire(|_| {}).await.unwrap();
    ops.release(&lease(&held)).await.unwrap();
    // Released twice, and recorded once.
    ops.release(&lease(&held)).await.unwrap();
    let released: Vec<_> = trail(&mut ops, |r| r.subject = "a".into())
        .await
        .into_iter()
        .filter(|event| event.action == "ReleaseAccount")
        .collect();
    let [event] = &released[..] else { panic!("{released:?}") };
    let (_, _, before, after) = what(event);
    assert_eq!((&before["principal"], &before["holder"]), (&json!("token:a"), &json!("tester")));
    assert_eq!(after, json!({ "status": "WAITING", "release_requested": false }));
    assert_eq!(event.principal, OPS);
}

#[tokio::test]
async fn a_profile_is_recorded_by_its_version_and_not_by_its_text() {
    let (world, mut ops) = start().await;
    give_secret(&world, "cards", "token", "a-secret-of-the-provider");
    for version in [1, 1, 2] {
        let profile = profile("cards", version);
        ops.providers.apply_provider(pb::ApplyProviderRequest { profile }).await.unwrap();
    }
    let events = own(&mut ops).await;
    let seen: Vec<_> = events.iter().map(what).collect();
    let version = |version: i32| json!({ "version": version });
    let expected = [
        ("ApplyProvider", "cards", Value::Null, version(1)),
        ("ApplyProvider", "cards", version(1), version(2)),
    ];
    assert_eq!(seen, expected);
    assert!(events.iter().all(|event| event.pool_id.is_empty()));
}

#[tokio::test]
async fn the_trail_is_read_by_filters_and_pages() {
    let (world, mut ops) = start().await;
    for n in 0..5 {
        ops.create_account(&format!("x-{n}"), |_| {}).await;
    }
    ops.create_pool("other").await;
    let subjects = |events: &[pb::AuditEvent]| -> Vec<String> {
        events.iter().map(|event| event.subject.clone()).collect()
    };
    let of_other = trail(&mut ops, |r| r.pool_id = "other".into()).await;
    assert_eq!(subjects(&of_other), ["other"]);
    let of_one = trail(&mut ops, |r| r.subject = "x-3".into()).await;
    assert_eq!(subjects(&of_one), ["x-3"]);
    // Before these there are the tokens of the two who call, and the pool.
    let all = trail(&mut ops, |_| {}).await;
    assert_eq!((all.len(), &*all[1].principal), (9, ADMIN));
    let middle = all[3].create_time;
    let later = trail(&mut ops, |r| r.from_time = middle).await;
    let earlier = trail(&mut ops, |r| r.to_time = middle).await;
    assert_eq!([subjects(&earlier), subjects(&later)].concat(), subjects(&all));
    let (mut paged, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = pb::ListAuditEventsRequest { page_size: 2, page_token, ..Default::default() };
        let page = ops.access.list_audit_events(request).await.unwrap().into_inner();
        assert!(page.events.len() <= 2);
        paged.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    paged.reverse();
    assert_eq!(paged, all);
    let wrong = pb::ListAuditEventsRequest {
        from_time: middle,
        to_time: middle,
        page_size: -1,
        ..Default::default()
    };
    let error = ops.access.list_audit_events(wrong).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["page_size", "to_time"]);
    let shown = async |arguments: &[&str]| {
        let finished = program::run(&world, &[&["audit-log"], arguments].concat()).await;
        assert_eq!(finished.code, Some(0), "{finished:?}");
        finished.stdout
    };
    let of_one = shown(&["--subject", "x-3", "--format", "csv"]).await;
    let parts = ["CreateAccount", "x-3", OPS, "127.0.0.1"];
    assert!(parts.iter().all(|part| of_one.contains(part)), "{of_one}");
    assert_eq!(of_one.lines().count(), 2, "{of_one}");
    let newest = shown(&["--limit", "1", "--format", "json"]).await;
    assert!(newest.contains("CreatePool") && !newest.contains("x-4"), "{newest}");
    let by_time = ["--principal", OPS, "--pool", POOL, "--until", "2000-01-01T00:00:00Z"];
    assert!(!shown(&by_time).await.contains("x-"));
}

#[tokio::test]
async fn the_trail_is_append_only() {
    let (world, mut ops) = start().await;
    ops.create_account("a", |_| {}).await;
    let mut db = world.sql().await;
    for change in ["UPDATE audit_events SET reason = 'x'", "DELETE FROM audit_events"] {
        let error = sqlx::query(AssertSqlSafe(change)).execute(&mut db).await.unwrap_err();
        assert!(error.to_string().contains("audit_events is append-only"), "{error}");
    }
}

/// An event that cannot be written takes its change with it, in every statement that writes both.
#[tokio::test]
async fn no_change_is_without_its_event() {
    let (world, mut ops) = start().await;
    ops.create_account("a", |_| {}).await;
    ops.create_plan("small", 500).await;
    let mut a = world.clients_as(0, "token:a", Role::Redeemer).await;
    let held = a.acquire(|_| {}).await.unwrap();
    let mut db = world.sql().await;
    let refuse = "CREATE FUNCTION refuse_event() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'no event'; END $$;
         CREATE TRIGGER refuse_event BEFORE INSERT ON audit_events
         FOR EACH ROW EXECUTE FUNCTION refuse_event();";
    sqlx::raw_sql(refuse).execute(&mut db).await.unwrap();
    let before = ops.account("a").await;

    let pause = pb::Pool { pool_id: POOL.into(), paused: Some(true), ..Default::default() };
    let pause = pb::UpdatePoolRequest { pool: Some(pause), update_mask: None };
    assert_eq!(ops.pools.update_pool(pause).await.unwrap_err().code(), Code::Internal);
    let delete = pb::DeletePlanRequest { pool_id: POOL.into(), plan_id: "small".into() };
    assert!(ops.pools.delete_plan(delete).await.is_err());
    let pool =
        pb::Pool { pool_id: "new".into(), currency_code: "EUR".into(), ..Default::default() };
    assert!(ops.pools.create_pool(pb::CreatePoolRequest { pool: Some(pool) }).await.is_err());
    assert!(ops.update_account("a", &["paused"], |a| a.paused = Some(true)).await.is_err());
    assert!(ops.release(&lease(&held)).await.is_err());
    assert_eq!(ops.account("a").await.update_time, before.update_time);
    let kept: (bool, i64, i64) =
        sqlx::query_as("SELECT bool_or(paused), count(*), (SELECT count(*) FROM plans) FROM pools")
            .fetch_one(&mut db)
            .await
            .unwrap();
    assert_eq!(kept, (false, 1, 1), "nothing of it was done");
    // Its holder's own release needs no event.
    a.release(&lease(&held)).await.unwrap();
}

#[tokio::test]
async fn the_log_has_a_line_for_each_event_by_a_target_of_its_own() {
    let (world, mut ops) = start().await;
    let name = format!("logged-{}", world.code("x").to_lowercase());
    ops.create_account(&name, |_| {}).await;
    let lines = logs::lines_with(&name);
    let line = lines.iter().find(|line| line.contains("holdfast::audit"));
    let line = line.unwrap_or_else(|| panic!("no line of {name}"));
    assert!(line.contains(OPS) && line.contains("CreateAccount"), "{line}");
}
