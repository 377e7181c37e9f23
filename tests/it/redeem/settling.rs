//! Redemptions: recorded, sent, settled, whatever the provider does.

use std::time::Duration;

use holdfast::{
    domain::{
        id::{AccountId, FencingToken, PoolId, RedemptionId, RequestId},
        lease::LeaseRef,
        principal::{Principal, RequestKey},
        redemption::{Begun, CardCode, NewRedemption, SendLimits},
    },
    rpc::pb::{self, AccountStatus, LoginStatus, RedemptionState},
    simulator::{
        faults::Fault,
        ledger::{self, State},
    },
};
use tonic::Code;

use crate::support::{
    wait::eventually,
    world::{Clients, INVALID_ACCOUNT, POOL, World, eur, lease, metadata, reason, seconds},
};

/// A world with the account `a`, and a lease on it.
async fn leased() -> (World, Clients, pb::LeaseRef) {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let acquired = clients.acquire(|_| {}).await.unwrap();
    (world, clients, lease(&acquired))
}

/// Waits until a redemption is settled.
async fn settled(clients: &mut Clients, redemption_id: &str) -> pb::Redemption {
    eventually(Duration::from_secs(20), "the redemption is settled", async || {
        let redemption = clients.redemption(redemption_id).await;
        let open = matches!(
            redemption.state(),
            RedemptionState::Submitted | RedemptionState::InDoubt | RedemptionState::NeedsReview
        );
        (!open).then_some(redemption)
    })
    .await
}

/// How many redemptions the provider has executed or refused.
fn provider_rows(world: &World) -> usize {
    let rows = ledger::read(&world.ledger).unwrap();
    rows.iter().filter(|row| matches!(row.state, State::Succeeded | State::Failed)).count()
}

#[tokio::test]
async fn a_card_is_credited_and_the_account_is_processing() {
    let (world, mut clients, lease) = leased().await;
    let code = world.code("good");
    let reply = clients.redeem(&lease, &code, |r| r.expected = Some(eur(1000))).await.unwrap();
    let redemption = reply.redemption.unwrap();
    assert!(!reply.replayed);
    assert_eq!(redemption.state(), RedemptionState::Succeeded);
    assert_eq!((redemption.amount, redemption.expected), (Some(eur(1000)), Some(eur(1000))));
    assert_eq!(redemption.code_last4, "good");
    assert_eq!((redemption.attempts, redemption.amount_mismatch), (1, false));
    assert!(!redemption.provider_ref.is_empty() && redemption.finish_time.is_some());

    let account = clients.account("a").await;
    assert_eq!(account.status(), AccountStatus::Locking, "the lease was not asked to end");
    assert_eq!((account.balance, &*account.open_redemption_id), (Some(eur(1000)), ""));
    let released = clients.release(&lease).await.unwrap();
    assert_eq!(released.status(), AccountStatus::Processing);
    let reasons: Vec<_> = clients.events("a").await.into_iter().map(|e| e.reason).collect();
    assert_eq!(reasons, ["released", "redeemed", "redeem_begun", "acquired", "created"]);
}

#[tokio::test]
async fn an_account_whose_target_is_reached_is_completed() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 2000).await;
    clients.create_account("a", |a| a.plan_id = "plan".into()).await;
    for (n, expected) in [(1, AccountStatus::Processing), (2, AccountStatus::Completed)] {
        let acquired = clients.acquire(|_| {}).await.unwrap();
        let code = world.code(&format!("card-{n}"));
        clients.redeem(&lease(&acquired), &code, |r| r.release_on_completion = true).await.unwrap();
        assert_eq!(clients.status_of("a").await, expected);
    }
    let error = clients.acquire(|_| {}).await.unwrap_err();
    assert_eq!(metadata(&error, "completed"), "1");
}

#[tokio::test]
async fn a_refused_card_leaves_the_account_as_it_was() {
    let (world, mut clients, held) = leased().await;
    // Spent at the provider already, for an account of another pool.
    let code = world.code("spent");
    clients.create_pool("other").await;
    clients.create_account("b", |account| account.pool_id = "other".into()).await;
    let other = clients.acquire(|r| r.pool_id = "other".into()).await.unwrap();
    clients.redeem(&lease(&other), &code, |r| r.release_on_completion = true).await.unwrap();

    let reply = clients.redeem(&held, &code, |r| r.release_on_completion = true).await.unwrap();
    let redemption = reply.redemption.unwrap();
    assert_eq!(redemption.state(), RedemptionState::Failed);
    let failure = redemption.failure.unwrap();
    assert_eq!((&*failure.reason, failure.code_spent), ("CODE_USED", true));
    let account = clients.account("a").await;
    assert_eq!(account.status(), AccountStatus::Waiting, "the status it had before it was locked");
    assert_eq!(account.balance, Some(eur(0)));
}

