//! The state machine: what is decided is what is written. On every kind of account and with every event,
//! the store writes the row that `domain::account::transition` decided. A refusal leaves the row as it
//! was.

use std::{sync::Arc, time::Duration};

use holdfast::{
    domain::{
        account::{Account, AccountChange, Correction, EventFilter, HoldCause, LeaseAnswer},
        choice::Criteria,
        id::{AccountId, FencingToken, Holder, PlanId, PoolId, RedemptionId, RequestId},
        lease::LeaseRef,
        money::{Currency, Money},
        principal::{Authority, Principal, RequestKey},
        redemption::{
            Begun, Failure, LateCredit, NewRedemption, NewReversal, Outcome, Redemption,
            RedemptionState, Resolution, ReversalState, SendLimits, Settled, Settlement,
        },
        selector::Selector,
    },
    store::{
        Store,
        acquire::Wanted,
        apply::Applied,
        redemption::correction::Corrected,
        reversal::{Reversed, TakenBack},
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::{by_store, world::fresh_database};

/// What happens to an account.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Acquire,
    Renew,
    Begin,
    Succeed(i64),
    Fail(Option<HoldCause>),
    Release,
    Expire,
    CreditLate,
    Reverse,
    Replan(&'static str),
    LiftHold,
    EndDay,
    Correct(i64),
    Restate,
    Reopen,
}

const EVENTS: [Event; 20] = [
    Event::Acquire,
    Event::Renew,
    Event::Begin,
    // A card; what fills a day of 'daily'; what fills 'small'.
    Event::Succeed(10),
    Event::Succeed(100),
    Event::Succeed(1000),
    Event::Fail(None),
    Event::Fail(Some(HoldCause::LoginInvalid)),
    Event::Fail(Some(HoldCause::Throttled)),
    Event::Release,
    Event::Expire,
    Event::CreditLate,
    Event::Reverse,
    Event::Replan("daily"),
    Event::LiftHold,
    Event::EndDay,
    // What leaves 'small' open, and what fills it.
    Event::Correct(999),
    Event::Correct(1000),
    Event::Restate,
    Event::Reopen,
];

/// Accounts to begin with, as a person may have made them.
const FREE: [&str; 8] = [
    "plan_id = NULL",
    "plan_id = 'small'",
    "plan_id = 'daily', status = 'PROCESSING', balance_minor = 50, day_credited_minor = 50",
    "plan_id = 'over', status = 'PROCESSING', balance_minor = 5, day_credited_minor = 5",
    "plan_id = 'small', status = 'COMPLETED', balance_minor = 1000",
    "plan_id = 'small', status = 'COMPLETED', balance_minor = 999",
    "plan_id = 'daily', cooldown_until = now() + interval '1 hour'",
    "plan_id = 'small', hold_until = now() - interval '1 s', hold_cause = 'THROTTLED', hold_count = 3",
];

/// And what a lease adds.
const LOCKED: [&str; 3] = [
    "lease_expires_at = now() + interval '1 hour'",
    "lease_expires_at = now()",
    "bound_by_lease = true",
];

#[tokio::test]
async fn every_event_writes_the_row_that_was_decided() {
    let mut bench = Bench::start().await;
    let mut done = 0;
    for (of, free) in FREE.into_iter().enumerate() {
        for event in EVENTS {
            let id = bench.account(&format!("free-{of}-{event:?}"), &[free]).await;
            done += usize::from(bench.check(&id, event).await);
        }
        for (lock, locked) in LOCKED.into_iter().enumerate() {
            for with in ["locked", "open", "asked"] {
                for event in EVENTS {
                    if free.contains("COMPLETED") || free.contains("NULL") && lock == 2 {
                        continue;
                    }
                    let id = format!("{with}-{of}-{lock}-{event:?}");
                    let id = bench.account(&id, &[free, LOCK, locked]).await;
                    if with != "locked" {
                        bench.open(&id, with == "asked").await;
                    }
                    done += usize::from(bench.check(&id, event).await);
                }
            }
        }
    }
    assert!(done > 250, "{done} events happened");
}

/// An account under a lease, as a person may have made it.
const LOCK: &str = "status = 'LOCKING', resume_status = 'PROCESSING', holder = 'me', fencing_token = 7,
    lease_request_id = account_id, lease_acquired_at = now(), lease_expires_at = now() + interval '1 hour'";

#[tokio::test]
async fn histories_write_the_rows_that_were_decided() {
    let seed = 20_261_129;
    let mut random = StdRng::seed_from_u64(seed);
    let mut bench = Bench::start().await;
    for history in 0..20 {
        let plan = FREE[random.random_range(0..4)];
        let id = bench.account(&format!("h-{history}"), &[plan]).await;
        let mut done = 0;
        for step in 0..40 {
            if random.random_range(0..8) == 0 {
                let over = "lease_expires_at = now() WHERE status = 'LOCKING' AND";
                bench.set(&id, over).await;
            }
            let event = EVENTS[random.random_range(0..EVENTS.len())];
            println!("seed {seed}, history {history}, step {step}: {event:?}");
            done += usize::from(bench.check(&id, event).await);
        }
        assert!(done > 5, "{done} events happened");
    }
}

struct Bench {
    store: Store,
    db: PgConnection,
    pool_id: PoolId,
}

impl Bench {
    async fn start() -> Self {
        let database = fresh_database().await;
        let mut db = PgConnection::connect(&database.url).await.unwrap();
        sqlx::raw_sql(
            "INSERT INTO pools VALUES ('p', 'EUR', '1 minute', '1 second', '1 hour', false, 'ACCEPT');
             INSERT INTO plans (pool_id, plan_id, target_minor, day_amounts_minor, redemption_interval)
             VALUES ('p', 'small', 1000, '{}', '0'), ('p', 'daily', 1000000, '{100,100,100}', '1 s'),
                 ('p', 'over', 1000000, '{1,1}', '0')",
        )
        .execute(&mut db)
        .await
        .unwrap();
        let store = Store::open(&database.url.clone().into(), 4).unwrap();
        Self { store, db, pool_id: PoolId::parse("p").unwrap() }
    }

    /// Creates an account, with these columns set.
    async fn account(&mut self, id: &str, columns: &[&str]) -> AccountId {
        let id = id.replace(['(', ')', '"', ' '], "_");
        let insert = "INSERT INTO accounts (pool_id, account_id, idle_since)
             VALUES ('p', $1, now() - interval '1 minute')";
        sqlx::query(insert).bind(&id).execute(&mut self.db).await.unwrap();
        let id = AccountId::parse(&id).unwrap();
        for columns in columns {
            self.set(&id, &format!("{columns} WHERE")).await;
        }
        id
    }

    async fn set(&mut self, id: &AccountId, change: &str) {
        let sql = format!("UPDATE accounts SET {change} account_id = $1");
        sqlx::query(AssertSqlSafe(sql)).bind(id.as_str()).execute(&mut self.db).await.unwrap();
    }

    /// Opens a redemption on it, and asks for the release if so.
    async fn open(&mut self, id: &AccountId, is_release_asked: bool) {
        let insert = "INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id,
                 holder, state, release_on_completion, code_fingerprint, code_ciphertext, code_last4, not_after)
             VALUES ('p', $2, $1, 7, $2::text, 'me', 'SUBMITTED', false, uuid_send($2), '\\x01', '', now())";
        let redemption_id = RedemptionId::new();
        sqlx::query(insert)
            .bind(id.as_str())
            .bind(redemption_id.0)
            .execute(&mut self.db)
            .await
            .unwrap();
        let mark = format!(
            "open_redemption_id = '{redemption_id}', release_requested = {is_release_asked} WHERE"
        );
        self.set(id, &mark).await;
    }

    async fn read(&self, id: &AccountId) -> Account {
        self.store.get_account(&self.pool_id, id).await.unwrap().unwrap()
    }

    /// Lets the event happen, and compares what the store tells with the row. Whether it happened.
    async fn check(&mut self, id: &AccountId, event: Event) -> bool {
        let before = self.read(id).await;
        let told = self.apply(&before, event).await;
        let after = self.read(id).await;
        let Some(told) = told else {
            assert_eq!(
                after.version, before.version,
                "{event:?} was refused, and left a trace: {before:?}"
            );
            return false;
        };
        assert_eq!(after.version.number, before.version.number + 1, "{event:?}: {before:?}");
        if let Some(told) = told {
            let told = Account { as_of: after.as_of, ..told };
            assert_eq!(told, after, "{event:?} of {before:?}");
        }
        let events = self
            .store
            .list_account_events(&self.pool_id, id, &EventFilter::default(), i64::MAX, 1)
            .await
            .unwrap();
        let last = &events.rows[0];
        assert_eq!(
            (last.version, last.to_status, last.balance_minor, last.from_status),
            (after.version.number, after.status, after.balance_minor, Some(before.status)),
            "{event:?}"
        );
        true
    }

    /// What the store tells of the account after the event; the inner `None` where it does not tell the account.
    async fn apply(&mut self, account: &Account, event: Event) -> Option<Option<Account>> {
        let (store, pool_id) = (self.store.clone(), self.pool_id.clone());
        let id = &account.account_id;
        let lease =
            LeaseRef { pool_id: pool_id.clone(), account_id: id.clone(), token: account.token };
        let update = async |change| match store
            .update_account(&pool_id, id, change, Authority::default())
            .await
            .unwrap()
        {
            Applied::Done(done) => Some(Some(done.account)),
            _ => None,
        };
        match event {
            Event::Acquire => self.acquire(id).await.map(Some),
            Event::Renew => {
                of_lease(store.renew(&lease, Duration::from_secs(60), nobody()).await.unwrap())
            }
            Event::Release => of_lease(store.release(&lease, Authority::default()).await.unwrap()),
            Event::Begin => self.begin(lease).await.then_some(None),
            Event::Succeed(amount_minor) => {
                let amount = Money { amount_minor, currency: Currency::parse("EUR").unwrap() };
                let outcome = Outcome::Succeeded { amount, provider_ref: None };
                self.settle(account, outcome, None).await.map(Some)
            }
            Event::Fail(hold) => {
                let message = String::new();
                let failure = Failure { reason: "NO".to_owned(), message, code_spent: false };
                self.settle(account, Outcome::Failed(failure), hold).await.map(Some)
            }
            Event::Expire => {
                let ended = store.expire(&pool_id, None, 1000, "test").await.unwrap().rows;
                ended.into_iter().find(|ended| ended.account_id == *id).map(Some)
            }
            Event::CreditLate => self.credit_late(id).await.then_some(None),
            Event::Reverse => self.reverse(account).await.then_some(None),
            Event::Restate => self.restate(account).await.then_some(None),
            Event::Replan(plan_id) => {
                let plan_id = Some(Some(PlanId::parse(plan_id).unwrap()));
                update(AccountChange { plan_id, ..AccountChange::default() }).await
            }
            Event::LiftHold => {
                update(AccountChange { lift_hold: true, ..Default::default() }).await
            }
            Event::Correct(balance_minor) => {
                let correction = Correction {
                    balance_minor,
                    expected_minor: account.balance_minor,
                    corrected_by: "test".to_owned(),
                    reason: "a".to_owned(),
                    evidence: None,
                };
                let by = Authority::default();
                match store.correct_balance(&pool_id, id, correction, by).await.unwrap() {
                    Applied::Done(done) => Some(Some(done.account)),
                    _ => None,
                }
            }
            Event::Reopen => {
                let plan_id = account.plan_id.clone()?;
                let version = self.read(id).await.version;
                store.reopen_completed(&pool_id, &plan_id, 1000, "test", "").await.unwrap();
                (self.read(id).await.version != version).then_some(None)
            }
            Event::EndDay => {
                let plan_id = account.plan_id.clone()?;
                let version = self.read(id).await.version;
                store.advance_days(&pool_id, &plan_id, 1000, "test", "").await.unwrap();
                (self.read(id).await.version != version).then_some(None)
            }
        }
    }

    async fn acquire(&mut self, id: &AccountId) -> Option<Account> {
        let selector = Selector { account_id: Some(id.clone()), ..Selector::default() };
        let wanted = Wanted {
            begins: None,
            request: RequestKey::new(nobody(), RequestId::random()),
            holder: Holder::parse("me").unwrap(),
            ttl: Duration::from_secs(60),
        };
        let criteria = Criteria { selector: Arc::new(selector), expected_minor: None };
        let found = by_store::acquire(&self.store, &self.pool_id, &[(wanted, criteria)]).await;
        found.into_values().next().map(|acquired| acquired.account)
    }

    async fn begin(&mut self, lease: LeaseRef) -> bool {
        let redemption_id = RedemptionId::new();
        let mut code_fingerprint = [0; 32];
        code_fingerprint[..16].copy_from_slice(redemption_id.0.as_bytes());
        let new = NewRedemption {
            attempt: 1,
            redemption_id,
            request: RequestKey::new(nobody(), RequestId::random()),
            release_on_completion: false,
            code_fingerprint: code_fingerprint.into(),
            code_ciphertext: vec![1],
            code_last4: String::new(),
            expected_minor: None,
            expected_learned: false,
            profile: holdfast::provider::profile::Profile::built_in().pinned(),
        };
        let minute = Duration::from_secs(60);
        let limits = SendLimits { not_after: minute, take_over: minute };
        match self.store.begin(&lease, new, limits).await.unwrap() {
            Begun::Recorded { .. } => true,
            Begun::Refused(_) => false,
            other => panic!("{other:?}"),
        }
    }

    async fn settle(
        &mut self,
        account: &Account,
        outcome: Outcome,
        hold: Option<HoldCause>,
    ) -> Option<Account> {
        let id = account.open_redemption_id?;
        let redemption = self.store.get_redemption(&self.pool_id, id).await.unwrap().unwrap();
        let settlement = Settlement {
            redemption,
            outcome,
            attempts: 1,
            actor: "test".to_owned(),
            resolution: None,
            by: None,
            hold,
            inferred: false,
        };
        match self.store.settle(&self.pool_id, settlement).await.unwrap() {
            Settled::Recorded { account, redemption } => {
                let stored = self.store.get_redemption(&self.pool_id, id).await.unwrap().unwrap();
                assert_eq!(format!("{redemption:?}"), format!("{stored:?}"));
                Some(*account)
            }
            other => panic!("{other:?}"),
        }
    }

    /// A redemption that succeeded long ago, under another lease; by a person's word where one is named.
    async fn past_success(&mut self, account: &Account, resolved_by: Option<&str>) -> Redemption {
        let id = RedemptionId::new();
        let day = account.plan_id.as_ref().map(|_| account.plan_day);
        let insert = "INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id,
                 holder, state, release_on_completion, code_fingerprint, code_last4, not_after, plan_id, plan_day,
                 amount_minor, amount_currency, finished_at, resolved_by, resolution_reason)
             VALUES ('p', $1, $2, 1, $1::text, 'me', 'SUCCEEDED', false, uuid_send($1), '', now(), $3, $4,
                 50, 'EUR', now(), $5, $5)";
        sqlx::query(insert)
            .bind(id.0)
            .bind(account.account_id.as_str())
            .bind(account.plan_id.as_ref().map(PlanId::as_str))
            .bind(day)
            .bind(resolved_by)
            .execute(&mut self.db)
            .await
            .unwrap();
        self.store.get_redemption(&self.pool_id, id).await.unwrap().unwrap()
    }

    /// A person's word that 50 were credited was wrong.
    async fn restate(&mut self, account: &Account) -> bool {
        let said = self.past_success(account, Some("anna")).await;
        let outcome = Outcome::Failed(Failure {
            reason: "RESOLVED_AS_FAILED".to_owned(),
            message: String::new(),
            code_spent: false,
        });
        let word = Resolution {
            resolved_by: "ben".to_owned(),
            principal: nobody(),
            reason: "another card's".to_owned(),
            evidence: None,
        };
        let (version, by) = (account.version.number, Authority::default());
        let correct = async |version| {
            self.store.correct_resolution(&said, version, &outcome, &word, &by).await.unwrap()
        };
        let stale = correct(version - 1).await;
        assert!(matches!(stale, Corrected::Changed), "{stale:?}");
        let corrected = correct(version).await;
        if account.balance_minor < 50 {
            assert!(matches!(corrected, Corrected::BalanceTooLow(_)), "{corrected:?}");
            return false;
        }
        assert!(matches!(corrected, Corrected::Recorded), "{corrected:?}");
        let again = correct(version).await;
        assert!(matches!(again, Corrected::Changed), "once: {again:?}");
        let id = said.redemption_id;
        let kept = self.store.superseded_resolutions(&self.pool_id, id).await.unwrap();
        assert_eq!((kept.len(), &*kept[0].resolution.resolved_by), (1, "anna"));
        let now = self.store.get_redemption(&self.pool_id, id).await.unwrap().unwrap();
        assert_eq!((now.state, now.resolution_number()), (RedemptionState::Failed, 2));
        true
    }

    /// Of a redemption that succeeded long ago, under another lease.
    async fn reverse(&mut self, account: &Account) -> bool {
        let redemption = self.past_success(account, None).await;
        let id = redemption.redemption_id;
        let word = |reason: &str| Resolution {
            resolved_by: "test".to_owned(),
            principal: nobody(),
            reason: reason.to_owned(),
            evidence: None,
        };
        let new = NewReversal { number: 1, state: ReversalState::Requested, take_over: None };
        assert!(
            self.store
                .begin_reversal(&redemption, &new, &word("a"), &Authority::default())
                .await
                .unwrap()
        );
        let another = NewReversal { number: 2, ..new };
        assert!(
            !self
                .store
                .begin_reversal(&redemption, &another, &word("b"), &Authority::default())
                .await
                .unwrap()
        );
        let balance = self.read(&account.account_id).await.balance_minor;
        let taken = TakenBack {
            actor: "test".to_owned(),
            answer: None,
            attempts: 1,
            resolution: None,
            by: None,
        };
        let reversed = self.store.take_back(&redemption, &taken).await.unwrap();
        if balance < 50 {
            assert!(matches!(reversed, Reversed::BalanceTooLow), "{reversed:?}");
            return false;
        }
        assert!(matches!(reversed, Reversed::Recorded(_)), "{reversed:?}");
        let again = self.store.take_back(&redemption, &taken).await.unwrap();
        assert!(!matches!(again, Reversed::Recorded(_)), "once: {again:?}");
        assert_eq!(self.read(&account.account_id).await.balance_minor, balance - 50);
        let newest = self.store.newest_reversal(&self.pool_id, id).await.unwrap().unwrap();
        assert_eq!(newest.state, ReversalState::Succeeded);
        true
    }

    /// Of a redemption that failed long ago, under another lease.
    async fn credit_late(&mut self, account_id: &AccountId) -> bool {
        let id = RedemptionId::new();
        let insert = "INSERT INTO redemptions (pool_id, redemption_id, account_id, fencing_token, request_id,
                 holder, state, release_on_completion, code_fingerprint, code_last4, not_after,
                 failure_reason, finished_at)
             VALUES ('p', $1, $2, 1, $1::text, 'me', 'FAILED', false, uuid_send($1), '', now(),
                 'RESOLVED_AS_FAILED', now())";
        sqlx::query(insert)
            .bind(id.0)
            .bind(account_id.as_str())
            .execute(&mut self.db)
            .await
            .unwrap();
        let redemption = self.store.get_redemption(&self.pool_id, id).await.unwrap().unwrap();
        let amount = Money { amount_minor: 100, currency: Currency::parse("EUR").unwrap() };
        let credit = async || {
            let fact = (amount, Some("ref"));
            self.store.credit_late(&redemption, fact, 1, "test").await.unwrap()
        };
        let balance = self.read(account_id).await.balance_minor;
        assert_eq!(credit().await, LateCredit::Recorded);
        assert_eq!(credit().await, LateCredit::NotFailed, "once");
        assert_eq!(self.read(account_id).await.balance_minor, balance + 100);
        true
    }
}

fn nobody() -> Principal {
    Principal::anonymous()
}

fn of_lease(answer: LeaseAnswer) -> Option<Option<Account>> {
    match answer {
        LeaseAnswer::Done(account) => Some(Some(account)),
        LeaseAnswer::Lost(..) => None,
        other => panic!("{other:?}"),
    }
}

/// An account that a lease of a token that was never issued names.
#[tokio::test]
async fn a_token_from_the_future_is_lost() {
    let mut bench = Bench::start().await;
    let id = bench.account("a", &[FREE[1], LOCK]).await;
    let lease =
        LeaseRef { pool_id: bench.pool_id.clone(), account_id: id, token: FencingToken(99) };
    let answer = bench.store.release(&lease, Authority::default()).await.unwrap();
    assert!(matches!(answer, LeaseAnswer::Lost(..)), "{answer:?}");
}
