//! Faults of the simulator: how each reaches the client, and how they are set.

use std::collections::BTreeMap;

use std::time::Duration;

use holdfast::{
    domain::redemption::{Ask, Step, reason},
    provider::{Answer, Call, Doubt, Provider, classify, profile::Profile},
    simulator::faults::{Fault, Faults},
};

use super::{World, credited, failure, status, successes};
use crate::provider::client::{Calls as _, args, ask, eventually, first};

#[tokio::test]
async fn every_fault_after_the_execution_is_in_doubt_and_found_by_its_key() {
    let world = World::new().await;
    let faults = [Fault::ApplyThenDrop, Fault::ErrorAfterApply, Fault::Garbage];
    for (n, fault) in faults.into_iter().enumerate() {
        let ask = ask(&format!("CODE-{n}"), "acc");
        world.fault("CODE", fault);
        let answer = world.provider.send(&ask).await;
        assert_eq!(matches!(answer, Answer::Lost(_)), fault == Fault::ApplyThenDrop, "{answer:?}");
        let step = first(&ask, &answer);
        assert!(matches!(step, Step::InDoubt { .. }), "{fault:?}: {step:?}");
        assert_eq!(credited(&world.look_up(&ask).await), 1000);
        let again = world.provider.send(&ask).await;
        assert_eq!(status(&again), 200, "the rule was for one request");
    }
    assert_eq!(successes(&world.rows()), faults.len());
}

#[tokio::test]
async fn every_fault_before_the_execution_leaves_no_trace() {
    let world = World::new().await;
    let ask = ask("CODE-1", "acc");
    world.fault("CODE", Fault::DropBeforeApply);
    let answer = world.provider.send(&ask).await;
    assert!(matches!(answer, Answer::Lost(_)), "{answer:?}");
    world.fault("CODE", Fault::Busy);
    match first(&ask, &world.provider.send(&ask).await) {
        Step::SendAgain { failure, after: Some(_) } => {
            assert_eq!(failure.reason, reason::PROVIDER_BUSY)
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.look_up(&ask).await, Step::NotFound);
    assert!(world.rows().is_empty());
    assert_eq!(status(&world.provider.send(&ask).await), 201);
}

#[tokio::test]
async fn a_slow_redemption_is_polled_and_outlives_a_kill() {
    let world = World::with(|args| args.faults.processing_time = Duration::from_millis(200)).await;
    for (code, kill) in [("CODE-1", false), ("CODE-2", true)] {
        let ask = ask(code, "acc");
        world.fault("CODE", Fault::Slow202);
        let answer = world.provider.send(&ask).await;
        assert_eq!(status(&answer), 202);
        let step = first(&ask, &answer);
        assert!(matches!(step, Step::LookUp { after: Some(_), .. }), "{step:?}");
        if kill {
            let world = world.killed().await;
            settles(&world, &ask).await;
            break;
        }
        settles(&world, &ask).await;
    }
}

async fn settles(world: &World, ask: &Ask) {
    let step = eventually(|| async {
        let step = world.look_up(ask).await;
        (!matches!(step, Step::LookUp { .. })).then_some(step)
    })
    .await;
    assert_eq!(credited(&step), 1000);
}

#[tokio::test]
async fn a_slow_redemption_can_be_cancelled_and_gives_its_card_back() {
    let world = World::with(|args| args.faults.processing_time = Duration::from_secs(3600)).await;
    let (slow, next) = (ask("CODE-1", "acc"), ask("CODE-1", "acc"));
    world.fault("CODE", Fault::Slow202);
    world.provider.send(&slow).await;
    let answer = world.provider.cancel(&slow).await;
    let step = classify(
        Profile::built_in(),
        &BTreeMap::new(),
        &slow,
        Call::Cancel,
        Doubt::InDoubt,
        &answer,
    );
    assert_eq!(failure(&step).reason, reason::CANCELLED);
    assert_eq!(status(&world.provider.send(&next).await), 201);
}

#[tokio::test]
async fn another_amount_is_told_as_it_was_credited() {
    let world = World::new().await;
    let ask = ask("CODE-1", "acc");
    world.fault("CODE", Fault::WrongAmount);
    let amount = credited(&first(&ask, &world.provider.send(&ask).await));
    assert_ne!(amount, 1000);
    assert_eq!(world.rows()[0].amount_minor, amount);
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_stop_the_execution() {
    for (fault, latency) in [(Some(Fault::Stall), "0ms"), (None, "300ms")] {
        let world = World::with(|args| {
            args.faults.latency = latency.parse().unwrap();
            args.faults.rules = fault.map_or(vec![], |fault| Faults::of_card("CODE", &[fault]));
        })
        .await;
        let ask = ask("CODE-1", "acc");
        let mut impatient = args(&world.simulator.url());
        impatient.timeout = Duration::from_millis(100);
        let answer = Provider::built_in(&impatient).unwrap().send(&ask).await;
        assert!(matches!(answer, Answer::Lost(_)), "{answer:?}");
        let step = eventually(|| async {
            let step = world.look_up(&ask).await;
            (step != Step::NotFound).then_some(step)
        })
        .await;
        assert_eq!(credited(&step), 1000);
    }
}

#[tokio::test]
async fn faults_are_shown_and_changed_over_http() {
    let world = World::new().await;
    // An HTTP client of its own: the provider's has no such calls.
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let url = format!("{}/faults", world.simulator.url());
    let put = |body: &'static str| http.put(&url).body(body).send();
    let answer = put(r#"{"busy":100,"latency":"1ms..2ms","lookup_error":100}"#).await.unwrap();
    assert_eq!(answer.status(), 200);
    let shown: Faults = http.get(&url).send().await.unwrap().json().await.unwrap();
    assert_eq!((shown.busy, shown.latency), (100.0, "1ms..2ms".parse().unwrap()));
    for bad in
        [r#"{"busy":101}"#, r#"{"busy":60,"garbage":60}"#, r#"{"bussy":1}"#, r#"{"busy":-1}"#]
    {
        assert_eq!(put(bad).await.unwrap().status(), 400, "{bad}");
    }
    let ask = ask("CODE-1", "acc");
    assert_eq!(status(&world.provider.send(&ask).await), 503);
    assert_eq!(status(&world.provider.look_up(&ask).await), 500);
    let health = http.get(format!("{}/healthz", world.simulator.url())).send().await.unwrap();
    assert_eq!(health.status(), 200);
}

#[tokio::test]
async fn dice_with_a_seed_fall_as_often_as_they_say() {
    let world = World::with(|args| args.faults.error_after_apply = 30.0).await;
    let mut errors = 0;
    for n in 0..200 {
        let answer = world.provider.send(&ask(&format!("CODE-{n:04}"), "acc")).await;
        errors += usize::from(status(&answer) == 500);
    }
    assert!((30..=90).contains(&errors), "{errors} of 200 at 30 percent");
    assert_eq!(successes(&world.rows()), 200);
}
