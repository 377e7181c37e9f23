//! Acquiring, renewing, releasing, and leases that end by themselves.

use std::{collections::HashSet, time::Duration};

use holdfast::rpc::pb::{self, AccountStatus};
use tokio::{task::JoinSet, time::Instant};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::{
    wait::eventually,
    world::{POOL, World, eur, lease, metadata, reason, seconds},
};

#[tokio::test]
async fn an_account_is_locked_and_given_back() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;

    let acquired = clients.acquire(|_| {}).await.unwrap();
    let account = acquired.account.clone().unwrap();
    assert_eq!(account.status(), AccountStatus::Locking);
    let given = acquired.lease.clone().unwrap();
    assert_eq!(given.holder, "tester");
    assert_eq!(lease(&acquired).fencing_token, 1);
    let remaining: Duration = given.remaining.unwrap().try_into().unwrap();
    assert!(remaining <= Duration::from_secs(60) && remaining > Duration::from_secs(50));

    let released = clients.release(&lease(&acquired)).await.unwrap();
    assert_eq!(released.status(), AccountStatus::Waiting);
    assert_eq!(released.lease, None);
    let again = clients.release(&lease(&acquired)).await.unwrap();
    assert_eq!(again.status(), AccountStatus::Waiting, "releasing twice is fine");

    let reasons: Vec<_> =
        clients.events("a").await.into_iter().map(|event| (event.reason, event.actor)).collect();
    let expected = [("released", "tester"), ("acquired", "tester"), ("created", "api")];
    assert_eq!(reasons, expected.map(|(reason, actor)| (reason.to_owned(), actor.to_owned())));
}

#[tokio::test]
async fn accounts_that_were_begun_come_before_those_that_were_not() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(3).await;
    let begun = clients
        .acquire(|request| {
            let selector = pb::AccountSelector { account_id: "a-002".into(), ..Default::default() };
            request.selector = Some(selector);
        })
        .await
        .unwrap();
    let code = world.code("begun");
    clients.redeem(&lease(&begun), &code, |r| r.release_on_completion = true).await.unwrap();
    assert_eq!(clients.status_of("a-002").await, AccountStatus::Processing);

    let next = clients.acquire(|_| {}).await.unwrap();
    assert_eq!(lease(&next).account_id, "a-002");
    assert_eq!(lease(&next).fencing_token, 2);
    let released = clients.release(&lease(&next)).await.unwrap();
    assert_eq!(released.status(), AccountStatus::Processing, "the status it had before");
}

#[tokio::test]
async fn the_same_request_gets_the_same_lease_while_it_lives() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let first = clients.acquire(|r| r.request_id = "request".into()).await.unwrap();
    let retry = clients.acquire(|r| r.request_id = "request".into()).await.unwrap();
    assert_eq!(lease(&first), lease(&retry));

    let other = clients
        .acquire(|r| {
            r.request_id = "request".into();
            r.holder = "somebody else".into();
        })
        .await
        .unwrap_err();
    assert_eq!((other.code(), &*reason(&other)), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
    assert_eq!(metadata(&other, "fields"), "holder");

    clients.release(&lease(&first)).await.unwrap();
    let after = clients.acquire(|r| r.request_id = "request".into()).await.unwrap();
    assert_ne!(lease(&first), lease(&after), "a request whose lease has ended is a new one");
}

#[tokio::test]
async fn one_request_sent_many_times_at_once_over_two_servers_gets_one_lease() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(8).await;
    let mut calls = JoinSet::new();
    for n in 0..40 {
        let mut clients = world.clients(n % 2).await;
        calls.spawn(async move { clients.acquire(|r| r.request_id = "request".into()).await });
    }
    let leases: HashSet<_> = calls
        .join_all()
        .await
        .into_iter()
        .map(|acquired| {
            let lease = lease(&acquired.unwrap());
            (lease.account_id, lease.fencing_token)
        })
        .collect();
    assert_eq!(leases.len(), 1, "{leases:?}");
}

