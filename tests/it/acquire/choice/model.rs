//! The rules of the choice, slow and plain: each is written out from its words, amounts are few and
//! small, and whatever can be found by trying is tried. Shares nothing with the program.
//!
//! Times are microseconds of the model's own clock, which goes on as time does in the database, and
//! jumps where the test lets time pass there.

use std::{
    cell::RefCell,
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
};

/// Which cards a plan takes.
#[derive(Clone, Debug)]
pub(super) enum Takes {
    /// Any amount from this one, to that one if there is an end.
    From(i64, Option<i64>),
    MultiplesOf(i64),
    Only(Vec<i64>),
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) target: i64,
    pub(super) days: Vec<i64>,
    pub(super) tolerance: i64,
    pub(super) day_interval: i64,
    pub(super) redemption_interval: i64,
    pub(super) takes: Takes,
    /// For each amount up to the target, whether some cards add up to it.
    fillable: Vec<bool>,
}

impl Plan {
    pub(super) fn new(target: i64, takes: Takes) -> Self {
        let mut plan = Self {
            target,
            days: Vec::new(),
            tolerance: 0,
            day_interval: 0,
            redemption_interval: 0,
            takes,
            fillable: vec![true],
        };
        for amount in 1..=target {
            let fillable =
                (1..=amount).any(|card| plan.takes(card) && plan.can_be_filled(amount - card));
            plan.fillable.push(fillable);
        }
        plan
    }

    pub(super) fn takes(&self, card: i64) -> bool {
        match &self.takes {
            Takes::From(least, most) => card >= *least && most.is_none_or(|most| card <= most),
            Takes::MultiplesOf(base) => card % base == 0,
            Takes::Only(amounts) => amounts.contains(&card),
        }
    }

    pub(super) fn can_be_filled(&self, amount: i64) -> bool {
        usize::try_from(amount).is_ok_and(|amount| self.fillable.get(amount) == Some(&true))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Waiting,
    Processing,
    Completed,
}

impl Status {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Processing => "PROCESSING",
            Self::Completed => "COMPLETED",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) expires_at: i64,
    /// The account had no plan, and has it by this lease alone.
    pub(super) bound: bool,
    pub(super) reserved: Option<i64>,
}

#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) id: String,
    pub(super) plan: Option<String>,
    /// As it is, or as it is going to be when its lease ends.
    pub(super) status: Status,
    pub(super) lease: Option<Lease>,
    pub(super) balance: i64,
    pub(super) day: usize,
    pub(super) day_credited: i64,
    pub(super) day_due: Option<i64>,
    pub(super) cooldown_until: Option<i64>,
    pub(super) hold_until: Option<i64>,
    pub(super) failures: i32,
    pub(super) active: bool,
    pub(super) paused: bool,
    pub(super) draining: bool,
    pub(super) country: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) idle_since: i64,
}

/// Which account is wanted, and for what.
#[derive(Clone, Debug, Default)]
pub(super) struct Wish {
    pub(super) expected: Option<i64>,
    pub(super) account: Option<String>,
    pub(super) plan: Option<String>,
    pub(super) country: Option<String>,
    pub(super) card_country: Option<String>,
    pub(super) min_headroom: Option<i64>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) exclude: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    LoginInvalid,
    LimitReached,
    Throttled,
}

/// What became of a redemption.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    Credited(i64),
    CardFailed,
    AccountFailed(Cause),
}

/// How long holds are.
#[derive(Clone, Debug)]
pub(super) struct Holds {
    pub(super) login_invalid: i64,
    pub(super) limit_reached: i64,
    pub(super) throttled: i64,
    pub(super) longest: i64,
}

pub(super) struct Pool {
    pub(super) plans: BTreeMap<String, Plan>,
    pub(super) accounts: BTreeMap<String, Account>,
    pub(super) holds: Holds,
    /// Whether some card fits, by plan, what is left of it and what is left of the day: trying is slow.
    tried: RefCell<HashMap<(String, i64, i64), bool>>,
}

impl Pool {
    pub(super) fn new(plans: BTreeMap<String, Plan>, holds: Holds) -> Self {
        Self { plans, accounts: BTreeMap::new(), holds, tried: RefCell::default() }
    }

