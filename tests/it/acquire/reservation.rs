//! Headroom is held from acquisition to settlement, and given back exactly: two cards never overfill an
//! account, and what does not fit is not begun.

use std::time::Duration;

use holdfast::{
    rpc::pb::{self, AccountStatus::*, RedemptionState, plan::Denominations},
    simulator::faults::{Fault, Faults, Latency},
};
use tokio::task::JoinHandle;

use crate::support::{
    plans::{CARD, expecting, minor, psql, why},
    wait::eventually,
    world::{Clients, POOL, World, eur, lease, metadata, seconds},
};

const LIMIT: Duration = Duration::from_secs(10);

/// What is held on an account; 0 when nothing is.
async fn reserved(clients: &mut Clients, account_id: &str) -> i64 {
    minor(clients.account(account_id).await.reserved.as_ref())
}

/// A world with a plan of 9000 and an account of it.
async fn world_with_an_account() -> (World, Clients) {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 9000).await;
    clients.create_account("a", |account| account.plan_id = "plan".to_owned()).await;
    (world, clients)
}

/// Requests to the provider take so long.
fn slow(milliseconds: u64) -> Faults {
    let time = Duration::from_millis(milliseconds);
    Faults { latency: Latency { min: time, max: time }, ..Faults::default() }
}

/// Redeems in the background; answers once it is begun.
async fn redeem_slowly(
    clients: &mut Clients,
    held: &pb::LeaseRef,
    code: &str,
    change: impl FnOnce(&mut pb::RedeemRequest) + Send + 'static,
) -> JoinHandle<pb::Redemption> {
    let (mut other, lease, code) = (clients.clone(), held.clone(), code.to_owned());
    let redeeming = tokio::spawn(async move {
        let redeemed = other.redeem(&lease, &code, change).await;
        redeemed.unwrap().redemption.unwrap()
    });
    eventually(LIMIT, "it is begun", async || {
        let account = clients.account(&held.account_id).await;
        (!account.open_redemption_id.is_empty()).then_some(())
    })
    .await;
    redeeming
}

#[tokio::test]
async fn what_an_acquisition_expects_is_held_until_its_lease_ends() {
    let (_world, mut clients) = world_with_an_account().await;
    let acquired = clients
        .acquire(|request| {
            request.selector = Some(expecting(CARD + 234));
            request.lease_duration = seconds(1.0);
        })
        .await
        .unwrap();
    assert_eq!(minor(acquired.account.as_ref().unwrap().reserved.as_ref()), CARD + 234);
    assert_eq!(reserved(&mut clients, "a").await, CARD + 234);
    clients.renew(&lease(&acquired), Duration::from_secs(1)).await.unwrap();
    assert_eq!(reserved(&mut clients, "a").await, CARD + 234, "a renewal keeps it");
    eventually(LIMIT, "the lease expires", async || {
        let account = clients.account("a").await;
        (account.status() == Waiting).then(|| assert_eq!(account.reserved, None))
    })
    .await;

    let held = clients.acquire_for(CARD).await.unwrap();
    let released = clients.release(&held).await.unwrap();
    assert_eq!(released.reserved, None);
    let unknown = clients.acquire(|_| {}).await.unwrap();
    assert_eq!(unknown.account.unwrap().reserved, None, "what is not known is not held");
}

#[tokio::test]
async fn a_settlement_gives_back_what_was_held_whatever_it_says() {
    let (world, mut clients) = world_with_an_account().await;
    let mut balance = 0;
    for (name, faults, release, balance_after) in [
        ("succeeded", vec![], false, CARD),
        ("succeeded with another amount", vec![Fault::WrongAmount], true, 2 * CARD + 100),
        ("refused", vec![Fault::Throttled], false, 2 * CARD + 100),
    ] {
        psql(&mut world.sql().await, "UPDATE accounts SET hold_until = NULL, hold_cause = NULL")
            .await;
        let held = clients.acquire_for(CARD).await.unwrap();
        let code = world.code(&name.replace(' ', "-"));
        world.fault(&code, &faults);
        let redeemed = clients
            .redeem(&held, &code, |request| {
                (request.expected, request.release_on_completion) = (Some(eur(CARD)), release);
            })
            .await
            .unwrap();
        assert_ne!(redeemed.redemption.unwrap().state(), RedemptionState::InDoubt, "{name}");
        let account = clients.account("a").await;
        assert_eq!(account.reserved, None, "{name}");
        balance = balance_after;
        assert_eq!(minor(account.balance.as_ref()), balance, "{name}");
        if !release {
            clients.release(&held).await.unwrap();
        }
    }
    assert_eq!(minor(clients.account("a").await.day_credited.as_ref()), balance);
}