#[tokio::test]
async fn every_field_of_a_selector_narrows_the_choice() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("small", 1000).await;
    clients.create_plan("large", 9000).await;
    clients.create_account("de", |a| a.country_code = "DE".into()).await;
    clients.create_account("red", |a| a.labels = [("tint".into(), "red".into())].into()).await;
    clients.create_account("small", |a| a.plan_id = "small".into()).await;
    clients
        .create_account("large", |a| {
            a.plan_id = "large".into();
            a.balance = Some(eur(500));
        })
        .await;
    clients.create_account("off", |a| a.set_login_status(pb::LoginStatus::Inactive)).await;

    let all = ["de", "large", "off", "red", "small"];
    let but = |left: &str| -> Vec<String> {
        all.iter().filter(|id| **id != left).map(|id| (*id).to_owned()).collect()
    };
    let only = |selector: pb::AccountSelector| selector;
    let cases = [
        ("de", only(pb::AccountSelector { country_code: "DE".into(), ..Default::default() })),
        (
            "red",
            only(pb::AccountSelector {
                labels: [("tint".into(), "red".into())].into(),
                ..Default::default()
            }),
        ),
        ("small", only(pb::AccountSelector { plan_id: "small".into(), ..Default::default() })),
        ("large", only(pb::AccountSelector { account_id: "large".into(), ..Default::default() })),
        (
            "large",
            only(pb::AccountSelector {
                plan_id: "large".into(),
                min_headroom: Some(eur(8500)),
                ..Default::default()
            }),
        ),
        (
            "red",
            only(pb::AccountSelector { exclude_account_ids: but("red"), ..Default::default() }),
        ),
    ];
    for (expected, selector) in cases {
        let acquired = clients.acquire(|r| r.selector = Some(selector.clone())).await.unwrap();
        assert_eq!(lease(&acquired).account_id, expected, "{selector:?}");
        clients.release(&lease(&acquired)).await.unwrap();
    }
    let too_much = pb::AccountSelector {
        account_id: "large".into(),
        min_headroom: Some(eur(8501)),
        ..Default::default()
    };
    let error = clients.acquire(|r| r.selector = Some(too_much)).await.unwrap_err();
    assert_eq!(reason(&error), "NO_ACCOUNT_AVAILABLE");
    assert_eq!(
        (metadata(&error, "too_full"), metadata(&error, "not_selected")),
        ("1".into(), "4".into())
    );
    let off = pb::AccountSelector { account_id: "off".into(), ..Default::default() };
    let error = clients.acquire(|r| r.selector = Some(off)).await.unwrap_err();
    assert_eq!(metadata(&error, "inactive"), "1");
}

#[tokio::test]
async fn an_unbound_account_is_bound_by_a_success_and_unbound_without_one() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 5000).await;
    clients.create_account("free", |_| {}).await;
    let plan = || Some(pb::AccountSelector { plan_id: "plan".into(), ..Default::default() });

    let acquired = clients.acquire(|r| r.selector = plan()).await.unwrap();
    assert_eq!(acquired.account.as_ref().unwrap().plan_id, "plan");
    let released = clients.release(&lease(&acquired)).await.unwrap();
    assert_eq!(released.plan_id, "", "unbound: nothing succeeded");

    let acquired = clients.acquire(|r| r.selector = plan()).await.unwrap();
    let code = world.code("bind");
    clients.redeem(&lease(&acquired), &code, |_| {}).await.unwrap();
    let released = clients.release(&lease(&acquired)).await.unwrap();
    assert_eq!(released.plan_id, "plan", "bound by the success");
    assert_eq!(released.status(), AccountStatus::Processing);
}

#[tokio::test]
async fn what_a_selector_names_must_exist() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let wait = seconds(30.0);
    let begun = Instant::now();
    let no_pool = clients.acquire(|r| r.pool_id = "nowhere".into()).await.unwrap_err();
    assert_eq!((no_pool.code(), &*reason(&no_pool)), (Code::NotFound, "POOL_NOT_FOUND"));
    let no_plan = clients
        .acquire(|r| {
            r.wait_timeout = wait;
            r.selector = Some(pb::AccountSelector { plan_id: "none".into(), ..Default::default() });
        })
        .await
        .unwrap_err();
    assert_eq!(reason(&no_plan), "PLAN_NOT_FOUND");
    let no_account = clients
        .acquire(|r| {
            r.wait_timeout = wait;
            r.selector =
                Some(pb::AccountSelector { account_id: "none".into(), ..Default::default() });
        })
        .await
        .unwrap_err();
    assert_eq!(reason(&no_account), "ACCOUNT_NOT_FOUND");
    assert!(begun.elapsed() < Duration::from_secs(15), "waiting is no use");
}

#[tokio::test]
async fn when_there_is_none_the_counts_say_why() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 1000).await;
    clients.create_account("locked", |_| {}).await;
    clients
        .create_account("full", |a| {
            a.plan_id = "plan".into();
            a.balance = Some(eur(1000));
        })
        .await;
    clients.create_account("off", |a| a.set_login_status(pb::LoginStatus::Inactive)).await;
    clients.acquire(|_| {}).await.unwrap();

    let error = clients.acquire(|r| r.wait_timeout = seconds(0.3)).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::ResourceExhausted, "NO_ACCOUNT_AVAILABLE"));
    let count = |key| metadata(&error, key);
    assert_eq!(
        [count("locked"), count("completed"), count("inactive")],
        ["1", "1", "1"].map(String::from)
    );
    assert!(error.get_error_details().retry_info().is_some());
    assert!(error.message().contains("1 locked, 1 completed, 1 inactive"), "{}", error.message());
}

