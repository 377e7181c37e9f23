//! `holdfast redemption list`, `show`, `resolve` and `reverse`, as an operator runs them.

use std::process::{Command, Output};

use holdfast::{
    rpc::pb::RedemptionState,
    simulator::faults::{Fault, Faults},
};
use serde_json::Value;

use crate::{
    redeem::review::left_for_review,
    support::world::{Clients, POOL, World, lease},
};

fn redemption(world: &World, arguments: &[&str]) -> Output {
    let server = format!("http://{}", world.server(0).addr());
    Command::new(env!("CARGO_BIN_EXE_holdfast"))
        .arg("redemption")
        .args(arguments)
        .args(["--server", &server])
        .output()
        .unwrap()
}

fn json(done: &Output) -> Value {
    let printed = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(0), "{printed}");
    serde_json::from_slice(&done.stdout).unwrap()
}

/// Leaves a redemption in doubt, and answers with its id.
async fn left_in_doubt(world: &World, clients: &mut Clients) -> String {
    clients.create_account("a", |_| {}).await;
    let code = world.code("doubt");
    let rules = Faults::of_card(&code, &[Fault::DropBeforeApply]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let redeemed = clients.redeem(&held, &code, |r| r.release_on_completion = true).await.unwrap();
    let redeemed = redeemed.redemption.unwrap();
    assert_eq!(redeemed.state(), RedemptionState::InDoubt);
    redeemed.redemption_id
}

#[tokio::test]
async fn what_is_in_doubt_is_listed_of_all_pools_with_what_an_operator_asks_first() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_pool("another").await;
    let id = left_in_doubt(&world, &mut clients).await;

    let in_doubt = ["list", "--state", "in-doubt,needs-review"];
    let list = json(&redemption(&world, &[&in_doubt[..], &["--format", "json"]].concat()));
    let [row] = list.as_array().unwrap().as_slice() else { panic!("{list}") };
    assert_eq!((&row["redemption_id"], &row["pool_id"]), (&id.as_str().into(), &POOL.into()));
    assert!(row["age_seconds"].as_u64().unwrap() < 60 && row["age"].is_string(), "{row}");
    assert!(row["attempts"].as_u64().unwrap() >= 1, "{row}");
    assert!(row["last_answer"].is_string() && row["next_check_time"].is_string(), "{row}");

    let table = redemption(&world, &[&in_doubt[..], &["--format", "table"]].concat());
    let table = String::from_utf8(table.stdout).unwrap();
    for column in ["pool_id", "age", "attempts", "last_answer", "next_check_time", "reason"] {
        assert!(table.contains(&format!(" {column} ")), "{table}");
    }
    assert!(table.contains(&id), "an id can be copied: {table}");
    let other = ["list", "--pool", "another", "--format", "json"];
    assert_eq!(json(&redemption(&world, &other)), Value::Array(vec![]));
    let shown = json(&redemption(&world, &["show", &id, "--pool", POOL, "--format", "json"]));
    let found = json(&redemption(&world, &["show", &id, "--format", "json"]));
    assert_eq!(found["pool_id"], POOL, "it is looked for where no pool is given");
    let nobodys = uuid::Uuid::nil().to_string();
    let missing = redemption(&world, &["show", &nobodys]);
    let printed = String::from_utf8_lossy(&missing.stderr);
    assert!(!missing.status.success() && printed.contains("no pool has a redemption"), "{printed}");
    assert_eq!((&shown["state"], &shown["pool_id"]), (&"IN_DOUBT".into(), &POOL.into()));
}