#[tokio::test]
async fn a_redemption_under_the_lease_moves_what_is_held_to_its_own_amount() {
    let (world, mut clients) = world_with_an_account().await;
    world.set_faults(slow(300));
    let held = clients.acquire_for(2 * CARD).await.unwrap();
    let cases = [("less", Some(CARD), CARD), ("more", Some(3 * CARD), 3 * CARD), ("none", None, 0)];
    for (name, expected, held_then) in cases {
        let code = world.code(name);
        let redeeming =
            redeem_slowly(&mut clients, &held, &code, move |r| r.expected = expected.map(eur))
                .await;
        assert_eq!(reserved(&mut clients, "a").await, held_then, "{name}");
        assert_eq!(redeeming.await.unwrap().state(), RedemptionState::Succeeded);
        assert_eq!(reserved(&mut clients, "a").await, 0, "{name}");
    }
    clients.release(&held).await.unwrap();
    // Where the redemption does not say, what the acquisition said goes on.
    let held = clients.acquire_for(2 * CARD).await.unwrap();
    let redeeming = redeem_slowly(&mut clients, &held, &world.code("unsaid"), |_| {}).await;
    assert_eq!(reserved(&mut clients, "a").await, 2 * CARD);
    redeeming.await.unwrap();
}

#[tokio::test]
async fn doubt_keeps_what_is_held_past_the_lease_and_its_release() {
    let (world, mut clients) = world_with_an_account().await;
    let acquired = clients
        .acquire(|request| {
            request.selector = Some(expecting(CARD));
            request.lease_duration = seconds(1.0);
        })
        .await
        .unwrap();
    let code = world.code("doubt");
    let rules = Faults::of_card(&code, &[Fault::ApplyThenDrop]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let redeemed = clients.redeem(&lease(&acquired), &code, |_| {}).await.unwrap();
    assert_eq!(redeemed.redemption.unwrap().state(), RedemptionState::InDoubt);
    clients.release(&lease(&acquired)).await.unwrap();
    psql(
        &mut world.sql().await,
        "UPDATE accounts SET lease_acquired_at = now() - interval '2 hours',
             lease_expires_at = now() - interval '1 hour'",
    )
    .await;
    clients.passed_over(CARD, &[("locked", 1)]).await;
    assert_eq!(reserved(&mut clients, "a").await, CARD);
    world.set_faults(Faults::default());
    eventually(LIMIT, "it is settled", async || {
        let account = clients.account("a").await;
        (account.status() == Processing).then(|| assert_eq!(account.reserved, None))
    })
    .await;
}

/// Redeems, so that it is recorded as failed by a person and credited by the provider after that.
async fn credited_late(
    world: &World,
    clients: &mut Clients,
    held: &pb::LeaseRef,
    name: &str,
    release: bool,
) {
    world.set_faults(slow(700));
    let redeeming = redeem_slowly(clients, held, &world.code(name), move |r| {
        r.release_on_completion = release;
    })
    .await;
    // As if the server had stood still, and another had asked in vain.
    let taken_over = "UPDATE redemptions SET state = 'IN_DOUBT',
             next_check_at = now() + interval '1 hour' WHERE state = 'SUBMITTED'";
    psql(&mut world.sql().await, taken_over).await;
    let redemption_id = clients.account(&held.account_id).await.open_redemption_id;
    let request = pb::ResolveRedemptionRequest {
        pool_id: POOL.to_owned(),
        redemption_id,
        state: RedemptionState::Failed.into(),
        reason: "nobody knew better".to_owned(),
        resolved_by: "a person".to_owned(),
        ..Default::default()
    };
    clients.redemptions.resolve_redemption(request).await.unwrap();
    assert_eq!(reserved(clients, &held.account_id).await, 0, "the failure gave it back");
    assert_eq!(redeeming.await.unwrap().state(), RedemptionState::Succeeded, "it came late");
    world.set_faults(Faults::default());
}

#[tokio::test]
async fn a_late_credit_fills_and_does_not_change_what_another_lease_holds() {
    let (world, mut clients) = world_with_an_account().await;
    let held = clients.acquire_for(CARD).await.unwrap();
    credited_late(&world, &mut clients, &held, "late", false).await;
    let account = clients.account("a").await;
    assert_eq!(minor(account.balance.as_ref()), CARD);
    assert_eq!(minor(account.day_credited.as_ref()), CARD, "it counts for the day");
    assert_eq!(account.reserved, None);
    let error = clients
        .redeem(&held, &world.code("too-much"), |r| r.expected = Some(eur(8001)))
        .await
        .unwrap_err();
    assert_eq!(why(&error), ("AMOUNT_DOES_NOT_FIT".to_owned(), "too_full".to_owned()));
    clients.release(&held).await.unwrap();
}

#[tokio::test]
async fn a_day_that_a_late_credit_fills_is_over() {
    let (world, mut clients) = world_with_an_account().await;
    let two_days = |plan: &mut pb::Plan| plan.day_amounts = vec![eur(CARD), eur(CARD)];
    clients.update_plan("plan", &[], two_days).await.unwrap();
    let held = clients.acquire_for(CARD).await.unwrap();
    credited_late(&world, &mut clients, &held, "late", true).await;
    let account = clients.account("a").await;
    assert_eq!((account.status(), account.plan_day), (Waiting, 2));
    assert_eq!((minor(account.day_credited.as_ref()), minor(account.balance.as_ref())), (0, CARD));
    clients.passed_over(CARD, &[("next_day", 1)]).await;
}

#[tokio::test]
async fn a_plan_that_a_lease_has_bound_goes_with_it_also_after_a_late_credit() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 9000).await;
    clients.create_account("a", |_| {}).await;
    for end in ["released", "refused", "expired"] {
        let acquired = clients
            .acquire(|request| {
                let plan_id = "plan".to_owned();
                request.selector = Some(pb::AccountSelector { plan_id, ..expecting(CARD) });
            })
            .await
            .unwrap();
        assert_eq!(acquired.account.as_ref().unwrap().plan_id, "plan");
        let held = lease(&acquired);
        credited_late(&world, &mut clients, &held, &format!("late-{end}"), false).await;
        match end {
            "released" => drop(clients.release(&held).await.unwrap()),
            "refused" => {
                let code = world.code("refused");
                world.fault(&code, &[Fault::LimitReached]);
                clients.redeem(&held, &code, |r| r.release_on_completion = true).await.unwrap();
            }
            _ => {
                let end = "UPDATE accounts SET lease_expires_at = lease_acquired_at";
                psql(&mut world.sql().await, end).await;
            }
        }
        let account = eventually(LIMIT, end, async || {
            let account = clients.account("a").await;
            (account.status() != Locking).then_some(account)
        })
        .await;
        assert_eq!((&*account.plan_id, account.plan_day), ("", 1), "{end}");
        assert_eq!(minor(account.day_credited.as_ref()), 0, "{end}");
        clients.update_account("a", &["hold"], |account| account.hold = None).await.unwrap();
    }
    assert_eq!(minor(clients.account("a").await.balance.as_ref()), 3 * CARD);
}

