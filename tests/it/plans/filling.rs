//! Many callers fill the accounts of plans at once, over two servers and a provider that goes wrong.
//! Whatever happens, no account gets more than its plan and its days want, by the provider's ledger.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast::{
    rpc::pb::{self, RedemptionState, plan::Denominations},
    simulator::{
        faults::Faults,
        ledger::{self, State},
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::{Connection as _, PgConnection, Row as _};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tonic::Status;

use crate::support::{
    batch::{Session, begun, item, opening, refusal},
    checks,
    fleet::{Able, Fleet, Setup},
    world::{Clients, INVALID_ACCOUNT, POOL, eur, lease, reason, seconds},
};

const CALLERS: usize = 64;
/// As many cards as nobody gets through.
const CARDS: usize = 12_000;
const BATCH_ITEMS: usize = 150;
/// How many accounts each plan has, and how many have none.
const ACCOUNTS: usize = 40;
/// Between two redemptions on one account.
const REDEMPTION_INTERVAL: Duration = Duration::from_millis(120);
/// Between two days.
const DAY_INTERVAL: Duration = Duration::from_millis(400);

/// A plan, in few words.
struct Plan {
    id: &'static str,
    target: i64,
    days: &'static [i64],
    tolerance: i64,
    denominations: Denominations,
    takes: fn(i64) -> bool,
}

fn plans() -> [Plan; 4] {
    let fixed = |amounts: &[i64]| {
        let amounts = amounts.iter().copied().map(eur).collect();
        Denominations::FixedAmounts(pb::FixedAmounts { amounts })
    };
    [
        Plan {
            id: "days",
            target: 300,
            days: &[80, 100, 120],
            tolerance: 20,
            denominations: fixed(&[20, 30, 50]),
            takes: |card| [20, 30, 50].contains(&card),
        },
        Plan {
            id: "gaps",
            target: 240,
            days: &[],
            tolerance: 0,
            denominations: fixed(&[30, 50]),
            takes: |card| [30, 50].contains(&card),
        },
        Plan {
            id: "tens",
            target: 200,
            days: &[60, 60, 70],
            tolerance: 0,
            denominations: Denominations::MultiplesOf(eur(10)),
            takes: |card| card % 10 == 0,
        },
        Plan {
            id: "range",
            target: 180,
            days: &[50, 60],
            tolerance: 10,
            denominations: Denominations::AmountRange(pb::AmountRange {
                min: Some(eur(15)),
                max: Some(eur(40)),
            }),
            takes: |card| (15..=40).contains(&card),
        },
    ]
}

impl Plan {
    /// Whether cards add up to an amount, by trying.
    fn can_be_filled(&self, amount: i64) -> bool {
        let mut reached = vec![true];
        for sum in 1..=amount {
            let card =
                |card: &i64| (self.takes)(*card) && reached[usize::try_from(sum - card).unwrap()];
            let fills = (1..=sum).any(|amount| card(&amount));
            reached.push(fills);
        }
        usize::try_from(amount).is_ok_and(|amount| reached[amount])
    }
}

/// Amounts that some plan or other takes.
const AMOUNTS: [i64; 9] = [10, 15, 17, 20, 20, 30, 30, 40, 50];

#[derive(Clone, Debug)]
struct Card {
    code: String,
    amount: i64,
}

/// One in twenty is spent already.
fn cards(random: &mut StdRng) -> (Vec<Card>, String) {
    let mut file = "code,amount_minor,state\n".to_owned();
    let mut cards = Vec::new();
    for n in 0..CARDS {
        let amount = AMOUNTS[random.random_range(0..AMOUNTS.len())];
        let state = if n % 20 == 7 { "used" } else { "fresh" };
        let code = format!("FLCARD-{n:06}");
        writeln!(file, "{code},{amount},{state}").unwrap();
        cards.push(Card { code, amount });
    }
    (cards, file)
}

/// What the callers share.
struct Shop {
    cards: Vec<Card>,
    next: AtomicUsize,
    met: Mutex<BTreeMap<String, usize>>,
}

impl Shop {
    fn card(&self) -> Card {
        self.cards[self.next.fetch_add(1, Ordering::Relaxed)].clone()
    }

    fn met(&self, what: impl Into<String>) {
        *self.met.lock().unwrap().entry(what.into()).or_default() += 1;
    }
}

async fn create(clients: &mut Clients) {
    clients.create_pool(POOL).await;
    let hold = seconds(0.3);
    let holds = pb::HoldDurations {
        login_invalid: hold,
        limit_reached: hold,
        throttled: hold,
        longest: seconds(2.0),
    };
    let pool =
        pb::Pool { pool_id: POOL.to_owned(), hold_durations: Some(holds), ..Default::default() };
    let update = pb::UpdatePoolRequest { pool: Some(pool), update_mask: None };
    clients.pools.update_pool(update).await.unwrap();
    for plan in plans() {
        let created = pb::Plan {
            pool_id: POOL.to_owned(),
            plan_id: plan.id.to_owned(),
            target: Some(eur(plan.target)),
            day_amounts: plan.days.iter().copied().map(eur).collect(),
            day_tolerance: (plan.tolerance > 0).then(|| eur(plan.tolerance)),
            day_interval: Some(DAY_INTERVAL.try_into().unwrap()),
            redemption_interval: Some(REDEMPTION_INTERVAL.try_into().unwrap()),
            denominations: Some(plan.denominations),
            ..Default::default()
        };
        clients.pools.create_plan(pb::CreatePlanRequest { plan: Some(created) }).await.unwrap();
        for n in 0..ACCOUNTS {
            clients
                .create_account(&format!("{}-{n}", plan.id), |a| a.plan_id = plan.id.to_owned())
                .await;
        }
    }
    for n in 0..ACCOUNTS {
        clients.create_account(&format!("none-{n}"), |_| {}).await;
    }
    clients.create_account(INVALID_ACCOUNT, |account| account.plan_id = "days".to_owned()).await;
}

/// Whether a lease's time has passed, by the database's clock.
async fn has_run_out(clients: &mut Clients, held: &pb::LeaseRef) -> bool {
    let account = clients.account(&held.account_id).await;
    let ours = account.lease.filter(|lease| lease.r#ref.as_ref() == Some(held));
    ours.and_then(|lease| lease.remaining).unwrap_or_default() == prost_types::Duration::default()
}

/// Acquires and redeems over and over, as callers do, the careless ones too.
async fn call(mut clients: Clients, caller: usize, shop: Arc<Shop>, end: Instant) {
    let mut random = StdRng::seed_from_u64(caller as u64);
    while Instant::now() < end {
        let card = shop.card();
        let acquired = clients
            .acquire(|request| {
                request.holder = format!("caller-{caller}");
                request.lease_duration = seconds(1.0);
                request.wait_timeout = seconds(0.2);
                let mut selector =
                    pb::AccountSelector { expected: Some(eur(card.amount)), ..Default::default() };
                // Accounts without a plan are only for those who ask for one.
                selector.plan_id =
                    ["days", "days", "gaps", "tens", "range"][random.random_range(0..5)].to_owned();
                request.selector = Some(selector);
            })
            .await;
        let held = match acquired {
            Ok(acquired) => {
                assert_eq!(acquired.account.as_ref().unwrap().reserved, Some(eur(card.amount)));
                lease(&acquired)
            }
            Err(error) => {
                shop.met(reason(&error));
                continue;
            }
        };
        match random.random_range(0..40) {
            0 => shop.met("vanished"),
            1 => {
                // Comes back when its lease has run out.
                let give_up_at = tokio::time::Instant::now() + Duration::from_secs(10);
                while !has_run_out(&mut clients, &held).await {
                    assert!(tokio::time::Instant::now() < give_up_at, "the lease never ends");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                let late = redeem(&mut clients, &held, &card, true, &shop).await;
                assert_eq!(late.map_err(|error| reason(&error)), Err("LEASE_LOST".to_owned()));
            }
            2..4 => release(&mut clients, &held, &shop).await,
            4..8 => {
                // Another one under the same lease, at once or after a while. It may fit or not.
                let _ = redeem(&mut clients, &held, &card, false, &shop).await;
                if random.random_range(0..2) == 0 {
                    tokio::time::sleep(REDEMPTION_INTERVAL).await;
                }
                let other = shop.card();
                let second = redeem(&mut clients, &held, &other, false, &shop).await;
                shop.met(if second.is_ok() { "a second card" } else { "no second card" });
                release(&mut clients, &held, &shop).await;
            }
            _ => {
                let _ = redeem(&mut clients, &held, &card, true, &shop).await;
            }
        }
    }
}

async fn redeem(
    clients: &mut Clients,
    held: &pb::LeaseRef,
    card: &Card,
    release: bool,
    shop: &Shop,
) -> Result<(), Status> {
    let redeemed = clients
        .redeem(held, &card.code, |request| {
            request.expected = Some(eur(card.amount));
            request.release_on_completion = release;
        })
        .await;
    match redeemed {
        Ok(redeemed) => {
            let redemption = redeemed.redemption.unwrap();
            shop.met(format!("{:?}", redemption.state()));
            Ok(())
        }
        Err(error) => {
            shop.met(reason(&error));
            Err(error)
        }
    }
}

async fn release(clients: &mut Clients, held: &pb::LeaseRef, shop: &Shop) {
    match clients.release(held).await {
        Ok(_) => shop.met("released"),
        Err(error) => assert_eq!(reason(&error), "LEASE_LOST"),
    }
}

async fn batch(mut clients: Clients, shop: Arc<Shop>) {
    let mut open = pb::BatchOpen { max_in_flight: 8, ..opening("batch") };
    open.item_timeout = seconds(1.0);
    open.selector = Some(pb::AccountSelector { plan_id: "tens".to_owned(), ..Default::default() });
    let session = Session::open(&mut clients, open).await.unwrap();
    let items: Vec<_> = (0..BATCH_ITEMS)
        .map(|n| {
            let card = shop.card();
            let item = item(&format!("i{n}"), &card.code);
            pb::BatchItem { expected: Some(eur(card.amount)), ..item }
        })
        .collect();
    let patience = Duration::from_secs(30);
    let results = session.results_until_it_breaks(items, patience, Some(BATCH_ITEMS)).await;
    assert_eq!(results.len(), BATCH_ITEMS);
    for result in results {
        match begun(&result) {
            Some(redemption) if redemption.state() == RedemptionState::Succeeded => {
                shop.met("credited by the batch");
            }
            Some(redemption) => shop.met(format!("{:?} by the batch", redemption.state())),
            None => shop.met(format!("{} by the batch", reason(&refusal(&result)))),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixty_four_callers_and_a_batch_never_overfill_a_plan_or_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let (cards, file) = cards(&mut StdRng::seed_from_u64(20_261_125));
    let cards_file = folder.path().join("cards.csv");
    std::fs::write(&cards_file, file).unwrap();
    let able = Able { deduplicates: true, looks_up: true, cancels: true };
    let provider = vec![
        format!("--cards={}", cards_file.display()),
        format!("--invalid-accounts={INVALID_ACCOUNT}"),
    ];
    let mut fleet = Fleet::start(Setup { able, serve: Vec::new(), provider }).await;
    fleet.start_server(&[]).await;
    fleet.start_server(&[]).await;
    create(&mut fleet.clients(0)).await;
    let faults = Faults {
        latency: "1ms..15ms".parse().unwrap(),
        apply_then_drop: 4.0,
        drop_before_apply: 3.0,
        error_after_apply: 2.0,
        slow_202: 5.0,
        busy: 4.0,
        ..Faults::default()
    };
    fleet.set_faults(&faults).await;
    let shop = Arc::new(Shop { cards, next: AtomicUsize::new(0), met: Mutex::default() });
    let end = Instant::now() + Duration::from_secs(10);
    let mut callers = JoinSet::new();
    callers.spawn(batch(fleet.clients(0), Arc::clone(&shop)));
    for n in 0..CALLERS {
        callers.spawn(call(fleet.clients(n % 2), n, Arc::clone(&shop), end));
    }
    callers.join_all().await;
    fleet.set_faults(&Faults::default()).await;
    checks::everything_settles(&fleet.db_url).await;
    checks::leases_end(&fleet.db_url).await;
    let met = shop.met.lock().unwrap().clone();
    println!("{met:#?}");
    let mut db = PgConnection::connect(&fleet.db_url).await.unwrap();
    let filled = check(&mut db, &fleet).await;
    println!("{filled:?}");
    assert!(filled.credits > 5 * ACCOUNTS, "{filled:?}");
    assert!(filled.completed > ACCOUNTS / 4, "{filled:?}");
    assert!(filled.days_ended > ACCOUNTS, "{filled:?}");
    for what in [
        "NO_ACCOUNT_AVAILABLE",
        "LEASE_LOST",
        "Succeeded",
        "Failed",
        "InDoubt",
        "vanished",
        "released",
        "a second card",
        "no second card",
        "credited by the batch",
    ] {
        assert!(met.contains_key(what), "{what} is missing: {met:?}");
    }
}

/// What came of it all.
#[derive(Debug, Default)]
struct Filled {
    credits: usize,
    completed: usize,
    days_ended: usize,
}

/// A redemption, with what the provider says that it credited for it.
#[derive(Debug)]
struct Redemption {
    credited: i64,
    day: Option<i32>,
    begun: OffsetDateTime,
    finished: OffsetDateTime,
}

/// Looks at every account by the provider's ledger.
async fn check(db: &mut PgConnection, fleet: &Fleet) -> Filled {
    let ledger = ledger::read(&fleet.ledger()).unwrap();
    let mut credits: HashMap<String, i64> = HashMap::new();
    for row in ledger.into_iter().filter(|row| row.state == State::Succeeded) {
        let before = credits.insert(row.key.clone(), row.amount_minor);
        assert_eq!(before, None, "{} was credited twice", row.key);
    }
    let mut filled = Filled { credits: credits.len(), ..Filled::default() };
    let mut by_account: HashMap<String, Vec<Redemption>> = HashMap::new();
    let redemptions = "SELECT *, redemption_id::text AS key FROM redemptions ORDER BY created_at";
    for row in sqlx::query(redemptions).fetch_all(&mut *db).await.unwrap() {
        let redemption = Redemption {
            credited: credits.remove(row.get::<&str, _>("key")).unwrap_or_default(),
            day: row.get("plan_day"),
            begun: row.get("created_at"),
            finished: row.get("finished_at"),
        };
        by_account.entry(row.get("account_id")).or_default().push(redemption);
    }
    assert!(credits.is_empty(), "credited, and nobody knows of it: {credits:?}");
    let plans: HashMap<_, _> = plans().into_iter().map(|plan| (plan.id, plan)).collect();
    let accounts = "SELECT * FROM accounts WHERE status <> 'LOCKING'";
    let accounts = sqlx::query(accounts).fetch_all(&mut *db).await.unwrap();
    assert_eq!(accounts.len(), 5 * ACCOUNTS + 1, "no lease is out");
    for row in accounts {
        let id: &str = row.get("account_id");
        assert_eq!(row.get::<Option<i64>, _>("reserved_minor"), None, "{id} has a reserve");
        let redemptions = by_account.remove(id).unwrap_or_default();
        let total: i64 = redemptions.iter().map(|one| one.credited).sum();
        let Some(plan) = row.get::<Option<&str>, _>("plan_id").map(|plan| &plans[plan]) else {
            assert_eq!(total, 0, "{id} was credited, and has no plan: {redemptions:?}");
            continue;
        };
        check_account(id, plan, total, &redemptions);
        assert_eq!(row.get::<&str, _>("status") == "COMPLETED", total == plan.target, "{id}");
        filled.completed += usize::from(total == plan.target);
        filled.days_ended += usize::try_from(row.get::<i32, _>("plan_day") - 1).unwrap();
    }
    filled
}

fn check_account(id: &str, plan: &Plan, total: i64, redemptions: &[Redemption]) {
    assert!(total <= plan.target, "{id} is overfilled: {total} of {redemptions:#?}");
    let left = plan.target - total;
    assert!(plan.can_be_filled(left), "nothing fills the {left} that {id} is left with");
    for (place, most) in plan.days.iter().enumerate() {
        let day = i32::try_from(place + 1).unwrap();
        let of_day = || redemptions.iter().filter(|one| one.day == Some(day) && one.credited > 0);
        let credited: i64 = of_day().map(|one| one.credited).sum();
        if place + 1 < plan.days.len() {
            let most = most + plan.tolerance;
            assert!(credited <= most, "{id} is overfilled on day {day}: {redemptions:#?}");
        }
        let next = redemptions.iter().filter(|one| one.day > Some(day)).map(|one| one.begun).min();
        if let (Some(ended), Some(next)) = (of_day().map(|one| one.finished).max(), next) {
            let pause = next - ended;
            assert!(
                pause >= DAY_INTERVAL,
                "{id}: day {day} ended {pause} before: {redemptions:#?}"
            );
        }
    }
    for pair in redemptions.windows(2) {
        let pause = pair[1].begun - pair[0].finished;
        assert!(pause >= REDEMPTION_INTERVAL, "{id}: only {pause} between {pair:#?}");
    }
}
