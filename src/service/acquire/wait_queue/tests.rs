//! The order in which those who wait are served.

use std::time::Duration;

use super::*;
use crate::domain::id::{AccountId, RequestId};

fn selector(not: &str) -> Arc<Selector> {
    let exclude = vec![AccountId::parse(not).unwrap()];
    Arc::new(Selector { exclude, ..Selector::default() })
}

fn holder(name: &str) -> Holder {
    Holder::parse(name).unwrap()
}

/// Those who wait: each by holder, with its criteria.
fn wait_queue(waiting: &[(&str, &Arc<Selector>, Option<i64>)]) -> WaitQueue {
    let mut queue = WaitQueue::default();
    for (n, (name, selector, expected_minor)) in waiting.iter().enumerate() {
        let (reply, answer) = oneshot::channel();
        // A waiter that has gone is not served.
        std::mem::forget(answer);
        queue.push(Waiter {
            wanted: Wanted {
                request_id: RequestId::parse(&n.to_string()).unwrap(),
                holder: holder(name),
                ttl: Duration::from_secs(1),
                expected_minor: *expected_minor,
            },
            selector: Arc::clone(selector),
            share_percent: 50,
            since: Instant::now(),
            until: Instant::now(),
            caller: Caller::default(),
            tried: false,
            checked: false,
            unanswered: false,
            reply,
        });
    }
    queue
}

fn next(
    queue: &WaitQueue,
    without_chance: &[(&Arc<Selector>, Option<i64>)],
) -> Option<Vec<String>> {
    let exhausted: HashSet<Criteria> = without_chance
        .iter()
        .map(|(selector, expected_minor)| Criteria {
            selector: Arc::clone(selector),
            expected_minor: *expected_minor,
        })
        .collect();
    let (_, _, wanted) =
        queue.next_group(|criteria| (!exhausted.contains(criteria)).then_some(()))?;
    Some(wanted.iter().map(|wanted| wanted.request_id.to_string()).collect())
}

fn some(ids: &[&str]) -> Option<Vec<String>> {
    Some(ids.iter().map(|id| (*id).to_owned()).collect())
}

#[test]
fn an_earlier_waiter_is_not_passed_over_by_later_ones_with_other_criteria() {
    let (x, y) = (&selector("x"), &selector("y"));
    let queue = wait_queue(&[("a", x, None), ("b", x, None), ("c", y, None), ("d", x, None)]);
    assert_eq!(next(&queue, &[]), some(&["0", "1"]), "3 waits until 2 has had its chance");
    assert_eq!(next(&queue, &[(x, None)]), some(&["2"]), "those without a chance hold nobody up");
    assert_eq!(next(&queue, &[(y, None)]), some(&["0", "1", "3"]));
    assert_eq!(next(&queue, &[(x, None), (y, None)]), None);
}

#[test]
fn those_who_expect_different_amounts_are_served_together() {
    let x = &selector("x");
    let queue =
        wait_queue(&[("a", x, Some(5)), ("b", x, Some(7)), ("c", x, None), ("d", x, Some(5))]);
    assert_eq!(next(&queue, &[]), some(&["0", "1", "2", "3"]));
    assert_eq!(next(&queue, &[(x, Some(5))]), some(&["1", "2"]), "only what may still hope");
}

#[test]
fn a_holder_that_has_had_more_than_its_share_of_late_waits_behind_the_others() {
    let x = &selector("x");
    let waiting = [("batch", x, None), ("batch", x, None), ("one", x, None), ("two", x, None)];
    let mut queue = wait_queue(&waiting);
    for _ in 0..TELLING - 1 {
        queue.given(&holder("batch"));
    }
    assert_eq!(next(&queue, &[]), some(&["0", "1", "2", "3"]), "too few tell nothing");
    queue.given(&holder("batch"));
    assert_eq!(next(&queue, &[]), some(&["2", "3", "0", "1"]));
    assert_eq!(queue.positions()["0"], 3);
    for _ in 0..TELLING {
        queue.given(&holder("one"));
    }
    assert_eq!(
        next(&queue, &[]),
        some(&["3", "0", "1", "2"]),
        "two that alternate keep nobody out"
    );
}

#[test]
fn a_holder_alone_is_never_kept_waiting_and_old_leases_are_forgotten() {
    let x = &selector("x");
    let mut queue = wait_queue(&[("batch", x, None), ("batch", x, None)]);
    for _ in 0..REMEMBERED {
        queue.given(&holder("batch"));
    }
    assert_eq!(next(&queue, &[]), some(&["0", "1"]));
    for _ in 0..REMEMBERED {
        queue.given(&holder("one"));
    }
    assert_eq!(queue.over_share(), HashSet::from([&holder("one")]));
}

#[test]
fn a_waiter_put_back_has_its_old_position() {
    let x = &selector("x");
    let mut queue = wait_queue(&[("a", x, None), ("b", x, None), ("c", x, None)]);
    let first = |waiter: &Waiter| (waiter.wanted.holder == holder("a")).then_some(());
    let (waiter, ()) = queue.take(first).pop().unwrap();
    assert_eq!(next(&queue, &[]), some(&["1", "2"]));
    queue.put_back(waiter);
    assert_eq!(next(&queue, &[]), some(&["0", "1", "2"]));
}

#[test]
fn one_statement_is_asked_for_few_amounts_at_once() {
    let x = &selector("x");
    let many: Vec<_> = (0..300).map(|n| ("a", x, Some(n))).collect();
    assert_eq!(next(&wait_queue(&many), &[]).unwrap().len(), MAX_AMOUNTS);
    let two: Vec<_> = (0..300).map(|n| ("a", x, Some(n % 2))).collect();
    assert_eq!(next(&wait_queue(&two), &[]).unwrap().len(), MAX_MIXED_ROWS);
    let one: Vec<_> = (0..300).map(|_| ("a", x, Some(5))).collect();
    assert_eq!(next(&wait_queue(&one), &[]).unwrap().len(), MAX_ROWS);
}
