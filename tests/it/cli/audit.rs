//! `holdfast redemption audit`: the program itself, between a server and the simulated provider.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use holdfast::{
    rpc::pb::{self, RedemptionState},
    simulator::{
        faults::{Fault, Faults},
        ledger::{self, Row, State},
    },
};
use serde_json::Value;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use crate::support::{
    batch::{item, opening, run},
    checks,
    world::{Clients, INVALID_ACCOUNT, POOL, World, eur, lease},
};

/// What an audit came to.
struct Audited {
    code: Option<i32>,
    /// A row for each difference.
    rows: Vec<Value>,
    /// The closing line, or the error.
    printed: String,
}

impl Audited {
    /// The differences: what, and of which redemption.
    fn found(&self) -> Vec<(&str, &str)> {
        self.rows
            .iter()
            .map(|row| {
                (row["difference"].as_str().unwrap(), row["redemption_id"].as_str().unwrap())
            })
            .collect()
    }

    #[track_caller]
    fn agrees(&self, compared: usize) {
        assert_eq!((self.code, self.found()), (Some(0), vec![]), "{}", self.printed);
        self.compared(compared);
    }

    #[track_caller]
    fn differs(&self, expected: &[(&str, &str)]) {
        let (mut found, mut expected) = (self.found(), expected.to_vec());
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!((self.code, found), (Some(3), expected), "{}", self.printed);
    }

    #[track_caller]
    fn compared(&self, compared: usize) {
        let begins = format!("{compared} redemptions compared");
        assert!(self.printed.lines().any(|line| line.starts_with(&begins)), "{}", self.printed);
    }
}

fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap()
}

fn audit(world: &World, from: OffsetDateTime, to: OffsetDateTime, more: &[&str]) -> Audited {
    let server = format!("http://{}", world.server(0).addr());
    let done = Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .args(["redemption", "audit", "--format", "json", "--server", &server])
        .args(["--from", &rfc3339(from), "--to", &rfc3339(to)])
        .env("HOLDFAST_PROVIDER_URL", &world.args().provider.url)
        .args(more)
        .output()
        .unwrap();
    let rows = match &*String::from_utf8(done.stdout).unwrap() {
        "" => Vec::new(),
        text => serde_json::from_str(text).unwrap(),
    };
    Audited { code: done.status.code(), rows, printed: String::from_utf8(done.stderr).unwrap() }
}

/// An hour before now, and an hour after it.
fn about_now() -> (OffsetDateTime, OffsetDateTime) {
    let now = OffsetDateTime::now_utc();
    (now - Duration::HOUR, now + Duration::HOUR)
}

fn audit_now(world: &World, more: &[&str]) -> Audited {
    let (from, to) = about_now();
    audit(world, from, to, more)
}

/// Redeems a card into an account and gives the account back.
async fn redeem(clients: &mut Clients, account_id: &str, code: &str) -> pb::Redemption {
    let selector = pb::AccountSelector { account_id: account_id.into(), ..Default::default() };
    let held = lease(&clients.acquire(|r| r.selector = Some(selector)).await.unwrap());
    let redeemed = clients.redeem(&held, code, |r| r.release_on_completion = true).await.unwrap();
    redeemed.redemption.unwrap()
}

/// Redeems so many good cards into as many accounts.
async fn redeem_some(world: &World, clients: &mut Clients, count: usize) -> Vec<pb::Redemption> {
    clients.create_accounts(count).await;
    let mut made = Vec::new();
    for n in 0..count {
        let account_id = format!("a-{n:03}");
        let redeemed = redeem(clients, &account_id, &world.code(&account_id)).await;
        assert_eq!(redeemed.state(), RedemptionState::Succeeded);
        made.push(redeemed);
    }
    made
}

/// A copy of the provider's ledger, each key's last row, as changed.
fn copy_of_ledger(
    world: &World,
    folder: &Path,
    change: impl FnOnce(&mut BTreeMap<String, Row>),
) -> PathBuf {
    let rows = ledger::read(&world.ledger).unwrap().into_iter();
    let mut rows: BTreeMap<String, Row> = rows.map(|row| (row.key.clone(), row)).collect();
    change(&mut rows);
    let lines: Vec<String> =
        rows.values().map(|row| serde_json::to_string(row).unwrap() + "\n").collect();
    let file = folder.join("copy.jsonl");
    fs::write(&file, lines.concat()).unwrap();
    file
}

