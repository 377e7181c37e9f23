//! What happens in a pool, one thing after another, in the database and in the model.

use std::{collections::BTreeMap, time::Duration};

use holdfast::{
    domain::{
        account::{AccountStatus, HoldCause, LoginStatus},
        id::{AccountId, FencingToken, Holder, PlanId, RedemptionId, RequestId},
        lease::LeaseRef,
        money::{Currency, Money},
        redemption::Failure,
    },
    store::{
        account::AccountChange,
        acquire::{Acquired, Selector, Wanted},
        begin::{Begun, NewRedemption, SendLimits},
        lease::LeaseAnswer,
        outcome::{self, Settled, Settlement},
    },
};
use rand::RngExt as _;
use uuid::Uuid;

use super::{
    bench::{Bench, Held, lease_end},
    model::{Cause, Outcome, Status, Wish},
    random::{self, one_of, percent},
};

/// The lease of every acquisition, in minutes.
const LEASE: u64 = 45;
/// The most leases that are left out from one step to the next.
const MAX_HELD: usize = 6;

impl Bench {
    /// One step: time, people, a card or several, and what becomes of them. Answers with how many
    /// cards there were.
    pub(super) async fn step(&mut self) -> usize {
        self.step += 1;
        if percent(&mut self.random, 25) {
            let minutes = one_of(&mut self.random, &[10, 10, 20, 60, 60, 180, 360, 1440]);
            self.let_time_pass(minutes).await;
            if percent(&mut self.random, 70) {
                self.end_expired().await;
            }
        }
        if percent(&mut self.random, 10) {
            self.store.unpark(&self.pool_id, 1000).await.unwrap();
        }
        if percent(&mut self.random, 6) {
            self.people_change_something().await;
        }
        self.replace_what_is_done().await;
        let cards = self.acquire().await;
        while let Some(held) = self.next_to_end() {
            self.use_lease(held).await;
        }
        if self.step.is_multiple_of(100) {
            self.compare().await;
        }
        cards
    }

    /// Acquires accounts for one card, or for several at once, and compares what was chosen.
    async fn acquire(&mut self) -> usize {
        let names = std::mem::take(&mut self.names);
        let first = random::wish(&mut self.random, &self.model.plans, &names);
        self.names = names;
        let mut wishes = vec![first];
        if percent(&mut self.random, 12) {
            for _ in 0..self.random.random_range(1..=5) {
                let other = random::amount(&mut self.random, &self.model.plans);
                let expected = one_of(&mut self.random, &[wishes[0].expected, Some(other), None]);
                wishes.push(Wish { expected, ..wishes[0].clone() });
            }
            self.tally.count("several at once");
        }
        let mut wanted: Vec<_> = wishes
            .iter()
            .map(|wish| {
                wanted(&Uuid::from_bytes(random::bytes(&mut self.random)).to_string(), wish)
            })
            .collect();
        let again = self.held.first().filter(|_| percent(&mut self.random, 3)).cloned();
        if let Some(again) = &again {
            let wish = Wish { expected: again.expected, ..Wish::default() };
            wanted.insert(0, self::wanted(&again.request, &wish));
        }
        if percent(&mut self.random, 2) {
            self.explain(&wishes[0]).await;
        }
        let selector = selector(&wishes[0]);
        let mut found = self.store.acquire(&self.pool_id, &selector, &wanted).await.unwrap();
        if let Some(again) = again {
            let acquired = found.remove(&wanted.remove(0).request_id);
            self.check_again(&again, acquired.as_ref());
        }
        match found.values().next() {
            Some(acquired) => self.told(acquired.account.lease.as_ref().unwrap().acquired_at),
            None => self.tell_time().await,
        }
        // First come, first served.
        for (wish, wanted) in wishes.iter().zip(&wanted) {
            self.compare_choice(wish, &wanted.request_id, found.get(&wanted.request_id)).await;
        }
        wishes.len()
    }

    fn check_again(&mut self, held: &Held, acquired: Option<&Acquired>) {
        let acquired = acquired.unwrap_or_else(|| panic!("{}: {held:?}", self.context()));
        assert!(!acquired.fresh, "{}", self.context());
        assert_eq!(acquired.account.account_id.as_str(), held.account, "{}", self.context());
        assert_eq!(acquired.account.token.0, held.token, "{}", self.context());
        self.tally.count("asked again");
    }

