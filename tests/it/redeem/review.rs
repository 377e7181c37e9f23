//! Redemptions under review: people list and read them, and settle those that nothing else can.

use std::time::Duration;

use holdfast::{
    rpc::pb::{self, AccountStatus, RedemptionState},
    simulator::faults::{Fault, Faults},
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::{
    batch::{item, opening, run},
    wait::eventually,
    world::{Clients, POOL, World, bad_fields, eur, lease, metadata, reason},
};

async fn get(
    clients: &mut Clients,
    redemption_id: &str,
    request_id: &str,
) -> Result<pb::Redemption, Status> {
    let request = pb::GetRedemptionRequest {
        pool_id: POOL.into(),
        redemption_id: redemption_id.into(),
        request_id: request_id.into(),
    };
    Ok(clients.redemptions.get_redemption(request).await?.into_inner().redemption.unwrap())
}

/// Every redemption that fits, page by page.
async fn list(
    clients: &mut Clients,
    page_size: i32,
    change: impl Fn(&mut pb::ListRedemptionsRequest),
) -> Vec<pb::Redemption> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let mut request = pb::ListRedemptionsRequest {
            pool_id: POOL.into(),
            page_size,
            page_token,
            ..Default::default()
        };
        change(&mut request);
        let page = clients.redemptions.list_redemptions(request).await.unwrap().into_inner();
        all.extend(page.redemptions);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

pub(crate) fn word(
    redemption: &pb::Redemption,
    state: RedemptionState,
) -> pb::ResolveRedemptionRequest {
    pb::ResolveRedemptionRequest {
        pool_id: POOL.into(),
        redemption_id: redemption.redemption_id.clone(),
        state: state.into(),
        amount: (state == RedemptionState::Succeeded).then(|| eur(1000)),
        reason: "seen in the provider's own records".into(),
        resolved_by: "anna".into(),
        ..Default::default()
    }
}

pub(crate) async fn resolve(
    clients: &mut Clients,
    request: pb::ResolveRedemptionRequest,
) -> Result<pb::Redemption, Status> {
    Ok(clients.redemptions.resolve_redemption(request).await?.into_inner().redemption.unwrap())
}

/// Redeems a card under any lease, and meets the fault; the provider answers no look-up then.
pub(crate) async fn left_in_doubt(
    world: &World,
    clients: &mut Clients,
    code: &str,
    fault: Fault,
) -> (pb::LeaseRef, pb::Redemption) {
    let rules = Faults::of_card(code, &[fault]);
    world.set_faults(Faults { rules, lookup_error: 100.0, ..Faults::default() });
    let lease = lease(&clients.acquire(|_| {}).await.unwrap());
    let redeemed = clients.redeem(&lease, code, |_| {}).await.unwrap().redemption.unwrap();
    assert_eq!(redeemed.state(), RedemptionState::InDoubt, "{redeemed:?}");
    (lease, redeemed)
}

/// The same for a pool where a differing amount is for a person to look at.
pub(crate) async fn left_for_review(
    world: &World,
    clients: &mut Clients,
    code: &str,
) -> (pb::LeaseRef, pb::Redemption) {
    let policy = pb::AmountMismatchPolicy::NeedsReview.into();
    let pool =
        pb::Pool { pool_id: POOL.into(), amount_mismatch_policy: policy, ..Default::default() };
    let request = pb::UpdatePoolRequest { pool: Some(pool), update_mask: None };
    clients.pools.update_pool(request).await.unwrap();
    world.fault(code, &[Fault::WrongAmount]);
    let lease = lease(&clients.acquire(|_| {}).await.unwrap());
    let redeemed = clients.redeem(&lease, code, |r| r.expected = Some(eur(1000))).await.unwrap();
    let redemption = redeemed.redemption.unwrap();
    assert_eq!(redemption.state(), RedemptionState::NeedsReview, "{redemption:?}");
    (lease, redemption)
}

#[tokio::test]
async fn get_redemption_by_either_of_its_names() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let code = world.code("card");
    let redeemed = clients
        .redeem(&held, &code, |r| {
            r.request_id = "request".into();
            r.expected = Some(eur(1000));
            r.release_on_completion = true;
        })
        .await
        .unwrap()
        .redemption
        .unwrap();
    assert_eq!(redeemed.state(), RedemptionState::Succeeded);
    assert_eq!((&redeemed.expected, &redeemed.amount), (&Some(eur(1000)), &Some(eur(1000))));
    assert_eq!((redeemed.account_id.as_str(), redeemed.fencing_token), ("a", held.fencing_token));
    assert!(redeemed.finish_time.is_some() && redeemed.next_check_time.is_none());
    assert_eq!((redeemed.attempts, redeemed.failure.is_none()), (1, true));
    assert_eq!(get(&mut clients, &redeemed.redemption_id, "").await.unwrap(), redeemed);
    assert_eq!(get(&mut clients, "", "request").await.unwrap(), redeemed);

    run(&mut clients, opening("b"), &[item("i", &world.code("item"))]).await.unwrap();
    assert_eq!(get(&mut clients, "", "batch:b:i").await.unwrap().request_id, "batch:b:i");

    let id = uuid::Uuid::nil().to_string();
    for (redemption_id, request_id, name) in [(&*id, "", &*id), ("", "none", "none")] {
        let error = get(&mut clients, redemption_id, request_id).await.unwrap_err();
        assert_eq!((error.code(), &*reason(&error)), (Code::NotFound, "REDEMPTION_NOT_FOUND"));
        let details = error.get_error_details();
        assert_eq!(details.resource_info().unwrap().resource_name, name);
    }
}

