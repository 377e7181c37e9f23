use std::collections::HashMap;

use proptest::prelude::*;
use time::OffsetDateTime;
use uuid::Uuid;

use super::*;
use crate::domain::{
    hold::Holds,
    id::{AccountId, PoolId, RequestId},
    plan::Denominations,
};

mod corrected;

const HOUR: Duration = Duration::from_secs(3600);
const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn plan_id() -> PlanId {
    PlanId::parse("plan").unwrap()
}

/// Cards of 100: two fill a day, and six the plan.
fn pool() -> PoolTerms {
    let terms = Terms {
        target_minor: 600,
        day_amounts_minor: vec![200, 200],
        denominations: Denominations::MultiplesOf(100),
        ..Terms::up_to(600)
    };
    let holds =
        Holds { login_invalid: HOUR, limit_reached: HOUR, throttled: HOUR, longest: 3 * HOUR };
    let plans = HashMap::from([(plan_id(), terms)]);
    PoolTerms { revision: 1, paused: false, draining: false, holds, plans }
}

fn free() -> Account {
    Account {
        pool_id: PoolId::parse("pool").unwrap(),
        account_id: AccountId::parse("a").unwrap(),
        status: AccountStatus::Waiting,
        login_status: LoginStatus::Active,
        plan_id: Some(plan_id()),
        country_code: None,
        balance_minor: 0,
        labels: Labels::new(),
        plan_day: 1,
        day_credited_minor: 0,
        reserved_minor: None,
        day_due_at: None,
        cooldown_until: None,
        hold: None,
        paused: false,
        draining: false,
        token: FencingToken(7),
        resume: None,
        lease: None,
        lease_end: None,
        bound_by_lease: false,
        open_redemption_id: None,
        idle_since: NOW,
        created_at: NOW,
        updated_at: NOW,
        version: Version { number: 1, change_id: Uuid::nil() },
        as_of: NOW,
    }
}

fn request_id() -> RequestId {
    RequestId::parse_any("request").unwrap()
}

/// Nobody in particular, as on a server that asks nobody who they are.
fn nobody() -> Principal {
    Principal::anonymous()
}

fn wanted() -> Wanted {
    Wanted {
        request: RequestKey::new(Principal::anonymous(), request_id()),
        holder: Holder::parse("me").unwrap(),
        ttl: HOUR,
        plan_id: None,
        expected_minor: None,
        min_headroom_minor: None,
        begins: None,
    }
}

const ID: RedemptionId = RedemptionId(Uuid::nil());

/// Lets an event happen a second later.
fn after(account: &Account, event: &AccountEvent) -> Result<Account, Refusal> {
    let change = transition(account, event, &pool())?;
    let at = account.as_of + Duration::from_secs(1);
    Ok(change.apply(account.clone(), Uuid::now_v7(), at))
}

fn locked() -> Account {
    after(&free(), &AccountEvent::Acquire(wanted())).unwrap()
}

fn open() -> Account {
    let account = locked();
    let begin = AccountEvent::Begin {
        token: account.token,
        by: nobody(),
        redemption_id: ID,
        expected_minor: Some(100),
    };
    after(&account, &begin).unwrap()
}

fn settle(outcome: SettleOutcome, release: bool) -> AccountEvent {
    let actor = "me".to_owned();
    AccountEvent::Settle(Settle { redemption_id: ID, outcome, release, actor, by: None })
}

const CREDITED: SettleOutcome = SettleOutcome::Succeeded { amount_minor: 100 };
const REFUSED: SettleOutcome = SettleOutcome::Failed { hold: None };

fn later(account: Account) -> Account {
    Account { as_of: account.as_of + 2 * HOUR, ..account }
}