#[tokio::test]
async fn an_account_whose_login_is_refused_is_not_picked_again() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account(INVALID_ACCOUNT, |_| {}).await;
    let acquired = clients.acquire(|_| {}).await.unwrap();
    let code = world.code("login");
    let reply =
        clients.redeem(&lease(&acquired), &code, |r| r.release_on_completion = true).await.unwrap();
    assert_eq!(reply.redemption.unwrap().failure.unwrap().reason, "ACCOUNT_LOGIN_INVALID");
    assert_eq!(clients.account(INVALID_ACCOUNT).await.login_status(), LoginStatus::Invalid);
    let error = clients.acquire(|_| {}).await.unwrap_err();
    assert_eq!(metadata(&error, "inactive"), "1");
}

#[tokio::test]
async fn redeem_again_is_answered_with_what_the_first_try_began() {
    let (world, mut clients, held) = leased().await;
    let code = world.code("retry");
    let first = clients.redeem(&held, &code, |r| r.expected = Some(eur(1000))).await.unwrap();
    clients.release(&held).await.unwrap();
    // Under whatever lease, and written in another way.
    let later = lease(&clients.acquire(|_| {}).await.unwrap());
    let request_id = first.redemption.as_ref().unwrap().request_id.clone();
    for (lease, written) in [(&held, code.clone()), (&later, code.to_lowercase().replace('-', " "))]
    {
        let retry = clients
            .redeem(lease, &written, |r| {
                r.request_id = request_id.clone();
                r.expected = Some(eur(1000));
            })
            .await
            .unwrap();
        assert!(retry.replayed);
        assert_eq!(retry.redemption, first.redemption);
    }
    let another_code = world.code("another");
    let error = clients
        .redeem(&later, &another_code, |r| {
            r.request_id = request_id.clone();
            r.expected = Some(eur(999));
        })
        .await
        .unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::AlreadyExists, "REQUEST_ID_REUSED"));
    assert_eq!(metadata(&error, "fields"), "code,expected");
    assert_eq!(provider_rows(&world), 1);
}

#[tokio::test]
async fn code_in_use_refuses_a_code_that_lives_and_not_one_that_failed_unspent() {
    let (world, mut clients, held) = leased().await;
    let code = world.code("twice");
    clients.redeem(&held, &code, |_| {}).await.unwrap();
    let error = clients.redeem(&held, &code, |r| r.request_id = "again".into()).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::FailedPrecondition, "CODE_IN_USE"));
    assert_eq!(metadata(&error, "state"), "SUCCEEDED");
    assert!(!format!("{error:?}").contains(&code), "the code is not repeated");
    clients.release(&held).await.unwrap();

    clients.create_account(INVALID_ACCOUNT, |_| {}).await;
    let only = |id: &str| pb::AccountSelector { account_id: id.into(), ..Default::default() };
    let bad = clients.acquire(|r| r.selector = Some(only(INVALID_ACCOUNT))).await.unwrap();
    let code = world.code("unspent");
    let failed = clients.redeem(&lease(&bad), &code, |_| {}).await.unwrap().redemption.unwrap();
    assert!(!failed.failure.unwrap().code_spent);
    let good = clients.acquire(|r| r.selector = Some(only("a"))).await.unwrap();
    let second =
        clients.redeem(&lease(&good), &code, |r| r.request_id = "second".into()).await.unwrap();
    assert_eq!(second.redemption.unwrap().state(), RedemptionState::Succeeded);
}