#[tokio::test]
async fn a_paused_pool_begins_nothing_new() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let held = clients.acquire(|_| {}).await.unwrap();
    let set_paused = |paused| pb::UpdatePoolRequest {
        pool: Some(pb::Pool { pool_id: POOL.into(), paused: Some(paused), ..Default::default() }),
        update_mask: None,
    };
    clients.pools.update_pool(set_paused(true)).await.unwrap();
    let error = clients.acquire(|r| r.wait_timeout = seconds(20.0)).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::FailedPrecondition, "POOL_PAUSED"));
    let code = world.code("paused");
    let error = clients.redeem(&lease(&held), &code, |_| {}).await.unwrap_err();
    assert_eq!(reason(&error), "POOL_PAUSED");
    clients.renew(&lease(&held), Duration::from_secs(5)).await.unwrap();
    clients.release(&lease(&held)).await.unwrap();
    clients.pools.update_pool(set_paused(false)).await.unwrap();
    clients.acquire(|_| {}).await.unwrap();
}

#[tokio::test]
async fn those_who_wait_are_served_in_the_order_in_which_they_came() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_pool("queue").await;
    clients.create_account("only", |account| account.pool_id = "queue".into()).await;
    let first = clients.acquire(|r| r.pool_id = "queue".into()).await.unwrap();
    let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
    let mut waiting = JoinSet::new();
    for n in 0..6 {
        let mut clients = clients.clone();
        let served = served.clone();
        waiting.spawn(async move {
            let acquired = clients
                .acquire(|r| {
                    r.pool_id = "queue".into();
                    r.wait_timeout = seconds(20.0);
                })
                .await
                .unwrap();
            served.send(n).unwrap();
            clients.release(&lease(&acquired)).await.unwrap();
        });
        world.callers_wait(0, "queue", n + 1).await;
    }
    clients.release(&lease(&first)).await.unwrap();
    while let Some(joined) = waiting.join_next().await {
        joined.unwrap();
    }
    drop(served);
    let mut came = Vec::new();
    while let Some(n) = order.recv().await {
        came.push(n);
    }
    assert_eq!(came, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_release_on_another_server_reaches_those_who_wait() {
    let world = World::with(|_| {}, 2).await;
    let mut here = world.clients(0).await;
    let mut there = world.clients(1).await;
    here.create_account("only", |_| {}).await;
    let held = here.acquire(|_| {}).await.unwrap();
    let waiting = tokio::spawn({
        let mut there = there.clone();
        async move { there.acquire(|r| r.wait_timeout = seconds(20.0)).await }
    });
    here.release(&lease(&held)).await.unwrap();
    let acquired = waiting.await.unwrap().unwrap();
    there.release(&lease(&acquired)).await.unwrap();
}

#[tokio::test]
async fn a_holder_that_vanishes_loses_the_account_within_its_lease_and_two_seconds() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = clients.acquire(|r| r.lease_duration = seconds(1.0)).await.unwrap();
    let status = eventually(Duration::from_secs(3), "the account is free again", async || {
        let account = clients.account("a").await;
        account.lease.is_none().then(|| account.status())
    })
    .await;
    assert_eq!(status, AccountStatus::Waiting, "the status that it had before");

    for error in [
        clients.renew(&lease(&held), Duration::from_secs(5)).await.unwrap_err(),
        clients.redeem(&lease(&held), &world.code("late"), |_| {}).await.unwrap_err(),
        clients.release(&lease(&held)).await.unwrap_err(),
    ] {
        assert_eq!((error.code(), &*reason(&error)), (Code::Aborted, "LEASE_LOST"));
        assert_eq!(metadata(&error, "cause"), "expired");
    }
    let next = clients.acquire(|_| {}).await.unwrap();
    assert_eq!(lease(&next).fencing_token, lease(&held).fencing_token + 1);
    let error = clients.renew(&lease(&held), Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(metadata(&error, "cause"), "taken_over");
}

#[tokio::test]
async fn an_acquirer_that_finds_nothing_free_reads_expired_leases_itself() {
    // Without a sweeper to speak of.
    let world = World::with(|args| args.sweep_interval = Duration::from_secs(3600), 1).await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    clients.acquire(|r| r.lease_duration = seconds(1.0)).await.unwrap();
    let next = clients.acquire(|r| r.wait_timeout = seconds(10.0)).await.unwrap();
    assert_eq!(lease(&next).fencing_token, 2);
    clients.release(&lease(&next)).await.unwrap();
}

#[tokio::test]
async fn renewing_keeps_a_lease_past_its_first_end() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = clients.acquire(|r| r.lease_duration = seconds(1.0)).await.unwrap();
    let first_end = held.lease.as_ref().unwrap().expire_time.unwrap();
    let renewed = clients.renew(&lease(&held), Duration::from_secs(30)).await.unwrap();
    let end = renewed.expire_time.unwrap();
    assert!(end.seconds > first_end.seconds + 20, "{first_end:?} {end:?}");
    clients.release(&lease(&held)).await.unwrap();
    let error = clients.renew(&lease(&held), Duration::from_secs(5)).await.unwrap_err();
    assert_eq!((&*reason(&error), &*metadata(&error, "cause")), ("LEASE_LOST", "released"));
}