#[tokio::test]
async fn list_redemptions_newest_first_by_state_account_and_batch() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(3).await;
    let only = |place: usize| pb::AccountSelector {
        account_id: format!("a-{place:03}"),
        ..Default::default()
    };
    let mut made = Vec::new();
    for n in 0..5 {
        let card = pb::BatchItem {
            selector: Some(only(n % 2)),
            ..item("i", &world.code(&format!("card-{n}")))
        };
        let batch_id = if n < 3 { format!("b.{n}") } else { format!("b-{n}") };
        let ended = run(&mut clients, opening(&batch_id), &[card]).await.unwrap();
        assert_eq!(ended.summary.succeeded, 1);
        made.insert(0, format!("batch:{batch_id}:i"));
    }
    let doubtful = world.code("doubt");
    let (_, open) = left_in_doubt(&world, &mut clients, &doubtful, Fault::DropBeforeApply).await;
    made.insert(0, open.request_id.clone());

    let names = |redemptions: Vec<pb::Redemption>| -> Vec<String> {
        redemptions.into_iter().map(|redemption| redemption.request_id).collect()
    };
    for page_size in [1, 2, 4, 6, 100] {
        assert_eq!(names(list(&mut clients, page_size, |_| {}).await), made, "{page_size} a page");
    }
    let succeeded = |r: &mut pb::ListRedemptionsRequest| {
        r.states = vec![RedemptionState::Succeeded.into(), RedemptionState::Failed.into()];
    };
    assert_eq!(names(list(&mut clients, 2, succeeded).await), made[1..]);
    let in_doubt = |r: &mut pb::ListRedemptionsRequest| {
        r.states = vec![RedemptionState::InDoubt.into()];
    };
    assert_eq!(names(list(&mut clients, 2, in_doubt).await), made[..1]);
    let failed =
        |r: &mut pb::ListRedemptionsRequest| r.states = vec![RedemptionState::Failed.into()];
    assert!(list(&mut clients, 2, failed).await.is_empty());
    let mut of_account = list(&mut clients, 2, |r| r.account_id = "a-001".into()).await;
    of_account.retain(|redemption| redemption.redemption_id != open.redemption_id);
    assert_eq!(names(of_account), ["batch:b-3:i", "batch:b.1:i"]);
    let of_batch = list(&mut clients, 2, |r| r.batch_id = "b.1".into()).await;
    assert_eq!(names(of_batch), ["batch:b.1:i"]);
    assert!(list(&mut clients, 2, |r| r.batch_id = "b".into()).await.is_empty());
}

