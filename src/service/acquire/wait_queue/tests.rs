//! The order in which those who wait are served.

use std::time::Duration;

use super::*;
use crate::domain::{
    id::{AccountId, RequestId},
    principal::Principal,
    selector::Selector,
};

fn criteria(not: &str) -> Arc<Criteria> {
    let exclude = vec![AccountId::parse(not).unwrap()];
    let selector = Arc::new(Selector { exclude, ..Selector::default() });
    Arc::new(Criteria { selector, expected_minor: None })
}

fn holder(name: &str) -> Holder {
    Holder::parse(name).unwrap()
}

fn request(n: usize) -> RequestKey {
    let request_id = RequestId::parse(&n.to_string()).unwrap();
    RequestKey::new(Principal::anonymous(), request_id)
}

/// Those who wait: each by holder, with its criteria.
fn wait_queue(waiting: &[(&str, &Arc<Criteria>)]) -> WaitQueue {
    let mut queue = WaitQueue::default();
    for (n, (name, criteria)) in waiting.iter().enumerate() {
        let (reply, answer) = oneshot::channel();
        // A waiter that has gone is not served.
        std::mem::forget(answer);
        queue.push(Waiter {
            wanted: Wanted {
                begins: None,
                request: request(n),
                holder: holder(name),
                ttl: Duration::from_secs(1),
            },
            criteria: Arc::clone(criteria),
            share_percent: 50,
            priority: 0,
            since: Instant::now(),
            until: Instant::now(),
            caller: Caller::default(),
            tried: false,
            is_claimed: false,
            was_claimed: false,
            lookups: 0,
            unanswered: false,
            reply,
        });
    }
    queue
}

fn next(queue: &WaitQueue) -> Vec<String> {
    queue.servable().iter().map(|waiter| waiter.wanted.request.request_id.to_string()).collect()
}

#[test]
fn those_who_ask_for_the_same_share_their_criteria() {
    let queue = wait_queue(&[("a", &criteria("x")), ("b", &criteria("y")), ("c", &criteria("x"))]);
    let all: Vec<_> = queue.iter().map(|waiter| Arc::as_ptr(&waiter.criteria)).collect();
    assert_eq!(all[0], all[2]);
    assert_ne!(all[0], all[1]);
}

#[test]
fn the_same_request_is_served_once() {
    let mut queue = wait_queue(&[("a", &criteria("x")), ("b", &criteria("x"))]);
    let again = wait_queue(&[("a", &criteria("x"))]).take(|_| Some(())).pop().unwrap().0;
    queue.push(again);
    assert_eq!(next(&queue), ["0", "1"]);
}

#[test]
fn a_holder_that_has_had_more_than_its_share_of_late_waits_behind_the_others() {
    let x = &criteria("x");
    let waiting = [("batch", x), ("batch", x), ("one", x), ("two", x)];
    let mut queue = wait_queue(&waiting);
    for _ in 0..TELLING - 1 {
        queue.given(&holder("batch"));
    }
    assert_eq!(next(&queue), ["0", "1", "2", "3"], "too few tell nothing");
    queue.given(&holder("batch"));
    assert_eq!(next(&queue), ["2", "3", "0", "1"]);
    assert_eq!(queue.positions()[&request(0)], 3);
    for _ in 0..TELLING {
        queue.given(&holder("one"));
    }
    assert_eq!(next(&queue), ["3", "0", "1", "2"], "two that alternate keep nobody out");
}

#[test]
fn a_holder_alone_is_never_kept_waiting_and_old_leases_are_forgotten() {
    let x = &criteria("x");
    let mut queue = wait_queue(&[("batch", x), ("batch", x)]);
    for _ in 0..REMEMBERED {
        queue.given(&holder("batch"));
    }
    assert_eq!(next(&queue), ["0", "1"]);
    for _ in 0..REMEMBERED {
        queue.given(&holder("one"));
    }
    assert_eq!(queue.over_share(), HashSet::from([&holder("one")]));
}

#[test]
fn a_waiter_put_back_has_its_old_position() {
    let x = &criteria("x");
    let mut queue = wait_queue(&[("a", x), ("b", x), ("c", x)]);
    let first = |waiter: &Waiter| (waiter.wanted.holder == holder("a")).then_some(());
    let (waiter, ()) = queue.take(first).pop().unwrap();
    assert_eq!(next(&queue), ["1", "2"]);
    queue.put_back(waiter);
    assert_eq!(next(&queue), ["0", "1", "2"]);
}
