//! Changes of plans: what they do to accounts, and to leases that are out meanwhile.

use std::time::Duration;

use holdfast::{
    domain::id::{PlanId, PoolId},
    rpc::pb::{self, AccountStatus::*, plan::Denominations},
    simulator::faults::{Faults, Latency},
};

use crate::support::{
    plans::{CARD, elapsed, minor, psql, retry_after, why},
    wait::eventually,
    world::{Clients, POOL, World, bad_fields, eur, lease, reason, seconds},
};

const LIMIT: Duration = Duration::from_secs(10);

fn on_plan(account: &mut pb::Account) {
    account.plan_id = "plan".to_owned();
}

fn days(plan: &mut pb::Plan, amounts: &[i64]) {
    plan.day_amounts = amounts.iter().map(|amount| eur(*amount)).collect();
}

/// Where an account is in its plan, and whether it rests.
async fn stands(clients: &mut Clients) -> (pb::AccountStatus, i32, i64, bool) {
    let account = clients.account("a").await;
    let credited = minor(account.day_credited.as_ref());
    (account.status(), account.plan_day, credited, account.available_time.is_some())
}

async fn target(clients: &mut Clients, target_minor: i64) {
    clients.update_plan("plan", &[], |plan| plan.target = Some(eur(target_minor))).await.unwrap();
}

/// The account under a lease, with a card in it: PROCESSING once it ends.
async fn under_a_lease(world: &World, clients: &mut Clients) -> pb::LeaseRef {
    let held = lease(&clients.acquire(|_| {}).await.unwrap());
    clients.redeem(&held, &world.code("first"), |_| {}).await.unwrap();
    held
}

async fn world_with_days(amounts: &[i64]) -> (World, Clients) {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_plan_with("plan", 9 * CARD, |plan| days(plan, amounts)).await;
    clients.create_account("a", on_plan).await;
    (world, clients)
}

#[tokio::test]
async fn a_target_counts_from_the_next_redemption_on_and_completes_nothing_by_itself() {
    let (world, mut clients) = world_with_days(&[]).await;
    let held = under_a_lease(&world, &mut clients).await;
    // Raised: more is taken. Lowered to what is there: nothing is, and the status is kept.
    target(&mut clients, 20 * CARD).await;
    let code = world.code("refused");
    let too_much = clients.redeem(&held, &code, |r| r.expected = Some(eur(19 * CARD + 1))).await;
    assert_eq!(why(&too_much.unwrap_err()).1, "too_full");
    target(&mut clients, CARD).await;
    let error = clients.redeem(&held, &code, |_| {}).await.unwrap_err();
    assert_eq!(why(&error), ("AMOUNT_DOES_NOT_FIT".to_owned(), "too_full".to_owned()));
    let released = clients.release(&held).await.unwrap();
    assert_eq!(released.status(), Processing, "what was recorded at its settlement");
    clients.passed_over(CARD, &[("too_full", 1)]).await;
    target(&mut clients, 2 * CARD).await;
    clients.fill(&world.code("second")).await;
    assert_eq!(stands(&mut clients).await.0, Completed);
    target(&mut clients, 3 * CARD).await;
    reopened(&mut clients, "a").await;
    assert_eq!(stands(&mut clients).await.0, Processing);
    clients.fill(&world.code("third")).await;
    assert_eq!(stands(&mut clients).await.0, Completed);
    // Raised by nothing, and lowered: nothing is reopened for that.
    target(&mut clients, 2 * CARD).await;
    clients.passed_over(CARD, &[("completed", 1)]).await;
}

/// Waits until an account's history says last that it was reopened, by the sweeper.
async fn reopened(clients: &mut Clients, account_id: &str) {
    // Left out first, an account is tried again after ten seconds.
    eventually(6 * LIMIT, "it is reopened", async || {
        let request = pb::ListAccountEventsRequest {
            pool_id: POOL.into(),
            account_id: account_id.into(),
            page_size: 1,
            ..Default::default()
        };
        let page = clients.accounts.list_account_events(request).await.unwrap().into_inner();
        let event = &page.account_events[0];
        (event.reason == "reopened").then(|| assert_eq!(event.actor, "sweeper"))
    })
    .await;
}