    async fn compare_choice(
        &mut self,
        wish: &Wish,
        request: &RequestId,
        acquired: Option<&Acquired>,
    ) {
        let fitting = self.model.fitting(wish, self.now);
        let ours = fitting.first().map(String::as_str);
        let theirs = acquired.map(|acquired| acquired.account.account_id.as_str());
        if ours != theirs {
            panic!(
                "{}: for {wish:?}\nthe model chooses {ours:?}: {}\nthe database chooses {theirs:?}: {}\n\
                 all that fit, by the model, in order: {fitting:?}",
                self.context(),
                self.describe(ours, wish).await,
                self.describe(theirs, wish).await,
            );
        }
        self.tally.count(match fitting.len() {
            0 => "none fits",
            1 => "one fits",
            _ => "many fit",
        });
        let Some(acquired) = acquired else {
            if percent(&mut self.random, 8) {
                self.explain(wish).await;
            }
            return;
        };
        assert!(acquired.fresh, "{}", self.context());
        let account = &acquired.account;
        let id = account.account_id.to_string();
        let was = self.model.account(&id).status;
        assert_eq!(acquired.original_status.as_str(), was.as_str(), "{}", self.context());
        self.model.lease(&id, wish, lease_end(account) + self.ahead);
        self.held.push(Held {
            account: id,
            token: account.token.0,
            request: request.to_string(),
            expected: wish.expected,
        });
    }

    /// What is told of the choice is what the choice is.
    async fn explain(&mut self, wish: &Wish) {
        let limit = i64::try_from(self.names.len()).unwrap();
        let selector = selector(wish);
        let explained =
            self.store.explain_acquire(&self.pool_id, &selector, wish.expected, limit).await;
        let (counts, considered) = explained.unwrap();
        self.tell_time().await;
        let theirs: BTreeMap<_, _> =
            counts.iter().map(|(choice, count)| (choice.as_str(), *count)).collect();
        let ours = self.model.counts(wish, self.now);
        assert_eq!(
            theirs,
            ours,
            "{}: counts by the database and the model for {wish:?}",
            self.context()
        );
        self.tally.verdicts.extend(ours.keys());
        let mut first = self.model.fitting(wish, self.now);
        for one in considered {
            let id = one.account_id.as_str();
            let verdict = self.model.verdict(&self.model.accounts[id], wish, self.now);
            assert_eq!(one.choice.as_str(), verdict, "{}: {id} for {wish:?}", self.context());
            if verdict == "fits" {
                assert_eq!(first.remove(0), id, "{}: the order for {wish:?}", self.context());
            }
        }
        assert!(first.is_empty(), "{}: not told of {first:?}", self.context());
        self.tally.count("explained");
    }

    /// The next lease that somebody is done with, if there is one.
    fn next_to_end(&mut self) -> Option<Held> {
        let ends =
            self.held.len() > MAX_HELD || (!self.held.is_empty() && percent(&mut self.random, 60));
        ends.then(|| self.held.swap_remove(self.random.random_range(0..self.held.len())))
    }

    /// A caller does with its lease what callers do.
    async fn use_lease(&mut self, held: Held) {
        match self.random.random_range(0..100) {
            0..8 => self.release(&held).await,
            8..10 => {
                // Vanishes: time passes, and somebody ends the lease.
                self.let_time_pass(60).await;
                self.held.push(held);
                self.end_expired().await;
            }
            lot => {
                // Now and then another card than it had said.
                let card = match lot {
                    10..14 => Some(random::amount(&mut self.random, &self.model.plans)),
                    14..16 => None,
                    _ => held.expected,
                };
                self.redeem(held, card).await;
            }
        }
    }

    async fn redeem(&mut self, held: Held, card: Option<i64>) {
        let release = percent(&mut self.random, 85);
        let redemption_id = RedemptionId(Uuid::from_bytes(random::bytes(&mut self.random)));
        let mut code_fingerprint = [0; 32];
        code_fingerprint[..16].copy_from_slice(redemption_id.0.as_bytes());
        let new = NewRedemption {
            redemption_id,
            lease: self.lease_ref(&held),
            request_id: RequestId::parse_any(&redemption_id.0.to_string()).unwrap(),
            release_on_completion: release,
            code_fingerprint,
            code_ciphertext: vec![1],
            code_last4: String::new(),
            expected_minor: card,
        };
        let hour = Duration::from_secs(3600);
        let limits = SendLimits { not_after: hour, take_over: hour };
        let begun = self.store.begin(new, limits).await.unwrap();
        let may = self.model.may_begin(&held.account, card, self.now);
        match begun {
            Begun::Recorded { .. } if may => self.model.begin(&held.account, card),
            Begun::Refused(_) if !may => {
                self.tally.count("not begun");
                return self.release(&held).await;
            }
            _ => panic!(
                "{}: may {card:?} be begun: {may} by the model, in the database {begun:?}: {}",
                self.context(),
                self.describe(Some(&held.account), &Wish::default()).await
            ),
        }
        let mut release = release;
        if percent(&mut self.random, 3) {
            let answer = self.store.release(&self.lease_ref(&held)).await.unwrap();
            assert!(matches!(answer, LeaseAnswer::Done(_)), "{}: {answer:?}", self.context());
            release = true;
        }
        if percent(&mut self.random, 2) {
            let minutes = one_of(&mut self.random, &[20, 60, 1440]);
            self.let_time_pass(minutes).await;
        }
        let outcome = self.random_outcome(&held.account, card);
        self.settle(held, redemption_id, outcome, release).await;
    }

