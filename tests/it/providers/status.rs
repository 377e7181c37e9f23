//! What is told of a provider that cannot be called now: the same by every server, in answers and by commands.

use std::time::Duration;

use holdfast::rpc::pb;
use serde_json::Value;

use super::limits::{Mode, POOL, redeem_all, redeem_one, world};
use crate::support::{
    checks,
    program::run,
    wait::eventually,
    world::{Clients, World},
};

const LIMIT: Duration = Duration::from_secs(20);

async fn got(clients: &mut Clients) -> pb::ProviderStatus {
    let request = pb::GetProviderRequest { provider_id: "limited".to_owned(), version: 0 };
    let reply = clients.providers.get_provider(request).await.unwrap().into_inner();
    reply.provider.unwrap().status.unwrap()
}

async fn listed(clients: &mut Clients) -> Vec<(String, pb::ProviderStatus)> {
    let request = pb::ListProvidersRequest::default();
    let reply = clients.providers.list_providers(request).await.unwrap().into_inner();
    let status = |one: pb::Provider| (one.provider_id, one.status.unwrap());
    reply.providers.into_iter().map(status).collect()
}

async fn explained(clients: &mut Clients) -> pb::ProviderStatus {
    let request = pb::ExplainAcquireRequest {
        pool_id: POOL.to_owned(),
        ..pb::ExplainAcquireRequest::default()
    };
    let reply = clients.redemptions.explain_acquire(request).await.unwrap().into_inner();
    reply.provider_status.unwrap()
}

/// Waits until all servers tell what is expected, in each answer that has it.
async fn all_tell(
    clients: &mut [Clients],
    what: &str,
    is_so: impl Fn(&pb::ProviderStatus) -> bool,
) {
    for server in clients {
        eventually(LIMIT, what, async || {
            let listed = listed(server).await;
            let [built_in, limited] = &listed[..] else { panic!("{listed:?}") };
            assert_eq!(*built_in, ("holdfast".to_owned(), pb::ProviderStatus::default()));
            let all = [got(server).await, limited.1, explained(server).await];
            all.iter().all(&is_so).then_some(())
        })
        .await;
    }
}

/// The lines that `account explain` writes for people, and the row of `provider show`.
async fn by_commands(world: &World) -> (String, Value, Value) {
    let explain = ["account", "explain", "--pool", POOL];
    let lines = run(world, &explain).await.says(0, &[]).printed.clone();
    let json = run(world, &[&explain[..], &["--format", "json"]].concat()).await;
    let json = serde_json::from_str(&json.says(0, &[]).stdout).unwrap();
    let shown = run(world, &["provider", "show", "limited", "--format", "json"]).await;
    (lines, json, serde_json::from_str(&shown.says(0, &[]).stdout).unwrap())
}

#[tokio::test]
async fn that_a_provider_fails_is_told_by_every_server_and_that_it_works_again() {
    let (world, fake, mut clients) = world("", 40).await;
    all_tell(&mut clients, "nothing holds it back", |status| {
        *status == pb::ProviderStatus::default()
    })
    .await;
    fake.set(Mode::Fails);
    redeem_all(&world, &clients[..1], 12, "lost").await;
    all_tell(&mut clients, "it fails", |status| {
        status.failing && status.fail_time.is_some() && status.next_try_time.is_some()
    })
    .await;
    // Tries that fail move the next one, and not since when.
    let first = got(&mut clients[0]).await;
    let later = eventually(LIMIT, "a try has failed", async || {
        let status = got(&mut clients[1]).await;
        (status.failed_tries > first.failed_tries).then_some(status)
    })
    .await;
    assert_eq!(later.fail_time, first.fail_time);
    assert!(later.next_try_time.unwrap().seconds >= first.next_try_time.unwrap().seconds);
    let (lines, explained, shown) = by_commands(&world).await;
    assert!(lines.contains("provider limited has failed since 20"), "{lines}");
    assert_eq!(explained["provider_status"]["failing"], true);
    assert!(explained["provider_status"]["next_try_time"].is_string(), "{explained}");
    assert_eq!(shown["failing"], true);
    assert!(shown["fail_time"].is_string() && shown["pause_end_time"].is_null(), "{shown}");

    fake.set(Mode::Works);
    all_tell(&mut clients, "it works again", |status| *status == pb::ProviderStatus::default())
        .await;
    let mut db = world.sql().await;
    eventually(LIMIT * 3, "what was in doubt is settled", async || {
        (checks::open_redemptions(&mut db).await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_pause_that_a_provider_asks_for_is_told_with_its_end() {
    let (world, fake, mut clients) = world("", 10).await;
    fake.set(Mode::IsBusy);
    let first = tokio::spawn(redeem_one(clients[0].clone(), world.code("first")));
    let paused = eventually(LIMIT, "it is paused", async || {
        let status = got(&mut clients[2]).await;
        status.pause_end_time.is_some().then_some(status)
    })
    .await;
    assert_eq!((paused.failing, paused.brake_end_time), (false, None));
    first.await.unwrap().unwrap();
    all_tell(&mut clients, "the pause is over", |status| status.pause_end_time.is_none()).await;
}

#[tokio::test]
async fn a_brake_in_force_is_told_with_the_time_of_the_next_card() {
    let brake = "brake = { on = [\"CODE_UNKNOWN\"], count = 3, per = \"1h\" }";
    let (world, fake, mut clients) = world(brake, 20).await;
    fake.set(Mode::KnowsNothing);
    let two = redeem_all(&world, &clients, 2, "unknown").await;
    assert!(two.iter().all(Result::is_ok));
    assert_eq!(got(&mut clients[0]).await, pb::ProviderStatus::default(), "one more is allowed");
    redeem_all(&world, &clients, 4, "refused").await;
    all_tell(&mut clients, "the brake is in force", |status| status.brake_end_time.is_some()).await;
    let status = got(&mut clients[1]).await;
    assert_eq!((status.failing, status.pause_end_time), (false, None));
    let (lines, explained, shown) = by_commands(&world).await;
    assert!(lines.contains("provider limited has refused as many cards as it bears"), "{lines}");
    assert!(explained["provider_status"]["brake_end_time"].is_string(), "{explained}");
    assert!(shown["brake_end_time"].is_string(), "{shown}");
}