#[tokio::test]
async fn a_second_redemption_waits_for_the_first_ones_outcome() {
    let (world, mut clients, held) = leased().await;
    let code = world.code("first");
    world.fault(&code, &[Fault::Stall]);
    let first = clients.redeem(&held, &code, |_| {}).await.unwrap().redemption.unwrap();
    assert_eq!(first.state(), RedemptionState::InDoubt);
    let second = world.code("second");
    match clients.redeem(&held, &second, |_| {}).await {
        // The reconciler may have been quicker.
        Ok(reply) => assert_eq!(reply.redemption.unwrap().state(), RedemptionState::Succeeded),
        Err(error) => assert_eq!(
            (&*reason(&error), metadata(&error, "redemption_id")),
            ("REDEMPTION_OPEN", first.redemption_id)
        ),
    }
}

/// Whatever goes wrong once with a request, the card ends up credited, once.
async fn settles_after(name: &str, faults: &[Fault]) -> (pb::Redemption, World) {
    let (world, mut clients, held) = Box::pin(leased()).await;
    let code = world.code(name);
    world.fault(&code, faults);
    let reply = clients
        .redeem(&held, &code, |r| {
            r.release_on_completion = true;
            r.expected = Some(eur(1000));
        })
        .await
        .unwrap();
    let first = reply.redemption.unwrap();
    if first.state() == RedemptionState::InDoubt {
        assert!(!first.last_answer.is_empty(), "what was answered is kept for people");
        assert!(first.next_check_time.is_some());
    }
    let settled = settled(&mut clients, &first.redemption_id).await;
    assert_eq!(settled.state(), RedemptionState::Succeeded, "{settled:?}");
    assert_eq!(clients.status_of("a").await, AccountStatus::Processing);
    assert_eq!(provider_rows(&world), 1);
    (first, world)
}

#[tokio::test]
async fn an_answer_that_is_lost_after_the_credit_leaves_doubt_that_is_settled() {
    let (first, _world) = settles_after("dropped", &[Fault::ApplyThenDrop]).await;
    assert_eq!(first.state(), RedemptionState::InDoubt);
}

#[tokio::test]
async fn a_request_that_is_lost_is_sent_again_under_the_same_key() {
    let (first, _world) = settles_after("unsent", &[Fault::DropBeforeApply]).await;
    assert_eq!(first.state(), RedemptionState::InDoubt);
}

#[tokio::test]
async fn a_request_that_is_lost_again_and_again_is_credited_once() {
    let faults = [Fault::DropBeforeApply, Fault::DropBeforeApply, Fault::ApplyThenDrop];
    let (first, _world) = settles_after("unlucky", &faults).await;
    assert_eq!(first.state(), RedemptionState::InDoubt);
}

#[tokio::test]
async fn an_error_after_the_credit_leaves_doubt_that_is_settled() {
    let (first, _world) = settles_after("error", &[Fault::ErrorAfterApply]).await;
    assert_eq!(first.state(), RedemptionState::InDoubt);
}

#[tokio::test]
async fn garbage_after_the_credit_leaves_doubt_that_is_settled() {
    let (first, _world) = settles_after("garbage", &[Fault::Garbage]).await;
    assert_eq!(first.state(), RedemptionState::InDoubt);
}

#[tokio::test]
async fn a_provider_that_takes_its_time_is_polled() {
    let (first, _world) = settles_after("slow", &[Fault::Slow202]).await;
    assert_eq!(first.state(), RedemptionState::Succeeded, "within the one call");
    assert!(first.attempts >= 2);
}

#[tokio::test]
async fn a_provider_that_says_it_did_nothing_is_sent_the_same_again() {
    let (first, _world) = settles_after("busy", &[Fault::Busy, Fault::Busy]).await;
    assert_eq!(first.state(), RedemptionState::Succeeded, "within the one call");
    assert_eq!(first.attempts, 3);
}

#[tokio::test]
async fn another_amount_than_expected_is_kept_beside_it() {
    let (world, mut clients, held) = leased().await;
    let code = world.code("amount");
    world.fault(&code, &[Fault::WrongAmount]);
    let reply = clients.redeem(&held, &code, |r| r.expected = Some(eur(1000))).await.unwrap();
    let redemption = reply.redemption.unwrap();
    assert_eq!(redemption.state(), RedemptionState::Succeeded);
    assert!(redemption.amount_mismatch && redemption.amount != redemption.expected);
    assert_eq!(clients.account("a").await.balance, redemption.amount, "what was really credited");
}