#[test]
fn a_lease_gives_the_account_back_as_it_was() {
    let account = locked();
    assert_eq!((account.status, account.token), (AccountStatus::Locking, FencingToken(8)));
    assert_eq!(account.lease_remaining(), HOUR);
    let released =
        after(&account, &AccountEvent::Release { token: account.token, by: Authority::default() })
            .unwrap();
    assert_eq!(released.status, AccountStatus::Waiting);
    assert_eq!(released.lease_loss(account.token), Some(LeaseLoss::Released));
    let actor = "sweeper".to_owned();
    let expire = AccountEvent::Expire { actor };
    assert_eq!(after(&account, &expire), Err(Refusal::LeaseAlive));
    let expired = after(&later(account.clone()), &expire).unwrap();
    assert_eq!(expired.status, AccountStatus::Waiting);
    assert_eq!(expired.lease_loss(account.token), Some(LeaseLoss::Expired));
}

#[test]
fn a_settlement_is_guarded_by_the_time_that_it_was_decided_for() {
    let account = open();
    let guard = |account: &Account, release| {
        transition(account, &settle(REFUSED, release), &pool()).unwrap().guard
    };
    assert_eq!(guard(&account, false), Guard::LeaseAlive);
    assert_eq!(guard(&later(account.clone()), false), Guard::LeaseEnded);
    assert_eq!(guard(&account, true), Guard::None);
    let ended = after(&later(account), &settle(REFUSED, false)).unwrap();
    assert_eq!((ended.status, ended.lease_end), (AccountStatus::Waiting, Some(LeaseEnd::Expired)));
}

#[test]
fn credits_fill_the_day_then_the_plan() {
    let first = after(&open(), &settle(CREDITED, true)).unwrap();
    assert_eq!(first.status, AccountStatus::Processing);
    assert_eq!((first.balance_minor, first.day_credited_minor, first.plan_day), (100, 100, 1));
    let nearly = Account { day_credited_minor: 100, balance_minor: 100, ..open() };
    let day = after(&nearly, &settle(CREDITED, true)).unwrap();
    assert_eq!((day.status, day.plan_day), (AccountStatus::Waiting, 2));
    assert_eq!(day.rest(), Some((Rest::NextDay, pool().plans[&plan_id()].day_interval)));
    let nearly = Account { plan_day: 3, balance_minor: 500, ..open() };
    let full = after(&nearly, &settle(CREDITED, true)).unwrap();
    assert_eq!((full.status, full.balance_minor), (AccountStatus::Completed, 600));
    assert_eq!(after(&full, &AccountEvent::Acquire(wanted())), Err(Refusal::Completed));
}

#[test]
fn a_failure_of_the_account_s_own_holds_it_for_longer_each_time() {
    let mut account = open();
    for hours in [1, 2, 3, 3] {
        let failed = SettleOutcome::Failed { hold: Some(HoldCause::LoginInvalid) };
        let held = after(&account, &settle(failed, true)).unwrap();
        assert_eq!(held.rest(), Some((Rest::Hold, hours * HOUR)));
        assert_eq!(held.login_status, LoginStatus::Invalid);
        account.hold = held.hold;
    }
    let succeeded = after(&account, &settle(CREDITED, false)).unwrap();
    assert_eq!(succeeded.hold, None);
}

#[test]
fn a_plan_that_a_lease_bound_is_taken_away_without_a_success() {
    let unbound = Account { plan_id: None, ..free() };
    let acquire = AccountEvent::Acquire(Wanted { plan_id: Some(plan_id()), ..wanted() });
    let bound = after(&unbound, &acquire).unwrap();
    assert_eq!((&bound.plan_id, bound.bound_by_lease), (&Some(plan_id()), true));
    let begin = AccountEvent::Begin {
        token: bound.token,
        by: nobody(),
        redemption_id: ID,
        expected_minor: None,
    };
    let open = after(&bound, &begin).unwrap();
    for (outcome, plan) in [(REFUSED, None), (CREDITED, Some(plan_id()))] {
        let settled = after(&open, &settle(outcome, true)).unwrap();
        assert_eq!((settled.plan_id, settled.bound_by_lease), (plan, false));
    }
    let kept = after(&open, &settle(REFUSED, false)).unwrap();
    assert_eq!((kept.plan_id, kept.bound_by_lease), (Some(plan_id()), true), "the lease goes on");
}

