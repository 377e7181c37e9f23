use super::*;
use crate::domain::outcomes::{Era, Mark};

fn id(number: u32) -> DeliveryId {
    DeliveryId::of(Mark { era: Era { system_id: 1, timeline: 1 }, xid: 1, number })
}

/// Outcomes 0, 1, … of these accounts, for a receiver that works.
fn backlog(accounts: &[&str]) -> Backlog<u32> {
    let mut backlog = Backlog::new(0);
    for (number, account) in (0..).zip(accounts) {
        backlog.push(id(number), AccountId::parse(account).unwrap(), number, true);
    }
    backlog
}

fn start(backlog: &mut Backlog<u32>) -> Option<u32> {
    backlog.start().map(|(_, _, number)| *number)
}

fn probe(backlog: &mut Backlog<u32>) -> Option<u32> {
    backlog.probe().map(|(_, _, number)| *number)
}

fn take(backlog: &mut Backlog<u32>, number: u32) {
    backlog.done(&id(number));
    backlog.receiver_took();
}

/// What is to be kept; it is done then.
fn keep(backlog: &mut Backlog<u32>) -> Option<(u32, bool)> {
    let to_keep = backlog.to_keep()?;
    let (delivery_id, told) = (to_keep.delivery_id.clone(), (*to_keep.content, to_keep.is_dead));
    backlog.done(&delivery_id);
    Some(told)
}

#[test]
fn an_account_has_one_under_way_and_the_others_go_on() {
    let mut backlog = backlog(&["a", "a", "b", "a"]);
    assert_eq!(
        [start(&mut backlog), start(&mut backlog), start(&mut backlog)],
        [Some(0), Some(2), None]
    );
    take(&mut backlog, 0);
    assert_eq!([start(&mut backlog), start(&mut backlog)], [Some(1), None]);
    assert_eq!([backlog.pop_done(), backlog.pop_done()], [Some(0), None], "in their order");
}

#[test]
fn one_that_is_not_taken_while_others_are_is_kept_by_itself() {
    let mut backlog = backlog(&["a", "b", "a"]);
    assert_eq!([start(&mut backlog), start(&mut backlog)], [Some(0), Some(1)]);
    assert!(!backlog.failed(&id(0), "no", false));
    assert_eq!(
        (keep(&mut backlog), backlog.failures()),
        (None, 0),
        "it is not known yet whose fault it is"
    );
    assert_eq!(start(&mut backlog), None, "its account waits");
    take(&mut backlog, 1);
    assert_eq!([keep(&mut backlog), keep(&mut backlog)], [Some((0, false)), None]);
    assert_eq!(start(&mut backlog), Some(2));
}

#[test]
fn a_receiver_that_takes_nothing_is_tried_with_one_at_a_time_and_nothing_is_kept() {
    let mut backlog = backlog(&["a", "b", "c", "d"]);
    for number in 0..3 {
        assert_eq!(start(&mut backlog), Some(number));
    }
    assert!(!backlog.failed(&id(0), "no", false) && !backlog.failed(&id(1), "no", false));
    assert!(backlog.failed(&id(2), "no", false));
    assert_eq!((start(&mut backlog), backlog.failures()), (None, 1));
    for (tries, number) in [(2, 3), (3, 0), (4, 1), (5, 2), (6, 3)] {
        assert_eq!(probe(&mut backlog), Some(number), "the one that was tried least");
        assert!(backlog.failed(&id(number), "no", false));
        assert_eq!((backlog.failures(), keep(&mut backlog)), (tries, None));
    }
    assert_eq!(probe(&mut backlog), Some(0));
    take(&mut backlog, 0);
    assert_eq!((keep(&mut backlog), backlog.failures()), (None, 0));
    for number in 1..4 {
        assert_eq!(start(&mut backlog), Some(number), "all are sent");
        take(&mut backlog, number);
        assert_eq!(backlog.pop_done(), Some(number - 1));
    }
}

#[test]
fn one_alone_that_is_not_taken_is_found_to_be_at_fault_when_another_is() {
    let mut backlog = backlog(&["a"]);
    assert_eq!(start(&mut backlog), Some(0));
    assert!(!backlog.failed(&id(0), "no", false));
    assert!(backlog.doubt() && !backlog.doubt());
    assert_eq!(probe(&mut backlog), Some(0));
    assert!(backlog.failed(&id(0), "no", false));
    backlog.push(id(1), AccountId::parse("b").unwrap(), 1, true);
    assert_eq!(probe(&mut backlog), Some(1), "that was never tried");
    take(&mut backlog, 1);
    assert_eq!((start(&mut backlog), keep(&mut backlog)), (Some(0), None));
    assert!(!backlog.failed(&id(0), "no", false));
    assert_eq!((keep(&mut backlog), backlog.failures()), (Some((0, false)), 0));
}

#[test]
fn a_receiver_that_says_that_it_is_busy_is_believed_at_once() {
    let mut backlog = backlog(&["a", "b"]);
    assert_eq!(start(&mut backlog), Some(0));
    assert!(backlog.failed(&id(0), "429", true));
    assert_eq!((start(&mut backlog), keep(&mut backlog), backlog.failures()), (None, None, 1));
}

#[test]
fn those_under_way_when_a_receiver_went_away_are_no_tries_of_it() {
    let mut backlog = backlog(&["a", "b", "c", "d", "e"]);
    while start(&mut backlog).is_some() {}
    for number in 0..4 {
        backlog.failed(&id(number), "no", false);
    }
    assert_eq!(backlog.failures(), 1);
}

#[test]
fn what_a_receiver_is_tried_with_for_too_long_is_given_up() {
    let mut backlog = backlog(&["a", "a"]);
    assert_eq!(start(&mut backlog), Some(0));
    backlog.failed(&id(0), "no", false);
    assert!(backlog.doubt());
    backlog.give_up(&id(0));
    assert_eq!(keep(&mut backlog), Some((0, true)));
    assert_eq!(probe(&mut backlog), Some(1), "its account goes on");
}

#[test]
fn what_is_not_wanted_is_done() {
    let mut backlog = Backlog::new(0);
    backlog.push(id(0), AccountId::parse("a").unwrap(), 0, false);
    assert!(backlog.start().is_none());
    assert_eq!((backlog.pop_done(), backlog.is_empty()), (Some(0), true));
}

#[test]
fn no_more_than_a_bounded_number_waits_in_memory() {
    let accounts = vec!["a"; MOST];
    let mut backlog = backlog(&accounts);
    assert!(!backlog.has_room());
    assert_eq!(start(&mut backlog), Some(0));
    take(&mut backlog, 0);
    assert_eq!(backlog.pop_done(), Some(0));
    assert!(backlog.has_room());
}
