//! A wrong resolution is corrected by another word, which takes its place; what was said before is kept.

use std::time::Duration;

use futures_util::future::join_all;
use holdfast::{
    rpc::pb::{self, AccountStatus, RedemptionState, ReversalOutcome},
    simulator::faults::{Fault, Faults},
};
use sqlx::AssertSqlSafe;

use crate::{
    redeem::review::{left_for_review, left_in_doubt, resolve, word},
    support::{
        program,
        proxy::postgres::{Fault as DatabaseFault, statement},
        wait::eventually,
        watch::Watch,
        world::{Clients, POOL, World, bad_fields, eur, lease, metadata, reason},
    },
};

const LIMIT: Duration = Duration::from_secs(30);

/// A redemption that a person closed so, on an account without a lease.
async fn closed(
    world: &World,
    clients: &mut Clients,
    name: &str,
    state: RedemptionState,
) -> pb::Redemption {
    let code = world.code(name);
    let (held, open) = left_in_doubt(world, clients, &code, Fault::ErrorAfterApply).await;
    let closed = resolve(clients, word(&open, state)).await.unwrap();
    clients.release(&held).await.unwrap();
    closed
}

/// Another person's word in the place of the first one.
fn instead(redemption: &pb::Redemption, state: RedemptionState) -> pb::ResolveRedemptionRequest {
    pb::ResolveRedemptionRequest {
        corrects_resolution: 1,
        reason: "the other card was meant".into(),
        resolved_by: "ben".into(),
        evidence: "page 5".into(),
        ..word(redemption, state)
    }
}

/// A person says that it was taken back.
fn taken_back(redemption: &pb::Redemption) -> pb::ReverseRedemptionRequest {
    pb::ReverseRedemptionRequest {
        pool_id: POOL.into(),
        redemption_id: redemption.redemption_id.clone(),
        reversed_by: "anna".into(),
        reason: "disputed".into(),
        outcome: ReversalOutcome::Reversed.into(),
        ..Default::default()
    }
}

async fn balance(clients: &mut Clients, account_id: &str) -> i64 {
    clients.account(account_id).await.balance.unwrap().amount_minor
}

#[tokio::test]
async fn a_credit_that_was_none_is_taken_off_and_both_words_are_kept() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan("small", 1000).await;
    clients.create_account("a", |account| account.plan_id = "small".into()).await;
    let said = closed(&world, &mut clients, "card", RedemptionState::Succeeded).await;
    assert_eq!(said.resolution.as_ref().unwrap().number, 1);
    let full = clients.account("a").await;
    assert_eq!((full.status(), full.balance), (AccountStatus::Completed, Some(eur(1000))));

    for _ in 0..2 {
        let corrected =
            resolve(&mut clients, instead(&said, RedemptionState::Failed)).await.unwrap();
        assert_eq!((corrected.state(), &corrected.amount), (RedemptionState::Failed, &None));
        let failure = corrected.failure.unwrap();
        assert_eq!((&*failure.reason, failure.code_spent), ("RESOLVED_AS_FAILED", false));
    }
    let open = clients.account("a").await;
    assert_eq!((open.status(), open.balance), (AccountStatus::Processing, Some(eur(0))));

    let now = clients.redemption(&said.redemption_id).await;
    let word = now.resolution.clone().unwrap();
    assert_eq!((word.number, &*word.resolved_by, &*word.evidence), (2, "ben", "page 5"));
    let [before] = &now.superseded_resolutions[..] else { panic!("{now:?}") };
    assert_eq!((before.state(), &before.amount), (RedemptionState::Succeeded, &Some(eur(1000))));
    assert_eq!(before.resolution, said.resolution);
    assert_eq!(before.finish_time, said.finish_time);
    let request = pb::ListAccountEventsRequest {
        pool_id: POOL.into(),
        account_id: "a".into(),
        ..Default::default()
    };
    let events = clients.accounts.list_account_events(request).await.unwrap().into_inner();
    let event = &events.account_events[0];
    assert_eq!((&*event.reason, &*event.actor), ("resolution_corrected", "ben"));
    assert_eq!((&event.redemption_id, &event.balance), (&said.redemption_id, &Some(eur(0))));

    // And once more: the card was credited after all.
    let again = pb::ResolveRedemptionRequest {
        corrects_resolution: 2,
        ..instead(&said, RedemptionState::Succeeded)
    };
    let again = resolve(&mut clients, again).await.unwrap();
    assert_eq!(
        (again.state(), again.superseded_resolutions.len()),
        (RedemptionState::Succeeded, 2)
    );
    assert_eq!(again.failure, None);
    assert_eq!(clients.account("a").await.status(), AccountStatus::Completed);
    let change = "UPDATE superseded_resolutions SET reason = 'x'";
    let error = sqlx::query(AssertSqlSafe(change)).execute(&mut world.sql().await).await;
    assert!(error.unwrap_err().to_string().contains("append-only"));
}