    fn random_outcome(&mut self, id: &str, card: Option<i64>) -> Outcome {
        let any = self.random.random_range(1..=60);
        let target =
            self.model.accounts[id].plan.as_ref().map(|plan| self.model.plans[plan].target);
        match self.random.random_range(0..100) {
            0..8 => Outcome::CardFailed,
            8..11 => Outcome::AccountFailed(Cause::LoginInvalid),
            11..15 => Outcome::AccountFailed(Cause::LimitReached),
            15..20 => Outcome::AccountFailed(Cause::Throttled),
            20..24 => Outcome::Credited(any),
            // One whose amount nobody knew is most likely one that the plan takes.
            lot => Outcome::Credited(card.unwrap_or_else(|| {
                let left = target.map(|target| target - self.model.accounts[id].balance);
                match left {
                    Some(left) if lot < 60 => left,
                    _ => random::amount(&mut self.random, &self.model.plans),
                }
            })),
        }
    }

    async fn settle(&mut self, held: Held, id: RedemptionId, outcome: Outcome, release: bool) {
        let settlement = Settlement {
            redemption_id: id,
            outcome: stored_outcome(outcome),
            attempts: 1,
            actor: "test".to_owned(),
            resolution: None,
            hold: match outcome {
                Outcome::AccountFailed(Cause::LoginInvalid) => Some(HoldCause::LoginInvalid),
                Outcome::AccountFailed(Cause::LimitReached) => Some(HoldCause::LimitReached),
                Outcome::AccountFailed(Cause::Throttled) => Some(HoldCause::Throttled),
                _ => None,
            },
            inferred: false,
        };
        let settled = self.store.settle(&self.pool_id, settlement).await.unwrap();
        let Settled::Recorded { redemption, account_status, resume_status, account_balance_minor } =
            settled
        else {
            panic!("{}: {settled:?}", self.context());
        };
        self.told(redemption.finished_at.unwrap());
        self.model.settle(&held.account, outcome, release, self.now);
        let context = self.context();
        let account = self.model.account(&held.account);
        assert_eq!(account_balance_minor, account.balance, "{context}: {account:?}");
        assert_eq!(resume_status.as_str(), account.status.as_str(), "{context}: {account:?}");
        let locked = account_status == AccountStatus::Locking;
        assert_eq!(locked, account.lease.is_some(), "{context}: {account:?}");
        if locked {
            self.held.push(held);
            self.tally.count("kept for another card");
        }
        self.tally.count(match outcome {
            Outcome::Credited(_) => "credited",
            Outcome::CardFailed => "the card failed",
            Outcome::AccountFailed(_) => "the account failed",
        });
    }

    async fn release(&mut self, held: &Held) {
        let answer = self.store.release(&self.lease_ref(held)).await.unwrap();
        let LeaseAnswer::Done(account) = answer else { panic!("{}: {answer:?}", self.context()) };
        self.told(account.updated_at);
        self.model.end_lease(&held.account, self.now);
        self.tally.count("released");
    }

    /// Leases whose time has passed end.
    async fn end_expired(&mut self) {
        let ended = self.store.expire(&self.pool_id, 1000, "test").await.unwrap();
        match ended.first() {
            Some(account) => self.told(account.updated_at),
            None => self.tell_time().await,
        }
        let mut theirs: Vec<_> =
            ended.iter().map(|account| account.account_id.to_string()).collect();
        theirs.sort();
        let over = |id: &String| {
            let lease = self.model.accounts[id].lease.as_ref();
            lease.is_some_and(|lease| lease.expires_at <= self.now)
        };
        let ours: Vec<_> = self.names.iter().filter(|id| over(id)).cloned().collect();
        assert_eq!(
            theirs,
            ours,
            "{}: leases that end by the database and the model",
            self.context()
        );
        for id in ours {
            let now = self.now;
            self.model.end_lease(&id, now);
            self.held.retain(|held| held.account != id);
            self.tally.count("expired");
        }
    }

