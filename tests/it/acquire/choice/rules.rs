//! What a credit fills: the row that is written has what `domain/plan.rs` says, on small amounts and on the largest.

use std::{collections::HashMap, time::Duration};

use holdfast::{
    domain::{
        id::{PlanId, PoolId, RedemptionId},
        money::{Currency, MAX_AMOUNT_MINOR, Money},
        plan::{Denominations, Filled, Progress, Terms},
        principal::Authority,
    },
    store::{
        Store,
        outcome::{Outcome, Settled, Settlement},
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    random::{one_of, percent},
    seed,
};
use crate::support::world::fresh_database;

const PLANS: usize = 400;

/// Plans of a database, and accounts of them.
struct Rules {
    random: StdRng,
    db: PgConnection,
    store: Store,
    pool_id: PoolId,
    plans: Vec<Terms>,
}

/// An account and a card.
#[derive(Clone, Debug)]
struct Case {
    plan: usize,
    progress: Progress,
    card: Option<i64>,
}

impl Rules {
    async fn new(url: &str, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut db = PgConnection::connect(url).await.unwrap();
        let pool = "INSERT INTO pools VALUES ('p', 'EUR', '1 minute', '1 second', '1 hour', false, 'ACCEPT')";
        sqlx::raw_sql(pool).execute(&mut db).await.unwrap();
        let store = Store::open(&url.to_owned().into(), 4).unwrap();
        let pool_id = PoolId::parse("p").unwrap();
        let mut plans = Vec::new();
        while plans.len() < PLANS {
            let terms = random_terms(&mut random);
            if terms.violations().is_empty() {
                let by = Authority::default();
                let inserted = store.insert_plan(&pool_id, &name(plans.len()), &terms, &by).await;
                assert_eq!(inserted.unwrap().unwrap().terms, terms, "it is stored as it is");
                plans.push(terms);
            }
        }
        Self { random, db, store, pool_id, plans }
    }

    fn case(&mut self) -> Case {
        let random = &mut self.random;
        let plan = random.random_range(0..self.plans.len());
        let terms = &self.plans[plan];
        let target = terms.target_minor;
        // Beyond the target too: the provider may have credited more, or the plan may want less now.
        let balance_minor = match random.random_range(0..10) {
            0 => 0,
            1 => target + random.random_range(-2..=2),
            2 => random.random_range(0..=target + target / 4),
            _ => random.random_range(0..=target),
        };
        let last = i32::try_from(terms.day_amounts_minor.len()).unwrap();
        let day = random.random_range(1..=last + 2);
        let of_day = terms.day_amounts_minor.get(usize::try_from(day - 1).unwrap()).copied();
        let most = of_day.unwrap_or(target) + terms.day_tolerance_minor + 2;
        let day_credited_minor =
            if percent(random, 30) { 0 } else { random.random_range(0..=most) };
        let progress = Progress { balance_minor: balance_minor.max(0), day, day_credited_minor };
        let left = (target - progress.balance_minor).max(1);
        let card = match random.random_range(0..10) {
            0 => None,
            1 => Some(left),
            2 => Some(terms.room(&progress).max(1)),
            3 => Some(random.random_range(1..=left)),
            _ => Some(a_card(random, &terms.denominations)),
        };
        Case { plan, progress, card }
    }
}

fn name(plan: usize) -> PlanId {
    PlanId::parse(&format!("plan-{plan}")).unwrap()
}

/// Small ones, where much does not fit, and ones near the largest amount that may be named.
fn random_terms(random: &mut StdRng) -> Terms {
    let unit = one_of(random, &[1, 1, 1, 7, 1_000_000, MAX_AMOUNT_MINOR / 250]);
    let mut amount = |least: i64, most: i64| random.random_range(least..=most) * unit;
    let target_minor = amount(1, 250);
    let (least, more) = (amount(1, 40), amount(0, 30));
    let fixed: Vec<_> = (0..5).map(|_| amount(1, 60)).collect();
    let days: Vec<_> = (0..4).map(|_| amount(1, 80)).collect();
    let tolerance = amount(0, 20);
    // So that not everything is a multiple of the same.
    let odd = one_of(random, &[0, 0, 1]);
    let denominations = match random.random_range(0..5) {
        0 => Denominations::Any { smallest_minor: least + odd, largest_minor: None },
        1 => Denominations::Any {
            smallest_minor: least,
            largest_minor: Some(least + more / 6 + odd),
        },
        2 => Denominations::MultiplesOf(least),
        _ => {
            let mut amounts = fixed[..random.random_range(1..=5)].to_vec();
            amounts.sort_unstable();
            amounts.dedup();
            Denominations::Fixed(amounts.into())
        }
    };
    Terms {
        target_minor: target_minor.min(MAX_AMOUNT_MINOR),
        day_amounts_minor: days[..random.random_range(0..=4)].to_vec(),
        day_tolerance_minor: tolerance * odd,
        day_interval: Duration::from_secs(3600),
        redemption_interval: Duration::ZERO,
        denominations,
    }
}

/// Mostly one that is taken.
fn a_card(random: &mut StdRng, denominations: &Denominations) -> i64 {
    let near = random.random_range(0..10);
    let taken = match denominations {
        Denominations::Any { smallest_minor, largest_minor } => {
            random.random_range(*smallest_minor..=largest_minor.unwrap_or(3 * smallest_minor))
        }
        Denominations::MultiplesOf(base) => base * random.random_range(1..=4),
        Denominations::Fixed(amounts) => one_of(random, amounts),
    };
    if near == 0 { taken + 1 } else { taken }
}

/// Settling is where days and plans end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credit_fills_in_the_database_what_the_rule_says() {
    let database = fresh_database().await;
    let seed = seed();
    println!("HOLDFAST_TEST_SEED={seed}");
    let mut rules = Rules::new(&database.url, seed).await;
    let mut cases = Vec::new();
    while cases.len() < 2_000 {
        let mut case = rules.case();
        let terms = &rules.plans[case.plan];
        // Of a redemption that was begun: another amount than the expected one may still be credited.
        let reached = case.progress.balance_minor >= terms.target_minor;
        if !reached && let Some(card) = case.card {
            case.progress.day_credited_minor =
                case.progress.day_credited_minor.min(case.progress.balance_minor);
            cases.push((case, card));
        }
    }
    let ids = rules.lock(&cases.iter().map(|(case, _)| case.clone()).collect::<Vec<_>>()).await;
    let mut settling = JoinSet::new();
    for (id, (_, card)) in ids.iter().copied().zip(cases.clone()) {
        let (store, pool_id) = (rules.store.clone(), rules.pool_id.clone());
        settling.spawn(async move {
            let currency = Currency::parse("EUR").unwrap();
            let amount = Money { amount_minor: card, currency };
            let settlement = Settlement {
                redemption: store.get_redemption(&pool_id, id).await.unwrap().unwrap(),
                outcome: Outcome::Succeeded { amount, provider_ref: None },
                attempts: 1,
                actor: "test".to_owned(),
                resolution: None,
                by: None,
                hold: None,
                inferred: false,
            };
            let settled = store.settle(&pool_id, settlement).await.unwrap();
            assert!(matches!(settled, Settled::Recorded { .. }), "{settled:?}");
        });
    }
    settling.join_all().await;
    let rows = sqlx::query(
        "SELECT status, balance_minor, plan_day, day_credited_minor, day_due_at IS NOT NULL AS is_due
         FROM accounts ORDER BY account_id",
    )
    .fetch_all(&mut rules.db)
    .await
    .unwrap();
    assert_eq!(rows.len(), cases.len());
    let mut met: HashMap<Filled, usize> = HashMap::new();
    for (row, (case, card)) in rows.iter().zip(&cases) {
        let terms = &rules.plans[case.plan];
        let (after, filled) = terms.credit(&case.progress, *card);
        let progress = Progress {
            balance_minor: row.get("balance_minor"),
            day: row.get("plan_day"),
            day_credited_minor: row.get("day_credited_minor"),
        };
        let status = match filled {
            Filled::Nothing => "PROCESSING",
            Filled::Day => "WAITING",
            Filled::Target => "COMPLETED",
        };
        let is_due: bool = row.get("is_due");
        assert_eq!(
            (progress, row.get("status"), is_due),
            (after, status, filled == Filled::Day),
            "{case:?} {terms:?}"
        );
        *met.entry(filled).or_default() += 1;
    }
    println!("{met:?}");
    assert!(met.len() == 3 && met.values().all(|count| *count > 100), "{met:?}");
    database.drop_database().await;
}

