use super::*;

const SECOND: Duration = Duration::from_secs(1);
const QUESTIONS: [Action; 2] = [Action::LookUp, Action::Find];

/// A provider that can do nothing, with its times.
fn unable() -> Capabilities {
    Capabilities {
        dedup: Dedup::None,
        looks_up: None,
        finds: false,
        not_found_ends_doubt: false,
        cancels: false,
        reverses: false,
        refuses_late: true,
        window: SECOND * 1000,
        latest_effect: SECOND * 60,
        visibility: SECOND * 5,
        max_processing: SECOND * 60,
    }
}

fn able(dedup: Dedup, looks_up: bool, cancels: bool) -> Capabilities {
    Capabilities { dedup, looks_up: looks_up.then_some(LookUp::ByKey), cancels, ..unable() }
}

fn doubtful(age: u32, not_found: i32) -> Doubtful {
    Doubtful {
        age: SECOND * age,
        since_last_send: SECOND * age.saturating_sub(30),
        lead_time: SECOND * 10,
        not_found,
        odd: 3,
        has_task: false,
        not_after_passed: age >= 500,
    }
}

fn not_found(provider: &Capabilities, age: u32, times: i32) -> Action {
    provider.next_action(Action::LookUp, Told::NotFound, &doubtful(age, times))
}

#[test]
fn what_is_not_found_is_looked_for_past_the_horizon_before_more_is_done() {
    let provider = able(Dedup::Replay, true, true);
    assert_eq!(provider.first_action(&doubtful(9, 0)), Action::LookUp);
    assert_eq!(not_found(&provider, 9, 1), Action::Wait, "once only");
    assert_eq!(not_found(&provider, 4, 9), Action::Wait, "too early");
    assert_eq!(not_found(&provider, 5, 3), Action::SendAgain);
}

#[test]
fn a_key_is_sent_again_while_it_counts_once_and_cancelled_after() {
    for dedup in [Dedup::Replay, Dedup::Reject] {
        let provider = able(dedup, true, true);
        assert_eq!(not_found(&provider, 499, 3), Action::SendAgain);
        assert_eq!(not_found(&provider, 500, 3), Action::Cancel);
        let without_cancel = able(dedup, true, false);
        assert_eq!(not_found(&without_cancel, 989, 3), Action::SendAgain);
        assert_eq!(not_found(&without_cancel, 990, 3), Action::Review, "it may take 10 s");
    }
    assert_eq!(not_found(&able(Dedup::None, true, true), 30, 3), Action::Cancel);
}

#[test]
fn nothing_is_sent_again_while_the_first_request_may_arrive_after_the_key_is_forgotten() {
    let until_not_after = Capabilities {
        window: SECOND * 100,
        latest_effect: SECOND * 120,
        ..able(Dedup::Replay, true, false)
    };
    assert_eq!(not_found(&until_not_after, 20, 3), Action::Wait, "at 120 s the first may arrive");
    assert_eq!(not_found(&until_not_after, 21, 3), Action::SendAgain);
    // A provider that takes requests until their not_after may take the first one until then.
    let long = Capabilities { latest_effect: SECOND * 900, ..until_not_after };
    for age in 0..120 {
        assert_ne!(not_found(&long, age, 9), Action::SendAgain, "{age}");
    }
}

#[test]
fn nothing_is_sent_again_that_may_arrive_after_the_key_is_forgotten() {
    let at_any_time = Capabilities { refuses_late: false, ..able(Dedup::Reject, true, false) };
    assert_eq!(not_found(&at_any_time, 939, 3), Action::SendAgain);
    assert_eq!(not_found(&at_any_time, 940, 3), Action::Review, "at 1000 s it may arrive");
    // Past its not_after it is refused.
    let refuses_late = Capabilities { refuses_late: true, ..at_any_time };
    assert_eq!(not_found(&refuses_late, 940, 3), Action::SendAgain);
    let short = Capabilities { window: SECOND * 60, ..at_any_time };
    for age in 0..120 {
        assert_eq!(not_found(&short, age, 9), Action::Wait, "{age}");
    }
    assert_eq!(not_found(&short, 120, 9), Action::Review);
}