#[tokio::test]
async fn a_provider_that_cannot_be_reached_fails_the_redemption_unspent() {
    let unreachable = |args: &mut holdfast::config::ServeArgs| {
        // A port that nothing listens on: it was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        args.provider.url = format!("http://127.0.0.1:{port}");
    };
    let world = World::with(unreachable, 1).await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let acquired = clients.acquire(|_| {}).await.unwrap();
    let code = world.code("unreachable");
    let reply =
        clients.redeem(&lease(&acquired), &code, |r| r.release_on_completion = true).await.unwrap();
    let redemption = reply.redemption.unwrap();
    assert_eq!(redemption.state(), RedemptionState::Failed);
    let failure = redemption.failure.unwrap();
    assert_eq!((&*failure.reason, failure.code_spent), ("PROVIDER_UNREACHABLE", false));
    assert!(redemption.attempts > 1, "it was tried again first");
    assert_eq!(clients.status_of("a").await, AccountStatus::Waiting);
}

#[tokio::test]
async fn an_account_in_doubt_stays_locked_past_its_lease() {
    let (world, mut clients, _) = {
        let world = World::with(|args| args.reconcile_interval = Duration::from_secs(3), 1).await;
        let mut clients = world.clients(0).await;
        clients.create_account("a", |_| {}).await;
        (world, clients, ())
    };
    let acquired = clients.acquire(|r| r.lease_duration = seconds(1.0)).await.unwrap();
    let code = world.code("doubt");
    world.fault(&code, &[Fault::ApplyThenDrop]);
    let reply = clients.redeem(&lease(&acquired), &code, |_| {}).await.unwrap();
    let id = reply.redemption.unwrap().redemption_id;
    // While it is open, whenever that is looked at, the account is locked.
    let settled = eventually(Duration::from_secs(20), "the reconciler settles it", async || {
        let account = clients.account("a").await;
        if account.open_redemption_id.is_empty() {
            return Some(account);
        }
        assert_eq!(account.open_redemption_id, id);
        assert_eq!(account.status(), AccountStatus::Locking);
        None
    })
    .await;
    assert_eq!(settled.status(), AccountStatus::Processing, "its lease had run out meanwhile");
    assert_eq!(settled.balance, Some(eur(1000)));
}

#[tokio::test]
async fn release_while_a_redemption_is_open_is_noted_and_happens_later() {
    let (world, mut clients, held) = leased().await;
    let code = world.code("release");
    world.fault(&code, &[Fault::Stall]);
    let redeeming = tokio::spawn({
        let (mut clients, held, code) = (clients.clone(), held.clone(), code.clone());
        async move { clients.redeem(&held, &code, |_| {}).await }
    });
    eventually(Duration::from_secs(5), "the redemption is begun", async || {
        (!clients.account("a").await.open_redemption_id.is_empty()).then_some(())
    })
    .await;
    for _ in 0..2 {
        let noted = clients.release(&held).await.unwrap();
        assert_eq!(noted.status(), AccountStatus::Locking);
    }
    let error = clients.renew(&held, Duration::from_secs(5)).await.unwrap_err();
    assert_eq!((&*reason(&error), &*metadata(&error, "cause")), ("LEASE_LOST", "released"));
    redeeming.await.unwrap().unwrap();
    let status = eventually(Duration::from_secs(20), "the lease ends", async || {
        let account = clients.account("a").await;
        account.lease.is_none().then(|| account.status())
    })
    .await;
    assert_eq!(status, AccountStatus::Processing);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_stop_its_redemption() {
    let (world, mut clients, held) = leased().await;
    let code = world.code("gone");
    world.fault(&code, &[Fault::Slow202]);
    let redeeming = tokio::spawn({
        let (mut clients, held, code) = (clients.clone(), held.clone(), code.clone());
        async move { clients.redeem(&held, &code, |r| r.release_on_completion = true).await }
    });
    let id = eventually(Duration::from_secs(5), "the redemption is begun", async || {
        let id = clients.account("a").await.open_redemption_id;
        (!id.is_empty()).then_some(id)
    })
    .await;
    redeeming.abort();
    assert_eq!(settled(&mut clients, &id).await.state(), RedemptionState::Succeeded);
    assert_eq!(clients.status_of("a").await, AccountStatus::Processing);
}

#[tokio::test]
async fn redeem_gives_callers_of_one_request_one_redemption_on_any_server() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let code = world.code("joined");
    world.fault(&code, &[Fault::Slow202]);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..12 {
        let mut clients = world.clients(n % 2).await;
        let (held, code) = (held.clone(), code.clone());
        calls.spawn(async move { clients.redeem(&held, &code, |_| {}).await.unwrap() });
    }
    let replies = calls.join_all().await;
    let first = replies[0].redemption.as_ref().unwrap();
    assert_eq!(first.state(), RedemptionState::Succeeded, "awaited while it is open");
    for reply in &replies {
        assert_eq!(reply.redemption.as_ref().unwrap().redemption_id, first.redemption_id);
    }
    assert_eq!(replies.iter().filter(|reply| !reply.replayed).count(), 1);
}

