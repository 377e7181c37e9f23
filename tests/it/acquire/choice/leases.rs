//! What becomes of leases: what callers do with them, well-behaved ones and others, and what the
//! provider says.

use std::{collections::BTreeMap, time::Duration};

use holdfast::{
    domain::{
        account::{AccountStatus, HoldCause},
        id::{AccountId, FencingToken, RedemptionId, RequestId},
        lease::LeaseRef,
        money::{Currency, Money},
        principal::{Authority, Principal, RequestKey},
        redemption::Failure,
    },
    store::{
        begin::{Begun, NewRedemption, SendLimits},
        lease::LeaseAnswer,
        outcome::{self, Settled, Settlement},
    },
};
use rand::RngExt as _;
use uuid::Uuid;

use super::{
    bench::{Bench, Held, micros},
    model::{Cause, Outcome, Wish},
    random::{self, one_of, percent},
};

/// The most leases that are left out from one step to the next.
const MAX_HELD: usize = 6;

impl Bench {
    /// The next lease that somebody is done with, if there is one.
    pub(super) fn next_to_end(&mut self) -> Option<Held> {
        let ends =
            self.held.len() > MAX_HELD || (!self.held.is_empty() && percent(&mut self.random, 60));
        ends.then(|| self.held.swap_remove(self.random.random_range(0..self.held.len())))
    }

    /// A caller does with its lease what callers do.
    pub(super) async fn use_lease(&mut self, held: Held) {
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
            attempt: 1,
            request: RequestKey::new(
                Principal::anonymous(),
                RequestId::parse_any(&redemption_id.0.to_string()).unwrap(),
            ),
            release_on_completion: release,
            code_fingerprint: code_fingerprint.into(),
            code_ciphertext: vec![1],
            code_last4: String::new(),
            expected_minor: card,
            expected_learned: false,
            profile: holdfast::provider::profile::Profile::built_in().pinned(),
        };
        let hour = Duration::from_secs(3600);
        let limits = SendLimits { not_after: hour, take_over: hour };
        let begun = self.store.begin(&self.lease_ref(&held), new, limits).await.unwrap();
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
            let answer =
                self.store.release(&self.lease_ref(&held), Authority::default()).await.unwrap();
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
            redemption: self.store.get_redemption(&self.pool_id, id).await.unwrap().unwrap(),
            outcome: stored_outcome(outcome),
            attempts: 1,
            actor: "test".to_owned(),
            resolution: None,
            by: None,
            hold: match outcome {
                Outcome::AccountFailed(Cause::LoginInvalid) => Some(HoldCause::LoginInvalid),
                Outcome::AccountFailed(Cause::LimitReached) => Some(HoldCause::LimitReached),
                Outcome::AccountFailed(Cause::Throttled) => Some(HoldCause::Throttled),
                _ => None,
            },
            inferred: false,
        };
        let settled = self.store.settle(&self.pool_id, settlement).await.unwrap();
        let Settled::Recorded { redemption, account: settled } = settled else {
            panic!("{}: not settled", self.context());
        };
        self.told(redemption.finished_at.unwrap());
        self.model.settle(&held.account, outcome, release, self.now);
        let context = self.context();
        let account = self.model.account(&held.account);
        assert_eq!(settled.balance_minor, account.balance, "{context}: {account:?}");
        assert_eq!(
            settled.resume.unwrap().status().as_str(),
            account.status.as_str(),
            "{context}: {account:?}"
        );
        let locked = settled.status == AccountStatus::Locking;
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
        let answer = self.store.release(&self.lease_ref(held), Authority::default()).await.unwrap();
        let LeaseAnswer::Done(account) = answer else { panic!("{}: {answer:?}", self.context()) };
        self.told(account.updated_at);
        self.model.end_lease(&held.account, self.now);
        self.tally.count("released");
    }

    /// Leases whose time has passed end.
    pub(super) async fn end_expired(&mut self) {
        let ended = self.store.expire(&self.pool_id, None, 1000, "test").await.unwrap().rows;
        match ended.iter().map(|account| account.updated_at).max() {
            Some(last) => self.told(last),
            None => self.tell_time().await,
        }
        // They may end by several statements, each at its time.
        let theirs: BTreeMap<_, _> = ended
            .iter()
            .map(|account| {
                (account.account_id.to_string(), micros(account.updated_at) + self.ahead)
            })
            .collect();
        let over = |id: &String| {
            let lease = self.model.accounts[id].lease.as_ref();
            lease.is_some_and(|lease| lease.expires_at <= self.now)
        };
        let ours: Vec<_> = self.names.iter().filter(|id| over(id)).cloned().collect();
        assert_eq!(
            theirs.keys().cloned().collect::<Vec<_>>(),
            ours,
            "{}: leases that end by the database and the model",
            self.context()
        );
        for (id, at) in theirs {
            self.model.end_lease(&id, at);
            self.held.retain(|held| held.account != id);
            self.tally.count("expired");
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
