//! A model of the redeem protocol, looked at in every state that it can get into: two servers, two
//! accounts and two codes, over providers that replay, refuse or count again a key that they have seen, and one of
//! tasks, with crashes, pauses, and requests and answers that are lost, late, or come
//! twice. `step.rs` says what can happen, `protocol.rs` when and how, `properties.rs` what must hold, and
//! `rules.rs` what each rule stands for in the program.
//!
//! As they are, the rules hold everywhere. Each rule that is taken out is missed: so the model would
//! see it if the protocol went without it.
//!
//! Here a decision and its statement are one step, although servers decide from what they remember. The
//! compare-and-swap allows that: [`swap`] is a model of it.

mod properties;
mod protocol;
mod rules;
mod step;
mod swap;
mod world;

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model as _};

use properties::{
    ALL_ENDS_WELL, ALWAYS, BALANCES_ARE_SUMS, CANCELLED, CREDITS_ARE_RECORDED, EVERYTHING_CREDITED,
    LEASES_DO_NOT_OVERLAP, NO_CODE_IS_CREDITED_TWICE, OF_TASKS, OPEN_KEEPS_THE_LOCK, SECOND_TRY,
    SETTLED_ONCE, SETTLED_UNSENT, SOMETIMES, STEPS_LEAD_ON, SUCCESSES_ARE_CREDITS, TASKS_ARE_KEPT,
    TWO_RECONCILERS,
};
use protocol::{Protocol, Provider};
use rules::Rules;
use world::Code;

#[test]
fn every_rule_holds_for_three_redemptions_of_two_codes() {
    let impossible = [TWO_RECONCILERS, OF_TASKS[0], OF_TASKS[1]];
    look_everywhere(Provider::REPLAYS, [&[0, 1], &[0]], 1, 500_000, &impossible);
}

#[test]
fn every_rule_holds_for_two_redemptions_of_one_code_and_two_reconcilers_without_a_hold() {
    let impossible = [EVERYTHING_CREDITED, OF_TASKS[0], OF_TASKS[1]];
    look_everywhere(Provider::REPLAYS, [&[0], &[0]], 2, 40_000, &impossible);
}

#[test]
fn every_rule_holds_over_a_provider_that_refuses_a_key_that_it_has_seen() {
    let impossible = [EVERYTHING_CREDITED, OF_TASKS[0], OF_TASKS[1]];
    look_everywhere(Provider::REJECTS, [&[0], &[0]], 2, 45_000, &impossible);
}

#[test]
fn every_rule_holds_over_a_provider_that_counts_a_key_again() {
    let impossible = [EVERYTHING_CREDITED, OF_TASKS[0], OF_TASKS[1]];
    look_everywhere(Provider::COUNTS_AGAIN, [&[0], &[0]], 2, 30_000, &impossible);
}

#[test]
fn every_rule_holds_over_a_provider_of_tasks() {
    // Only a person settles what was not sent, and waits until it cannot be.
    let impossible = [EVERYTHING_CREDITED, TWO_RECONCILERS, CANCELLED, SETTLED_UNSENT];
    look_everywhere(Provider::TASKS, [&[0], &[0]], 1, 30_000, &impossible);
    let impossible = [SECOND_TRY, TWO_RECONCILERS, CANCELLED, SETTLED_UNSENT];
    look_everywhere(Provider::TASKS, [&[0], &[1]], 1, 60_000, &impossible);
}

#[test]
fn sending_again_what_counts_again_credits_twice() {
    let rules = Rules { uncounted_is_sent_once: false, ..Rules::REAL };
    breaks_over(Provider::COUNTS_AGAIN, rules, [&[0], &[]], NO_CODE_IS_CREDITED_TWICE);
}

#[test]
fn a_key_that_is_refused_again_taken_as_proof_fails_what_is_credited() {
    let rules = Rules { refused_again_proves_nothing: false, ..Rules::REAL };
    breaks_over(Provider::REJECTS, rules, [&[0], &[]], CREDITS_ARE_RECORDED);
}

#[test]
fn a_task_that_is_polled_before_its_id_is_committed_is_lost_with_its_server() {
    let rules = Rules { task_is_kept_first: false, ..Rules::REAL };
    breaks_over(Provider::TASKS, rules, [&[0], &[]], TASKS_ARE_KEPT);
}

#[test]
fn a_lost_task_taken_for_none_fails_what_is_credited() {
    let rules = Rules { lost_task_proves_nothing: false, ..Rules::REAL };
    breaks_over(Provider::TASKS, rules, [&[0], &[]], CREDITS_ARE_RECORDED);
}

#[test]
fn a_begin_without_the_fencing_check_uses_the_lease_of_another() {
    let rules = Rules { begin_is_fenced: false, ..Rules::REAL };
    breaks(rules, [&[0], &[1]], OPEN_KEEPS_THE_LOCK);
}

#[test]
fn a_release_without_the_fencing_check_ends_the_lease_of_another() {
    let rules = Rules { release_is_fenced: false, ..Rules::REAL };
    breaks(rules, [&[0], &[1]], LEASES_DO_NOT_OVERLAP);
}

