//! The task API.

use std::fs;

use holdfast_simulator::{Api, faults::Fault, ledger::State};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Told, World, told};

pub(crate) fn task(items: &[(&str, &str, &str)]) -> Value {
    let item = |(username, password, pin): &(&str, &str, &str)| json!({"username": username, "password": password, "verify_url": "https://v.example", "pin": pin});
    json!({"list": items.iter().map(item).collect::<Vec<_>>(), "interval": 6})
}

/// Creates a task of one card, and gives its id.
async fn create(world: &World, username: &str, pin: &str) -> String {
    let (status, body) = world.post("/api/task", &task(&[(username, "secret", pin)])).await;
    let body = body.unwrap();
    assert_eq!((status, &body["code"]), (200, &json!(0)), "{body}");
    body["data"]["task_id"].as_str().unwrap().to_owned()
}

async fn status(world: &World, task_id: &str) -> Told {
    world.get("/api/status", &[("task_id", task_id)]).await
}

/// The state of a task, and the result of its first item, read from its text.
async fn ended(world: &World, task_id: &str) -> (String, Value) {
    let body = status(world, task_id).await.1.unwrap();
    let result = body["data"]["list"][0]["result"].as_str().unwrap();
    let state = body["data"]["status"].as_str().unwrap().to_owned();
    (state, serde_json::from_str(result).unwrap())
}

#[tokio::test]
async fn a_task_is_polled_by_its_id_and_tells_money_as_text() {
    let world = World::with(Api::Task, |args, _| args.default_amount_minor = 150_000).await;
    let task_id = create(&world, "alice", "PIN-1").await;
    let body = status(&world, &task_id).await.1.unwrap();
    assert_eq!(body["data"]["list"][0]["data_id"], "alice:PIN-1");
    let (state, result) = ended(&world, &task_id).await;
    assert_eq!((&*state, &result["amount"]), ("completed", &json!("$1,500.00")));
    assert_eq!((&result["success"], &result["balance"]), (&json!(true), &json!("$1,500.00")));
    let row = world.rows().pop().unwrap();
    assert_eq!((row.account_ref.as_deref(), row.amount_minor), (Some("alice"), 150_000));
    assert_eq!(row.provider_ref, task_id);
    let unknown = status(&world, "t-0").await;
    assert_eq!((unknown.0, &unknown.1.unwrap()["code"]), (200, &json!(404)));
}

#[tokio::test]
async fn the_same_card_twice_is_two_tasks_and_the_second_finds_it_used() {
    let world = World::new(Api::Task).await;
    let first = create(&world, "alice", "PIN-1").await;
    let second = create(&world, "bob", "PIN-1").await;
    assert_ne!(first, second);
    let (state, result) = ended(&world, &second).await;
    assert_eq!((&*state, &result["code"]), ("failed", &json!("CODE_SPENT")));
    assert_eq!(ended(&world, &first).await.0, "completed");
    // The same account does not make it the same task either.
    let third = create(&world, "alice", "PIN-1").await;
    assert_eq!(ended(&world, &third).await.1["code"], "CODE_SPENT");
    assert_eq!((world.rows().len(), world.credited().len()), (3, 1));
}

#[tokio::test]
async fn a_slow_task_is_pending_then_running_then_completed() {
    let world = World::new(Api::Task).await;
    world.fault(Fault::Slow202);
    let task_id = create(&world, "alice", "PIN-1").await;
    let mut states = Vec::new();
    let seen = std::sync::Mutex::new(&mut states);
    let done = |body: &Value| {
        let state = body["data"]["status"].as_str().unwrap().to_owned();
        assert_eq!(body["data"]["list"][0]["result"].is_null(), state != "completed");
        let mut seen = seen.lock().unwrap();
        if seen.last() != Some(&state) {
            seen.push(state.clone());
        }
        state == "completed"
    };
    world.until("the task ends", async || status(&world, &task_id).await, done).await;
    assert_eq!(states, ["pending", "running", "completed"]);
    let rows: Vec<State> = world.rows().iter().map(|row| row.state).collect();
    assert_eq!(rows, [State::Processing, State::Succeeded]);
}