async fn sql(world: &World, statement: &'static str, redemption_id: &str) {
    let id: Uuid = redemption_id.parse().unwrap();
    let mut db = world.sql().await;
    let done = sqlx::query(statement).bind(id).execute(&mut db).await.unwrap();
    assert_eq!(done.rows_affected(), 1, "{statement}");
}

async fn resolve(
    clients: &mut Clients,
    redemption_id: &str,
    state: RedemptionState,
    change: impl FnOnce(&mut pb::ResolveRedemptionRequest),
) {
    let mut request = pb::ResolveRedemptionRequest {
        pool_id: POOL.into(),
        redemption_id: redemption_id.into(),
        state: state.into(),
        reason: "a test".into(),
        resolved_by: "anna".into(),
        ..Default::default()
    };
    change(&mut request);
    clients.redemptions.resolve_redemption(request).await.unwrap();
}

/// Redeems a card that the provider credits without telling; it tells of none until the faults end.
async fn leave_in_doubt(
    world: &World,
    clients: &mut Clients,
    account_id: &str,
    fault: Fault,
) -> pb::Redemption {
    let code = world.code(&format!("doubt {account_id}"));
    let rules = Faults::of_card(&code, &[fault]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let redeemed = redeem(clients, account_id, &code).await;
    assert_eq!(redeemed.state(), RedemptionState::InDoubt);
    redeemed
}

#[tokio::test]
async fn a_run_with_every_fault_ends_without_a_difference() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(20).await;
    clients.create_account(INVALID_ACCOUNT, |_| {}).await;
    clients.create_pool("other").await;
    let faults = Faults {
        apply_then_drop: 10.0,
        drop_before_apply: 5.0,
        error_after_apply: 10.0,
        slow_202: 10.0,
        garbage: 5.0,
        busy: 5.0,
        wrong_amount: 5.0,
        ..Faults::default()
    };
    world.set_faults(faults);
    let mut items: Vec<_> =
        (0..80).map(|n| item(&format!("i{n}"), &world.code(&format!("{n}")))).collect();
    items[7].expected = Some(eur(77));
    let ended = run(&mut clients, opening("b"), &items).await.unwrap();
    assert_eq!(ended.results.len(), 80);
    world.set_faults(Faults::default());
    checks::everything_settles(&world.db_url).await;

    let mut db = world.sql().await;
    let (recorded, credited): (i64, i64) = sqlx::query_as(
        "SELECT count(*), sum(amount_minor) FILTER (WHERE state = 'SUCCEEDED')::bigint
         FROM redemptions",
    )
    .fetch_one(&mut db)
    .await
    .unwrap();
    let recorded = usize::try_from(recorded).unwrap();
    let sums = format!("EUR: {credited} by our records, {credited} by the provider's");
    let ledger = world.ledger.to_str().unwrap().to_owned();
    for more in [&[][..], &["--ledger", &ledger], &["--pool", POOL]] {
        let audited = audit_now(&world, more);
        audited.agrees(recorded);
        assert!(audited.printed.contains(&sums), "{}", audited.printed);
    }
    // The provider's list is of all pools, and the audit of one that has nothing.
    audit_now(&world, &["--pool", "other"]).agrees(0);
    audit_now(&world, &["--pool", "other", "--ledger", &ledger]).agrees(0);
}