#[tokio::test]
async fn resolve_closes_a_redemption_in_doubt_as_credited() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let code = world.code("doubt");
    let (lease, open) = left_in_doubt(&world, &mut clients, &code, Fault::ErrorAfterApply).await;
    let account = clients.release(&lease).await.unwrap();
    assert_eq!(account.status(), AccountStatus::Locking, "until it is known");
    assert_eq!(account.open_redemption_id, open.redemption_id);
    assert!(open.next_check_time.is_some() && open.finish_time.is_none());

    let printed = pb::ResolveRedemptionRequest {
        provider_ref: "their name".into(),
        evidence: "their record sim-7, ticket 12".into(),
        ..word(&open, RedemptionState::Succeeded)
    };
    let closed = resolve(&mut clients, printed.clone()).await.unwrap();
    assert_eq!(closed.state(), RedemptionState::Succeeded);
    assert_eq!((&closed.amount, &*closed.provider_ref), (&Some(eur(1000)), "their name"));
    assert!(closed.finish_time.is_some() && closed.next_check_time.is_none());
    let resolution = closed.resolution.clone().unwrap();
    let expected = pb::Resolution {
        resolved_by: printed.resolved_by.clone(),
        reason: printed.reason.clone(),
        evidence: printed.evidence.clone(),
        principal: String::new(),
        number: 1,
    };
    assert_eq!(resolution, expected);
    let account = clients.account("a").await;
    assert_eq!(account.status(), AccountStatus::Processing);
    assert_eq!((account.balance, account.lease), (Some(eur(1000)), None));
    let event = clients.events("a").await.remove(0);
    assert_eq!((&*event.actor, &*event.redemption_id), ("anna", &*closed.redemption_id));

    let again = pb::ResolveRedemptionRequest { reason: "another day".into(), ..printed.clone() };
    assert_eq!(resolve(&mut clients, again).await.unwrap(), closed, "the first word is kept");
    let again = pb::ResolveRedemptionRequest { evidence: "another".into(), ..printed.clone() };
    assert_eq!(resolve(&mut clients, again).await.unwrap(), closed, "and so is the first evidence");
    let other_amount = pb::ResolveRedemptionRequest { amount: Some(eur(999)), ..printed };
    for other in [other_amount, word(&open, RedemptionState::Failed)] {
        let error = resolve(&mut clients, other).await.unwrap_err();
        let why = (error.code(), &*reason(&error));
        assert_eq!(why, (Code::AlreadyExists, "REDEMPTION_ALREADY_SETTLED"));
        assert_eq!(metadata(&error, "state"), "SUCCEEDED");
    }
    assert_eq!(clients.redemption(&closed.redemption_id).await, closed);
    assert_eq!(clients.account("a").await.balance, Some(eur(1000)), "credited once");
}