#[tokio::test]
async fn the_items_of_a_task_stand_by_themselves() {
    let world = World::with(Api::Task, |args, dir| {
        let cards = dir.join("cards.csv");
        fs::write(&cards, "code,amount_minor,state\nPIN-1,50000,\nPIN-2,700,used\n").unwrap();
        args.cards = Some(cards);
    })
    .await;
    let items =
        [("a", "p", "PIN-1"), ("b", "p", "PIN-1"), ("c", "p", "PIN-2"), ("d", "p", "PIN-3")];
    let body = world.post("/api/task", &task(&items)).await.1.unwrap();
    let task_id = body["data"]["task_id"].as_str().unwrap();
    let body = status(&world, task_id).await.1.unwrap();
    assert_eq!(body["data"]["status"], "completed");
    let told: Vec<Value> = body["data"]["list"].as_array().unwrap().to_vec();
    let results: Vec<Value> = told
        .iter()
        .map(|item| serde_json::from_str(item["result"].as_str().unwrap()).unwrap())
        .collect();
    assert_eq!(results[0]["amount"], "$500.00");
    assert_eq!(results[1]["code"], "CODE_SPENT");
    assert_eq!(results[2]["code"], "CODE_SPENT");
    assert_eq!(
        (&results[3]["code"], &told[3]["data_id"]),
        (&json!("CODE_UNKNOWN"), &json!("d:PIN-3"))
    );
    assert_eq!(world.credited().len(), 1);
}

#[tokio::test]
async fn a_wrong_password_is_a_failure_about_the_login() {
    let world = World::with(Api::Task, |args, dir| {
        let accounts = dir.join("accounts.csv");
        fs::write(&accounts, "username,password\nalice,secret\nbob,other\n").unwrap();
        args.accounts = Some(accounts);
    })
    .await;
    for username in ["bob", "nobody"] {
        let task_id = create(&world, username, "PIN-1").await;
        let (state, result) = ended(&world, &task_id).await;
        assert_eq!((&*state, &result["code"]), ("failed", &json!("LOGIN_FAILED")), "{username}");
    }
    let good = create(&world, "alice", "PIN-1").await;
    assert_eq!(ended(&world, &good).await.0, "completed");
}

#[tokio::test]
async fn refusals_of_accounts_are_told_by_their_codes() {
    let world = World::new(Api::Task).await;
    let faults = [
        (Fault::LoginInvalid, "LOGIN_FAILED"),
        (Fault::LimitReached, "LIMIT_REACHED"),
        (Fault::Throttled, "ACCOUNT_THROTTLED"),
    ];
    for (fault, code) in faults {
        world.fault(fault);
        let task_id = create(&world, "alice", "PIN-1").await;
        assert_eq!(ended(&world, &task_id).await.1["code"], code);
    }
}

#[tokio::test]
async fn a_caller_without_the_key_is_refused_and_nothing_is_begun() {
    let world = World::with(Api::Task, |args, _| args.api_key = Some("k-1".to_owned())).await;
    let ask = |key: Option<&'static str>| {
        let request = world.request(Method::POST, "/api/task").json(&task(&[("a", "p", "PIN-1")]));
        key.map_or(request.try_clone().unwrap(), |key| request.header("x-api-key", key))
    };
    for key in [None, Some("k-2")] {
        let (status, body) = told(ask(key).send().await.unwrap()).await;
        assert_eq!((status, &body.unwrap()["code"]), (401, &json!(401)));
    }
    assert_eq!(status(&world, "t-0").await.0, 401);
    assert!(world.rows().is_empty());
    let (status, body) = told(ask(Some("k-1")).send().await.unwrap()).await;
    assert_eq!((status, &body.unwrap()["code"]), (200, &json!(0)));
}

#[tokio::test]
async fn a_restart_keeps_tasks_and_their_pins_stay_out_of_the_ledger() {
    let world = World::new(Api::Task).await;
    let good = create(&world, "alice", "PIN-1").await;
    let used = create(&world, "bob", "PIN-1").await;
    world.fault(Fault::Slow202);
    let slow = create(&world, "bob", "PIN-2").await;
    let text = fs::read_to_string(world.ledger()).unwrap();
    assert!(!text.contains("PIN-"), "a pin is in the ledger in clear");
    assert!(!text.contains("secret"), "a password is in the ledger");

    let before = [status(&world, &good).await, status(&world, &used).await];
    let world = world.killed().await;
    assert_eq!([status(&world, &good).await, status(&world, &used).await], before);
    let done = |body: &Value| body["data"]["status"] == "completed";
    world.until("it goes on", async || status(&world, &slow).await, done).await;
    let again = create(&world, "carol", "pin 2").await;
    assert_eq!(ended(&world, &again).await.1["code"], "CODE_SPENT");
}

#[tokio::test]
async fn what_is_no_task_is_refused_before_there_is_one() {
    let world = World::new(Api::Task).await;
    for body in [
        json!({}),
        json!({"list": [], "interval": 6}),
        json!({"list": [{"pin": "P"}], "interval": 6}),
    ] {
        let (status, told) = world.post("/api/task", &body).await;
        assert_eq!((status, &told.unwrap()["code"]), (200, &json!(1001)), "{body}");
    }
    assert!(world.rows().is_empty());
    world.has_the_common_paths().await;
}