#[test]
fn a_send_before_its_begin_is_credited_without_a_record() {
    let rules = Rules { begin_before_send: false, ..Rules::REAL };
    breaks(rules, [&[0], &[0]], CREDITS_ARE_RECORDED);
    breaks(rules, [&[0], &[0]], NO_CODE_IS_CREDITED_TWICE);
    breaks(rules, [&[0], &[]], ALL_ENDS_WELL);
}

#[test]
fn an_expiry_in_spite_of_an_open_redemption_unlocks_its_account() {
    let rules = Rules { open_keeps_the_lock: false, ..Rules::REAL };
    breaks(rules, [&[0], &[]], OPEN_KEEPS_THE_LOCK);
}

#[test]
fn without_one_living_redemption_a_code_it_is_credited_twice() {
    let rules = Rules { one_living_redemption_a_code: false, ..Rules::REAL };
    breaks(rules, [&[0], &[0]], NO_CODE_IS_CREDITED_TWICE);
}

#[test]
fn not_found_taken_as_proof_fails_what_is_credited_later() {
    let rules = Rules { not_found_proves_nothing: false, ..Rules::REAL };
    breaks(rules, [&[0], &[]], CREDITS_ARE_RECORDED);
    breaks(rules, [&[0], &[0]], NO_CODE_IS_CREDITED_TWICE);
}

#[test]
fn no_answer_taken_for_a_success_records_what_is_not_credited() {
    let rules = Rules { silence_proves_nothing: false, ..Rules::REAL };
    breaks(rules, [&[0], &[]], SUCCESSES_ARE_CREDITS);
}

#[test]
fn a_reconciler_that_only_looks_goes_round_for_ever() {
    let rules = Rules { reconcilers_climb: false, ..Rules::REAL };
    breaks(rules, [&[0], &[]], STEPS_LEAD_ON);
}

#[test]
fn sending_again_under_a_new_key_credits_twice() {
    let rules = Rules { same_key_again: false, ..Rules::REAL };
    breaks(rules, [&[0], &[]], NO_CODE_IS_CREDITED_TWICE);
}

#[test]
fn an_inference_after_a_takeover_fails_what_is_credited() {
    let rules = Rules { inference_ends_with_a_takeover: false, ..Rules::REAL };
    breaks(rules, [&[0], &[]], CREDITS_ARE_RECORDED);
}

#[test]
fn settling_what_is_settled_counts_a_late_answer_twice() {
    let rules = Rules { settled_once: false, ..Rules::REAL };
    breaks(rules, [&[0], &[]], SETTLED_ONCE);
    breaks(rules, [&[0], &[]], BALANCES_ARE_SUMS);
}

/// What is asked of a provider, not of us.
#[test]
fn a_cancellation_that_the_provider_forgets_fails_what_is_credited_later() {
    let rules = Rules { tombstones: false, ..Rules::REAL };
    breaks(rules, [&[0], &[]], CREDITS_ARE_RECORDED);
}

/// Likewise: an answer that nothing was executed is believed, so it must hold for the request, however
/// often something on the way has copied it.
#[test]
fn an_inferred_failure_needs_that_no_copy_of_its_request_is_under_way() {
    let rules = Rules { refusals_speak_for_copies: false, ..Rules::REAL };
    breaks(rules, [&[0], &[]], CREDITS_ARE_RECORDED);
}

/// Visits every state of the protocol as it is, at least so many, and finds all of `SOMETIMES` but
/// what is named.
#[allow(clippy::print_stdout, reason = "how much was looked at is worth a line")]
fn look_everywhere(
    provider: Provider,
    wishes: [&'static [Code]; 2],
    reconcilers: usize,
    at_least: usize,
    impossible: &[&str],
) {
    let protocol = Protocol { rules: Rules::REAL, provider, wishes, reconcilers };
    let checker = protocol.checker().spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{states} states, {} steps, depth {}", checker.state_count(), checker.max_depth());
    let found = checker.discoveries();
    for (name, _) in ALWAYS {
        if let Some(path) = found.get(name) {
            panic!("not so: {name}, after {:#?}", path.clone().into_actions());
        }
    }
    for (name, _) in SOMETIMES {
        assert_eq!(found.contains_key(name), !impossible.contains(&name), "{name}");
    }
    assert!(checker.is_done(), "states were left out");
    assert!(states >= at_least, "{states} states are not all that there should be");
}

/// Finds a way to break what must always hold.
fn breaks(rules: Rules, wishes: [&'static [Code]; 2], name: &'static str) {
    breaks_over(Provider::REPLAYS, rules, wishes, name);
}

fn breaks_over(provider: Provider, rules: Rules, wishes: [&'static [Code]; 2], name: &'static str) {
    let protocol = Protocol { rules, provider, wishes, reconcilers: 1 };
    let until = HasDiscoveries::AnyOf(BTreeSet::from([name]));
    let checker = protocol.checker().finish_when(until).spawn_bfs().join();
    assert!(
        checker.discovery(name).is_some(),
        "{rules:?} break nothing of \"{name}\" in {} states; broken: {:#?}",
        checker.unique_state_count(),
        checker
            .discoveries()
            .into_iter()
            .map(|(name, path)| (name, path.into_actions()))
            .collect::<Vec<_>>(),
    );
}
