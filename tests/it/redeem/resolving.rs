//! `ResolveRedemption`: a person's outcome is compared with what is recorded.

use holdfast::{
    domain::{
        id::{PoolId, RedemptionId},
        money::{Currency, Money},
        principal::{Authority, Principal},
        redemption::{
            Outcome, Redemption, RedemptionState as Seen, Resolution, Settled, Settlement,
        },
    },
    rpc::pb::{self, RedemptionState},
    simulator::faults::{Fault, Faults},
};

use crate::{
    redeem::review::{left_for_review, resolve, word},
    support::world::{POOL, World, bad_fields, eur, lease},
};

#[tokio::test]
async fn resolve_refuses_to_contradict_the_recorded_credit_unless_told_that_the_record_is_wrong() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let (held, open) = left_for_review(&world, &mut clients, &world.code("typo")).await;
    let credited = open.amount.clone().unwrap();
    assert_eq!(credited, eur(1100), "the provider said so");
    let amount = |minor| pb::ResolveRedemptionRequest {
        amount: Some(eur(minor)),
        ..word(&open, RedemptionState::Succeeded)
    };
    for (printed, fields) in [
        (amount(100_000), &["amount"][..]),
        (amount(1101), &["amount"]),
        (word(&open, RedemptionState::Failed), &["state", "code_spent"]),
        (
            pb::ResolveRedemptionRequest {
                code_spent: true,
                ..word(&open, RedemptionState::Failed)
            },
            &["state"],
        ),
    ] {
        let error = resolve(&mut clients, printed).await.unwrap_err();
        assert_eq!(bad_fields(&error), fields);
        assert!(error.message().contains("the provider reported"), "{error:?}");
        assert!(error.message().contains("set recorded_amount_is_wrong"), "{error:?}");
    }
    assert_eq!(clients.redemption(&open.redemption_id).await, open, "nothing was recorded");
    let printed =
        pb::ResolveRedemptionRequest { recorded_amount_is_wrong: true, ..amount(100_000) };
    for _ in 0..2 {
        let closed = resolve(&mut clients, printed.clone()).await.unwrap();
        assert_eq!(closed.amount, Some(eur(100_000)));
    }
    clients.release(&held).await.unwrap();
}

#[tokio::test]
async fn resolve_refuses_an_amount_with_a_digit_too_many_where_no_credit_is_recorded() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let code = world.code("digit");
    // Credited, and neither the answer nor any look-up tells.
    let rules = Faults::of_card(&code, &[Fault::ErrorAfterApply]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let open = clients.redeem(&held, &code, |r| r.expected = Some(eur(1000))).await.unwrap();
    let open = open.redemption.unwrap();
    assert_eq!((&open.amount, &open.expected), (&None, &Some(eur(1000))));
    let amount = |minor| pb::ResolveRedemptionRequest {
        amount: Some(eur(minor)),
        ..word(&open, RedemptionState::Succeeded)
    };
    for minor in [10_000, 100] {
        let error = resolve(&mut clients, amount(minor)).await.unwrap_err();
        assert_eq!(bad_fields(&error), ["amount"]);
        assert!(error.message().contains("1000 EUR was expected"), "{error:?}");
    }
    let closed = resolve(&mut clients, amount(1000)).await.unwrap();
    assert_eq!(closed.state(), RedemptionState::Succeeded);
    clients.release(&held).await.unwrap();
}

#[tokio::test]
async fn resolve_records_nothing_about_a_redemption_that_has_changed_since() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let (held, open) = left_for_review(&world, &mut clients, &world.code("changed")).await;
    let (store, pool_id) = (world.store(), PoolId::parse(POOL).unwrap());
    let id = RedemptionId::parse(&open.redemption_id).unwrap();
    let redemption = store.get_redemption(&pool_id, id).await.unwrap().unwrap();
    let settlement = |seen| Settlement {
        redemption: Redemption { state: seen, ..redemption.clone() },
        outcome: Outcome::Succeeded {
            amount: Money { amount_minor: 1100, currency: Currency::parse("EUR").unwrap() },
            provider_ref: None,
        },
        attempts: 0,
        actor: "anna".into(),
        resolution: Some(Resolution {
            resolved_by: "anna".into(),
            principal: Principal::anonymous(),
            reason: "why".into(),
            evidence: None,
        }),
        by: Some(Authority::default()),
        hold: None,
        inferred: false,
    };
    // A person who saw it in doubt knows nothing of the credit that was recorded since.
    let then = store.settle(&pool_id, settlement(Seen::InDoubt));
    assert!(matches!(then.await.unwrap(), Settled::Already));
    assert_eq!(clients.redemption(&open.redemption_id).await, open);
    let now = store.settle(&pool_id, settlement(Seen::NeedsReview));
    assert!(matches!(now.await.unwrap(), Settled::Recorded { .. }));
    clients.release(&held).await.unwrap();
}

#[tokio::test]
async fn resolve_refuses_words_that_hold_the_code_of_any_redemption_of_the_pool() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let credited = world.code("credited");
    let other = lease(&clients.acquire(|r| r.holder = "other".into()).await.unwrap());
    clients.redeem(&other, &credited, |_| {}).await.unwrap();
    let (_held, open) = left_for_review(&world, &mut clients, &world.code("typo")).await;
    let halves = credited.split_at(credited.len() / 2);
    let in_parts = format!("{} {}", halves.0, halves.1).to_uppercase();
    for hidden in [credited.clone(), credited.to_lowercase(), in_parts, format!("({credited}),")] {
        let words = pb::ResolveRedemptionRequest {
            recorded_amount_is_wrong: true,
            reason: format!("it was seen beside {hidden} by support"),
            evidence: format!("ticket of {hidden}"),
            ..word(&open, RedemptionState::Failed)
        };
        let error = resolve(&mut clients, words).await.unwrap_err();
        assert_eq!(bad_fields(&error), ["reason", "evidence"], "{hidden}");
        assert!(!error.message().contains(&credited));
    }
    assert_eq!(clients.redemption(&open.redemption_id).await, open, "nothing was recorded");
}

#[tokio::test]
async fn reverse_refuses_words_that_hold_the_code_of_any_redemption_of_the_pool() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let (own, other) = (world.code("own"), world.code("other"));
    let mut redeemed = Vec::new();
    for code in [&own, &other] {
        let held = lease(&clients.acquire(|_| {}).await.unwrap());
        redeemed.push(clients.redeem(&held, code, |_| {}).await.unwrap().redemption.unwrap());
    }
    let word = |text: String| pb::ReverseRedemptionRequest {
        pool_id: POOL.into(),
        redemption_id: redeemed[0].redemption_id.clone(),
        reason: format!("it was seen beside {text} by support"),
        reversed_by: text.clone(),
        evidence: format!("ticket of {text}"),
        outcome: pb::ReversalOutcome::Reversed.into(),
    };
    for hidden in [&own, &other] {
        let refused = clients.redemptions.reverse_redemption(word(hidden.to_lowercase())).await;
        let error = refused.unwrap_err();
        assert_eq!(bad_fields(&error), ["reason", "reversed_by", "evidence"], "{hidden}");
        assert!(!error.message().contains(hidden.as_str()));
    }
    let (id, mut db) = (&redeemed[0].redemption_id, world.sql().await);
    let reversals: i64 =
        sqlx::query_scalar("SELECT count(*) FROM reversals").fetch_one(&mut db).await.unwrap();
    assert_eq!((reversals, clients.redemption(id).await), (0, redeemed[0].clone()));
    clients.redemptions.reverse_redemption(word("ticket 118".into())).await.unwrap();
}
