//! What happens in a pool, one thing after another, in the database and in the model.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast::{
    domain::{
        account::LoginStatus,
        choice::Criteria,
        id::{AccountId, Holder, PlanId, RequestId},
        principal::{Authority, Principal, RequestKey},
        selector::Selector,
    },
    store::{
        account::AccountChange,
        acquire::{Acquired, Wanted},
        apply::Applied,
        ready_set::{Asked, Explanation},
    },
};
use rand::{RngExt as _, seq::SliceRandom as _};
use uuid::Uuid;

use super::{
    bench::{Bench, Held, lease_end},
    model::{Status, Wish},
    random::{self, one_of, percent},
};
use crate::support::by_store;

/// What an explanation tells, in short.
fn told(explanation: &Explanation) -> String {
    let (counts, considered) = explanation;
    let considered: Vec<_> = considered
        .iter()
        .map(|one| (&one.account.account_id, one.choice, one.headroom_minor))
        .collect();
    format!("{counts:?} {considered:?}")
}

/// The lease of every acquisition, in minutes.
const LEASE: u64 = 45;

impl Bench {
    /// One step: time, people, a card or several, and what becomes of them. Answers with how many
    /// cards there were.
    pub(super) async fn step(&mut self) -> usize {
        self.step += 1;
        if percent(&mut self.random, 20) {
            let minutes = one_of(&mut self.random, &[10, 10, 20, 60, 60, 180, 360, 1440]);
            self.let_time_pass(minutes).await;
            if percent(&mut self.random, 60) {
                self.end_expired().await;
            }
        }
        if percent(&mut self.random, 6) {
            self.people_change_something().await;
        }
        if self.step.is_multiple_of(4) {
            self.replace_what_is_done().await;
        }
        if percent(&mut self.random, 1) {
            self.ask_again().await;
        }
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
        let mut first = random::wish(&mut self.random, &self.model.plans, &names);
        self.names = names;
        if percent(&mut self.random, 50) {
            first = self.last_wish.clone();
        }
        self.last_wish = first.clone();
        let mut wishes = vec![first];
        if percent(&mut self.random, 30) {
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
                let request = Uuid::from_bytes(random::bytes(&mut self.random)).to_string();
                (wanted(&request), criteria(wish))
            })
            .collect();
        let again = self.held.first().filter(|_| percent(&mut self.random, 3)).cloned();
        if let Some(again) = &again {
            let wish = Wish { expected: again.expected, ..Wish::default() };
            wanted.insert(0, (self::wanted(&again.request), criteria(&wish)));
        }
        if percent(&mut self.random, 2) {
            self.explain(&wishes[0]).await;
        }
        let mut found = by_store::acquire(&self.store, &self.pool_id, &wanted).await;
        if let Some(again) = again {
            let acquired = found.remove(&wanted.remove(0).0.request);
            self.check_again(&again, acquired.as_ref());
        }
        match found.values().next() {
            Some(acquired) => self.told(acquired.account.lease.as_ref().unwrap().acquired_at),
            None => self.tell_time().await,
        }
        // First come, first served.
        for (wish, (wanted, _)) in wishes.iter().zip(&wanted) {
            self.compare_choice(wish, &wanted.request, found.get(&wanted.request)).await;
        }
        wishes.len()
    }

    /// A request that has its lease comes once more, with no other.
    async fn ask_again(&mut self) {
        let Some(held) = self.held.first().cloned() else { return };
        let wanted = wanted(&held.request);
        let again = [(wanted.clone(), criteria(&Wish::default()))];
        let found = by_store::acquire(&self.store, &self.pool_id, &again).await;
        self.check_again(&held, found.get(&wanted.request));
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
        request: &RequestKey,
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
            if percent(&mut self.random, 4) {
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
            request: request.request_id.to_string(),
            expected: wish.expected,
        });
    }

    /// What is told of the choice is what the choice is.
    async fn explain(&mut self, wish: &Wish) {
        let ready = self.store.ready(&self.pool_id);
        assert!(ready.follow().await.unwrap());
        let terms = ready.terms().unwrap();
        // Each limit is another: time passes here in a way that no server is told of.
        let asked = Asked { criteria: criteria(wish), limit: self.names.len() + self.step };
        let of_memory = ready.explain(asked.clone(), Arc::clone(&terms), ()).await.unwrap();
        let of_rows = ready.read_explanation(asked, terms, ()).await.unwrap();
        assert_eq!(told(&of_memory), told(&of_rows), "{}: {wish:?}", self.context());
        let (counts, considered) = of_rows;
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
            let id = one.account.account_id.as_str();
            let verdict = self.model.verdict(&self.model.accounts[id], wish, self.now);
            assert_eq!(one.choice.as_str(), verdict, "{}: {id} for {wish:?}", self.context());
            if verdict == "fits" {
                assert_eq!(first.remove(0), id, "{}: the order for {wish:?}", self.context());
            }
        }
        assert!(first.is_empty(), "{}: not told of {first:?}", self.context());
        self.tally.count("explained");
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
        let changed = self
            .store
            .update_account(&self.pool_id, &account_id, change.clone(), Authority::default())
            .await
            .unwrap();
        assert!(matches!(changed, Applied::Done(_)), "{}: {changed:?}", self.context());
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

    /// Accounts that are full, that no card can fill any more, or that people set aside make way for
    /// others, once there are many.
    async fn replace_what_is_done(&mut self) {
        let any = Wish::default();
        let out = ["completed", "inactive", "paused", "draining", "too_full", "remainder"];
        let is_done = |id: &&String| {
            let account = &self.model.accounts[*id];
            account.lease.is_none() && out.contains(&self.model.verdict(account, &any, self.now))
        };
        let mut done: Vec<_> = self.names.iter().filter(is_done).cloned().collect();
        if done.len() * 3 > self.names.len() {
            done.shuffle(&mut self.random);
            done.truncate(self.random.random_range(2..=9));
            self.begin_anew(&done).await;
        }
    }
}

fn wanted(request: &str) -> Wanted {
    Wanted {
        begins: None,
        request: RequestKey::new(Principal::anonymous(), RequestId::parse_any(request).unwrap()),
        holder: Holder::parse("me").unwrap(),
        ttl: Duration::from_secs(60 * LEASE),
    }
}

fn criteria(wish: &Wish) -> Criteria {
    Criteria { selector: Arc::new(selector(wish)), expected_minor: wish.expected }
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