#[tokio::test]
async fn what_does_not_fit_is_not_begun_and_the_reason_is_told() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    let fixed = |amounts: &[i64]| {
        let amounts = amounts.iter().map(|amount| eur(*amount)).collect();
        Some(Denominations::FixedAmounts(pb::FixedAmounts { amounts }))
    };
    let range = |min| {
        let range = pb::AmountRange { min: Some(eur(min)), max: None };
        Some(Denominations::AmountRange(range))
    };
    let multiples = Some(Denominations::MultiplesOf(eur(500)));
    // What the plan takes, its first day, the account's balance; the card; the cause, or none.
    let cases = [
        ("as much as there is room for", None, 4000, 6000, 3000, None),
        ("a cent more", None, 4000, 6000, 3001, Some("too_full")),
        ("no multiple", multiples.clone(), 4000, 0, 1250, Some("denomination")),
        ("a multiple", multiples, 4000, 0, 1500, None),
        ("not one of the set", fixed(&[1000, 1500]), 4000, 0, 2500, Some("denomination")),
        ("less than the least", range(800), 4000, 0, 799, Some("denomination")),
        ("the rest is too little", range(800), 4000, 7500, 900, Some("remainder")),
        ("the rest is nothing", range(800), 4000, 7500, 1500, None),
        ("the rest fits nothing", fixed(&[1000, 1600]), 4000, 5800, 1000, Some("remainder")),
        ("the rest fits", fixed(&[1000, 1600]), 4000, 5800, 1600, None),
        ("more than the day", None, 1500, 0, 1501, Some("day_full")),
        ("as much as the day", None, 1500, 0, 1500, None),
    ];
    for (name, denominations, first_day, balance, card, cause) in cases {
        let name_id = name.replace(' ', "-");
        clients
            .create_plan_with(&name_id, 9000, |plan| {
                plan.day_amounts = vec![eur(first_day), eur(100)];
                plan.denominations = denominations;
            })
            .await;
        clients
            .create_account(&name_id, |account| {
                account.plan_id = name_id.clone();
                account.balance = Some(eur(balance));
            })
            .await;
        let only = pb::AccountSelector { account_id: name_id.clone(), ..Default::default() };
        let found =
            clients.acquire(|r| r.selector = Some(pb::AccountSelector { ..only.clone() })).await;
        let held = lease(&found.unwrap());
        let code = world.code(&name_id);
        let redeemed = clients.redeem(&held, &code, |r| r.expected = Some(eur(card))).await;
        match (redeemed, cause) {
            (Ok(_), None) => {}
            (Err(error), Some(cause)) => {
                assert_eq!(why(&error), ("AMOUNT_DOES_NOT_FIT".to_owned(), cause.to_owned()));
                assert_eq!(metadata(&error, "headroom_minor"), (9000 - balance).to_string());
                let today = (9000 - balance).min(first_day).to_string();
                assert_eq!(metadata(&error, "day_headroom_minor"), today, "{name}");
                assert_eq!(metadata(&error, "plan_id"), name_id);
            }
            (answer, _) => panic!("{name}: {answer:?}"),
        }
        clients.release(&held).await.unwrap();
        // The choice says the same.
        let fits = clients
            .acquire(|r| {
                r.selector = Some(pb::AccountSelector { expected: Some(eur(card)), ..only })
            })
            .await;
        assert!(cause.is_none() || fits.is_err(), "{name}");
    }
}