#[tokio::test]
async fn another_amount_adds_its_difference_and_never_leaves_less_than_nothing() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let said = closed(&world, &mut clients, "card", RedemptionState::Succeeded).await;
    let of = |number, minor| pb::ResolveRedemptionRequest {
        corrects_resolution: number,
        amount: Some(eur(minor)),
        ..instead(&said, RedemptionState::Succeeded)
    };
    // Under any lease: the money is where it is.
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    for (number, minor) in [(1, 1100), (2, 900)] {
        resolve(&mut clients, of(number, minor)).await.unwrap();
        assert_eq!(balance(&mut clients, "a").await, minor);
    }
    clients.release(&held).await.unwrap();
    let spent = pb::CorrectBalanceRequest {
        pool_id: POOL.into(),
        account_id: "a".into(),
        balance: Some(eur(100)),
        expected_balance: Some(eur(900)),
        reason: "spent".into(),
        corrected_by: "anna".into(),
        ..Default::default()
    };
    clients.accounts.correct_balance(spent).await.unwrap();
    let error = resolve(&mut clients, of(3, 700)).await.unwrap_err();
    assert_eq!(reason(&error), "BALANCE_TOO_LOW");
    assert_eq!(balance(&mut clients, "a").await, 100);
    assert_eq!(clients.redemption(&said.redemption_id).await.amount, Some(eur(900)));
}

#[tokio::test]
async fn a_credit_after_all_needs_the_code_which_another_redemption_may_have() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let said = closed(&world, &mut clients, "card", RedemptionState::Failed).await;
    let code = world.code("card");
    let rules = Faults::of_card(&code, &[Fault::ErrorAfterApply]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let other = clients.redeem(&held, &code, |r| r.request_id = "another".into()).await.unwrap();
    let other = other.redemption.unwrap();
    assert_eq!(other.state(), RedemptionState::InDoubt);
    let error =
        resolve(&mut clients, instead(&said, RedemptionState::Succeeded)).await.unwrap_err();
    assert_eq!(reason(&error), "CODE_IN_USE");
    assert!(error.message().contains(&other.redemption_id), "{error:?}");
    assert_eq!(clients.redemption(&said.redemption_id).await.state(), RedemptionState::Failed);
    resolve(&mut clients, word(&other, RedemptionState::Failed)).await.unwrap();
    let corrected =
        resolve(&mut clients, instead(&said, RedemptionState::Succeeded)).await.unwrap();
    assert_eq!(corrected.state(), RedemptionState::Succeeded);
    assert_eq!(balance(&mut clients, &said.account_id).await, 1000);
    // Its code is its own again.
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let third = clients.redeem(&held, &code, |r| r.request_id = "third".into()).await;
    assert_eq!(reason(&third.unwrap_err()), "CODE_IN_USE");
}