#[tokio::test]
async fn a_redemption_is_closed_with_outcome_evidence_and_reason() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let id = left_in_doubt(&world, &mut clients).await;
    let word = ["resolve", &id, "--pool", POOL, "--outcome", "failed", "--format", "json"];
    let who = ["--by", "maria", "--reason", "it is not on their statement"];
    let without = redemption(&world, &[&word[..], &who].concat());
    assert_eq!(without.status.code(), Some(2), "without evidence nothing is asked");
    let empty = redemption(&world, &[&word[..], &who, &["--evidence", ""]].concat());
    assert_eq!(empty.status.code(), Some(2));
    assert_eq!(clients.redemption(&id).await.state(), RedemptionState::InDoubt);

    let evidence = ["--evidence", "statement 2026-11, page 4; ticket 118"];
    let closed = json(&redemption(&world, &[&word[..], &who, &evidence].concat()));
    let expected = [
        ("state", "FAILED"),
        ("resolved_by", "maria"),
        ("resolution", who[3]),
        ("evidence", evidence[1]),
    ];
    let shown = json(&redemption(&world, &["show", &id, "--pool", POOL, "--format", "json"]));
    let list = json(&redemption(&world, &["list", "--pool", POOL, "--format", "json"]));
    for row in [&closed, &shown, &list[0]] {
        for (column, value) in expected {
            assert_eq!(row[column], value, "{column} of {row}");
        }
    }
}

#[tokio::test]
async fn an_amount_other_than_the_recorded_credit_is_recorded_only_with_the_flag_that_says_so() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let (held, open) = left_for_review(&world, &mut clients, &world.code("typo")).await;
    let id = open.redemption_id.as_str();
    let word = ["resolve", id, "--pool", POOL, "--outcome", "succeeded", "--format", "json"];
    let who = ["--by", "maria", "--reason", "seen", "--evidence", "page 4"];
    let amount = ["--amount-minor", "100000"];
    let refused = redemption(&world, &[&word[..], &who, &amount].concat());
    let printed = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_ne!(refused.status.code(), Some(0), "{printed}");
    for text in
        ["amount", "the provider reported that it credited 1100 EUR", "--recorded-amount-is-wrong"]
    {
        assert!(printed.contains(text), "{printed}");
    }
    assert_eq!(clients.redemption(id).await.state(), RedemptionState::NeedsReview);
    let flag = ["--recorded-amount-is-wrong"];
    let closed = json(&redemption(&world, &[&word[..], &who, &amount, &flag].concat()));
    assert_eq!((&closed["state"], &closed["amount_minor"]), (&"SUCCEEDED".into(), &100_000.into()));
    clients.release(&held).await.unwrap();
}

#[tokio::test]
async fn a_redemption_is_taken_back_by_the_word_of_a_person_with_evidence() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let code = world.code("back");
    let redeemed = clients.redeem(&held, &code, |r| r.release_on_completion = true);
    let id = redeemed.await.unwrap().redemption.unwrap().redemption_id;
    let ask = ["reverse", &id, "--pool", POOL, "--by", "maria", "--reason", "wrong account"];
    let refused = redemption(&world, &ask);
    let printed = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{printed}");
    assert!(printed.contains("has no op.reverse"), "{printed}");

    let outcome = ["--outcome", "reversed", "--format", "json"];
    let without = redemption(&world, &[&ask[..], &outcome].concat());
    assert_eq!(without.status.code(), Some(2), "without evidence nothing is recorded");
    let evidence = ["--evidence", "statement 2026-11, page 4"];
    let done = json(&redemption(&world, &[&ask[..], &outcome, &evidence].concat()));
    let shown = json(&redemption(&world, &["show", &id, "--pool", POOL, "--format", "json"]));
    for row in [&done, &shown] {
        for (column, value) in [
            ("state", "SUCCEEDED"),
            ("reversal_state", "SUCCEEDED"),
            ("reversed_by", "maria"),
            ("reversal_reason", "wrong account"),
        ] {
            assert_eq!(row[column], value, "{column} of {row}");
        }
        assert!(row["reverse_time"].is_string(), "{row}");
    }
    assert_eq!(clients.account("a").await.balance.unwrap().amount_minor, 0);
    let of = |state| ["list", "--pool", POOL, "--reversal", state, "--format", "json"];
    let listed = json(&redemption(&world, &of("succeeded")));
    assert_eq!(listed[0]["redemption_id"], id.as_str());
    assert_eq!(json(&redemption(&world, &of("needs-review,failed"))), Value::Array(vec![]));
}