#[test]
fn what_begins_nothing_new_refuses_a_begin_and_an_acquisition() {
    let account = locked();
    let begin = AccountEvent::Begin {
        token: account.token,
        by: nobody(),
        redemption_id: ID,
        expected_minor: None,
    };
    let acquire = AccountEvent::Acquire(wanted());
    let paused = PoolTerms { paused: true, ..pool() };
    assert_eq!(transition(&account, &begin, &paused), Err(Refusal::PoolPaused));
    assert_eq!(transition(&free(), &acquire, &paused), Err(Refusal::PoolPaused));
    let draining = PoolTerms { draining: true, ..pool() };
    assert_eq!(transition(&free(), &acquire, &draining), Err(Refusal::PoolDraining));
    assert!(transition(&account, &begin, &draining).is_ok(), "a lease that is out goes on");
    let stopped = Account { paused: true, ..account };
    assert_eq!(after(&stopped, &begin), Err(Refusal::Paused));
    let inactive = Account { login_status: LoginStatus::Inactive, ..free() };
    assert_eq!(after(&inactive, &acquire), Err(Refusal::Inactive));
    let resting = Account { cooldown_until: Some(NOW + HOUR), ..free() };
    let refusal = Refusal::Resting { cause: Rest::Cooldown, left: HOUR };
    assert_eq!(after(&resting, &acquire), Err(refusal));
}

#[test]
fn another_token_has_no_say() {
    let account = locked();
    let token = FencingToken(account.token.0 - 1);
    let lost = Err(Refusal::LeaseLost(LeaseLoss::TakenOver));
    assert_eq!(after(&account, &AccountEvent::Renew { token, ttl: HOUR, by: nobody() }), lost);
    assert_eq!(after(&account, &AccountEvent::Release { token, by: Authority::default() }), lost);
    let begin =
        AccountEvent::Begin { token, by: nobody(), redemption_id: ID, expected_minor: None };
    assert_eq!(after(&account, &begin), lost);
}

#[test]
fn a_release_waits_for_the_open_redemption() {
    let account = open();
    let token = account.token;
    let asked =
        after(&account, &AccountEvent::Release { token, by: Authority::default() }).unwrap();
    assert_eq!(asked.status, AccountStatus::Locking);
    assert_eq!(asked.lease_loss(token), Some(LeaseLoss::Released));
    let settled = after(&asked, &settle(REFUSED, false)).unwrap();
    assert_eq!(
        (settled.status, settled.lease_end),
        (AccountStatus::Waiting, Some(LeaseEnd::Released))
    );
}

/// A person saw this balance where that one was recorded.
fn correct(expected_minor: i64, balance_minor: i64) -> AccountEvent {
    let correction = Correction {
        balance_minor,
        expected_minor,
        corrected_by: "anna".to_owned(),
        reason: "why".to_owned(),
        evidence: None,
    };
    AccountEvent::Correct(Box::new(correction), Authority::default())
}

/// A person corrects a word by so much, from the version of the account that was read.
fn restate(seen: i64, difference_minor: i64, begun_on: Option<(PlanId, i32)>) -> AccountEvent {
    let restatement = Restatement { seen, difference_minor, begun_on, actor: "anna".to_owned() };
    AccountEvent::Restate(restatement, Authority::default())
}