#[tokio::test]
async fn completed_accounts_are_reopened_by_any_server_and_one_that_cannot_be_written_harms_itself_alone()
 {
    let world = World::with(|_| {}, 2).await;
    let mut clients = world.clients(0).await;
    clients.create_plan_with("plan", 9 * CARD, |_| {}).await;
    let full = |account: &mut pb::Account| {
        account.plan_id = "plan".into();
        account.balance = Some(eur(9 * CARD));
    };
    for n in 0..5 {
        clients.create_account(&format!("full-{n}"), full).await;
    }
    clients
        .create_account("more", |account| {
            account.plan_id = "plan".into();
            account.balance = Some(eur(20 * CARD));
        })
        .await;
    // By hand, as after a crash: the rows are all that says what is to be done.
    let mut db = world.sql().await;
    psql(
        &mut db,
        "CREATE FUNCTION refuse_one() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF NEW.account_id = 'full-2' AND NEW.status <> 'COMPLETED' THEN
                 RAISE check_violation USING MESSAGE = 'not this one';
             END IF;
             RETURN NEW;
         END $$",
    )
    .await;
    let trigger = "CREATE TRIGGER refuse_one BEFORE UPDATE ON accounts FOR EACH ROW EXECUTE FUNCTION refuse_one()";
    psql(&mut db, trigger).await;
    target(&mut clients, 10 * CARD).await;
    for n in [0, 1, 3, 4] {
        reopened(&mut clients, &format!("full-{n}")).await;
    }
    // Each server has it among those that it hands out.
    for (n, server) in [(0, 0), (1, 1)] {
        let mut there = world.clients(server).await;
        let acquired = there.acquire(|r| {
            r.selector.get_or_insert_default().account_id = format!("full-{n}");
            r.wait_timeout = seconds(20.0);
        });
        let account = acquired.await.unwrap().account.unwrap();
        assert_eq!(account.account_id, format!("full-{n}"));
    }
    for still in ["full-2", "more"] {
        assert_eq!(clients.account(still).await.status(), Completed, "{still}");
    }
    psql(&mut db, "DROP TRIGGER refuse_one ON accounts").await;
    reopened(&mut clients, "full-2").await;
    assert_eq!(clients.account("more").await.status(), Completed);
}

#[tokio::test]
async fn a_redemption_that_is_under_way_settles_by_the_terms_of_then() {
    for (name, change, after) in [
        (
            "lowered",
            Box::new(|plan: &mut pb::Plan| plan.target = Some(eur(CARD))) as Change,
            (Completed, 1, CARD, false),
        ),
        ("days came", Box::new(|plan| days(plan, &[CARD, CARD])), (Waiting, 2, 0, true)),
        (
            "it is to cool down",
            Box::new(|plan| plan.redemption_interval = seconds(60.0)),
            (Processing, 1, CARD, true),
        ),
        (
            "what it takes",
            Box::new(|plan| {
                plan.denominations = Some(Denominations::MultiplesOf(eur(300)));
            }),
            (Processing, 1, CARD, false),
        ),
    ] {
        let (world, mut clients) = world_with_days(&[]).await;
        let time = Duration::from_millis(400);
        let latency = Latency { min: time, max: time };
        world.set_faults(Faults { latency, ..Faults::default() });
        let (mut other, code) = (clients.clone(), world.code("first"));
        let filling = tokio::spawn(async move { other.fill(&code).await });
        eventually(LIMIT, "it is begun", async || {
            (!clients.account("a").await.open_redemption_id.is_empty()).then_some(())
        })
        .await;
        clients.update_plan("plan", &[], change).await.unwrap();
        filling.await.unwrap();
        assert_eq!(stands(&mut clients).await, after, "{name}");
    }
}