#[test]
fn sending_again_in_vain_comes_to_an_end() {
    let again = |provider: &Capabilities, told, age, not_found| {
        provider.next_action(Action::SendAgain, told, &doubtful(age, not_found))
    };
    for dedup in [Dedup::Replay, Dedup::Reject] {
        let provider = able(dedup, true, false);
        assert_eq!(again(&provider, Told::Odd, 119, 9), Action::Wait);
        assert_eq!(again(&provider, Told::Odd, 120, 3), Action::Review);
        let once = |not_found| Doubtful { odd: 1, ..doubtful(120, not_found) };
        let next = |not_found| provider.next_action(Action::SendAgain, Told::Odd, &once(not_found));
        assert_eq!((next(6), next(7)), (Action::Wait, Action::Review), "one odd answer alone");
        assert_eq!(again(&provider, Told::AtWork, 120, 6), Action::Wait, "it has just begun");
        assert_eq!(again(&provider, Told::AtWork, 120, 7), Action::Review);
        assert_eq!(again(&able(dedup, true, true), Told::Odd, 60, 3), Action::Cancel);
        // Where not being found ends doubt, nothing may put that off.
        let proves = Capabilities { not_found_ends_doubt: true, ..provider };
        assert_eq!(not_found(&proves, 59, 3), Action::SendAgain);
        assert_eq!(not_found(&proves, 60, 3), Action::Wait);
    }
}

#[test]
fn questions_are_asked_by_the_task_then_by_the_key_then_by_a_search() {
    let finds = Capabilities { finds: true, ..unable() };
    let by_task = Capabilities { looks_up: Some(LookUp::ByTask), ..finds };
    let with_task = Doubtful { has_task: true, ..doubtful(9, 0) };
    assert_eq!(by_task.first_action(&with_task), Action::LookUp);
    assert_eq!(by_task.first_action(&doubtful(9, 0)), Action::Find, "the task is not known");
    assert_eq!(finds.first_action(&with_task), Action::Find);
    let both = Capabilities { looks_up: Some(LookUp::ByKey), ..finds };
    assert_eq!(not_found(&both, 9, 3), Action::Find, "a search may know more");
    let next = both.next_action(Action::Find, Told::NotFound, &doubtful(9, 3));
    assert_eq!(next, Action::Wait);
    let alone = Capabilities { looks_up: Some(LookUp::ByTask), ..unable() };
    assert_eq!(alone.first_action(&doubtful(0, 0)), Action::Review, "it cannot be asked");
}

#[test]
fn what_cannot_be_cancelled_is_reversed_and_what_cannot_be_reversed_is_reviewed() {
    let reverses = Capabilities { reverses: true, ..able(Dedup::None, true, false) };
    assert_eq!(not_found(&reverses, 9, 3), Action::Reverse);
    let at_work = |provider: &Capabilities, age| {
        provider.next_action(Action::LookUp, Told::AtWork, &doubtful(age, 0))
    };
    assert_eq!(at_work(&reverses, 59), Action::Wait);
    assert_eq!(at_work(&reverses, 60), Action::Reverse);
    let both = Capabilities { cancels: true, ..reverses };
    assert_eq!(at_work(&both, 60), Action::Cancel);
    let vain = both.next_action(Action::Cancel, Told::AtWork, &doubtful(60, 0));
    assert_eq!(vain, Action::Reverse);
    let after = |age| both.next_action(Action::Reverse, Told::Odd, &doubtful(age, 0));
    assert_eq!((after(119), after(120)), (Action::Wait, Action::Review));
}

#[test]
fn an_answer_that_is_always_odd_reaches_a_person() {
    let odd = |provider: &Capabilities, age| {
        provider.next_action(Action::LookUp, Told::Odd, &doubtful(age, 0))
    };
    let looks_up = able(Dedup::Replay, true, false);
    assert_eq!((odd(&looks_up, 119), odd(&looks_up, 120)), (Action::Wait, Action::Review));
    assert_eq!(odd(&able(Dedup::None, true, true), 60), Action::Cancel);
}

