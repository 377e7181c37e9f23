//! Tests of the limit's rule, on a clock of its own, and of permits.

use std::{collections::VecDeque, time::Duration};

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::{
    limit::{INTERVAL, Rule, Seen},
    *,
};

const MS: Duration = Duration::from_millis(1);
const BOUNDS: Bounds = Bounds { floor: 100, start: 1000, ceiling: 4000 };

/// A clock that is moved by hand.
struct Clock(Instant);

impl Clock {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn seen(&mut self, pressure: f64) -> Seen {
        self.0 += INTERVAL;
        Seen { now: self.0, pressure, settles: 20 * MS }
    }
}

#[test]
fn a_standing_queue_lowers_the_limit_and_the_more_the_longer_it_is() {
    let mut clock = Clock::new();
    let after = |clock: &mut Clock, pressure| {
        let mut rule = Rule::new(BOUNDS);
        rule.see(clock.seen(pressure), 1000, true);
        rule.limit()
    };
    let falls: Vec<_> = [1.01, 1.5, 3.0, 100.0].map(|p| after(&mut clock, p)).into();
    assert_eq!(falls, [950, 816, 577, 500]);
    assert_eq!(after(&mut clock, 1.0), 1062, "none that stands");
}

#[test]
fn the_limit_stays_between_its_bounds_and_comes_back_to_where_it_began() {
    let (mut clock, mut rule) = (Clock::new(), Rule::new(BOUNDS));
    for _ in 0..100 {
        rule.see(clock.seen(50.0), rule.limit(), true);
    }
    assert_eq!(rule.limit(), BOUNDS.floor);
    for _ in 0..100 {
        rule.see(clock.seen(0.0), 1, false);
    }
    assert_eq!(rule.limit(), BOUNDS.start, "nothing is known of what lies above");
    for _ in 0..100 {
        rule.see(clock.seen(0.0), rule.limit(), true);
    }
    assert_eq!(rule.limit(), BOUNDS.ceiling);
}

#[test]
fn a_queue_of_few_is_not_the_limits_to_cure() {
    let (mut clock, mut rule) = (Clock::new(), Rule::new(BOUNDS));
    rule.see(clock.seen(9.0), 499, false);
    assert_eq!(rule.limit(), 1000);
    rule.see(clock.seen(9.0), 500, false);
    assert!(rule.limit() < 500);
}

#[test]
fn one_who_has_room_does_not_raise_the_limit_while_another_queue_stands() {
    let (mut clock, mut rule) = (Clock::new(), Rule::new(BOUNDS));
    rule.see(clock.seen(1.5), 1000, true);
    let fallen = rule.limit();
    let mut at_once = clock.seen(0.0);
    at_once.now -= INTERVAL / 2;
    assert!(!rule.see(at_once, 1000, true), "too early to count");
    assert_eq!(rule.limit(), fallen);
    rule.see(clock.seen(0.0), 1000, true);
    assert!(rule.limit() > fallen);
}

/// A lane whose statements take `fixed` and `each` a row, before which more callers come than it can
/// serve. Answers with the rows of each statement and how long callers took, of the last half.
fn drive(
    overload: &Overload,
    lasting: Duration,
    callers: usize,
    fixed: Duration,
    each: Duration,
) -> (Vec<usize>, Duration) {
    let mut meter = overload.meter(Queue::Work);
    let mut now = Instant::now();
    let begun = now;
    let mut waiting: VecDeque<(Instant, Permit)> = VecDeque::new();
    let (mut rows, mut longest) = (Vec::new(), Duration::ZERO);
    while now < begun + lasting {
        while waiting.len() < callers
            && let Ok(permit) = overload.admit(Class::Acquire, None)
        {
            waiting.push_back((now, permit));
        }
        let served: Vec<_> = waiting.drain(..waiting.len().min(256)).collect();
        meter.begins_at(now, served.last().unwrap().0);
        // Others come in while the statement runs.
        while waiting.len() + served.len() < callers
            && let Ok(permit) = overload.admit(Class::Acquire, None)
        {
            waiting.push_back((now + MS, permit));
        }
        now += fixed + each * u32::try_from(served.len()).unwrap();
        meter.ends_at(now);
        if now > begun + lasting / 2 {
            rows.push(served.len());
            longest = longest.max(now - served[0].0);
        }
    }
    (rows, longest)
}

#[test]
fn a_lane_is_kept_full_and_its_queue_short_however_many_come() {
    for (fixed, each) in [(5 * MS, MS / 20), (MS, MS / 5), (200 * MS, MS / 2)] {
        let overload = Overload::new();
        let (rows, longest) = drive(&overload, Duration::from_secs(60), usize::MAX, fixed, each);
        let full = rows.iter().filter(|rows| **rows == 256).count();
        assert!(full * 10 > rows.len() * 8, "{full} of {} statements were full", rows.len());
        let statement = fixed + each * 256;
        assert!(longest < 6 * statement, "{longest:?} with statements of {statement:?}");
    }
}