#[tokio::test]
async fn a_day_that_a_change_has_filled_ends_at_once_or_when_the_lease_has() {
    let (mut world, mut clients) = world_with_days(&[2 * CARD, CARD]).await;
    let held = under_a_lease(&world, &mut clients).await;
    let shorter = |plan: &mut pb::Plan| {
        days(plan, &[CARD, CARD]);
        plan.day_interval = seconds(7200.0);
    };
    clients.update_plan("plan", &[], shorter).await.unwrap();
    assert_eq!(stands(&mut clients).await, (Locking, 1, CARD, false), "the lease goes on");
    let code = world.code("more");
    let error = clients.redeem(&held, &code, |r| r.expected = Some(eur(CARD))).await.unwrap_err();
    assert_eq!(why(&error).1, "day_full");
    clients.release(&held).await.unwrap();
    // The sweeper looks now and then, and when its server starts.
    world.start_server().await;
    eventually(LIMIT, "the sweeper ends the day", async || {
        (stands(&mut clients).await == (Waiting, 2, 0, true)).then_some(())
    })
    .await;
    let (event, now) = (clients.events("a").await.remove(0), clients.account("a").await);
    assert_eq!((&*event.actor, &*event.reason), ("sweeper", "day_ended"));
    let due = now.available_time.unwrap().seconds - now.update_time.unwrap().seconds;
    assert_eq!(due, 7200, "the interval of now");

    // The same while nobody has it: the day is over when the change has been made.
    psql(&mut world.sql().await, "UPDATE accounts SET day_due_at = NULL").await;
    clients.update_plan("plan", &[], |plan| days(plan, &[CARD, 5 * CARD, CARD])).await.unwrap();
    clients.fill(&code).await;
    assert_eq!(stands(&mut clients).await, (Processing, 2, CARD, false));
    clients.update_plan("plan", &[], |plan| days(plan, &[CARD, CARD, CARD])).await.unwrap();
    assert_eq!(stands(&mut clients).await, (Waiting, 3, 0, true));
    assert_eq!(clients.events("a").await[0].actor, "api");
}

#[tokio::test]
async fn fewer_days_or_none_make_the_present_one_the_last_and_a_day_that_is_awaited_stays_so() {
    let (world, mut clients) = world_with_days(&[CARD, CARD, CARD]).await;
    clients.fill(&world.code("first")).await;
    assert_eq!(stands(&mut clients).await, (Waiting, 2, 0, true));
    clients.update_plan("plan", &["day_amounts"], |_| {}).await.unwrap();
    assert_eq!(stands(&mut clients).await, (Waiting, 2, 0, true), "it is awaited all the same");
    clients.passed_over(8 * CARD, &[("next_day", 1)]).await;
    psql(&mut world.sql().await, "UPDATE accounts SET day_due_at = NULL").await;
    let held = clients.acquire_for(8 * CARD).await.unwrap();
    clients.release(&held).await.unwrap();
    // Days that are longer again: it is on the second of them.
    clients.update_plan("plan", &[], |plan| days(plan, &[CARD, 2 * CARD, CARD])).await.unwrap();
    clients.passed_over(2 * CARD + 1, &[("day_full", 1)]).await;
    clients.fill(&world.code("second")).await;
    assert_eq!(stands(&mut clients).await, (Processing, 2, CARD, false));
}