#[test]
fn one_odd_answer_leaves_nothing_to_a_person() {
    for finds in [false, true] {
        let provider = Capabilities { finds, ..able(Dedup::Replay, true, false) };
        for action in QUESTIONS {
            let next = |odd| {
                let doubtful = Doubtful { odd, ..doubtful(5000, 9) };
                provider.next_action(action, Told::Odd, &doubtful)
            };
            assert_eq!([1, 2, 3].map(next), [Action::Wait, Action::Wait, Action::Review]);
        }
    }
}

#[test]
fn odd_answers_count_until_it_is_not_found_several_times_in_a_row() {
    /// The state after checks, from (not_found, odd): each finds nothing, or has an odd answer, or none.
    fn after(checks: &str) -> (i32, i32) {
        checks.chars().fold((0, 0), |(not_found, odd), check| {
            let doubtful = Doubtful { odd: odd + 1, ..doubtful(5000, not_found + 1) };
            let (told, is_not_found) = match check {
                'n' => (Some(Told::NotFound), true),
                // Not found, and what was sent again was answered oddly.
                's' => (Some(Told::Odd), true),
                'o' => (Some(Told::Odd), false),
                _ => (Some(Told::Nothing), false),
            };
            let odd = doubtful.odd_after(told, is_not_found);
            (if is_not_found { not_found + 1 } else { 0 }, odd)
        })
    }
    assert_eq!(after("ooo").1, 3);
    assert_eq!(after("o-o-").1, 2, "no answer says nothing");
    assert_eq!(after("ononon").1, 3, "in turns they come to an end");
    assert_eq!(after("onnonn").1, 2);
    assert_eq!(after("ooonnn").1, 0, "good ones since");
    assert_eq!(after("ooonnno").1, 1);
    assert_eq!(after("onns").1, 0);
}

#[test]
fn a_provider_that_does_not_answer_is_waited_for_at_any_age() {
    for provider in [able(Dedup::Replay, true, true), able(Dedup::None, true, false), unable()] {
        for action in [Action::LookUp, Action::Find, Action::SendAgain, Action::Cancel] {
            let next = provider.next_action(action, Told::Nothing, &doubtful(100_000, 0));
            assert_eq!(next, Action::Wait, "{provider:?} {action:?}");
        }
    }
}

#[test]
fn where_not_being_found_ends_doubt_it_is_waited_for() {
    let provider = Capabilities { not_found_ends_doubt: true, ..able(Dedup::None, true, false) };
    // Since the last send, which began 30 s after the recording at the latest: 2 × (60 + 5) s.
    assert_eq!(not_found(&provider, 120, 9), Action::Wait);
    assert_eq!(not_found(&provider, 159, 9), Action::Wait);
    assert_eq!(not_found(&provider, 160, 9), Action::Review);
}

#[test]
fn what_a_provider_cannot_do_is_never_asked_of_it() {
    for bits in 0..64u8 {
        let provider = Capabilities {
            dedup: if bits & 1 > 0 { Dedup::Replay } else { Dedup::None },
            looks_up: (bits & 2 > 0).then_some(LookUp::ByKey),
            finds: bits & 4 > 0,
            cancels: bits & 8 > 0,
            reverses: bits & 16 > 0,
            not_found_ends_doubt: bits & 32 > 0,
            ..unable()
        };
        for age in [0, 4, 5, 59, 60, 119, 120, 159, 160, 499, 500, 989, 990, 5000] {
            for not_found in 0..5 {
                let doubtful = doubtful(age, not_found);
                let mut actions = vec![provider.first_action(&doubtful)];
                for told in [Told::NotFound, Told::AtWork, Told::Odd] {
                    for after in QUESTIONS.into_iter().chain([
                        Action::SendAgain,
                        Action::Cancel,
                        Action::Reverse,
                    ]) {
                        actions.push(provider.next_action(after, told, &doubtful));
                    }
                }
                for action in actions {
                    let able = match action {
                        Action::LookUp => provider.looks_up.is_some(),
                        Action::Find => provider.finds,
                        Action::SendAgain => provider.dedup != Dedup::None && age < 990,
                        Action::Cancel => provider.cancels,
                        Action::Reverse => provider.reverses,
                        Action::Wait | Action::Review => true,
                    };
                    assert!(able, "{provider:?} {doubtful:?} {action:?}");
                }
            }
        }
    }
}