#[tokio::test]
async fn only_a_person_s_word_that_counts_is_corrected() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(3).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let proven = clients.redeem(&held, &world.code("proven"), |_| {}).await.unwrap();
    let proven = proven.redemption.unwrap();
    let error = resolve(&mut clients, instead(&proven, RedemptionState::Failed)).await.unwrap_err();
    assert_eq!(reason(&error), "REDEMPTION_ALREADY_SETTLED");
    assert_eq!(metadata(&error, "resolved_by"), "", "nobody said so: it is proven");
    clients.release(&held).await.unwrap();

    let said = closed(&world, &mut clients, "said", RedemptionState::Succeeded).await;
    let later = pb::ResolveRedemptionRequest {
        corrects_resolution: 2,
        ..instead(&said, RedemptionState::Failed)
    };
    assert_eq!(reason(&resolve(&mut clients, later).await.unwrap_err()), "RESOLUTION_CHANGED");
    let same = resolve(&mut clients, instead(&said, RedemptionState::Succeeded)).await.unwrap_err();
    assert_eq!(bad_fields(&same), ["state"]);
    let typo = pb::ResolveRedemptionRequest {
        corrects_resolution: -1,
        ..instead(&said, RedemptionState::Failed)
    };
    assert_eq!(
        bad_fields(&resolve(&mut clients, typo).await.unwrap_err()),
        ["corrects_resolution"]
    );
    // Without the number it is no correction.
    let plain = word(&said, RedemptionState::Failed);
    let error = resolve(&mut clients, plain).await.unwrap_err();
    assert_eq!(reason(&error), "REDEMPTION_ALREADY_SETTLED");
    let whose = ["number", "resolved_by"].map(|key| metadata(&error, key));
    assert_eq!(whose, ["1", "anna"]);

    let (_held, open) = left_for_review(&world, &mut clients, &world.code("open")).await;
    let error = resolve(&mut clients, instead(&open, RedemptionState::Failed)).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["corrects_resolution"]);
    assert_eq!(balance(&mut clients, &said.account_id).await % 1000, 0);
}

#[tokio::test]
async fn what_was_taken_back_is_not_corrected() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let said = closed(&world, &mut clients, "card", RedemptionState::Succeeded).await;
    let reverse = taken_back(&said);
    clients.redemptions.reverse_redemption(reverse).await.unwrap();
    let error = resolve(&mut clients, instead(&said, RedemptionState::Failed)).await.unwrap_err();
    assert_eq!(reason(&error), "REDEMPTION_ALREADY_REVERSED");
    assert_eq!(balance(&mut clients, "a").await, 0, "taken off once");
}

/// The amount is corrected between the reversal's decision and its record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_back_is_the_amount_that_was_corrected_meanwhile() {
    let (proxy, world) = World::proxied(|_, _| {}).await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let said = closed(&world, &mut clients, "card", RedemptionState::Succeeded).await;
    let on_its_way = proxy.fault(
        statement("-- Records a reversal of a success"),
        DatabaseFault::DelayRequest(Duration::from_secs(2)),
    );
    let mut other = clients.clone();
    let reverse = taken_back(&said);
    let reversing =
        tokio::spawn(async move { other.redemptions.reverse_redemption(reverse).await });
    eventually(LIMIT, "the reversal is on its way", async || {
        (on_its_way.matched() == 1).then_some(())
    })
    .await;
    let corrected = pb::ResolveRedemptionRequest {
        amount: Some(eur(400)),
        ..instead(&said, RedemptionState::Succeeded)
    };
    resolve(&mut clients, corrected).await.unwrap();
    assert_eq!(balance(&mut clients, "a").await, 400);
    reversing.await.unwrap().unwrap();
    assert_eq!(balance(&mut clients, "a").await, 0);
}

#[tokio::test]
async fn a_watcher_at_any_server_is_told_the_outcome_that_corrects_an_earlier_one() {
    let world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let mut watch = Watch::open(&mut world.clients(1).await, "now").await.unwrap();
    let said = closed(&world, &mut clients, "card", RedemptionState::Succeeded).await;
    let first = watch.outcome().await.unwrap();
    let told = |it: &pb::Redemption| {
        (it.redemption_id.clone(), it.state(), it.resolution.clone().unwrap().number)
    };
    let id = said.redemption_id.clone();
    assert_eq!(told(&first), (id.clone(), RedemptionState::Succeeded, 1));
    resolve(&mut clients, instead(&said, RedemptionState::Failed)).await.unwrap();
    let second = watch.outcome().await.unwrap();
    assert_eq!(told(&second), (id.clone(), RedemptionState::Failed, 2));
    assert_eq!(second.resolution.unwrap().resolved_by, "ben");
    // A list tells the number, too.
    let request = pb::ListRedemptionsRequest { pool_id: POOL.into(), ..Default::default() };
    let page = clients.redemptions.list_redemptions(request).await.unwrap().into_inner();
    assert_eq!(told(&page.redemptions[0]), (id, RedemptionState::Failed, 2));
}