#[tokio::test]
async fn a_day_that_takes_nothing_from_its_beginning_is_passed_over() {
    let (mut world, mut clients) = world_with_days(&[CARD, 10, CARD]).await;
    let multiples = |plan: &mut pb::Plan| {
        plan.denominations = Some(Denominations::MultiplesOf(eur(CARD)));
    };
    clients.update_plan("plan", &[], multiples).await.unwrap();
    clients.fill(&world.code("first")).await;
    assert_eq!(stands(&mut clients).await, (Waiting, 2, 0, true));
    // Long after the change.
    psql(&mut world.sql().await, "UPDATE plans SET updated_at = now() - interval '9 days'").await;
    // One day, one interval: it does not end before it is due.
    let store = world.store();
    let names = (PoolId::parse("pool").unwrap(), PlanId::parse("plan").unwrap());
    assert_eq!(store.advance_days(&names.0, &names.1, 100, "test", "").await.unwrap().0, 0);
    psql(&mut world.sql().await, "UPDATE accounts SET day_due_at = now()").await;
    world.start_server().await;
    eventually(LIMIT, "the day is passed over", async || {
        (stands(&mut clients).await == (Waiting, 3, 0, true)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn other_denominations_count_for_the_next_redemption_also_under_a_lease() {
    let (world, mut clients) = world_with_days(&[]).await;
    let held = clients.acquire_for(CARD).await.unwrap();
    let takes = |amount: i64| {
        move |plan: &mut pb::Plan| {
            plan.denominations = Some(Denominations::MultiplesOf(eur(amount)));
        }
    };
    clients.update_plan("plan", &[], takes(3 * CARD)).await.unwrap();
    let code = world.code("first");
    let error = clients.redeem(&held, &code, |r| r.expected = Some(eur(CARD))).await.unwrap_err();
    assert_eq!(why(&error), ("AMOUNT_DOES_NOT_FIT".to_owned(), "denomination".to_owned()));
    assert_eq!(minor(clients.account("a").await.reserved.as_ref()), CARD);
    clients.update_plan("plan", &["denominations"], |_| {}).await.unwrap();
    clients.redeem(&held, &code, |r| r.expected = Some(eur(CARD))).await.unwrap();
    clients.release(&held).await.unwrap();
    clients.update_plan("plan", &[], takes(3 * CARD)).await.unwrap();
    clients.passed_over(CARD, &[("denomination", 1)]).await;
    // 8000 are left, which such cards cannot fill.
    clients.passed_over(3 * CARD, &[("remainder", 1)]).await;
}

#[tokio::test]
async fn intervals_count_from_the_next_settlement_on() {
    let (world, mut clients) = world_with_days(&[CARD, 2 * CARD]).await;
    let change = |day: f64, pause: f64| {
        move |plan: &mut pb::Plan| {
            plan.day_interval = seconds(day);
            plan.redemption_interval = seconds(pause);
        }
    };
    let held = under_a_lease(&world, &mut clients).await;
    clients.update_plan("plan", &[], change(60.0, 30.0)).await.unwrap();
    let error = clients.redeem(&held, &world.code("next"), |_| {}).await.unwrap_err();
    assert_eq!(why(&error).1, "next_day");
    assert!(retry_after(&error) > Duration::from_secs(80_000), "the day that was awaited before");
    psql(&mut world.sql().await, "UPDATE accounts SET day_due_at = now()").await;
    clients.redeem(&held, &world.code("next"), |_| {}).await.unwrap();
    let error = clients.redeem(&held, &world.code("last"), |_| {}).await.unwrap_err();
    assert_eq!(why(&error).1, "cooldown");
    assert!(retry_after(&error) <= Duration::from_secs(30));
    clients.update_plan("plan", &[], change(60.0, 0.0)).await.unwrap();
    let error = clients.redeem(&held, &world.code("last"), |_| {}).await.unwrap_err();
    assert_eq!(why(&error).1, "cooldown", "what is on the account is not taken off it");
}

#[tokio::test]
async fn another_plan_is_begun_on_its_first_day_with_the_balance_that_is_there() {
    let (world, mut clients) = world_with_days(&[CARD, CARD]).await;
    clients.create_plan("small", CARD).await;
    clients.create_plan("great", 99 * CARD).await;
    clients.create_plan_with("daily", 99 * CARD, |plan| days(plan, &[CARD, CARD])).await;
    let give = async |clients: &mut Clients, plan_id: &str| {
        let plan_id = plan_id.to_owned();
        clients.update_account("a", &["plan_id"], |account| account.plan_id = plan_id).await
    };
    let held = under_a_lease(&world, &mut clients).await;
    for plan_id in ["small", "", "plan"] {
        let error = give(&mut clients, plan_id).await.unwrap_err();
        assert_eq!(reason(&error), "ACCOUNT_LOCKED", "{plan_id}");
    }
    clients.release(&held).await.unwrap();
    assert_eq!(stands(&mut clients).await, (Waiting, 2, 0, true));
    // In this order; the balance is one card.
    for (plan_id, after) in [
        ("plan", (Waiting, 2, 0, true)),
        ("great", (Waiting, 1, 0, false)),
        ("small", (Completed, 1, 0, false)),
        ("daily", (Waiting, 1, 0, false)),
        ("small", (Completed, 1, 0, false)),
        ("", (Waiting, 1, 0, false)),
    ] {
        let account = give(&mut clients, plan_id).await.unwrap();
        assert_eq!(account.plan_id, plan_id);
        assert_eq!(stands(&mut clients).await, after, "{plan_id}");
    }
    let error = give(&mut clients, "none").await.unwrap_err();
    assert_eq!(reason(&error), "PLAN_NOT_FOUND");
    give(&mut clients, "great").await.unwrap();
    clients.fill(&world.code("second")).await;
    give(&mut clients, "daily").await.unwrap();
    assert_eq!(stands(&mut clients).await, (Processing, 1, 0, false), "what it was goes on");
}

#[tokio::test]
async fn an_update_changes_what_is_set_or_named_and_nothing_else() {
    let (_world, mut clients) = world_with_days(&[CARD, CARD]).await;
    let before = clients.update_plan("plan", &["day_tolerance"], |plan| {
        plan.day_tolerance = Some(eur(7));
        plan.target = Some(eur(1));
    });
    let before = before.await.unwrap();
    assert_eq!(before.target, Some(eur(9 * CARD)), "set, and not named");
    assert_eq!(before.day_tolerance, Some(eur(7)));
    let set = |plan: &mut pb::Plan| {
        plan.denominations = Some(Denominations::MultiplesOf(eur(100)));
        plan.day_interval = seconds(1.5);
    };
    let plan = clients.update_plan("plan", &[], set).await.unwrap();
    assert_eq!(plan.denominations, Some(Denominations::MultiplesOf(eur(100))));
    assert_eq!(elapsed(plan.day_interval.as_ref()), Duration::from_millis(1500));
    assert_eq!((plan.day_amounts, plan.day_tolerance), (before.day_amounts, Some(eur(7))));
    let all =
        ["day_amounts", "day_tolerance", "day_interval", "redemption_interval", "denominations"];
    let cleared = clients.update_plan("plan", &all, |_| {}).await.unwrap();
    assert_eq!(minor(cleared.day_tolerance.as_ref()), 0);
    assert_eq!(elapsed(cleared.day_interval.as_ref()), Duration::from_secs(86_400));
    assert!(cleared.day_amounts.is_empty());
    for (paths, field) in [(["target"], "plan.target"), (["plan_id"], "update_mask")] {
        let error = clients.update_plan("plan", &paths, |_| {}).await.unwrap_err();
        assert_eq!(bad_fields(&error), [field]);
    }
    let error = clients.update_plan("plan", &[], |p| days(p, &[8 * CARD, 2 * CARD])).await;
    assert_eq!(bad_fields(&error.unwrap_err()), ["plan.day_amounts"], "with what is there already");
    let error = clients.update_plan("nobody", &[], |p| p.target = Some(eur(1))).await.unwrap_err();
    assert_eq!(reason(&error), "PLAN_NOT_FOUND");
}

type Change = Box<dyn FnOnce(&mut pb::Plan) + Send>;

#[tokio::test]
async fn of_changes_that_come_at_once_none_is_lost() {
    let (_world, mut clients) = world_with_days(&[]).await;
    for round in 1..=5_i64 {
        let n = i32::try_from(round).unwrap();
        let changes: [Change; 4] = [
            Box::new(move |plan| plan.target = Some(eur(20 * CARD + round))),
            Box::new(move |plan| days(plan, &[CARD + round, CARD])),
            Box::new(move |plan| plan.day_tolerance = Some(eur(round))),
            Box::new(move |plan| plan.redemption_interval = seconds(f64::from(n))),
        ];
        let updates = changes.map(|change| {
            let mut clients = clients.clone();
            tokio::spawn(async move { clients.update_plan("plan", &[], change).await })
        });
        for update in updates {
            update.await.unwrap().unwrap();
        }
        let plan = clients.update_plan("plan", &[], |_| {}).await.unwrap();
        assert_eq!(plan.target, Some(eur(20 * CARD + round)));
        assert_eq!(plan.day_amounts, [eur(CARD + round), eur(CARD)]);
        assert_eq!(plan.day_tolerance, Some(eur(round)));
        assert_eq!(plan.redemption_interval, seconds(f64::from(n)));
    }
}
