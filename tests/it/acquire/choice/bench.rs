//! A pool twice, in the model and in the database: how it is set up, how time passes in it, and how
//! the two are compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use holdfast::{
    domain::{
        account::LoginStatus,
        id::{AccountId, PlanId, PoolId, ProviderId},
        money::Currency,
        plan::{Denominations, Terms},
        principal::Authority,
    },
    store::{
        Store,
        account::{Account as Stored, Creation, NewAccount},
        pool::{AmountMismatch, Holds as PoolHolds, NewPool},
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::{Connection as _, PgConnection, Row as _, postgres::PgRow};
use time::OffsetDateTime;

use super::{
    model::{Account, Holds, Plan, Pool, Status, Takes, Wish},
    random::{self, MINUTES, one_of, percent},
};

/// A lease that is out.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) account: String,
    pub(super) token: i64,
    pub(super) request: String,
    pub(super) expected: Option<i64>,
}

/// What has happened, for the test to see that everything has.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) counts: BTreeMap<&'static str, usize>,
    /// Every verdict that was compared.
    pub(super) verdicts: BTreeSet<&'static str>,
}

impl Tally {
    pub(super) fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

pub(super) struct Bench {
    pub(super) store: Store,
    pub(super) pool_id: PoolId,
    pub(super) model: Pool,
    pub(super) random: StdRng,
    pub(super) held: Vec<Held>,
    pub(super) tally: Tally,
    pub(super) seed: u64,
    pub(super) step: usize,
    /// The database's time as it was last told, by the model's clock.
    pub(super) now: i64,
    /// How far the model's clock is before the database's.
    pub(super) ahead: i64,
    pub(super) names: Vec<String>,
    pub(super) last_wish: Wish,
    /// Changes accounts behind the triggers' backs, as only time does.
    db: PgConnection,
}

impl Bench {
    pub(super) async fn new(url: &str, name: &str, seed: u64, accounts: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let plans = random::plans(&mut random);
        let holds = random::holds(&mut random);
        let mut db = PgConnection::connect(url).await.unwrap();
        sqlx::raw_sql("SET session_replication_role = replica").execute(&mut db).await.unwrap();
        let mut bench = Self {
            store: Store::open(&url.to_owned().into(), 2).unwrap(),
            pool_id: PoolId::parse(name).unwrap(),
            model: Pool::new(plans, holds),
            random,
            held: Vec::new(),
            tally: Tally::default(),
            seed,
            step: 0,
            now: 0,
            ahead: 0,
            names: (0..accounts).map(|n| format!("a-{n:03}")).collect(),
            last_wish: Wish::default(),
            db,
        };
        bench.create().await;
        bench
    }

    async fn create(&mut self) {
        let pool = NewPool {
            pool_id: self.pool_id.clone(),
            provider_id: ProviderId::built_in(),
            currency: Currency::parse("EUR").unwrap(),
            default_lease: Duration::from_secs(3600),
            min_lease: Duration::from_secs(1),
            max_lease: Duration::from_secs(3600),
            paused: false,
            draining: false,
            amount_mismatch: AmountMismatch::Accept,
            holder_share_percent: 50,
            holds: pool_holds(&self.model.holds),
        };
        self.store.insert_pool(&pool, &Authority::default()).await.unwrap().unwrap();
        for (plan_id, plan) in &self.model.plans {
            let plan_id = PlanId::parse(plan_id).unwrap();
            let (terms, by) = (terms(plan), Authority::default());
            let inserted = self.store.insert_plan(&self.pool_id, &plan_id, &terms, &by).await;
            inserted.unwrap().unwrap();
        }
        let accounts: Vec<_> =
            self.names.clone().iter().map(|id| self.random_account(id)).collect();
        let new: Vec<_> = accounts.iter().map(new_account).collect();
        let by = Authority::default();
        let inserted = self.store.insert_accounts(&self.pool_id, &new, &by, true).await;
        let stored = inserted.unwrap().accounts;
        assert_eq!(stored.len(), accounts.len());
        for (mut account, stored) in accounts.into_iter().zip(stored) {
            assert_eq!(account.id, stored.account_id.as_str());
            account.idle_since = micros(stored.created_at);
            if account
                .plan
                .as_ref()
                .is_some_and(|plan| account.balance >= self.model.plans[plan].target)
            {
                account.status = Status::Completed;
            }
            self.model.accounts.insert(account.id.clone(), account);
        }
        self.compare().await;
    }