#[tokio::test]
async fn resolve_closes_a_redemption_in_doubt_as_failed() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let code = world.code("doubt");
    let (held, open) = left_in_doubt(&world, &mut clients, &code, Fault::DropBeforeApply).await;

    let printed = word(&open, RedemptionState::Failed);
    let closed = resolve(&mut clients, printed.clone()).await.unwrap();
    assert_eq!((closed.state(), &closed.amount), (RedemptionState::Failed, &None));
    let failure = closed.failure.clone().unwrap();
    assert_eq!((&*failure.reason, failure.code_spent), ("RESOLVED_AS_FAILED", false));
    assert_eq!(closed.resolution.clone().unwrap().evidence, "", "a client need not name any");
    assert_eq!(resolve(&mut clients, printed.clone()).await.unwrap(), closed);
    let spent = pb::ResolveRedemptionRequest { code_spent: true, ..printed };
    for other in [spent, word(&open, RedemptionState::Succeeded)] {
        let error = resolve(&mut clients, other).await.unwrap_err();
        assert_eq!(reason(&error), "REDEMPTION_ALREADY_SETTLED");
    }
    let released = clients.release(&held).await.unwrap();
    assert_eq!((released.status(), released.balance), (AccountStatus::Waiting, Some(eur(0))));

    world.set_faults(Faults::default());
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let again = clients.redeem(&held, &code, |r| r.request_id = "again".into()).await.unwrap();
    assert_eq!(again.redemption.unwrap().state(), RedemptionState::Succeeded, "not spent");
    clients.release(&held).await.unwrap();
}

#[tokio::test]
async fn a_differing_amount_waits_for_a_person_where_the_pool_says_so() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let (held, open) = left_for_review(&world, &mut clients, &world.code("taken")).await;
    let credited = open.amount.clone().unwrap();
    assert_ne!(credited, eur(1000));
    assert_eq!(
        (open.failure.clone().unwrap().reason, open.amount_mismatch),
        ("AMOUNT_MISMATCH".into(), true)
    );
    assert_eq!(clients.account("a").await.balance, Some(eur(0)), "not before it is decided");
    let busy = clients.redeem(&held, &world.code("next"), |_| {}).await.unwrap_err();
    assert_eq!((busy.code(), &*reason(&busy)), (Code::FailedPrecondition, "REDEMPTION_OPEN"));

    let dollars = pb::Money { amount_minor: 1000, currency_code: "USD".into() };
    let printed = pb::ResolveRedemptionRequest {
        amount: Some(dollars),
        ..word(&open, RedemptionState::Succeeded)
    };
    let error = resolve(&mut clients, printed.clone()).await.unwrap_err();
    assert_eq!(bad_fields(&error), ["amount.currency_code"]);
    let printed = pb::ResolveRedemptionRequest { amount: Some(credited.clone()), ..printed };
    let closed = resolve(&mut clients, printed).await.unwrap();
    assert_eq!((closed.expected, &closed.amount), (Some(eur(1000)), &Some(credited.clone())));
    assert!(closed.amount_mismatch && closed.failure.is_none());
    let released = clients.release(&held).await.unwrap();
    assert_eq!(
        (released.status(), released.balance),
        (AccountStatus::Processing, Some(credited.clone()))
    );

    let (held, open) = left_for_review(&world, &mut clients, &world.code("refused")).await;
    let printed = pb::ResolveRedemptionRequest {
        code_spent: true,
        recorded_amount_is_wrong: true,
        ..word(&open, RedemptionState::Failed)
    };
    let closed = resolve(&mut clients, printed).await.unwrap();
    assert_eq!(closed.state(), RedemptionState::Failed);
    assert!(closed.failure.unwrap().code_spent);
    let released = clients.release(&held).await.unwrap();
    assert_eq!((released.status(), released.balance), (AccountStatus::Processing, Some(credited)));
}