/// Every event that the properties below let happen.
fn any_event() -> impl Strategy<Value = AccountEvent> {
    let actor = || "somebody".to_owned();
    prop_oneof![
        Just(AccountEvent::Acquire(wanted())),
        (7..40i64).prop_map(|token| AccountEvent::Renew {
            token: FencingToken(token),
            ttl: HOUR,
            by: nobody()
        }),
        (7..40i64).prop_map(|token| AccountEvent::Release {
            token: FencingToken(token),
            by: Authority::default()
        }),
        (7..40i64).prop_map(|token| AccountEvent::Begin {
            token: FencingToken(token),
            by: nobody(),
            redemption_id: ID,
            expected_minor: None,
        }),
        any::<bool>().prop_map(|release| settle(CREDITED, release)),
        any::<bool>().prop_map(|release| settle(REFUSED, release)),
        Just(AccountEvent::Expire { actor: actor() }),
        Just(AccountEvent::EndDay { actor: actor() }),
        Just(AccountEvent::CreditLate { amount_minor: 100, begun_on: None, actor: actor() }),
        Just(AccountEvent::Reverse { amount_minor: 100, begun_on: None, actor: actor(), by: None }),
        (0..7i64, 0..7i64).prop_map(|(from, to)| correct(from * 100, to * 100)),
        (-3..4i64).prop_map(|n| restate(0, n * 100, None)),
        Just(AccountEvent::Reopen { actor: actor() }),
    ]
}

/// The event, from the version of the account that there is.
fn as_of_now(event: AccountEvent, account: &Account) -> AccountEvent {
    match event {
        AccountEvent::Restate(restatement, by) => {
            AccountEvent::Restate(Restatement { seen: account.version.number, ..restatement }, by)
        }
        event => event,
    }
}

fn is_correction(event: &AccountEvent) -> bool {
    matches!(
        event,
        AccountEvent::Correct(..) | AccountEvent::Restate(..) | AccountEvent::Reopen { .. }
    )
}

proptest! {
    /// Events in any order: only settling ends a lock with an open redemption, and the version and the token never
    /// fall. A lease without a success gives back the status that it found.
    #[test]
    fn a_lease_without_a_success_restores_what_it_found(
        events in proptest::collection::vec((any_event(), any::<bool>()), 1..60),
    ) {
        let mut account = free();
        let mut found = AccountStatus::Waiting;
        let mut has_succeeded = false;
        for (event, time_passes) in events {
            if time_passes {
                account = later(account);
            }
            let before = account.clone();
            let event = as_of_now(event, &before);
            let Ok(after) = after(&before, &event) else { continue };
            prop_assert_eq!(after.version.number, before.version.number + 1);
            prop_assert!(after.token >= before.token);
            prop_assert_eq!(after.status == AccountStatus::Locking, after.lease.is_some());
            if before.open_redemption_id.is_some() && after.lease.is_none() {
                prop_assert!(matches!(event, AccountEvent::Settle(_)), "{:?}", event);
            }
            match (&before.lease, &after.lease) {
                (None, Some(_)) => (found, has_succeeded) = (before.status, false),
                (Some(_), None) if !has_succeeded && !matches!(&event, AccountEvent::Settle(s) if s.outcome == CREDITED) => {
                    prop_assert_eq!(after.status, found);
                }
                _ => {}
            }
            has_succeeded |= matches!(&event, AccountEvent::Settle(s) if s.outcome == CREDITED);
            // So may a person who corrects the balance, and a target that was raised, change what it goes back to.
            if is_correction(&event) {
                has_succeeded = true;
                prop_assert!(after.balance_minor >= 0);
                let is_completed = after.status == AccountStatus::Completed
                    || after.resume == Some(Resume::Completed);
                prop_assert_eq!(is_completed, after.balance_minor >= 600, "{:?}", event);
            }
            account = after;
        }
    }
}

/// What becomes of an account when 200 that a redemption of this day brought are taken back.
fn reversed(account: &Account, begun_on: Option<(PlanId, i32)>) -> Result<Account, Refusal> {
    after(
        account,
        &AccountEvent::Reverse { amount_minor: 200, begun_on, actor: String::new(), by: None },
    )
}

