use proptest::prelude::*;

use super::*;

fn era(timeline: i32) -> Era {
    Era { system_id: 7_000_000_000_000_000_000, timeline }
}

fn moment(timeline: i32, next_xid: i64, in_progress: &[i64]) -> Moment {
    Moment { era: era(timeline), next_xid, in_progress: in_progress.to_vec() }
}

fn mark(timeline: i32, xid: i64, number: u32) -> Mark {
    Mark { era: era(timeline), xid, number }
}

fn pool(name: &str) -> PoolId {
    PoolId::parse(name).unwrap()
}

#[test]
fn a_snapshot_is_read_as_postgres_writes_it() {
    let read = |text| Moment::of_snapshot(era(1), text);
    assert_eq!(read("700:700:"), Some(moment(1, 700, &[])));
    assert_eq!(read("700:710:708,700"), Some(moment(1, 710, &[700, 708])));
    for bad in ["", "700", "700:x:", "700:710:a"] {
        assert_eq!(read(bad), None, "{bad}");
    }
}

#[test]
fn what_was_in_progress_is_wanted_when_it_comes_and_what_was_seen_is_not() {
    let position = Position::at(moment(1, 710, &[700, 708]), None);
    for (xid, wanted) in
        [(699, false), (700, true), (705, false), (708, true), (709, false), (710, true)]
    {
        assert_eq!(position.wants(mark(1, xid, 0)), wanted, "{xid}");
    }
    assert_eq!((position.in_progress(), position.from()), (vec![700, 708], (era(1), 710)));
}

#[test]
fn after_a_failover_numbers_that_are_given_again_are_other_transactions() {
    let position = Position::at(moment(1, 710, &[700]), Some(mark(1, 709, 0)));
    assert!(position.wants(mark(1, 700, 0)), "it was committed before the failover");
    assert!(position.wants(mark(2, 699, 0)), "the number was given again");
    assert!(!position.wants(mark(1, 709, 0)));
    assert!(moment(2, 650, &[]).is_after(&moment(1, 710, &[])));
    assert!(moment(2, 650, &[]).sees(era(1), 9999), "nothing of it comes any more");
    let newer = Era { system_id: era(1).system_id + 1, timeline: 1 };
    assert!(position.wants(Mark { era: newer, xid: 5, number: 0 }), "it was dumped and restored");
}

#[test]
fn a_later_snapshot_is_told_from_an_earlier_one() {
    let order = [
        moment(1, 700, &[690, 698]),
        moment(1, 700, &[698]),
        moment(1, 701, &[698]),
        moment(2, 5, &[]),
    ];
    for (n, one) in order.iter().enumerate() {
        for (m, other) in order.iter().enumerate() {
            assert_eq!(one.is_after(other), n > m, "{n} {m}");
        }
    }
}

#[test]
fn a_cursor_is_of_its_pool_and_whole() {
    let position = Position::at(moment(3, 710, &[700, 708]), None)
        .told(&moment(3, 720, &[708]), mark(3, 711, 4));
    let cursor = position.cursor(&pool("p"));
    assert!(cursor.len() < 100, "{cursor}");
    assert_eq!(Position::of_cursor(&pool("p"), &cursor), Ok(position));
    assert_eq!(Position::of_cursor(&pool("q"), &cursor), Err(BadCursor::OfAnotherPool));
    for cut in 0..cursor.len() {
        assert_eq!(
            Position::of_cursor(&pool("p"), &cursor[..cut]),
            Err(BadCursor::Damaged),
            "{cut}"
        );
    }
    let long = "A".repeat(MAX_CURSOR + 1);
    assert_eq!(Position::of_cursor(&pool("p"), &long), Err(BadCursor::Damaged));
    // As many as there may be, far from each other.
    let many: Vec<_> = (0..4096).map(|n| 1_000_000_000_000 + n * 100).collect();
    let busy = Position::at(moment(3, 1_000_001_000_000, &many), None);
    let busy = busy.told(&moment(3, 1_000_001_000_001, &many), mark(3, 1_000_001_000_000, 0));
    assert!(busy.cursor(&pool("p")).len() <= MAX_CURSOR, "{}", busy.cursor(&pool("p")).len());
    assert_eq!(Position::of_cursor(&pool("p"), &busy.cursor(&pool("p"))), Ok(busy));
}

/// A history: each transaction's number is its index, and this is when it is committed. Each has one outcome, or two.
fn history() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(0..40_u32, 1..30)
}

/// What a reader is told: at each of these times it reads all that there is, in pages of `page`, by cursors alone.
fn tell(commits: &[u32], times: &[u32], page: usize, reopen: bool) -> Vec<Mark> {
    let at = |time: u32| {
        let committed = |xid: &usize| commits[*xid] <= time;
        let next = (0..commits.len()).rev().find(committed).map_or(0, |last| last + 1);
        let open = (0..next).filter(|xid| !committed(xid)).map(|xid| xid as i64);
        Moment { era: era(1), next_xid: next as i64, in_progress: open.collect() }
    };
    let (mut told, mut position) = (Vec::new(), Position::at(Moment::BEFORE_ALL, None));
    for time in times {
        let now = at(*time);
        loop {
            let round = position.round.clone().unwrap_or_else(|| now.clone());
            let (from, open) = (position.from(), position.in_progress());
            let rows = (0..commits.len() as i64).filter(|xid| {
                now.sees(era(1), *xid) && ((era(1), *xid) >= from || open.contains(xid))
            });
            let all = rows.flat_map(|xid| (0..=(xid % 2) as u32).map(move |n| mark(1, xid, n)));
            let wanted: Vec<_> = all.filter(|mark| position.wants(*mark)).collect();
            for one in wanted.iter().take(page) {
                told.push(*one);
                position = position.told(&round, *one);
                if reopen {
                    let cursor = position.cursor(&pool("p"));
                    position = Position::of_cursor(&pool("p"), &cursor).unwrap();
                }
            }
            if wanted.len() <= page {
                position = Position::at(round.clone(), position.last);
                if round == now {
                    break;
                }
            }
        }
    }
    told
}

proptest! {
    #[test]
    fn every_outcome_is_told_once_whatever_the_order_of_commits(
        commits in history(),
        mut times in proptest::collection::vec(0..40_u32, 0..10),
        page in 1..4_usize,
    ) {
        times.sort_unstable();
        times.push(40);
        let told = tell(&commits, &times, page, true);
        let mut sorted = told.clone();
        sorted.sort_unstable();
        let all: Vec<_> = (0..commits.len() as i64)
            .flat_map(|xid| (0..=(xid % 2) as u32).map(move |n| mark(1, xid, n)))
            .collect();
        prop_assert_eq!(sorted, all);
        // What was committed before another one began comes before it.
        prop_assert_eq!(&told, &tell(&commits, &times, 1000, false));
    }

    #[test]
    fn whatever_a_cursor_says_it_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let mut whole = vec![VERSION];
        whole.extend_from_slice(&hash(b"p").to_be_bytes());
        whole.extend_from_slice(&bytes);
        let check = hash(&whole);
        whole.extend_from_slice(&check.to_be_bytes());
        if let Ok(position) = Position::of_cursor(&pool("p"), &URL_SAFE_NO_PAD.encode(whole)) {
            let again = Position::of_cursor(&pool("p"), &position.cursor(&pool("p")));
            prop_assert_eq!(again, Ok(position));
        }
    }
}