#[tokio::test]
async fn a_second_redemption_under_a_lease_may_not_overfill_nor_one_after_the_plan_was_lowered() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("plan", 2 * CARD + 500).await;
    clients.create_account("a", |account| account.plan_id = "plan".to_owned()).await;
    let held = clients.acquire_for(CARD).await.unwrap();
    let redeem = async |clients: &mut Clients, name: &str| {
        clients.redeem(&held, &world.code(name), |r| r.expected = Some(eur(CARD))).await
    };
    redeem(&mut clients, "1").await.unwrap();
    redeem(&mut clients, "2").await.unwrap();
    let error = redeem(&mut clients, "3").await.unwrap_err();
    assert_eq!(why(&error).1, "too_full");
    assert_eq!(metadata(&error, "headroom_minor"), "500");
    clients.release(&held).await.unwrap();

    let raise = |plan: &mut pb::Plan| plan.target = Some(eur(9 * CARD));
    clients.update_plan("plan", &[], raise).await.unwrap();
    let held = clients.acquire_for(CARD).await.unwrap();
    let lower = |plan: &mut pb::Plan| plan.target = Some(eur(3 * CARD - 1));
    clients.update_plan("plan", &[], lower).await.unwrap();
    assert_eq!(reserved(&mut clients, "a").await, CARD, "the lease goes on");
    let code = world.code("3");
    let error = clients.redeem(&held, &code, |r| r.expected = Some(eur(CARD))).await.unwrap_err();
    assert_eq!(why(&error), ("AMOUNT_DOES_NOT_FIT".to_owned(), "too_full".to_owned()));
    let lower = |plan: &mut pb::Plan| plan.target = Some(eur(CARD));
    clients.update_plan("plan", &[], lower).await.unwrap();
    let error = clients.redeem(&held, &code, |_| {}).await.unwrap_err();
    assert_eq!(why(&error).1, "too_full", "it wants nothing more, whatever the card");
}

#[tokio::test]
async fn who_knows_nothing_of_reserves_and_days_leaves_none_behind() {
    let (world, mut clients) = world_with_an_account().await;
    clients.acquire(|request| request.selector = Some(expecting(CARD))).await.unwrap();
    assert_eq!(reserved(&mut clients, "a").await, CARD);
    // As a server of the version before ends a lease.
    let mut db = world.sql().await;
    let end =
        "UPDATE accounts SET status = resume_status, lease_end = 'expired', idle_since = now()";
    psql(&mut db, end).await;
    assert_eq!(clients.account("a").await.status(), Waiting);
    assert_eq!(reserved(&mut clients, "a").await, 0);
    // And as it takes a plan away.
    psql(&mut db, "UPDATE accounts SET plan_day = 3, day_credited_minor = 5, day_due_at = now()")
        .await;
    psql(&mut db, "UPDATE accounts SET plan_id = NULL").await;
    let account = clients.account("a").await;
    assert_eq!((account.plan_day, minor(account.day_credited.as_ref())), (1, 0));
}