#[tokio::test]
async fn what_a_server_that_died_had_recorded_is_found_and_settled() {
    let (world, mut clients, held) = leased().await;
    // A server that recorded a redemption and was never heard of again.
    let code = CardCode::parse(&world.code("orphan")).unwrap();
    let redemption_id = RedemptionId::new();
    let secret = world.secret();
    let lease = LeaseRef {
        pool_id: PoolId::parse(POOL).unwrap(),
        account_id: AccountId::parse(&held.account_id).unwrap(),
        token: FencingToken(held.fencing_token),
    };
    let new = NewRedemption {
        redemption_id,
        attempt: 1,
        request: RequestKey::new(Principal::anonymous(), RequestId::random()),
        release_on_completion: true,
        code_fingerprint: secret.fingerprints("default", &code),
        code_ciphertext: secret.encrypt(format!("{POOL}/{redemption_id}").as_bytes(), &code),
        code_last4: String::new(),
        expected_minor: None,
        expected_learned: false,
        profile: holdfast::provider::profile::Profile::built_in().pinned(),
    };
    let limits =
        SendLimits { not_after: Duration::from_secs(60), take_over: Duration::from_millis(100) };
    let begun = world.store().begin(&lease, new, limits).await.unwrap();
    assert!(matches!(begun, Begun::Recorded { .. }), "{begun:?}");
    let found = settled(&mut clients, &redemption_id.to_string()).await;
    assert_eq!(found.state(), RedemptionState::Succeeded, "it was sent after all, once");
    assert_eq!(clients.status_of("a").await, AccountStatus::Processing);
}

#[tokio::test]
async fn a_key_that_can_no_longer_be_sent_is_cancelled() {
    // The provider may begin nothing after two seconds, and loses every request before that.
    let world = World::with(
        |args| {
            args.provider.timeout = Duration::from_millis(500);
            args.provider.connect_timeout = Duration::from_millis(300);
            args.provider.send_window = Duration::from_millis(800);
            args.provider.not_after = Duration::from_secs(2);
        },
        1,
    )
    .await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let code = world.code("cancelled");
    world.fault(&code, &[Fault::DropBeforeApply; 20]);
    let reply = clients.redeem(&held, &code, |r| r.release_on_completion = true).await.unwrap();
    let id = reply.redemption.unwrap().redemption_id;
    let failed = settled(&mut clients, &id).await;
    assert_eq!(failed.state(), RedemptionState::Failed);
    let failure = failed.failure.unwrap();
    assert_eq!((&*failure.reason, failure.code_spent), ("CANCELLED", false));
    assert_eq!(clients.status_of("a").await, AccountStatus::Waiting);
}

#[tokio::test]
async fn redeem_needs_a_lease_on_an_account_that_is_there() {
    let (world, mut clients, held) = leased().await;
    let code = world.code("nowhere");
    let nowhere = pb::LeaseRef { account_id: "nobody".into(), ..held.clone() };
    let error = clients.redeem(&nowhere, &code, |_| {}).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::NotFound, "ACCOUNT_NOT_FOUND"));
    let no_pool = pb::LeaseRef { pool_id: "nowhere".into(), ..held.clone() };
    let error = clients.redeem(&no_pool, &code, |_| {}).await.unwrap_err();
    assert_eq!(reason(&error), "POOL_NOT_FOUND");
    let stale = pb::LeaseRef { fencing_token: held.fencing_token + 7, ..held.clone() };
    let error = clients.redeem(&stale, &code, |_| {}).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::Aborted, "LEASE_LOST"));
    assert_eq!(provider_rows(&world), 0, "nothing was sent");
}
