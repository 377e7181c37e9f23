//! What each fault is, with each API.

use std::time::{Duration, Instant};

use holdfast_simulator::{
    Api,
    faults::{Fault, Faults},
    ledger::State,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    fiserv, square,
    support::{Told, World, told},
    task,
};

const APIS: [Api; 3] = [Api::Task, Api::Square, Api::Fiserv];

/// Asks for a card of 10.00. `None`: the connection ended without an answer.
async fn send(world: &World, key: &str) -> Option<Told> {
    let (path, body): (_, Value) = match world.args.api {
        Api::Holdfast => unreachable!("it is tested with its client"),
        Api::Task => ("/api/task", task::task(&[("alice", "secret", key)])),
        Api::Square => ("/v2/gift-cards/activities", square::activity(key, key, 1000)),
        Api::Fiserv => ("/payments/v1/charges", fiserv::charge(key, key, 10.0)),
    };
    let answer = world.request(Method::POST, path).json(&body).send().await;
    match answer {
        Ok(response) => Some(told(response).await),
        Err(_) => None,
    }
}

async fn look_up(world: &World) -> u16 {
    let (status, _) = match world.args.api {
        Api::Holdfast => unreachable!("it is tested with its client"),
        Api::Task => world.get("/api/status", &[("task_id", "t-0")]).await,
        Api::Square => world.get("/v2/gift-cards/activities", &[]).await,
        Api::Fiserv => {
            world.post("/payments/v1/transaction-inquiry", &fiserv::reference("t")).await
        }
    };
    status
}

#[tokio::test]
async fn a_drop_before_it_and_busy_execute_nothing() {
    for api in APIS {
        let world = World::new(api).await;
        world.fault(Fault::DropBeforeApply);
        assert_eq!(send(&world, "k-1").await, None, "{api:?}");
        world.fault(Fault::Busy);
        assert_eq!(send(&world, "k-1").await.unwrap().0, 429, "{api:?}");
        assert!(world.rows().is_empty(), "{api:?}");
        assert!(send(&world, "k-1").await.unwrap().0 < 300, "{api:?}");
        assert_eq!(world.credited().len(), 1, "{api:?}");
    }
}

#[tokio::test]
async fn a_drop_an_error_and_garbage_come_after_it_was_executed() {
    for api in APIS {
        let world = World::new(api).await;
        world.fault(Fault::ApplyThenDrop);
        assert_eq!(send(&world, "k-1").await, None, "{api:?}");
        world.fault(Fault::ErrorAfterApply);
        let (status, body) = send(&world, "k-2").await.unwrap();
        assert!(status == 500 && body.is_some(), "{api:?}");
        world.fault(Fault::Garbage);
        let (status, body) = send(&world, "k-3").await.unwrap();
        assert!(status < 300 && body.is_none(), "{api:?}");
        assert_eq!(world.credited().len(), 3, "{api:?}");
    }
}

#[tokio::test]
async fn a_wrong_amount_is_credited_and_a_slow_one_is_credited_later() {
    for api in APIS {
        let world = World::new(api).await;
        world.fault(Fault::WrongAmount);
        assert!(send(&world, "k-1").await.unwrap().0 < 300, "{api:?}");
        assert_eq!(world.credited()[0].amount_minor, 1100, "{api:?}");
        world.fault(Fault::Slow202);
        assert!(send(&world, "k-2").await.unwrap().0 < 300, "{api:?}");
        assert_eq!(world.rows().last().unwrap().state, State::Processing, "{api:?}");
        let healthy = async || (200, Some(json!(world.credited().len())));
        world.until("it is credited", healthy, |count| *count == 2).await;
    }
}

#[tokio::test]
async fn latency_holds_back_and_look_ups_fail_and_lag() {
    for api in APIS {
        let world =
            World::with(api, |args, _| args.visibility_lag = Duration::from_secs(3600)).await;
        let latency = "60ms".parse().unwrap();
        world.set(Faults { latency, lookup_error: 100.0, ..Faults::default() });
        let begun = Instant::now();
        let (_, body) = send(&world, "k-1").await.unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(60), "{api:?}");
        assert_eq!(look_up(&world).await, 500, "{api:?}");
        world.set(Faults::default());
        assert_eq!(look_up(&world).await, 200, "{api:?}");
        let found = match api {
            Api::Task => {
                let task_id = body.unwrap()["data"]["task_id"].as_str().unwrap().to_owned();
                let told = world.get("/api/status", &[("task_id", &task_id)]).await;
                told.1.unwrap()["code"] == 0
            }
            Api::Square => {
                world.get("/v2/gift-cards/activities", &[]).await.1.unwrap() != json!({})
            }
            _ => {
                let path = "/payments/v1/transaction-inquiry";
                world.post(path, &fiserv::reference("k-1")).await.1.unwrap() != json!([])
            }
        };
        assert!(!found, "{api:?}: it is not to be seen yet");
    }
}