#[tokio::test]
async fn what_is_planted_in_a_ledger_is_named() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let made = redeem_some(&world, &mut clients, 7).await;
    clients.create_account(INVALID_ACCOUNT, |_| {}).await;
    let refused = redeem(&mut clients, INVALID_ACCOUNT, &world.code("refused")).await;
    assert_eq!(refused.state(), RedemptionState::Failed);
    let id = |place: usize| made[place].redemption_id.as_str();
    let strange = Uuid::now_v7().to_string();
    let folder = tempfile::tempdir().unwrap();
    let file = copy_of_ledger(&world, folder.path(), |rows| {
        let row = |key: &str| rows[key].clone();
        let changed = [
            Row { key: strange.clone(), ..row(id(0)) },
            Row { key: "no key of ours".into(), ..row(id(0)) },
            Row { amount_minor: 999, ..row(id(1)) },
            Row { currency_code: "USD".into(), ..row(id(2)) },
            Row { account_ref: Some("b".into()), ..row(id(3)) },
            Row { provider_ref: "another".into(), ..row(id(4)) },
            Row { state: State::Failed, ..row(id(5)) },
            Row { state: State::Succeeded, ..row(&refused.redemption_id) },
        ];
        rows.extend(changed.map(|row| (row.key.clone(), row)));
        rows.remove(id(6));
    });
    let mut text = fs::read_to_string(&file).unwrap();
    let mut twice = ledger::read(&file).unwrap().remove(0);
    twice.provider_ref = "once more".into();
    text.push_str(&serde_json::to_string(&twice).unwrap());
    fs::write(&file, text).unwrap();

    let audited = audit_now(&world, &["--ledger", file.to_str().unwrap()]);
    let mut expected = vec![
        ("MISSING_HERE", &*strange),
        ("MISSING_HERE", "no key of ours"),
        ("AMOUNT", id(1)),
        ("CURRENCY", id(2)),
        ("ACCOUNT", id(3)),
        ("PROVIDER_REF", id(4)),
        ("STATE", id(5)),
        ("STATE", &*refused.redemption_id),
        ("MISSING_AT_PROVIDER", id(6)),
        ("CREDITED_TWICE", &*twice.key),
    ];
    audited.differs(&expected);
    audited.compared(10);
    assert!(audited.printed.contains("; 10 differences"), "{}", audited.printed);
    let amount = audited.rows.iter().find(|row| row["difference"] == "AMOUNT").unwrap();
    assert_eq!((&amount["pool_id"], &amount["our_account"]), (&POOL.into(), &"a-001".into()));
    assert_eq!(amount["our_amount_minor"], 1000);
    assert_eq!(amount["provider_amount_minor"], 999);
    assert_eq!(
        (&amount["our_state"], &amount["provider_state"]),
        (&"SUCCEEDED".into(), &"SUCCEEDED".into())
    );

    // In a pool without any of them, what no pool has is still unknown here.
    clients.create_pool("other").await;
    expected.retain(|(difference, _)| *difference == "MISSING_HERE");
    let other = audit_now(&world, &["--pool", "other", "--ledger", file.to_str().unwrap()]);
    other.differs(&expected);
    audit_now(&world, &[]).agrees(8);
}

#[tokio::test]
async fn what_is_changed_in_the_database_is_named_and_asked_of_the_provider() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let made = redeem_some(&world, &mut clients, 3).await;
    let id = |place: usize| made[place].redemption_id.as_str();
    let more = "UPDATE redemptions SET amount_minor = amount_minor + 1 WHERE redemption_id = $1";
    let less = "UPDATE redemptions SET amount_minor = amount_minor - 1 WHERE redemption_id = $1";
    sql(&world, more, id(0)).await;
    audit_now(&world, &[]).differs(&[("AMOUNT", id(0))]);
    sql(&world, less, id(0)).await;

    let failed = "UPDATE redemptions SET state = 'FAILED' WHERE redemption_id = $1";
    let succeeded = "UPDATE redemptions SET state = 'SUCCEEDED' WHERE redemption_id = $1";
    sql(&world, failed, id(1)).await;
    audit_now(&world, &[]).differs(&[("STATE", id(1))]);
    // The provider's list of another time does not have it: it is asked for it.
    let aside = "UPDATE redemptions SET created_at = created_at - interval '20 hours'
                 WHERE redemption_id = $1";
    let back = "UPDATE redemptions SET created_at = created_at + interval '20 hours'
                WHERE redemption_id = $1";
    sql(&world, aside, id(1)).await;
    let (from, to) = about_now();
    let earlier = Duration::hours(20);
    let yesterday = || audit(&world, from - earlier, to - earlier, &[]);
    yesterday().differs(&[("STATE", id(1))]);
    sql(&world, succeeded, id(1)).await;
    yesterday().agrees(1);
    // And from the provider's side it is found here, though our window does not have it.
    audit_now(&world, &[]).agrees(3);
    clients.create_pool("other").await;
    audit_now(&world, &["--pool", "other"]).agrees(0);
    sql(&world, back, id(1)).await;
    audit_now(&world, &[]).agrees(3);
}

