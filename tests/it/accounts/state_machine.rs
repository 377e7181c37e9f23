//! The state machine twice: the pure function and the statements must agree, on every state and
//! event and over random histories.

use std::time::Duration;

use holdfast::{
    domain::{
        account::{
            AccountEvent, AccountState, AccountStatus, Lock, Refusal, Resume, Settle,
            SettleOutcome, transition,
        },
        id::{AccountId, FencingToken, Holder, PlanId, PoolId, RedemptionId, RequestId},
        lease::{LeaseLoss, LeaseRef},
        money::{Currency, Money},
        plan::Filled,
        redemption::Failure,
    },
    store::{
        Store,
        account::AccountChange,
        acquire::{Selector, Wanted},
        begin::{BeginRefusal, Begun, NewRedemption, SendLimits},
        late_credit::LateCredit,
        lease::LeaseAnswer,
        outcome::{Outcome, Settled, Settlement},
        walks::Walks,
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::{Connection as _, PgConnection, Row as _};
use uuid::Uuid;

use crate::support::world::fresh_database;

/// What a success credits. `small`'s target is reached by it, and each day of `daily`; `large` has none,
/// and a far target.
const CREDIT: i64 = 100;

#[tokio::test]
async fn the_function_and_the_statements_agree_on_every_state_and_event() {
    let mut bench = Bench::start().await;
    let mut checked = 0;
    for (number, state) in AccountState::all().enumerate() {
        for (event_number, event) in AccountEvent::all().enumerate() {
            let mut account =
                bench.account(&format!("a-{number}-{event_number}"), state, event).await;
            bench.apply_and_compare(&mut account, state, event).await;
            checked += 1;
        }
    }
    assert_eq!(checked, AccountState::all().count() * AccountEvent::all().count());
    assert!(checked > 200, "{checked}");
}

#[tokio::test]
async fn the_function_and_the_statements_agree_over_random_histories() {
    let seed = 20_261_123;
    let mut random = StdRng::seed_from_u64(seed);
    let settles: Vec<_> =
        AccountEvent::all().filter(|event| matches!(event, AccountEvent::Settle(_))).collect();
    let mut bench = Bench::start().await;
    for history in 0..20 {
        let mut state = AccountState::Free(Resume::Waiting);
        let mut account =
            bench.account(&format!("h-{history}"), state, AccountEvent::Acquire).await;
        for step in 0..30 {
            if let (AccountState::Locking(lock), 0) = (&mut state, random.random_range(0..4)) {
                bench.let_the_lease_run_out(&account).await;
                lock.expired = true;
            }
            let event = match random.random_range(0..7) {
                0 => AccountEvent::Acquire,
                1 => AccountEvent::Begin,
                2 => settles[random.random_range(0..settles.len())],
                3 => AccountEvent::Renew,
                4 => AccountEvent::Release,
                5 => AccountEvent::CreditLate,
                _ => AccountEvent::Expire,
            };
            bench.prepare_settle(&account, event).await;
            let context = format!("seed {seed}, history {history}, step {step}");
            println!("{context}: {state:?} {event:?}");
            state = bench.apply_and_compare(&mut account, state, event).await;
        }
    }
}

/// An account on the bench, as its holder knows it.
struct Account {
    id: AccountId,
    token: i64,
    open: Option<RedemptionId>,
}

struct Bench {
    store: Store,
    db: PgConnection,
    pool_id: PoolId,
}

/// What the statement said of an event.
#[derive(Debug, PartialEq)]
enum Said {
    Done,
    Refused(Refusal),
    /// Refused without saying which of several reasons it was.
    RefusedSomehow,
}

impl Bench {
    async fn start() -> Self {
        let database = fresh_database().await;
        let mut db = PgConnection::connect(&database.url).await.unwrap();
        sqlx::raw_sql(
            "INSERT INTO pools VALUES ('p', 'EUR', '1 minute', '1 second', '1 hour', false, 'ACCEPT');
             INSERT INTO plans (pool_id, plan_id, target_minor, day_amounts_minor, day_interval)
             VALUES ('p', 'small', 100, '{}', '0'), ('p', 'large', 1000000, '{}', '0'),
                 ('p', 'daily', 1000000, array_fill(100::bigint, '{366}'), '0'),
                 ('p', 'over', 1000000, '{1,1}', '0')",
        )
        .execute(&mut db)
        .await
        .unwrap();
        let store = Store::open(&database.url.clone().into(), 4).unwrap();
        Self { store, db, pool_id: PoolId::parse("p").unwrap() }
    }

    /// Puts an account into a state, as far as the event needs it.
    async fn account(&mut self, id: &str, state: AccountState, event: AccountEvent) -> Account {
        let lock = match state {
            AccountState::Locking(lock) => Some(lock),
            AccountState::Free(_) => None,
        };
        let resume = lock.map(|lock| lock.resume.status().as_str());
        let ends_in = if lock.is_some_and(|lock| lock.expired) { -1.0 } else { 60.0 };
        sqlx::query(
            "INSERT INTO accounts (pool_id, account_id, plan_id, status, resume_status, fencing_token,
                 holder, lease_request_id, lease_acquired_at, lease_expires_at, idle_since)
             VALUES ('p', $1, 'large', $2, $3, 7, 'me', $1, now() - interval '1 minute',
                 now() + make_interval(secs => $4), now() - interval '1 minute')",
        )
        .bind(id)
        .bind(state.status().as_str())
        .bind(resume)
        .bind(ends_in)
        .execute(&mut self.db)
        .await
        .unwrap();
        let mut account = Account { id: AccountId::parse(id).unwrap(), token: 7, open: None };
        if lock.is_some_and(|lock| lock.redemption_open) {
            account.open = Some(self.open_redemption(id).await);
        }
        if lock.is_some_and(|lock| lock.release_requested) {
            self.set(id, "release_requested = true").await;
        }
        self.prepare_settle(&account, event).await;
        match event {
            // What it has all of must be something.
            AccountEvent::Replan { .. } => self.set(id, "balance_minor = 100").await,
            AccountEvent::EndDay => {
                self.set(id, "plan_id = 'over'").await;
                self.set(id, "day_credited_minor = 1").await;
            }
            _ => {}
        }
        account
    }

    async fn open_redemption(&mut self, id: &str) -> RedemptionId {
        let redemption_id = RedemptionId::new();
        sqlx::query(
            "INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id,
                 holder, state, release_on_completion, code_fingerprint, code_ciphertext, code_last4,
                 not_after)
             VALUES ('p', $1, $2, 7, $1::text, 'me', 'SUBMITTED', false, uuid_send($1), '\\x01', '',
                 now())",
        )
        .bind(redemption_id.0)
        .bind(id)
        .execute(&mut self.db)
        .await
        .unwrap();
        redemption_id
    }

    async fn set(&mut self, id: &str, change: &str) {
        let sql = format!("UPDATE accounts SET {change} WHERE pool_id = 'p' AND account_id = $1");
        sqlx::query(sqlx::AssertSqlSafe(sql)).bind(id).execute(&mut self.db).await.unwrap();
    }

    async fn let_the_lease_run_out(&mut self, account: &Account) {
        self.set(account.id.as_str(), "lease_expires_at = now() - interval '1 second'").await;
    }

    /// The wish to release with the outcome stands in the redemption; what a success fills is a matter
    /// of the plan.
    async fn prepare_settle(&mut self, account: &Account, event: AccountEvent) {
        let settle = match event {
            AccountEvent::Settle(settle) => Some(settle),
            _ => None,
        };
        let plan = match settle.map(|settle| settle.outcome) {
            Some(SettleOutcome::Succeeded(Filled::Target)) => "plan_id = 'small'",
            Some(SettleOutcome::Succeeded(Filled::Day)) => "plan_id = 'daily'",
            _ => "plan_id = 'large'",
        };
        self.set(account.id.as_str(), plan).await;
        let Some(Settle { release, .. }) = settle else { return };
        if let Some(open) = account.open {
            sqlx::query(
                "UPDATE redemptions SET release_on_completion = $2 WHERE redemption_id = $1",
            )
            .bind(open.0)
            .bind(release)
            .execute(&mut self.db)
            .await
            .unwrap();
        }
    }

    /// Lets the event happen to both, compares, and answers with the state after it.
    async fn apply_and_compare(
        &mut self,
        account: &mut Account,
        state: AccountState,
        event: AccountEvent,
    ) -> AccountState {
        let before = self.version(account).await;
        let said = self.apply(account, event).await;
        let now = self.state(account).await;
        match transition(state, event) {
            Ok(next) => {
                assert_eq!((now, said), (next, Said::Done), "{state:?} {event:?}");
                next
            }
            Err(refusal) => {
                assert_eq!(now, state, "{event:?} is refused: {refusal:?}");
                assert_eq!(self.version(account).await, before, "{state:?} {event:?} left a trace");
                assert!(
                    said == Said::Refused(refusal) || said == Said::RefusedSomehow,
                    "{state:?} {event:?}: {refusal:?}, but the statement said {said:?}"
                );
                state
            }
        }
    }

    async fn version(&mut self, account: &Account) -> i64 {
        sqlx::query_scalar("SELECT version FROM accounts WHERE account_id = $1")
            .bind(account.id.as_str())
            .fetch_one(&mut self.db)
            .await
            .unwrap()
    }

    async fn state(&mut self, account: &Account) -> AccountState {
        let row = sqlx::query(
            "SELECT *, lease_expires_at <= now() AS expired FROM accounts WHERE account_id = $1",
        )
        .bind(account.id.as_str())
        .fetch_one(&mut self.db)
        .await
        .unwrap();
        let resume = |status: &str| match AccountStatus::parse(status).unwrap() {
            AccountStatus::Waiting => Resume::Waiting,
            AccountStatus::Processing => Resume::Processing,
            AccountStatus::Completed => Resume::Completed,
            AccountStatus::Locking => panic!("LOCKING is no status to go back to"),
        };
        if row.get::<&str, _>("status") != "LOCKING" {
            return AccountState::Free(resume(row.get("status")));
        }
        AccountState::Locking(Lock {
            resume: resume(row.get("resume_status")),
            redemption_open: row.get::<Option<Uuid>, _>("open_redemption_id").is_some(),
            release_requested: row.get("release_requested"),
            expired: row.get("expired"),
        })
    }

    async fn apply(&mut self, account: &mut Account, event: AccountEvent) -> Said {
        let lease = LeaseRef {
            pool_id: self.pool_id.clone(),
            account_id: account.id.clone(),
            token: FencingToken(account.token),
        };
        match event {
            AccountEvent::Acquire => self.acquire(account).await,
            AccountEvent::Renew => {
                lease_answer(self.store.renew(&lease, Duration::from_secs(60)).await.unwrap())
            }
            AccountEvent::Release => lease_answer(self.store.release(&lease).await.unwrap()),
            AccountEvent::Expire => {
                let ended =
                    self.store.expire(&self.pool_id, None, 1000, "test").await.unwrap().rows;
                let ended = ended.iter().any(|ended| ended.account_id == account.id);
                if ended { Said::Done } else { Said::RefusedSomehow }
            }
            AccountEvent::Begin => self.begin(account, lease).await,
            AccountEvent::Settle(settle) => self.settle(account, settle).await,
            AccountEvent::CreditLate => self.credit_late(account).await,
            AccountEvent::Replan { target_reached } => self.replan(account, target_reached).await,
            AccountEvent::EndDay => {
                let over = PlanId::parse("over").unwrap();
                self.store.advance_days(&self.pool_id, &over, 1000, "test", "").await.unwrap();
                let now =
                    self.store.get_account(&self.pool_id, &account.id).await.unwrap().unwrap();
                if now.plan_day == 2 { Said::Done } else { Said::RefusedSomehow }
            }
        }
    }

    async fn replan(&mut self, account: &Account, target_reached: bool) -> Said {
        let plan = if target_reached { "small" } else { "daily" };
        let change = AccountChange {
            plan_id: Some(Some(PlanId::parse(plan).unwrap())),
            ..AccountChange::default()
        };
        let changed = self.store.update_account(&self.pool_id, &account.id, &change).await.unwrap();
        match changed {
            Some(account) => {
                assert_eq!((account.plan_day, account.day_credited_minor), (1, 0), "a new plan");
                Said::Done
            }
            None => Said::RefusedSomehow,
        }
    }

    /// Of a redemption that failed long ago, under another lease.
    async fn credit_late(&mut self, account: &Account) -> Said {
        let id = RedemptionId::new();
        sqlx::query(
            "INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id,
                 holder, state, release_on_completion, code_fingerprint, code_last4, not_after,
                 failure_reason, finished_at)
             VALUES ('p', $1, $2, 1, $1::text, 'me', 'FAILED', false, uuid_send($1), '', now(),
                 'RESOLVED_AS_FAILED', now())",
        )
        .bind(id.0)
        .bind(account.id.as_str())
        .execute(&mut self.db)
        .await
        .unwrap();
        let balance = self.balance(account).await;
        let amount = Money { amount_minor: CREDIT, currency: Currency::parse("EUR").unwrap() };
        let credit = async || {
            let fact = (amount, Some("ref"));
            self.store.credit_late(&self.pool_id, id, fact, 1, "test").await.unwrap()
        };
        assert_eq!(credit().await, LateCredit::Recorded);
        assert_eq!(credit().await, LateCredit::NotFailed, "once");
        assert_eq!(self.balance(account).await, balance + CREDIT);
        Said::Done
    }

    async fn balance(&mut self, account: &Account) -> i64 {
        sqlx::query_scalar("SELECT balance_minor FROM accounts WHERE account_id = $1")
            .bind(account.id.as_str())
            .fetch_one(&mut self.db)
            .await
            .unwrap()
    }

    async fn acquire(&mut self, account: &mut Account) -> Said {
        let selector = Selector { account_id: Some(account.id.clone()), ..Selector::default() };
        let wanted = Wanted {
            request_id: RequestId::random(),
            holder: Holder::parse("me").unwrap(),
            ttl: Duration::from_secs(60),
            expected_minor: None,
        };
        let found = self
            .store
            .acquire(&self.pool_id, &selector, &[wanted], &mut Walks::default())
            .await
            .unwrap();
        match found.into_values().next() {
            Some(acquired) => {
                account.token += 1;
                assert_eq!(acquired.account.token.0, account.token, "tokens rise by one");
                Said::Done
            }
            None => Said::RefusedSomehow,
        }
    }

    async fn begin(&mut self, account: &mut Account, lease: LeaseRef) -> Said {
        let redemption_id = RedemptionId::new();
        let mut code_fingerprint = [0; 32];
        code_fingerprint[..16].copy_from_slice(redemption_id.0.as_bytes());
        let new = NewRedemption {
            redemption_id,
            lease,
            request_id: RequestId::random(),
            release_on_completion: false,
            code_fingerprint,
            code_ciphertext: vec![1],
            code_last4: String::new(),
            expected_minor: None,
            expected_learned: false,
        };
        let limits =
            SendLimits { not_after: Duration::from_secs(60), take_over: Duration::from_secs(60) };
        match self.store.begin(new, limits).await.unwrap() {
            Begun::Recorded { redemption, .. } => {
                account.open = Some(redemption.redemption_id);
                Said::Done
            }
            Begun::Refused(BeginRefusal::LeaseLost(loss)) => match self.state(account).await {
                AccountState::Free(_) => Said::Refused(Refusal::NotLocked),
                AccountState::Locking(_) => lost(loss),
            },
            Begun::Refused(BeginRefusal::RedemptionOpen(_)) => {
                Said::Refused(Refusal::RedemptionOpen)
            }
            other => panic!("{other:?}"),
        }
    }

    async fn settle(&mut self, account: &mut Account, settle: Settle) -> Said {
        let outcome = match settle.outcome {
            SettleOutcome::Succeeded(_) => Outcome::Succeeded {
                amount: Money { amount_minor: CREDIT, currency: Currency::parse("EUR").unwrap() },
                provider_ref: None,
            },
            SettleOutcome::Failed => Outcome::Failed(Failure {
                reason: "NO".to_owned(),
                message: String::new(),
                code_spent: false,
            }),
        };
        let settlement = Settlement {
            redemption_id: account.open.unwrap_or_default(),
            outcome,
            attempts: 1,
            actor: "test".to_owned(),
            resolution: None,
            seen: None,
            hold: None,
            inferred: false,
        };
        match self.store.settle(&self.pool_id, settlement).await.unwrap() {
            Settled::Recorded { .. } => {
                account.open = None;
                Said::Done
            }
            Settled::Already => Said::RefusedSomehow,
            Settled::Unreadable(error) => panic!("{error}"),
        }
    }
}

fn lease_answer(answer: LeaseAnswer) -> Said {
    match answer {
        LeaseAnswer::Done(_) => Said::Done,
        LeaseAnswer::Lost(loss, account) if account.status == AccountStatus::Locking => lost(loss),
        LeaseAnswer::Lost(..) => Said::Refused(Refusal::NotLocked),
        other => panic!("{other:?}"),
    }
}

/// A lease that is lost while the account is locked under it.
fn lost(loss: LeaseLoss) -> Said {
    match loss {
        LeaseLoss::Expired => Said::Refused(Refusal::LeaseExpired),
        LeaseLoss::Released | LeaseLoss::TakenOver => Said::RefusedSomehow,
    }
}
