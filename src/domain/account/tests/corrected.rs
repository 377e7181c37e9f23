use super::*;

#[test]
fn a_corrected_balance_completes_an_account_and_opens_it_again() {
    let account = Account { balance_minor: 500, plan_day: 2, day_credited_minor: 300, ..free() };
    let full = after(&account, &correct(500, 600)).unwrap();
    assert_eq!((full.status, full.balance_minor), (AccountStatus::Completed, 600));
    assert_eq!((full.plan_day, full.day_credited_minor), (2, 300), "it is of no day");
    let less = after(&full, &correct(600, 599)).unwrap();
    assert_eq!((less.status, less.balance_minor), (AccountStatus::Processing, 599));
    let nothing = after(&less, &correct(599, 0)).unwrap();
    assert_eq!(nothing.balance_minor, 0);
    // Without a plan nothing is ever full.
    let any = Account { plan_id: None, ..account };
    assert_eq!(after(&any, &correct(500, 9000)).unwrap().status, AccountStatus::Waiting);
}

#[test]
fn a_corrected_balance_under_a_lease_counts_when_the_lease_ends() {
    let account = Account { balance_minor: 500, ..locked() };
    let full = after(&account, &correct(500, 600)).unwrap();
    assert_eq!((full.status, full.resume), (AccountStatus::Locking, Some(Resume::Completed)));
    assert_eq!(full.lease, account.lease);
    let less = after(&full, &correct(600, 500)).unwrap();
    assert_eq!(less.resume, Some(Resume::Processing));
    // The lease alone bound it to the plan, which is taken from it again.
    let bound = Account { bound_by_lease: true, ..account };
    assert_eq!(after(&bound, &correct(500, 600)).unwrap().resume, bound.resume);
}

#[test]
fn a_balance_is_corrected_from_the_one_that_was_compared_and_not_while_a_redemption_is_open() {
    let account = Account { balance_minor: 500, ..free() };
    assert_eq!(after(&account, &correct(400, 600)), Err(Refusal::BalanceChanged));
    let open = Account { balance_minor: 500, ..open() };
    assert_eq!(after(&open, &correct(500, 600)), Err(Refusal::RedemptionOpen(ID)));
}

#[test]
fn a_completed_account_is_reopened_where_its_plan_wants_more() {
    let reopen = AccountEvent::Reopen { actor: "sweeper".to_owned() };
    let full = Account { status: AccountStatus::Completed, balance_minor: 600, ..free() };
    assert_eq!(after(&full, &reopen), Err(Refusal::PlanIsFull));
    let less = Account { balance_minor: 599, ..full.clone() };
    assert_eq!(after(&less, &reopen).unwrap().status, AccountStatus::Processing);
    let unbound = Account { plan_id: None, ..less };
    assert_eq!(after(&unbound, &reopen), Err(Refusal::PlanIsFull));
    assert_eq!(after(&free(), &reopen), Err(Refusal::NotCompleted));
    let leased = Account { balance_minor: 599, resume: Some(Resume::Completed), ..locked() };
    let reopened = after(&leased, &reopen).unwrap();
    assert_eq!(
        (reopened.status, reopened.resume),
        (AccountStatus::Locking, Some(Resume::Processing))
    );
}

/// An account on day 2, with 300 of it.
fn on_a_day() -> Account {
    Account { balance_minor: 500, plan_day: 2, day_credited_minor: 300, ..free() }
}

#[test]
fn a_corrected_word_moves_the_balance_and_the_day_that_it_was_begun_on() {
    let account = on_a_day();
    let seen = account.version.number;
    let of = |difference, begun_on| after(&account, &restate(seen, difference, begun_on)).unwrap();
    let less = of(-200, Some((plan_id(), 2)));
    assert_eq!((less.balance_minor, less.day_credited_minor), (300, 100));
    let more = of(50, Some((plan_id(), 2)));
    assert_eq!((more.balance_minor, more.day_credited_minor), (550, 350));
    for other in [None, Some((plan_id(), 1)), Some((PlanId::parse("other").unwrap(), 2))] {
        let earlier = of(-200, other);
        assert_eq!((earlier.balance_minor, earlier.day_credited_minor), (300, 300));
    }
    // Less than nothing was not credited on a day.
    assert_eq!(of(-400, Some((plan_id(), 2))).day_credited_minor, 0);
}

#[test]
fn a_corrected_word_completes_an_account_and_opens_it_again_also_under_a_lease() {
    let account = on_a_day();
    let seen = account.version.number;
    let full = after(&account, &restate(seen, 100, None)).unwrap();
    assert_eq!((full.status, full.balance_minor), (AccountStatus::Completed, 600));
    let less = after(&full, &restate(full.version.number, -100, None)).unwrap();
    assert_eq!((less.status, less.balance_minor), (AccountStatus::Processing, 500));
    for lease in [Account { balance_minor: 500, ..locked() }, open()] {
        let account = Account { balance_minor: 500, ..lease };
        let full = after(&account, &restate(account.version.number, 100, None)).unwrap();
        assert_eq!((full.status, full.resume), (AccountStatus::Locking, Some(Resume::Completed)));
        assert_eq!(full.lease, account.lease);
        assert_eq!(full.open_redemption_id, account.open_redemption_id);
    }
}

#[test]
fn a_word_is_corrected_from_the_version_that_was_read_and_never_leaves_less_than_nothing() {
    let account = on_a_day();
    let seen = account.version.number;
    let stale = after(&account, &restate(seen - 1, -100, None));
    assert_eq!(stale, Err(Refusal::ChangedSince));
    assert_eq!(after(&account, &restate(seen, -501, None)), Err(Refusal::BalanceTooLow));
    assert_eq!(after(&account, &restate(seen, -500, None)).unwrap().balance_minor, 0);
}