#[test]
fn what_is_taken_back_leaves_the_balance_and_the_day_that_it_was_begun_on() {
    let account = Account { balance_minor: 500, plan_day: 2, day_credited_minor: 300, ..free() };
    let of_the_day = reversed(&account, Some((plan_id(), 2))).unwrap();
    assert_eq!((of_the_day.balance_minor, of_the_day.day_credited_minor), (300, 100));
    for other in [None, Some((plan_id(), 1)), Some((PlanId::parse("other").unwrap(), 2))] {
        let earlier = reversed(&account, other).unwrap();
        assert_eq!((earlier.balance_minor, earlier.day_credited_minor), (300, 300));
    }
    // Begun anew by a person since: less than nothing was not credited on a day.
    let anew = Account { day_credited_minor: 0, ..account };
    assert_eq!(reversed(&anew, Some((plan_id(), 2))).unwrap().day_credited_minor, 0);
}

#[test]
fn nothing_is_taken_off_an_account_that_has_less() {
    let account = Account { balance_minor: 199, ..free() };
    assert_eq!(reversed(&account, None).unwrap_err(), Refusal::BalanceTooLow);
    let account = Account { balance_minor: 200, ..account };
    assert_eq!(reversed(&account, None).unwrap().balance_minor, 0);
}

#[test]
fn a_full_account_wants_more_again_and_a_lease_goes_on() {
    let full = Account { status: AccountStatus::Completed, balance_minor: 600, ..free() };
    let taken = reversed(&full, None).unwrap();
    assert_eq!((taken.status, taken.balance_minor), (AccountStatus::Processing, 400));
    // Still as full as the plan wants it.
    let more = Account { balance_minor: 800, ..full };
    assert_eq!(reversed(&more, None).unwrap().status, AccountStatus::Completed);
    let leased = after(&free(), &AccountEvent::Acquire(wanted())).unwrap();
    let leased = Account { balance_minor: 600, resume: Some(Resume::Completed), ..leased };
    let taken = reversed(&leased, None).unwrap();
    assert_eq!((taken.status, taken.token), (AccountStatus::Locking, leased.token));
    assert_eq!((taken.resume, taken.lease), (Some(Resume::Processing), leased.lease));
}

#[test]
fn a_lease_is_used_by_its_principal_alone_and_an_operator_may_end_it() {
    let [mine, others] = ["token:a", "token:b"].map(Principal::named);
    let wanted = Wanted { request: RequestKey::new(mine.clone(), request_id()), ..wanted() };
    let held = after(&free(), &AccountEvent::Acquire(wanted)).unwrap();
    let token = held.token;
    let renew = |by: &Principal| AccountEvent::Renew { token, ttl: HOUR, by: by.clone() };
    let begin = |by: &Principal| AccountEvent::Begin {
        token,
        by: by.clone(),
        redemption_id: ID,
        expected_minor: None,
    };
    let release = |by: Authority| AccountEvent::Release { token, by };
    let refused = Err(Refusal::OtherPrincipal);
    for by in [&others, &nobody()] {
        assert_eq!(after(&held, &renew(by)), refused);
        assert_eq!(after(&held, &begin(by)), refused);
        assert_eq!(after(&held, &release(Authority::of(by.clone()))), refused);
    }
    for event in [renew(&mine), begin(&mine), release(Authority::of(mine.clone()))] {
        assert!(after(&held, &event).is_ok(), "{event:?}");
    }
    let operator = Authority { may_end_others: true, ..Authority::of(others.clone()) };
    assert!(after(&held, &release(operator)).is_ok());
    // Of another token nothing is told but that it is lost.
    let token = FencingToken(token.0 - 1);
    let stale = AccountEvent::Renew { token, ttl: HOUR, by: others };
    assert_eq!(after(&held, &stale), Err(Refusal::LeaseLost(LeaseLoss::TakenOver)));
}

#[test]
fn a_lease_that_nobody_in_particular_acquired_is_anybodys() {
    let held = after(&free(), &AccountEvent::Acquire(wanted())).unwrap();
    let by = Principal::named("token:a");
    let renew = AccountEvent::Renew { token: held.token, ttl: HOUR, by: by.clone() };
    assert!(after(&held, &renew).is_ok());
    let change = transition(&held, &renew, &pool());
    assert_eq!(change.unwrap().principal, by, "who renews it is recorded");
}