#[test]
fn a_slow_database_alone_is_no_overload() {
    let overload = Overload::new();
    drive(&overload, Duration::from_secs(60), 200, Duration::from_millis(900), MS);
    assert_eq!(overload.0.work.now(), WORK.start);
}

#[test]
fn who_comes_later_in_rank_is_refused_earlier_and_what_ends_work_never() {
    let overload = Overload::new();
    let mut permits = Vec::new();
    let mut fill = |class| {
        let before = permits.len();
        while let Ok(permit) = overload.admit(class, None) {
            permits.push(permit);
            assert!(permits.len() < 3000);
        }
        permits.len() - before
    };
    assert_eq!(fill(Class::Rest), REST.start, "a limit of its own");
    let acquirers = (WORK.start * 8).div_ceil(10);
    assert_eq!(fill(Class::Acquire), acquirers);
    assert_eq!(fill(Class::Acquire), 0);
    assert_eq!(fill(Class::Redeem), WORK.start - acquirers);
    drop(permits.split_off(REST.start + WORK.start * 6 / 10));
    drop(permits.drain(..REST.start));
    assert!(overload.admit(Class::Rest, None).is_err(), "more than half is at work");
    let ends: Vec<_> = (0..2000).map(|_| overload.admit(Class::End, None).unwrap()).collect();
    assert!(overload.admit(Class::Redeem, None).is_err());
    drop((ends, permits));
    assert!(Class::ALL.into_iter().all(|class| overload.admit(class, None).is_ok()));
    assert_eq!(overload.0.work.at_work(), 0);
}

#[test]
fn who_steps_aside_makes_room_once_and_is_still_counted_as_unanswered() {
    let overload = Overload::new();
    let all: Vec<_> = (0..Class::Acquire.most())
        .map(|_| {
            let caller = Caller::new(overload.admit(Class::Acquire, None).unwrap(), None);
            caller.step_aside();
            caller.clone().step_aside();
            caller
        })
        .collect();
    assert_eq!(overload.0.work.at_work(), 0);
    assert!(overload.admit(Class::Acquire, None).is_err(), "memory is bounded");
    assert!(overload.admit(Class::Redeem, None).is_ok());
    drop(all);
    assert!(overload.admit(Class::Acquire, None).is_ok());
}

#[tokio::test]
async fn items_wait_for_a_permit_and_follow_the_limit() {
    let overload = Overload::new();
    let held = || overload.0.items.permits.held();
    let size = WORK.start * ITEMS_SHARE / 100;
    let of_one_pool = (size * 8).div_ceil(9);
    let mut items = Vec::new();
    for _ in 0..of_one_pool {
        items.push(overload.admit_item("a").await);
    }
    let next = tokio::spawn({
        let overload = overload.clone();
        async move { overload.admit_item("a").await }
    });
    tokio::task::yield_now().await;
    assert!(!next.is_finished());
    assert!(overload.admit(Class::Rest, None).is_ok(), "items keep nobody else out");
    drop(overload.admit_item("b").await);

    overload.0.items.permits.resize(size / 2);
    items.truncate(size / 2);
    tokio::task::yield_now().await;
    assert!(!next.is_finished(), "fewer permits than there were");
    items.truncate(size / 4);
    let caller = Caller::new(next.await.unwrap(), None);
    assert!(caller.is_item());
    assert_eq!(held(), size / 4 + 1);
    caller.step_aside();
    assert_eq!(held(), size / 4, "an item that waits for an account gives its permit back");
    drop((items, caller));
    assert_eq!(held(), 0);
}

#[test]
fn one_pools_calls_leave_room_for_anothers_at_work_and_waiting() {
    for class in [Class::End, Class::Redeem, Class::Acquire, Class::Rest, Class::Stream] {
        let overload = Overload::new();
        let mut waiting = Vec::new();
        while let Ok(permit) = overload.admit(class, Some("a")) {
            permit.step_aside();
            waiting.push(permit);
        }
        assert_eq!(waiting.len(), class.most() as usize / 2, "{class:?}");
        let other = overload.admit(class, Some("b")).expect("there is room for another pool");
        drop((waiting, other));
        assert_eq!(overload.0.shares.len(), 0, "pools without calls are forgotten");

        let mut at_work = Vec::new();
        while at_work.len() < WORK.start
            && let Ok(permit) = overload.admit(class, Some("a"))
        {
            at_work.push(permit);
        }
        assert!(overload.admit(class, Some("b")).is_ok(), "{class:?}");
        drop(at_work);
        assert_eq!((overload.0.work.at_work(), overload.0.rest.at_work()), (0, 0));
        assert_eq!(overload.0.shares.len(), 0);
    }
}

#[test]
fn the_more_pools_wait_the_less_each_may_hold() {
    let overload = Overload::new();
    let mut held = [0; 3];
    let mut waiting = Vec::new();
    loop {
        let before = waiting.len();
        for (pool, held) in ["a", "b", "c"].into_iter().zip(&mut held) {
            if let Ok(permit) = overload.admit(Class::Acquire, Some(pool)) {
                permit.step_aside();
                waiting.push(permit);
                *held += 1;
            }
        }
        if waiting.len() == before {
            break;
        }
    }
    assert_eq!(held, [4096; 3], "a quarter each, and a quarter for a fourth");
}