    /// All that fit, in order.
    pub(super) fn fitting(&self, wish: &Wish, now: i64) -> Vec<String> {
        let fits = |account: &&Account| self.verdict(account, wish, now) == "fits";
        let mut fitting: Vec<_> = self.accounts.values().filter(fits).collect();
        fitting.sort_by(|a, b| self.which_first(a, b, wish));
        fitting.into_iter().map(|account| account.id.clone()).collect()
    }

    /// How many accounts there are of each verdict.
    pub(super) fn counts(&self, wish: &Wish, now: i64) -> BTreeMap<&'static str, i64> {
        let mut counts = BTreeMap::new();
        for account in self.accounts.values() {
            *counts.entry(self.verdict(account, wish, now)).or_default() += 1;
        }
        counts
    }

    /// "Bound to the asked plan, PROCESSING before WAITING, the fullest account first, then the longest
    /// unused."
    fn which_first(&self, a: &Account, b: &Account, wish: &Wish) -> Ordering {
        if wish.plan.is_some() && a.plan != b.plan {
            return if a.plan == wish.plan { Ordering::Less } else { Ordering::Greater };
        }
        if a.status != b.status {
            return if a.status == Status::Processing { Ordering::Less } else { Ordering::Greater };
        }
        let fullness = match (self.wants(a), self.wants(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        fullness.then(a.idle_since.cmp(&b.idle_since)).then(a.id.cmp(&b.id))
    }

    /// What an account's own plan still wants.
    fn wants(&self, account: &Account) -> Option<i64> {
        account.plan.as_ref().map(|plan| self.plans[plan].target - account.balance)
    }

    /// The first cause for which an account is passed over; "fits" where there is none.
    pub(super) fn verdict(&self, account: &Account, wish: &Wish, now: i64) -> &'static str {
        let is_later = |at: Option<i64>| at.is_some_and(|at| at > now);
        if !is_selected(account, wish) {
            return "not_selected";
        }
        if account.lease.is_none() && account.status == Status::Completed {
            return "completed";
        }
        if !account.active {
            return "inactive";
        }
        if account.paused {
            return "paused";
        }
        if account.draining {
            return "draining";
        }
        if let Some(plan) = account.plan.as_ref().or(wish.plan.as_ref())
            && let Some(misfit) = self.misfit(account, plan, wish.expected, wish.min_headroom)
        {
            return misfit;
        }
        if is_later(account.hold_until) {
            return "on_hold";
        }
        if is_later(account.day_due) {
            return "next_day";
        }
        if is_later(account.cooldown_until) {
            return "cooling_down";
        }
        if account.lease.is_some() {
            return "locked";
        }
        "fits"
    }

    /// Why a plan does not take a card for an account; none where it does. Without an amount: why it
    /// takes no card at all.
    fn misfit(
        &self,
        account: &Account,
        plan_id: &str,
        card: Option<i64>,
        min_headroom: Option<i64>,
    ) -> Option<&'static str> {
        let plan = &self.plans[plan_id];
        let left = plan.target - account.balance;
        let today = left_today(plan, account);
        let most = card.into_iter().chain(min_headroom).max().unwrap_or(1);
        if left < most {
            return Some("too_full");
        }
        match card {
            Some(card) if !plan.takes(card) => return Some("denomination"),
            Some(card) if !plan.can_be_filled(left - card) => return Some("remainder"),
            None if !self.some_card_fits(plan_id, left, today) => return Some("remainder"),
            _ => {}
        }
        (today < most).then_some("day_full")
    }

    fn some_card_fits(&self, plan_id: &str, left: i64, today: i64) -> bool {
        let plan = &self.plans[plan_id];
        *self.tried.borrow_mut().entry((plan_id.to_owned(), left, today)).or_insert_with(|| {
            (1..=today).any(|card| plan.takes(card) && plan.can_be_filled(left - card))
        })
    }

    /// Leases an account to a wish.
    pub(super) fn lease(&mut self, id: &str, wish: &Wish, expires_at: i64) {
        let account = self.account(id);
        let bound = account.plan.is_none() && wish.plan.is_some();
        if bound {
            account.plan.clone_from(&wish.plan);
        }
        account.lease = Some(Lease { expires_at, bound, reserved: wish.expected });
    }

    /// Ends a lease without a success.
    pub(super) fn end_lease(&mut self, id: &str, now: i64) {
        let account = self.account(id);
        if account.lease.take().is_some_and(|lease| lease.bound) {
            account.plan = None;
        }
        account.idle_since = now;
    }

    /// Whether a redemption may begin under the lease of an account.
    pub(super) fn may_begin(&self, id: &str, card: Option<i64>, now: i64) -> bool {
        let account = &self.accounts[id];
        let rests = [account.day_due, account.cooldown_until, account.hold_until];
        let plan = account.plan.as_ref();
        let fits = plan.is_none_or(|plan| self.misfit(account, plan, card, None).is_none());
        account.lease.as_ref().is_some_and(|lease| lease.expires_at > now)
            && !account.paused
            && !rests.into_iter().flatten().any(|until| until > now)
            && fits
    }

    /// A redemption under the lease of an account begins.
    pub(super) fn begin(&mut self, id: &str, card: Option<i64>) {
        let lease = self.account(id).lease.as_mut().unwrap();
        lease.reserved = card.or(lease.reserved);
    }

    /// The outcome of the redemption under the lease of an account is known.
    pub(super) fn settle(&mut self, id: &str, outcome: Outcome, release: bool, now: i64) {
        let plan = self.account(id).plan.clone().map(|plan| self.plans[&plan].clone());
        let holds = self.holds.clone();
        let account = self.account(id);
        account.idle_since = now;
        account.lease.as_mut().unwrap().reserved = None;
        let pause = plan.as_ref().map(|plan| plan.redemption_interval);
        account.cooldown_until = pause.filter(|pause| *pause > 0).map(|pause| now + pause);
        match outcome {
            Outcome::Credited(amount) => {
                account.lease.as_mut().unwrap().bound = false;
                account.failures = 0;
                account.hold_until = None;
                self.credit(id, amount, now);
            }
            Outcome::CardFailed => {}
            Outcome::AccountFailed(cause) => {
                let first = match cause {
                    Cause::LoginInvalid => holds.login_invalid,
                    Cause::LimitReached => holds.limit_reached,
                    Cause::Throttled => holds.throttled,
                };
                let mut hold = first;
                for _ in 0..account.failures {
                    hold = holds.longest.min(2 * hold);
                }
                account.hold_until = Some(now + holds.longest.min(hold));
                account.failures += 1;
                account.active &= cause != Cause::LoginInvalid;
            }
        }
        let account = self.account(id);
        if release || account.lease.as_ref().unwrap().expires_at <= now {
            self.end_lease(id, now);
        }
    }

    fn credit(&mut self, id: &str, amount: i64, now: i64) {
        let account = self.account(id);
        account.balance += amount;
        account.status = Status::Processing;
        let Some(plan_id) = account.plan.clone() else { return };
        account.day_credited += amount;
        let account = account.clone();
        let plan = self.plans[&plan_id].clone();
        let left = plan.target - account.balance;
        if left <= 0 {
            self.account(id).status = Status::Completed;
            return;
        }
        let ends = account.day < plan.days.len()
            && (account.day_credited >= plan.days[account.day - 1]
                || !self.some_card_fits(&plan_id, left, left_today(&plan, &account)));
        if ends {
            let account = self.account(id);
            account.status = Status::Waiting;
            account.day += 1;
            account.day_credited = 0;
            account.day_due = Some(now + plan.day_interval);
        }
    }

    pub(super) fn account(&mut self, id: &str) -> &mut Account {
        self.accounts.get_mut(id).unwrap()
    }
}

/// What a plan takes today: "within the day's amount plus tolerance, except on the last day", and never
/// beyond its total.
fn left_today(plan: &Plan, account: &Account) -> i64 {
    let left = plan.target - account.balance;
    if account.day >= plan.days.len() {
        return left;
    }
    left.min(plan.days[account.day - 1] + plan.tolerance - account.day_credited)
}

fn is_selected(account: &Account, wish: &Wish) -> bool {
    let has_labels = wish.labels.iter().all(|(key, value)| account.labels.get(key) == Some(value));
    wish.account.as_ref().is_none_or(|id| *id == account.id)
        && (wish.plan.is_none() || account.plan.is_none() || account.plan == wish.plan)
        && (wish.country.is_none() || account.country == wish.country)
        && (wish.card_country.is_none()
            || account.country.is_none()
            || account.country == wish.card_country)
        && has_labels
        && !wish.exclude.contains(&account.id)
}
