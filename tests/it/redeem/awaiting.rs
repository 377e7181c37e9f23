//! `AwaitRedemption`: callers wait for an outcome.

use std::time::{Duration, Instant};

use holdfast::{
    rpc::pb::{self, RedemptionState, await_redemption_request::Name},
    simulator::faults::{Fault as ProviderFault, Faults},
};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::support::{
    proxy::postgres::{Fault, statement},
    wait::eventually,
    world::{Clients, POOL, World, eur, lease, reason, seconds},
};

const LIMIT: Duration = Duration::from_secs(20);

async fn awaited(
    clients: &mut Clients,
    name: Name,
    timeout: f64,
) -> Result<pb::Redemption, Status> {
    let request = pb::AwaitRedemptionRequest {
        pool_id: POOL.to_owned(),
        name: Some(name),
        timeout: seconds(timeout),
    };
    let reply = clients.redemptions.await_redemption(request).await?;
    Ok(reply.into_inner().redemption.unwrap())
}

/// A redemption that stays in doubt until the provider can be asked again.
async fn in_doubt(world: &World, clients: &mut Clients) -> pb::Redemption {
    clients.create_accounts(1).await;
    let code = world.code("doubtful");
    let rules = Faults::of_card(&code, &[ProviderFault::ErrorAfterApply]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let redeemed = clients.redeem(&held, &code, |request| {
        request.request_id = "card".to_owned();
        request.expected = Some(eur(1000));
    });
    let redemption = redeemed.await.unwrap().redemption.unwrap();
    assert_eq!(redemption.state(), RedemptionState::InDoubt);
    redemption
}

#[tokio::test]
async fn await_redemption_answers_when_the_outcome_is_recorded_by_whichever_server() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    let open = in_doubt(&world, &mut clients).await;
    let mut waiting = JoinSet::new();
    for number in 0..20 {
        let mut clients = world.clients(number % 2).await;
        let by_id = Name::RedemptionId(open.redemption_id.clone());
        let name = if number < 10 { by_id } else { Name::RequestId("card".to_owned()) };
        waiting.spawn(async move { awaited(&mut clients, name, 60.0).await });
    }
    let by_id = || Name::RedemptionId(open.redemption_id.clone());
    // Those whose time is over first are told how it stands.
    for timeout in [0.0, 0.5] {
        let begun = Instant::now();
        let still = awaited(&mut clients, by_id(), timeout).await.unwrap();
        assert_eq!(still.state(), RedemptionState::InDoubt);
        assert!(begun.elapsed() >= Duration::from_secs_f64(timeout));
    }
    assert!(waiting.try_join_next().is_none(), "nobody was told that it has an outcome");
    world.set_faults(Faults::default());
    for told in waiting.join_all().await {
        let told = told.unwrap();
        assert_eq!(
            (told.state(), &told.redemption_id),
            (RedemptionState::Succeeded, &open.redemption_id)
        );
    }
    let begun = Instant::now();
    let settled = awaited(&mut clients, by_id(), 60.0).await.unwrap();
    assert_eq!(settled, clients.redemption(&open.redemption_id).await);
    assert!(begun.elapsed() < Duration::from_secs(30), "there is nothing to wait for");
    let missing = awaited(&mut clients, Name::RequestId("none".to_owned()), 60.0).await;
    assert_eq!(reason(&missing.unwrap_err()), "REDEMPTION_NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_who_wait_are_read_for_by_one_statement() {
    let (proxy, world) = World::proxied(|_, _| {}).await;
    // Counted by what sees each statement on its way.
    let read = statement("-- Those of some redemptions that have an outcome").always();
    let reads = proxy.fault(read, Fault::DelayReply(Duration::ZERO));
    let mut clients = world.clients(0).await;
    let open = in_doubt(&world, &mut clients).await;
    let count = 100;
    let before = reads.matched();
    let mut waiting = JoinSet::new();
    for _ in 0..count {
        let (mut clients, id) = (clients.clone(), open.redemption_id.clone());
        waiting.spawn(async move { awaited(&mut clients, Name::RedemptionId(id), 2.0).await });
    }
    for told in waiting.join_all().await {
        assert_eq!(told.unwrap().state(), RedemptionState::InDoubt);
    }
    // All together five times a second, and not each for itself.
    let reads = reads.matched() - before;
    assert!((1..40).contains(&reads), "{reads} statements for {count} who waited for two seconds");
    world.set_faults(Faults::default());
}

#[tokio::test]
async fn no_call_waits_longer_than_the_servers_setting() {
    let world = World::with(|args| args.max_wait = Duration::from_secs(1), 1).await;
    let mut clients = world.clients(0).await;
    let open = in_doubt(&world, &mut clients).await;
    let told = awaited(&mut clients, Name::RedemptionId(open.redemption_id), 600.0);
    let told = tokio::time::timeout(LIMIT, told).await.expect("not ten minutes").unwrap();
    assert_eq!(told.state(), RedemptionState::InDoubt);
    // Its only account is under the lease of the redemption.
    let refused = clients.acquire(|request| request.wait_timeout = seconds(600.0));
    let refused = tokio::time::timeout(LIMIT, refused).await.expect("not ten minutes");
    assert_eq!(reason(&refused.unwrap_err()), "NO_ACCOUNT_AVAILABLE");
    let card = pb::RedeemCardRequest {
        request_id: "another".to_owned(),
        pool_id: POOL.to_owned(),
        holder: "h".to_owned(),
        code: world.code("another"),
        wait_timeout: seconds(600.0),
        ..Default::default()
    };
    let refused = clients.redemptions.redeem_card(card);
    let refused = tokio::time::timeout(LIMIT, refused).await.expect("not ten minutes");
    assert_eq!(reason(&refused.unwrap_err()), "NO_ACCOUNT_AVAILABLE");
    world.set_faults(Faults::default());
}

#[tokio::test]
async fn a_server_that_stops_lets_those_go_who_wait_for_an_outcome() {
    let mut world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    let open = in_doubt(&world, &mut clients).await;
    let waiting = tokio::spawn({
        let (mut clients, id) = (clients.clone(), open.redemption_id.clone());
        async move { awaited(&mut clients, Name::RedemptionId(id), 600.0).await }
    });
    let mut db = world.sql().await;
    eventually(LIMIT, "it is waited for", async || {
        // The only statement that reads it by its id all the time.
        let reads = "SELECT EXISTS (SELECT FROM pg_stat_activity
                     WHERE datname = current_database() AND query LIKE '-- Those of some redemptions%')";
        sqlx::query_scalar::<_, bool>(reads).fetch_one(&mut db).await.unwrap().then_some(())
    })
    .await;
    let server = world.take_server(0);
    let stopper = server.stopper();
    let stopped = tokio::spawn(server.stopped());
    stopper.cancel();
    let refused = waiting.await.unwrap().unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::Unavailable, "SHUTTING_DOWN"));
    stopped.await.unwrap().unwrap();
    world.set_faults(Faults::default());
    let mut other = world.clients(0).await;
    let told = awaited(&mut other, Name::RedemptionId(open.redemption_id), 60.0).await.unwrap();
    assert_eq!(told.state(), RedemptionState::Succeeded);
}
