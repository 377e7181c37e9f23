//! Holds: an account is on hold after a failure of its own, for a time that depends on the cause. Each one in a
//! row doubles it; a success or a person lifts it. A card's failure puts no hold on an account.

use std::time::Duration;

use holdfast::{
    rpc::pb::{self, AccountStatus::*, HoldCause, LoginStatus, RedemptionState},
    simulator::faults::Fault,
};

use crate::support::{
    plans::{CARD, elapsed, psql, retry_after, why},
    world::{Clients, INVALID_ACCOUNT, World, lease, seconds},
};

/// Another length for each cause, so that none can be taken for another's.
fn durations() -> pb::HoldDurations {
    pb::HoldDurations {
        login_invalid: seconds(5_000.0),
        limit_reached: seconds(700.0),
        throttled: seconds(11.0),
        longest: seconds(6_000.0),
    }
}

/// A world whose pool has those, and an account.
async fn world_with_an_account(account_id: &str) -> (World, Clients) {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.update_pool(|pool| pool.hold_durations = Some(durations())).await;
    clients.create_account(account_id, |_| {}).await;
    (world, clients)
}

/// Redeems once, whatever stands in the way of it, and gives the account back.
async fn redeem(
    world: &World,
    clients: &mut Clients,
    code: &str,
    fault: Option<Fault>,
) -> (pb::Redemption, pb::Account) {
    world.fault(code, fault.as_slice());
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let redeemed = clients.redeem(&held, code, |r| r.release_on_completion = true).await.unwrap();
    (redeemed.redemption.unwrap(), clients.account(&held.account_id).await)
}

/// How long the account is held after the redemption; its cause and count.
fn held(redemption: &pb::Redemption, account: &pb::Account) -> Option<(HoldCause, i32, f64)> {
    let hold = account.hold.as_ref()?;
    let [until, from] = [hold.expire_time, redemption.finish_time].map(|time| {
        let time = time.unwrap();
        time.seconds as f64 + f64::from(time.nanos) / 1e9
    });
    Some((hold.cause(), hold.count, ((until - from) * 1e3).round() / 1e3))
}

/// The hold's time passes. Whether it does is for the database alone to say.
async fn hold_ends(world: &World) {
    let end = "UPDATE accounts SET hold_until = now() - interval '1 us', login_status = 'ACTIVE'";
    psql(&mut world.sql().await, end).await;
}

#[tokio::test]
async fn each_cause_has_a_hold_of_its_own_length_that_doubles_up_to_the_longest() {
    let (limit, throttle, login) = (Fault::LimitReached, Fault::Throttled, Fault::LoginInvalid);
    let (reached, throttled, invalid) =
        (HoldCause::LimitReached, HoldCause::Throttled, HoldCause::LoginInvalid);
    // The failures in a row, and what each leaves.
    let rows: [&[(Fault, HoldCause, f64)]; 4] = [
        &[(throttle, throttled, 11.0), (throttle, throttled, 22.0), (throttle, throttled, 44.0)],
        &[
            (limit, reached, 700.0),
            (limit, reached, 1400.0),
            (limit, reached, 2800.0),
            (limit, reached, 5600.0),
            (limit, reached, 6000.0),
            (limit, reached, 6000.0),
        ],
        &[(login, invalid, 5000.0), (login, invalid, 6000.0)],
        // It is the failures in a row that count, whatever they were.
        &[(throttle, throttled, 11.0), (limit, reached, 1400.0), (throttle, throttled, 44.0)],
    ];
    for (row, failures) in rows.into_iter().enumerate() {
        let (world, mut clients) = world_with_an_account("a").await;
        for (place, (fault, cause, length)) in failures.iter().enumerate() {
            let code = world.code(&format!("{row}-{place}"));
            let (failed, account) = redeem(&world, &mut clients, &code, Some(*fault)).await;
            assert_eq!(failed.state(), RedemptionState::Failed);
            let count = i32::try_from(place).unwrap() + 1;
            assert_eq!(held(&failed, &account), Some((*cause, count, *length)), "{row} {place}");
            assert_eq!(account.available_time, account.hold.as_ref().unwrap().expire_time);
            assert_eq!(account.status(), Waiting, "the failure gives back what it found");
            let is_login = *cause == HoldCause::LoginInvalid;
            assert_eq!(account.login_status() == LoginStatus::Invalid, is_login);
            let passed_over = if is_login { "inactive" } else { "on_hold" };
            clients.passed_over(CARD, &[(passed_over, 1)]).await;
            hold_ends(&world).await;
        }
    }
}