#[tokio::test]
async fn a_server_that_stops_waits_for_those_who_are_not_answered() {
    let overload = Overload::new();
    let caller = Caller::new(overload.admit(Class::Redeem, None).unwrap(), None);
    caller.step_aside();
    let answered = tokio::spawn({
        let overload = overload.clone();
        async move { overload.all_answered().await }
    });
    tokio::task::yield_now().await;
    assert!(!answered.is_finished());
    drop(caller);
    answered.await.unwrap();
    let calls = Class::ALL.into_iter().filter(|class| *class != Class::Stream);
    assert!(calls.map(|class| overload.admit(class, None)).all(|admitted| admitted.is_err()));
}

#[test]
fn a_pool_that_holds_few_gets_in_however_many_others_hold_all_that_is_shared() {
    let overload = Overload::new();
    let mut waiting = Vec::new();
    for pool in 0..20 {
        while let Ok(permit) = overload.admit(Class::Acquire, Some(&format!("pool-{pool}"))) {
            permit.step_aside();
            waiting.push(permit);
        }
    }
    assert!(waiting.len() > Class::Acquire.most() as usize);
    assert!(overload.admit(Class::Acquire, None).is_err());
    assert!(overload.admit(Class::Acquire, Some("another")).is_ok());
}

#[test]
fn the_first_call_of_a_pool_gets_in_although_anothers_burst_is_beyond_the_limit() {
    let overload = Overload::new();
    let burst: Vec<_> =
        std::iter::from_fn(|| overload.admit(Class::Rest, Some("burst")).ok()).collect();
    let more: Vec<_> = std::iter::from_fn(|| overload.admit(Class::Rest, None).ok()).collect();
    assert!(!more.is_empty(), "the limit is full");
    let first = overload.admit(Class::Rest, Some("another"));
    assert!(first.is_ok());
    assert!(overload.admit(Class::Rest, Some("another")).is_err(), "the second obeys the limit");
    drop((burst, more, first));
    assert_eq!(overload.0.rest.at_work(), 0);
    let firsts: Vec<_> = (0..1000)
        .filter_map(|pool| overload.admit(Class::Rest, Some(&format!("pool-{pool}"))).ok())
        .collect();
    assert!(firsts.len() <= REST.start + 64, "{}", firsts.len());
}

#[test]
fn the_first_call_of_a_caller_gets_in_however_many_pools_anothers_burst_is_in() {
    let overload = Overload::new();
    let burst = |pool: usize| {
        overload.admit_from(Class::Acquire, Some(&format!("pool-{pool}")), Some("one")).ok()
    };
    let burst: Vec<_> = (0..5000).filter_map(burst).collect();
    assert!(burst.len() > WORK.start / 2, "{}", burst.len());
    // What is at work already goes on when the limit falls.
    overload.0.work.set(WORK.floor);
    let other = |pool| overload.admit_from(Class::Acquire, Some(pool), Some("other"));
    let first = other("own").expect("it has none at work");
    assert!(other("own").is_err(), "the second obeys the limit");
    drop(first);
    assert!(other("pool-1").is_ok(), "in a pool of the burst too");
    assert!(burst.len() > overload.0.work.now());
}

#[test]
fn one_callers_crowd_leaves_room_for_others_in_its_pool_and_for_itself_in_other_pools() {
    for class in [Class::Acquire, Class::Redeem, Class::Rest, Class::Stream] {
        let overload = Overload::new();
        let mut crowd = Vec::new();
        while let Ok(permit) = overload.admit_from(class, Some("a"), Some("one")) {
            permit.step_aside();
            crowd.push(permit);
        }
        assert!(crowd.len() > 1000, "{class:?}: {}", crowd.len());
        for (pool, origin) in [("a", "other"), ("b", "one"), ("b", "other")] {
            let admitted = overload.admit_from(class, Some(pool), Some(origin));
            assert!(admitted.is_ok(), "{class:?} {pool} {origin}");
        }
        drop(crowd);
        let shares = [&overload.0.origin_shares, &overload.0.in_pool_shares];
        assert!(shares.iter().all(|shares| shares.len() == 0));
    }
}

#[tokio::test]
async fn one_callers_items_leave_room_for_others_in_its_pool_and_for_itself_in_other_pools() {
    let overload = Overload::new();
    let mut items = Vec::new();
    while let Some(item) = overload.open_item("a", "one").now_or_never() {
        items.push(item);
    }
    assert_eq!(items.len(), OPEN_ITEMS / 4);
    for (pool, origin) in [("a", "other"), ("b", "one"), ("b", "other")] {
        assert!(overload.open_item(pool, origin).now_or_never().is_some(), "{pool} {origin}");
    }
}