#[tokio::test]
async fn of_corrections_at_once_one_is_recorded_and_the_others_are_told_whose() {
    let world = World::with(|_| {}, 2).await;
    let servers = [world.clients(0).await, world.clients(1).await];
    let mut clients = servers[0].clone();
    clients.create_account("a", |_| {}).await;
    let said = closed(&world, &mut clients, "card", RedemptionState::Succeeded).await;
    let tries = (0..8).map(|n| {
        let mut clients = servers[n % 2].clone();
        let word = pb::ResolveRedemptionRequest {
            amount: Some(eur(900 + i64::try_from(n).unwrap())),
            resolved_by: format!("person-{n}"),
            ..instead(&said, RedemptionState::Succeeded)
        };
        async move { resolve(&mut clients, word).await }
    });
    let answers = join_all(tries).await;
    let done: Vec<_> = answers.iter().filter_map(|answer| answer.as_ref().ok()).collect();
    let [done] = done[..] else { panic!("{answers:?}") };
    let first = done.resolution.clone().unwrap().resolved_by;
    for error in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(reason(error), "RESOLUTION_CHANGED");
        assert_eq!(metadata(error, "number"), "2");
        assert_eq!(metadata(error, "resolved_by"), first);
        assert!(error.message().contains(&first), "{error:?}");
    }
    let amount = done.amount.clone().unwrap().amount_minor;
    assert_eq!(balance(&mut clients, "a").await, amount);
    assert_eq!(clients.redemption(&said.redemption_id).await.superseded_resolutions.len(), 1);
}

#[tokio::test]
async fn the_command_says_what_is_recorded_and_insists_with_yes_alone() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let (held, open) = left_for_review(&world, &mut clients, &world.code("typo")).await;
    let id = &*open.redemption_id;
    let run = async |rest: &[&str]| {
        let word = ["redemption", "resolve", id, "--pool", POOL, "--format", "json"];
        let who = ["--by", "maria", "--reason", "seen", "--evidence", "page 4"];
        program::run(&world, &[&word[..], &who, rest].concat()).await
    };
    let other = ["--outcome", "succeeded", "--amount-minor", "1200"];
    let refused = run(&other).await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    let told = ["the provider reported that it credited 1100 EUR", "--yes does it without asking"];
    assert!(told.iter().all(|text| refused.printed.contains(text)), "{refused:?}");
    assert_eq!(clients.redemption(id).await.state(), RedemptionState::NeedsReview);
    let closed = run(&[&other[..], &["--yes"]].concat()).await;
    assert_eq!(closed.code, Some(0), "{closed:?}");
    assert_eq!(clients.redemption(id).await.amount, Some(eur(1200)));
    clients.release(&held).await.unwrap();

    let failed = ["--outcome", "failed", "--code-spent"];
    let refused = run(&failed).await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    let told = "SUCCEEDED with 1200 EUR, by resolution 1 of maria: seen (page 4)";
    assert!(refused.printed.contains(told), "{refused:?}");
    let corrected = run(&[&failed[..], &["--corrects", "1"]].concat()).await;
    assert_eq!(corrected.code, Some(0), "{corrected:?}");
    let again = run(&[&other[..], &["--yes"]].concat()).await;
    assert_eq!(again.code, Some(0), "{again:?}");
    let shown = program::run(&world, &["redemption", "show", id, "--format", "json"]).await;
    for text in [
        "1: SUCCEEDED 1200 by maria: seen (page 4); 2: FAILED by maria: seen (page 4)",
        "\"resolution_number\":3",
    ] {
        assert!(shown.stdout.contains(text), "{shown:?}");
    }
}