    /// Somebody pauses, drains, sets aside or takes back an account, or gives it another plan.
    async fn people_change_something(&mut self) {
        let in_the_way: Vec<_> = self
            .model
            .accounts
            .values()
            .filter(|a| !a.active || a.paused || a.draining || a.hold_until.is_some())
            .map(|account| account.id.clone())
            .collect();
        let id = match in_the_way.len() {
            few if few < 3 || percent(&mut self.random, 30) => {
                one_of(&mut self.random, &self.names)
            }
            _ => one_of(&mut self.random, &in_the_way),
        };
        let mut change = AccountChange::default();
        let plans: Vec<_> = self.model.plans.keys().cloned().map(Some).chain([None]).collect();
        let plan = one_of(&mut self.random, &plans);
        let account = self.model.account(&id);
        match self.random.random_range(0..5) {
            0 if !account.active => change.login_status = Some(LoginStatus::Active),
            0 => change.login_status = Some(LoginStatus::Inactive),
            1 => change.paused = Some(!account.paused),
            2 => change.draining = Some(!account.draining),
            3 => change.lift_hold = true,
            _ if account.lease.is_some() || account.plan == plan => return,
            _ => {
                change.plan_id = Some(plan.as_ref().map(|plan| PlanId::parse(plan).unwrap()));
            }
        }
        let account_id = AccountId::parse(&id).unwrap();
        let changed = self.store.update_account(&self.pool_id, &account_id, &change).await.unwrap();
        assert!(changed.is_some(), "{}", self.context());
        account.active = change.login_status.map_or(account.active, |s| s == LoginStatus::Active);
        account.paused = change.paused.unwrap_or(account.paused);
        account.draining = change.draining.unwrap_or(account.draining);
        if change.lift_hold {
            account.hold_until = None;
            account.failures = 0;
        }
        if change.plan_id.is_some() {
            account.plan.clone_from(&plan);
            account.day = 1;
            account.day_credited = 0;
            account.day_due = None;
            let balance = account.balance;
            let is_full = plan.is_some_and(|plan| balance >= self.model.plans[&plan].target);
            let account = self.model.account(&id);
            if is_full {
                account.status = Status::Completed;
            } else if account.status == Status::Completed {
                account.status = Status::Waiting;
            }
        }
    }

    /// Accounts that are full, or that no card can fill any more, make way for others, once there are
    /// many.
    async fn replace_what_is_done(&mut self) {
        let any = Wish::default();
        let done = |id: &&String| {
            let account = &self.model.accounts[*id];
            let verdict = self.model.verdict(account, &any, self.now);
            account.lease.is_none() && ["completed", "too_full", "remainder"].contains(&verdict)
        };
        let mut done: Vec<_> = self.names.iter().filter(done).cloned().collect();
        if done.len() * 4 > self.names.len() {
            done.truncate(self.random.random_range(1..=4));
            self.begin_anew(&done).await;
        }
    }

    fn lease_ref(&self, held: &Held) -> LeaseRef {
        LeaseRef {
            pool_id: self.pool_id.clone(),
            account_id: AccountId::parse(&held.account).unwrap(),
            token: FencingToken(held.token),
        }
    }
}

fn wanted(request: &str, wish: &Wish) -> Wanted {
    Wanted {
        request_id: RequestId::parse_any(request).unwrap(),
        holder: Holder::parse("me").unwrap(),
        ttl: Duration::from_secs(60 * LEASE),
        expected_minor: wish.expected,
    }
}

fn selector(wish: &Wish) -> Selector {
    Selector {
        account_id: wish.account.as_ref().map(|id| AccountId::parse(id).unwrap()),
        plan_id: wish.plan.as_ref().map(|id| PlanId::parse(id).unwrap()),
        country_code: wish.country.clone(),
        card_country: wish.card_country.clone(),
        min_headroom_minor: wish.min_headroom,
        labels: wish.labels.clone(),
        exclude: wish.exclude.iter().map(|id| AccountId::parse(id).unwrap()).collect(),
    }
}

fn stored_outcome(outcome: Outcome) -> outcome::Outcome {
    match outcome {
        Outcome::Credited(amount_minor) => outcome::Outcome::Succeeded {
            amount: Money { amount_minor, currency: Currency::parse("EUR").unwrap() },
            provider_ref: None,
        },
        _ => outcome::Outcome::Failed(Failure {
            reason: "NO".to_owned(),
            message: String::new(),
            code_spent: false,
        }),
    }
}