#[tokio::test]
async fn a_success_that_was_closed_as_failed_and_an_invented_one_are_named() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(3).await;
    let applied = leave_in_doubt(&world, &mut clients, "a-000", Fault::ErrorAfterApply).await;
    resolve(&mut clients, &applied.redemption_id, RedemptionState::Failed, |_| {}).await;
    let dropped = leave_in_doubt(&world, &mut clients, "a-001", Fault::DropBeforeApply).await;
    resolve(&mut clients, &dropped.redemption_id, RedemptionState::Succeeded, |r| {
        r.amount = Some(eur(1000));
    })
    .await;
    let right = leave_in_doubt(&world, &mut clients, "a-002", Fault::ErrorAfterApply).await;
    let open = audit_now(&world, &["--ledger", world.ledger.to_str().unwrap()]);
    resolve(&mut clients, &right.redemption_id, RedemptionState::Succeeded, |r| {
        r.amount = Some(eur(1000));
    })
    .await;
    world.set_faults(Faults::default());

    let wrong =
        [("STATE", &*applied.redemption_id), ("MISSING_AT_PROVIDER", &*dropped.redemption_id)];
    open.differs(&[&wrong[..], &[("OPEN_HERE", &right.redemption_id)]].concat());
    let row = open.rows.iter().find(|row| row["difference"] == "OPEN_HERE").unwrap();
    assert_eq!(
        (&row["our_state"], &row["provider_state"]),
        (&"IN_DOUBT".into(), &"SUCCEEDED".into())
    );
    audit_now(&world, &[]).differs(&wrong);
    // Without look-ups the list is all there is.
    audit_now(&world, &["--provider-looks-up=false"]).differs(&wrong);
}

#[tokio::test]
async fn a_review_that_says_what_the_provider_says_is_no_difference() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let pool = pb::Pool {
        pool_id: POOL.into(),
        amount_mismatch_policy: pb::AmountMismatchPolicy::NeedsReview.into(),
        ..Default::default()
    };
    let request = pb::UpdatePoolRequest { pool: Some(pool), update_mask: None };
    clients.pools.update_pool(request).await.unwrap();
    let code = world.code("more");
    world.fault(&code, &[Fault::WrongAmount]);
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let redeemed = clients.redeem(&held, &code, |r| r.expected = Some(eur(1000))).await.unwrap();
    let redemption = redeemed.redemption.unwrap();
    assert_eq!(redemption.state(), RedemptionState::NeedsReview);

    let audited = audit_now(&world, &[]);
    audited.agrees(1);
    assert!(audited.printed.contains("1 of them wait for a person"), "{}", audited.printed);
    let folder = tempfile::tempdir().unwrap();
    let file = copy_of_ledger(&world, folder.path(), BTreeMap::clear);
    // Nothing in the file says until when it goes: the end of the window, which is yet to come.
    audit_now(&world, &["--ledger", file.to_str().unwrap()])
        .differs(&[("MISSING_AT_PROVIDER", &redemption.redemption_id)]);
}

#[tokio::test]
async fn a_days_edge_makes_no_difference() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let made = redeem_some(&world, &mut clients, 3).await;
    let of = |place: usize| {
        let key = &made[place].redemption_id;
        ledger::read(&world.ledger).unwrap().into_iter().find(|row| row.key == *key).unwrap()
    };
    let created = |place: usize| {
        let time = made[place].create_time.unwrap();
        let nanos = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
        OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap()
    };
    // Recorded before it, completed at it: each side has it on another day.
    let edge = of(1).at;
    assert!(created(1) < edge);
    let (from, to) = about_now();
    audit(&world, from, edge, &[]).agrees(2);
    audit(&world, edge, to, &[]).agrees(2);
    audit(&world, created(1), edge, &[]).agrees(1);
    audit(&world, edge, edge + Duration::nanoseconds(1), &[]).agrees(1);
    // The same with a file of each day.
    let folder = tempfile::tempdir().unwrap();
    let before = copy_of_ledger(&world, folder.path(), |rows| rows.retain(|_, row| row.at < edge));
    let audited = audit(&world, from, edge, &["--ledger", before.to_str().unwrap()]);
    audited.agrees(1);
    let named = format!("redemption {} of {POOL} may have been", made[1].redemption_id);
    assert!(audited.printed.contains(&named), "{}", audited.printed);
    let after = copy_of_ledger(&world, folder.path(), |rows| rows.retain(|_, row| row.at >= edge));
    audit(&world, edge, to, &["--ledger", after.to_str().unwrap()]).agrees(2);
    // A file that goes on past the day has it.
    audit(&world, from, edge, &["--ledger", world.ledger.to_str().unwrap()]).agrees(2);
}