#[tokio::test]
async fn a_success_lifts_the_hold_and_its_count() {
    let (world, mut clients) = world_with_an_account("a").await;
    for (place, fault, count) in
        [(0, Some(Fault::Throttled), 1), (1, Some(Fault::Throttled), 2), (2, None, 0)]
    {
        let code = world.code(&place.to_string());
        let (redeemed, account) = redeem(&world, &mut clients, &code, fault).await;
        assert_eq!(held(&redeemed, &account).map_or(0, |(_, count, _)| count), count);
        hold_ends_if_any(&world).await;
    }
    let account = clients.account("a").await;
    assert_eq!((account.hold, account.available_time), (None, None));
    let (failed, account) =
        redeem(&world, &mut clients, &world.code("3"), Some(Fault::Throttled)).await;
    assert_eq!(held(&failed, &account), Some((HoldCause::Throttled, 1, 11.0)), "from the start");
}

async fn hold_ends_if_any(world: &World) {
    let end = "UPDATE accounts SET hold_until = now() WHERE hold_until IS NOT NULL";
    psql(&mut world.sql().await, end).await;
}

#[tokio::test]
async fn a_person_lifts_a_hold_by_name_or_by_activating_the_login() {
    let (world, mut clients) = world_with_an_account("a").await;
    type Change = fn(&mut pb::Account);
    let activate: Change = |account| account.set_login_status(LoginStatus::Active);
    let nothing: Change = |_| {};
    let cases: [(&str, Fault, &[&str], Change, bool); 5] = [
        ("by name", Fault::Throttled, &["hold"], nothing, true),
        ("by activating", Fault::LoginInvalid, &["login_status"], activate, true),
        ("by activating what is active", Fault::LimitReached, &[], activate, true),
        ("by name, and the login stays", Fault::LoginInvalid, &["hold"], nothing, false),
        ("not by something else", Fault::Throttled, &["labels"], nothing, false),
    ];
    for (name, fault, paths, change, usable) in cases {
        activate_and_lift(&mut clients).await;
        let code = world.code(&name.replace([' ', ','], "-"));
        let (failed, account) = redeem(&world, &mut clients, &code, Some(fault)).await;
        assert_eq!(held(&failed, &account).unwrap().1, 1, "{name}: counted from the start");
        let account = clients.update_account("a", paths, change).await.unwrap();
        let lifted = name != "not by something else";
        assert_eq!(account.hold.is_none(), lifted, "{name}");
        match clients.acquire_for(CARD).await {
            Ok(held) => drop(clients.release(&held).await.unwrap()),
            Err(error) => assert!(!usable, "{name}: {error}"),
        }
    }
    let set = clients
        .update_account("a", &["hold"], |account| {
            account.hold = Some(pb::AccountHold { count: 3, ..Default::default() });
        })
        .await;
    assert_eq!(set.unwrap_err().code(), tonic::Code::InvalidArgument, "it can only be cleared");
}

async fn activate_and_lift(clients: &mut Clients) {
    let lift = |account: &mut pb::Account| account.set_login_status(LoginStatus::Active);
    clients.update_account("a", &["login_status", "hold"], lift).await.unwrap();
}