    /// An account with some plan or none, and something in it or nothing.
    fn random_account(&mut self, id: &str) -> Account {
        let random = &mut self.random;
        let plans: Vec<_> = self.model.plans.keys().cloned().collect();
        let balance = if percent(random, 60) { 0 } else { random.random_range(0..=150) };
        Account {
            id: id.to_owned(),
            plan: percent(random, 80).then(|| one_of(random, &plans)),
            status: Status::Waiting,
            lease: None,
            balance,
            day: 1,
            day_credited: 0,
            day_due: None,
            cooldown_until: None,
            hold_until: None,
            failures: 0,
            active: true,
            paused: false,
            draining: false,
            country: random::country(random),
            labels: random::labels(random),
            idle_since: 0,
        }
    }

    /// Lets accounts that are free begin anew, as others: there must always be some to fill. At the same
    /// time, so that the longest unused are several.
    pub(super) async fn begin_anew(&mut self, ids: &[String]) {
        self.tell_time().await;
        for id in ids {
            let mut account = self.random_account(id);
            let target = account.plan.as_ref().map(|plan| self.model.plans[plan].target);
            account.balance = target.map_or(account.balance, |target| account.balance % target);
            account.status = one_of(&mut self.random, &[Status::Waiting, Status::Processing]);
            account.idle_since = self.now;
            sqlx::query(
                "UPDATE accounts SET status = $3, plan_id = $4, balance_minor = $5, plan_day = 1,
                     day_credited_minor = 0, day_due_at = NULL, cooldown_until = NULL, hold_until = NULL,
                     hold_cause = NULL, hold_count = 0, login_status = 'ACTIVE', paused = false,
                     draining = false, country_code = $6, labels = $7,
                     idle_since = 'epoch'::timestamptz + $8 * interval '1 microsecond', change_id = gen_random_uuid()
                 WHERE pool_id = $1 AND account_id = $2",
            )
            .bind(self.pool_id.as_str())
            .bind(id)
            .bind(account.status.as_str())
            .bind(&account.plan)
            .bind(account.balance)
            .bind(&account.country)
            .bind(serde_json::to_value(&account.labels).unwrap())
            .bind(self.now - self.ahead)
            .execute(&mut self.db)
            .await
            .unwrap();
            self.model.accounts.insert(id.clone(), account);
        }
        self.read_anew().await;
    }

    /// What was changed behind the triggers' backs no server is told.
    async fn read_anew(&mut self) {
        self.store.ready(&self.pool_id).leave().await;
    }

    /// Time passes: what is in the database comes to lie so much further back. As when time really
    /// passes, nothing else of an account changes.
    pub(super) async fn let_time_pass(&mut self, minutes: i64) {
        sqlx::query(
            "UPDATE accounts SET day_due_at = day_due_at - s.step,
                 cooldown_until = cooldown_until - s.step, hold_until = hold_until - s.step,
                 idle_since = idle_since - s.step, lease_acquired_at = lease_acquired_at - s.step,
                 lease_expires_at = lease_expires_at - s.step, change_id = gen_random_uuid()
             FROM (SELECT $2 * interval '1 minute' AS step) s
             WHERE pool_id = $1",
        )
        .bind(self.pool_id.as_str())
        .bind(minutes)
        .execute(&mut self.db)
        .await
        .unwrap();
        sqlx::query(
            "UPDATE leases SET expires_at = expires_at - $2 * interval '1 minute' WHERE pool_id = $1",
        )
        .bind(self.pool_id.as_str())
        .bind(minutes)
        .execute(&mut self.db)
        .await
        .unwrap();
        self.ahead += minutes * MINUTES;
        self.now += minutes * MINUTES;
        self.read_anew().await;
    }

    pub(super) async fn tell_time(&mut self) {
        let now = sqlx::query_scalar("SELECT now()").fetch_one(&mut self.db).await.unwrap();
        self.told(now);
    }

    /// Notes a time that the database has told.
    pub(super) fn told(&mut self, time: OffsetDateTime) {
        self.now = micros(time) + self.ahead;
    }

    /// Compares every account, whole.
    pub(super) async fn compare(&mut self) {
        let rows = sqlx::query(
            "SELECT *, CASE status WHEN 'LOCKING' THEN resume_status ELSE status END AS free_status
             FROM accounts WHERE pool_id = $1 ORDER BY account_id",
        )
        .bind(self.pool_id.as_str())
        .fetch_all(&mut self.db)
        .await
        .unwrap();
        assert_eq!(rows.len(), self.model.accounts.len());
        for (row, account) in rows.iter().zip(self.model.accounts.values()) {
            let (theirs, ours) = (self.as_stored(row), as_modelled(account));
            assert_eq!(theirs, ours, "{}: the database's account and the model's", self.context());
        }
    }