impl Rules {
    /// Puts an account into the database for each case, under a lease with an open redemption.
    async fn lock(&mut self, cases: &[Case]) -> Vec<RedemptionId> {
        let ids: Vec<_> = cases.iter().map(|_| RedemptionId::new()).collect();
        let names: Vec<_> = (0..cases.len()).map(|n| format!("a-{n:05}")).collect();
        sqlx::query(
            "INSERT INTO accounts (pool_id, account_id, plan_id, status, resume_status, fencing_token,
                 holder, lease_request_id, lease_acquired_at, lease_expires_at, balance_minor, plan_day,
                 day_credited_minor)
             SELECT 'p', c.account_id, c.plan_id, 'LOCKING', 'WAITING', 1, 'me', c.account_id, now(),
                 now() + interval '1 hour', c.balance, c.day, c.credited
             FROM unnest($1::text[], $2::text[], $3::bigint[], $4::int[], $5::bigint[])
                 AS c (account_id, plan_id, balance, day, credited)",
        )
        .bind(&names)
        .bind(cases.iter().map(|case| name(case.plan).to_string()).collect::<Vec<_>>())
        .bind(cases.iter().map(|case| case.progress.balance_minor).collect::<Vec<_>>())
        .bind(cases.iter().map(|case| case.progress.day).collect::<Vec<_>>())
        .bind(cases.iter().map(|case| case.progress.day_credited_minor).collect::<Vec<_>>())
        .execute(&mut self.db)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id,
                 holder, state, release_on_completion, code_fingerprint, code_ciphertext, code_last4,
                 not_after)
             SELECT 'p', c.id, c.account_id, 1, c.id::text, 'me', 'SUBMITTED', true, uuid_send(c.id),
                 '\\x01', '', now()
             FROM unnest($1::uuid[], $2::text[]) AS c (id, account_id)",
        )
        .bind(ids.iter().map(|id| id.0).collect::<Vec<Uuid>>())
        .bind(&names)
        .execute(&mut self.db)
        .await
        .unwrap();
        let mark = "UPDATE accounts a SET open_redemption_id = r.redemption_id FROM redemptions r
            WHERE r.pool_id = a.pool_id AND r.account_id = a.account_id AND r.finished_at IS NULL";
        sqlx::query(mark).execute(&mut self.db).await.unwrap();
        ids
    }
}