#[tokio::test]
async fn a_lease_outside_the_pools_bounds_is_refused() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let error = clients.acquire(|r| r.lease_duration = seconds(3600.0)).await.unwrap_err();
    assert_eq!(crate::support::world::bad_fields(&error), ["lease_duration"]);
    assert!(error.message().contains("between 1s and 10m"), "{}", error.message());
}

#[tokio::test]
async fn a_caller_that_goes_away_while_it_waits_leaves_no_lease_behind() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_pool("gone").await;
    clients.create_account("only", |account| account.pool_id = "gone".into()).await;
    let held = clients.acquire(|r| r.pool_id = "gone".into()).await.unwrap();
    for _ in 0..5 {
        let mut gone = clients.clone();
        let waiting = tokio::spawn(async move {
            gone.acquire(|r| {
                r.pool_id = "gone".into();
                r.wait_timeout = seconds(60.0);
                r.lease_duration = seconds(60.0);
            })
            .await
        });
        world.callers_wait(0, "gone", 1).await;
        waiting.abort();
        world.callers_wait(0, "gone", 0).await;
    }
    clients.release(&lease(&held)).await.unwrap();
    let next = clients.acquire(|r| r.pool_id = "gone".into()).await.unwrap();
    assert_eq!(lease(&next).fencing_token, 2, "nobody had it in between");
    clients.release(&lease(&next)).await.unwrap();
}

/// How long the race lasts: a minute where the figure is wanted, a few seconds otherwise.
fn race_time() -> Duration {
    let seconds = std::env::var("HOLDFAST_TEST_RACE_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|s| s.parse().ok()).unwrap_or(8))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_callers_race_for_eight_accounts() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(8).await;
    let end = Instant::now() + race_time();
    let mut callers = JoinSet::new();
    for n in 0..64 {
        let mut clients = world.clients(n % 2).await;
        callers.spawn(async move {
            let mut cycles = 0;
            while Instant::now() < end {
                let called = Instant::now();
                let acquired = clients
                    .acquire(|r| {
                        r.holder = format!("caller-{n}");
                        r.lease_duration = seconds(1.0);
                        r.wait_timeout = seconds(10.0);
                    })
                    .await;
                let Ok(acquired) = acquired else { continue };
                cycles += 1;
                // Some vanish with their lease, some hold on past its end, most give it back.
                match (n + cycles) % 50 {
                    0 => {}
                    1 => {
                        tokio::time::sleep(Duration::from_millis(1100)).await;
                        let late = clients.release(&lease(&acquired)).await;
                        assert!(late.is_ok() || reason(&late.unwrap_err()) == "LEASE_LOST");
                    }
                    _ => {
                        // A machine that stands still for so long has let the lease run out.
                        let stood_still = || called.elapsed() >= Duration::from_secs(1);
                        if let Err(lost) = clients.release(&lease(&acquired)).await {
                            assert!(reason(&lost) == "LEASE_LOST" && stood_still(), "{lost:?}");
                        }
                    }
                }
            }
            cycles
        });
    }
    let cycles: usize = callers.join_all().await.into_iter().sum();
    assert!(cycles > 64, "only {cycles} leases in {:?}", race_time());
    // That leases never overlapped, and tokens only rose, is checked when the world ends.
    eventually(Duration::from_secs(4), "every account is free again", async || {
        for n in 0..8 {
            if clients.status_of(&format!("a-{n:03}")).await != AccountStatus::Waiting {
                return None;
            }
        }
        Some(())
    })
    .await;
}
