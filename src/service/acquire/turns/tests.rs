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

/// Those who wait: each by holder, with what they wish.
fn turns(waiting: &[(&str, &Arc<Selector>, Option<i64>)]) -> Turns {
    let mut turns = Turns::default();
    for (n, (name, selector, expected_minor)) in waiting.iter().enumerate() {
        let (reply, answer) = oneshot::channel();
        // Whoever has gone is not served.
        std::mem::forget(answer);
        turns.push(Waiter {
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
    turns
}

fn next(turns: &Turns, hopeless: &[(&Arc<Selector>, Option<i64>)]) -> Option<Vec<String>> {
    let exhausted: HashSet<Wish> = hopeless
        .iter()
        .map(|(selector, expected_minor)| Wish {
            selector: Arc::clone(selector),
            expected_minor: *expected_minor,
        })
        .collect();
    let (_, _, wanted) = turns.next_group(|wish| (!exhausted.contains(wish)).then_some(()))?;
    Some(wanted.iter().map(|wanted| wanted.request_id.to_string()).collect())
}

fn some(ids: &[&str]) -> Option<Vec<String>> {
    Some(ids.iter().map(|id| (*id).to_owned()).collect())
}

#[test]
fn somebody_who_came_first_is_not_passed_over_by_later_ones_who_wish_something_else() {
    let (x, y) = (&selector("x"), &selector("y"));
    let queue = turns(&[("a", x, None), ("b", x, None), ("c", y, None), ("d", x, None)]);
    assert_eq!(next(&queue, &[]), some(&["0", "1"]), "3 waits until 2 has had its chance");
    assert_eq!(next(&queue, &[(x, None)]), some(&["2"]), "the hopeless hold nobody up");
    assert_eq!(next(&queue, &[(y, None)]), some(&["0", "1", "3"]));
    assert_eq!(next(&queue, &[(x, None), (y, None)]), None);
}

#[test]
fn those_who_expect_different_amounts_are_served_together() {
    let x = &selector("x");
    let queue = turns(&[("a", x, Some(5)), ("b", x, Some(7)), ("c", x, None), ("d", x, Some(5))]);
    assert_eq!(next(&queue, &[]), some(&["0", "1", "2", "3"]));
    assert_eq!(next(&queue, &[(x, Some(5))]), some(&["1", "2"]), "only what may still hope");
}

#[test]
fn a_holder_that_has_had_more_than_its_share_of_late_waits_behind_the_others() {
    let x = &selector("x");
    let waiting = [("batch", x, None), ("batch", x, None), ("one", x, None), ("two", x, None)];
    let mut queue = turns(&waiting);
    for _ in 0..TELLING - 1 {
        queue.given(&holder("batch"));
    }
    assert_eq!(next(&queue, &[]), some(&["0", "1", "2", "3"]), "too few tell nothing");
    queue.given(&holder("batch"));
    assert_eq!(next(&queue, &[]), some(&["2", "3", "0", "1"]));
    assert_eq!(queue.places()["0"], 3);
    for _ in 0..TELLING {
        queue.given(&holder("one"));
    }
    assert_eq!(
        next(&queue, &[]),
        some(&["3", "0", "1", "2"]),
        "two that take turns keep nobody out"
    );
}

#[test]
fn a_holder_alone_is_never_kept_waiting_and_old_leases_are_forgotten() {
    let x = &selector("x");
    let mut queue = turns(&[("batch", x, None), ("batch", x, None)]);
    for _ in 0..REMEMBERED {
        queue.given(&holder("batch"));
    }
    assert_eq!(next(&queue, &[]), some(&["0", "1"]));
    for _ in 0..REMEMBERED {
        queue.given(&holder("one"));
    }
    assert_eq!(queue.sated(), HashSet::from([&holder("one")]));
}

#[test]
fn who_is_put_back_has_the_old_place() {
    let x = &selector("x");
    let mut queue = turns(&[("a", x, None), ("b", x, None), ("c", x, None)]);
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
    assert_eq!(next(&turns(&many), &[]).unwrap().len(), MAX_AMOUNTS);
    let two: Vec<_> = (0..300).map(|n| ("a", x, Some(n % 2))).collect();
    assert_eq!(next(&turns(&two), &[]).unwrap().len(), MAX_MIXED_ROWS);
    let one: Vec<_> = (0..300).map(|_| ("a", x, Some(5))).collect();
    assert_eq!(next(&turns(&one), &[]).unwrap().len(), MAX_ROWS);
}