    /// An account of the database, in the words of [`as_modelled`].
    fn as_stored(&self, row: &PgRow) -> String {
        let at = |column: &str| -> Option<i64> {
            row.get::<Option<OffsetDateTime>, _>(column).map(|at| micros(at) + self.ahead)
        };
        let locked = row.get::<&str, _>("status") == "LOCKING";
        format!(
            "{} {:?} {} locked {:?} bound {} reserved {:?}, {} day {} {} due {:?}, cooldown {:?}, hold {:?} {}, \
             {} {} {}, idle since {:?}",
            row.get::<&str, _>("account_id"),
            row.get::<Option<&str>, _>("plan_id"),
            row.get::<&str, _>("free_status"),
            at("lease_expires_at").filter(|_| locked),
            row.get::<bool, _>("bound_by_lease"),
            row.get::<Option<i64>, _>("reserved_minor"),
            row.get::<i64, _>("balance_minor"),
            row.get::<i32, _>("plan_day"),
            row.get::<i64, _>("day_credited_minor"),
            at("day_due_at"),
            at("cooldown_until"),
            at("hold_until"),
            row.get::<i32, _>("hold_count"),
            row.get::<&str, _>("login_status") == "ACTIVE",
            row.get::<bool, _>("paused"),
            row.get::<bool, _>("draining"),
            at("idle_since").unwrap(),
        )
    }

    /// Where a difference was found.
    pub(super) fn context(&self) -> String {
        format!("seed {}, pool {}, step {}", self.seed, self.pool_id, self.step)
    }

    /// An account as both have it, for people.
    pub(super) async fn describe(&mut self, id: Option<&str>, wish: &Wish) -> String {
        let Some(id) = id else { return "none".to_owned() };
        let row = sqlx::query(
            "SELECT *, CASE status WHEN 'LOCKING' THEN resume_status ELSE status END AS free_status
             FROM accounts WHERE pool_id = $1 AND account_id = $2",
        )
        .bind(self.pool_id.as_str())
        .bind(id)
        .fetch_one(&mut self.db)
        .await
        .unwrap();
        let account = &self.model.accounts[id];
        let verdict = self.model.verdict(account, wish, self.now);
        let plan = account.plan.as_ref().or(wish.plan.as_ref());
        let plan = plan.map(|plan| terms(&self.model.plans[plan]));
        format!(
            "{verdict} by the model\n    there: {}\n    model: {}\n    {plan:?}",
            self.as_stored(&row),
            as_modelled(account)
        )
    }
}

fn as_modelled(account: &Account) -> String {
    let lease = account.lease.as_ref();
    format!(
        "{} {:?} {} locked {:?} bound {} reserved {:?}, {} day {} {} due {:?}, cooldown {:?}, hold {:?} {}, \
         {} {} {}, idle since {:?}",
        account.id,
        account.plan,
        account.status.as_str(),
        lease.map(|lease| lease.expires_at),
        lease.is_some_and(|lease| lease.bound),
        lease.and_then(|lease| lease.reserved),
        account.balance,
        account.day,
        account.day_credited,
        account.day_due,
        account.cooldown_until,
        account.hold_until,
        account.failures,
        account.active,
        account.paused,
        account.draining,
        account.idle_since,
    )
}

pub(super) fn micros(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1000).unwrap()
}

/// When the lease of an account ends.
pub(super) fn lease_end(stored: &Stored) -> i64 {
    micros(stored.lease.as_ref().unwrap().expires_at)
}

fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap())
}

fn pool_holds(holds: &Holds) -> PoolHolds {
    PoolHolds {
        login_invalid: duration(holds.login_invalid),
        limit_reached: duration(holds.limit_reached),
        throttled: duration(holds.throttled),
        longest: duration(holds.longest),
    }
}

fn new_account(account: &Account) -> Creation {
    let account = NewAccount {
        account_id: AccountId::parse(&account.id).unwrap(),
        login_status: LoginStatus::Active,
        plan_id: account.plan.as_ref().map(|plan| PlanId::parse(plan).unwrap()),
        country_code: account.country.clone(),
        balance_minor: account.balance,
        labels: account.labels.clone(),
    };
    Creation { account, credentials: None }
}

/// A plan as the program is told of it.
fn terms(plan: &Plan) -> Terms {
    Terms {
        target_minor: plan.target,
        day_amounts_minor: plan.days.clone(),
        day_tolerance_minor: plan.tolerance,
        day_interval: duration(plan.day_interval),
        redemption_interval: duration(plan.redemption_interval),
        denominations: match &plan.takes {
            Takes::From(least, most) => {
                Denominations::Any { smallest_minor: *least, largest_minor: *most }
            }
            Takes::MultiplesOf(base) => Denominations::MultiplesOf(*base),
            Takes::Only(amounts) => Denominations::Fixed(amounts.clone().into()),
        },
    }
}