#[tokio::test]
async fn a_cards_own_failure_puts_no_hold_and_lifts_none() {
    let (world, mut clients) = world_with_an_account("a").await;
    // Spent, as far as the provider knows, and unknown here.
    let code = world.code("spent");
    let (first, _) = redeem(&world, &mut clients, &code, None).await;
    assert_eq!(first.state(), RedemptionState::Succeeded);
    let forget = "UPDATE redemptions SET code_fingerprint = decode(repeat('00', 32), 'hex')";
    psql(&mut world.sql().await, forget).await;
    let again = async |clients: &mut Clients, request_id: &str| {
        let held = lease(&clients.acquire(|_| {}).await.unwrap());
        let redeemed = clients
            .redeem(&held, &code, |request| {
                request.request_id = request_id.to_owned();
                request.release_on_completion = true;
            })
            .await;
        let failure = redeemed.unwrap().redemption.unwrap().failure.unwrap();
        assert_eq!((&*failure.reason, failure.code_spent), ("CODE_USED", true));
        clients.account("a").await
    };
    let account = again(&mut clients, "again").await;
    assert_eq!((account.hold, account.available_time), (None, None));
    assert_eq!(account.login_status(), LoginStatus::Active);

    let (failed, account) =
        redeem(&world, &mut clients, &world.code("throttled"), Some(Fault::Throttled)).await;
    assert_eq!(held(&failed, &account).unwrap().1, 1);
    hold_ends(&world).await;
    let account = again(&mut clients, "once more").await;
    assert_eq!(
        account.hold.unwrap().count,
        1,
        "a card's failure is none in the row, and ends none"
    );
}

#[tokio::test]
async fn under_a_lease_that_stays_nothing_is_redeemed_while_the_hold_lasts() {
    let (world, mut clients) = world_with_an_account("a").await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    for (name, fault, longest) in
        [("limit", Fault::LimitReached, 700), ("login", Fault::LoginInvalid, 6000)]
    {
        let code = world.code(name);
        world.fault(&code, &[fault]);
        clients.redeem(&held, &code, |_| {}).await.unwrap();
        let error = clients.redeem(&held, &world.code("next"), |_| {}).await.unwrap_err();
        assert_eq!(why(&error), ("ACCOUNT_NOT_READY".to_owned(), "hold".to_owned()));
        let after = retry_after(&error);
        assert!(after <= Duration::from_secs(longest), "{after:?}");
        assert!(after > Duration::from_secs(longest - 30), "{after:?}");
        hold_ends(&world).await;
    }
    clients.redeem(&held, &world.code("next"), |r| r.release_on_completion = true).await.unwrap();
    assert_eq!(clients.account("a").await.hold, None);
}

#[tokio::test]
async fn an_account_that_the_provider_refuses_for_good_is_set_aside() {
    let (world, mut clients) = world_with_an_account(INVALID_ACCOUNT).await;
    let (failed, account) = redeem(&world, &mut clients, &world.code("1"), None).await;
    assert_eq!(failed.failure.as_ref().unwrap().reason, "ACCOUNT_LOGIN_INVALID");
    assert_eq!(held(&failed, &account), Some((HoldCause::LoginInvalid, 1, 5000.0)));
    clients.passed_over(CARD, &[("inactive", 1)]).await;
}

#[tokio::test]
async fn a_pool_says_how_long_its_holds_are_each_by_itself() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let told = |pool: &pb::Pool| {
        let holds = pool.hold_durations.as_ref().unwrap();
        [&holds.login_invalid, &holds.limit_reached, &holds.throttled, &holds.longest]
            .map(|time| elapsed(time.as_ref()).as_secs())
    };
    let pool = clients.update_pool(|_| {}).await;
    assert_eq!(told(&pool), [3600, 3600, 60, 86_400], "when nobody said");
    let throttled = pb::HoldDurations { throttled: seconds(7.0), ..Default::default() };
    let pool = clients.update_pool(|pool| pool.hold_durations = Some(throttled)).await;
    assert_eq!(told(&pool), [3600, 3600, 7, 86_400], "only what is set");

    // As long as may be, and none at all, as often in a row as may be.
    let year = seconds(366.0 * 86_400.0);
    let longest =
        pb::HoldDurations { limit_reached: year, longest: seconds(0.0), ..Default::default() };
    clients.update_pool(|pool| pool.hold_durations = Some(longest)).await;
    clients.create_account("a", |_| {}).await;
    let many = "UPDATE accounts SET hold_count = 1000, hold_until = now(),
             hold_cause = 'LIMIT_REACHED'";
    psql(&mut world.sql().await, many).await;
    let (failed, account) =
        redeem(&world, &mut clients, &world.code("1"), Some(Fault::LimitReached)).await;
    assert_eq!(held(&failed, &account), Some((HoldCause::LimitReached, 1001, 0.0)));
    lease(&clients.acquire(|_| {}).await.unwrap());
}