#[tokio::test]
async fn resolve_refuses_a_redemption_that_a_server_is_at_work_on() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    world.set_faults(Faults { latency: "1s".parse().unwrap(), ..Faults::default() });
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    let redeeming = tokio::spawn({
        let (mut clients, code) = (clients.clone(), world.code("slow"));
        async move { clients.redeem(&held, &code, |r| r.release_on_completion = true).await }
    });
    let open = eventually(Duration::from_secs(10), "it is submitted", async || {
        list(&mut clients, 1, |_| {}).await.pop()
    })
    .await;
    assert_eq!(open.state(), RedemptionState::Submitted);
    let error = resolve(&mut clients, word(&open, RedemptionState::Failed)).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::FailedPrecondition, "REDEMPTION_OPEN"));
    assert_eq!(metadata(&error, "redemption_id"), open.redemption_id);
    let redeemed = redeeming.await.unwrap().unwrap().redemption.unwrap();
    assert_eq!(redeemed.state(), RedemptionState::Succeeded);

    let settled = resolve(&mut clients, word(&redeemed, RedemptionState::Succeeded)).await.unwrap();
    assert_eq!(
        (settled.resolution, settled.provider_ref),
        (None, redeemed.provider_ref),
        "as it was"
    );
    let unknown = pb::Redemption { redemption_id: uuid::Uuid::nil().to_string(), ..open };
    let error = resolve(&mut clients, word(&unknown, RedemptionState::Failed)).await.unwrap_err();
    assert_eq!((error.code(), &*reason(&error)), (Code::NotFound, "REDEMPTION_NOT_FOUND"));
}

#[tokio::test]
async fn resolve_refuses_texts_that_hold_the_cards_code_and_keeps_nothing_of_them() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("a", |_| {}).await;
    let code = world.code("WRITTEN-DOWN");
    let (held, open) = left_in_doubt(&world, &mut clients, &code, Fault::ErrorAfterApply).await;
    let written =
        [code.clone(), code.to_lowercase(), code.replace('-', " "), code.replace('-', "")];
    let printed = word(&open, RedemptionState::Succeeded);
    for code in written {
        let text = format!("the card {code} is on their list");
        let word = pb::ResolveRedemptionRequest {
            reason: text.clone(),
            resolved_by: text.clone(),
            evidence: text.clone(),
            provider_ref: text,
            ..printed.clone()
        };
        let error = resolve(&mut clients, word).await.unwrap_err();
        assert_eq!(bad_fields(&error), ["reason", "resolved_by", "evidence", "provider_ref"]);
        assert!(!error.message().contains(&code), "{error:?}");
    }
    assert_eq!(clients.redemption(&open.redemption_id).await.state(), RedemptionState::InDoubt);
    resolve(&mut clients, printed).await.unwrap();
    clients.release(&held).await.unwrap();
}

#[tokio::test]
async fn list_redemptions_by_the_databases_time_of_their_record() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let mut made = Vec::new();
    for n in 0..3 {
        let held = lease(&clients.acquire(|_| {}).await.unwrap());
        let code = world.code(&format!("card-{n}"));
        let redeemed = clients.redeem(&held, &code, |r| r.release_on_completion = true).await;
        made.insert(0, redeemed.unwrap().redemption.unwrap());
    }
    // Ids are made by the server's clock, which may be off: the database's time is what counts.
    let mut db = world.sql().await;
    let moved = uuid::Uuid::parse_str(&made[2].redemption_id).unwrap();
    sqlx::query(
        "UPDATE redemptions SET created_at = created_at - interval '23 hours'
         WHERE redemption_id = $1",
    )
    .bind(moved)
    .execute(&mut db)
    .await
    .unwrap();
    made[2] = clients.redemption(&made[2].redemption_id).await;
    let at = |place: usize| made[place].create_time;
    let just_after = |place: usize| {
        let mut time = at(place).unwrap();
        time.nanos += 1000;
        Some(time)
    };
    for (from, to, expected) in [
        (None, None, &made[..]),
        (at(1), None, &made[..2]),
        (just_after(1), None, &made[..1]),
        (None, at(1), &made[2..]),
        (None, just_after(1), &made[1..]),
        (at(2), at(0), &made[1..]),
        (at(1), just_after(1), &made[1..2]),
        (just_after(0), None, &[]),
    ] {
        for page_size in [1, 100] {
            let found = list(&mut clients, page_size, |request| {
                (request.create_time_from, request.create_time_to) = (from, to);
            });
            assert_eq!(found.await, expected, "from {from:?} to {to:?}");
        }
    }
}