#[tokio::test]
async fn more_than_a_thousand_are_read_page_by_page() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(64).await;
    let items: Vec<_> =
        (0..1100).map(|n| item(&format!("{n}"), &world.code(&format!("{n}")))).collect();
    let ended = run(&mut clients, opening("b"), &items).await.unwrap();
    assert_eq!(ended.summary.succeeded, 1100);
    audit_now(&world, &[]).agrees(1100);

    let folder = tempfile::tempdir().unwrap();
    let keep = ended.results.len() - 250;
    let file = copy_of_ledger(&world, folder.path(), |rows| {
        *rows = std::mem::take(rows).into_iter().take(keep).collect();
    });
    let audited = audit_now(&world, &["--ledger", file.to_str().unwrap()]);
    assert_eq!((audited.code, audited.rows.len()), (Some(3), 250));
    assert!(audited.rows.iter().all(|row| row["difference"] == "MISSING_AT_PROVIDER"));
    audited.compared(1100);

    // Of those that the other side's window lacks, each is asked for by its key.
    let mut db = world.sql().await;
    let aside = sqlx::query(
        "UPDATE redemptions SET created_at = created_at - interval '20 hours'
         WHERE request_id LIKE 'batch:b:1__'",
    );
    assert_eq!(aside.execute(&mut db).await.unwrap().rows_affected(), 100);
    let (from, to) = about_now();
    let earlier = Duration::hours(20);
    audit(&world, from - earlier, to - earlier, &[]).agrees(100);
    audit_now(&world, &[]).agrees(1100);
}

#[tokio::test]
async fn an_audit_that_cannot_be_done_is_an_error_and_never_agreement() {
    let world = World::start().await;
    let (from, to) = about_now();
    let file = world.ledger.with_file_name("broken.jsonl");
    fs::write(&file, "{}\n{}\n").unwrap();
    for (audited, why) in [
        (audit(&world, to, from, &[]), "--to must be after --from"),
        (audit(&world, from, to, &["--pool", "none"]), "there is no pool none"),
        (audit(&world, from, to, &["--ledger", "/nowhere/l.jsonl"]), "/nowhere/l.jsonl"),
        (audit(&world, from, to, &["--ledger", file.to_str().unwrap()]), "line 1 of"),
        (audit(&world, from, to, &["--provider-url", "http://127.0.0.1:1"]), "the provider's list"),
    ] {
        assert_eq!((audited.code, audited.rows.len()), (Some(1), 0), "{}", audited.printed);
        assert!(audited.printed.contains(why), "{}", audited.printed);
    }
}

#[tokio::test]
async fn what_was_taken_back_is_a_difference_only_while_the_provider_has_it_as_a_success() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let made = redeem_some(&world, &mut clients, 2).await;
    let id = made[0].redemption_id.as_str();
    let request = pb::ReverseRedemptionRequest {
        pool_id: POOL.into(),
        redemption_id: id.into(),
        reason: "wrong account".into(),
        reversed_by: "anna".into(),
        evidence: "page 3".into(),
        outcome: pb::ReversalOutcome::Reversed.into(),
    };
    clients.redemptions.reverse_redemption(request).await.unwrap();
    let audited = audit_now(&world, &[]);
    audited.differs(&[("STATE", id)]);
    assert_eq!(audited.rows[0]["our_state"], "REVERSED");
    let folder = tempfile::tempdir().unwrap();
    let cancel = |rows: &mut BTreeMap<String, Row>| {
        let row = rows.get_mut(id).unwrap();
        (row.state, row.amount_minor) = (State::Cancelled, 0);
    };
    let drop = |rows: &mut BTreeMap<String, Row>| assert!(rows.remove(id).is_some());
    let cancelled = copy_of_ledger(&world, folder.path(), cancel);
    audit_now(&world, &["--ledger", cancelled.to_str().unwrap()]).agrees(2);
    let dropped = copy_of_ledger(&world, folder.path(), drop);
    audit_now(&world, &["--ledger", dropped.to_str().unwrap()]).agrees(2);
}
