//! A model of the compare-and-swap by which accounts are changed, in every state that it can get into: two servers,
//! each with a request for a lease that it releases again, and two accounts. Races are lost, and so is a commit's
//! reply. A statement commits when its server waits for it no more. A person changes an account, a pool is paused and
//! goes on, and the database is restored. `protocol.rs` says what happens, and `world.rs` what there is.
//!
//! As they are, the rules hold everywhere. Each rule that is taken out is missed.

mod protocol;
mod world;

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model as _};

use protocol::{
    ALWAYS, CHANGES_ARE_KEPT, LEASES_ARE_KEPT, ONE_LEASE_A_REQUEST, PAUSES_HOLD, Protocol,
    SOMETIMES, TOLD_IS_SO,
};

/// The rules that the swap rests on. Each can be taken out.
#[derive(Clone, Copy, Debug)]
struct Rules {
    /// `apply.sql`, `begin.sql`: `a.version = c.version AND a.change_id = c.seen`.
    version_is_compared: bool,
    /// The same: `a.change_id = c.seen`.
    change_id_is_compared: bool,
    /// `apply.sql`, `begin.sql`: `p.revision = $2`.
    revision_is_compared: bool,
    /// `apply.sql`: the answer is of what was changed, not of what was found.
    winners_alone_are_told: bool,
    /// `apply.rs`: a change whose reply was lost is found by its id.
    lost_replies_are_found: bool,
    /// `read_accounts.sql`: the leases that requests have already.
    leases_of_requests_are_found: bool,
    /// The key of `leases`.
    one_lease_a_request: bool,
    /// `work.rs`: a refusal counts only by what was read since the call came.
    refusals_are_fresh: bool,
}

const REAL: Rules = Rules {
    version_is_compared: true,
    change_id_is_compared: true,
    revision_is_compared: true,
    winners_alone_are_told: true,
    lost_replies_are_found: true,
    leases_of_requests_are_found: true,
    one_lease_a_request: true,
    refusals_are_fresh: true,
};

/// Each server has a request of its own.
const TWO: [usize; 2] = [0, 1];
/// A client has sent its request to both servers.
const THE_SAME: [usize; 2] = [0, 0];

#[test]
fn every_rule_of_the_swap_holds_for_two_requests() {
    look_everywhere(TWO, 500_000);
}

#[test]
fn every_rule_of_the_swap_holds_for_one_request_to_two_servers() {
    look_everywhere(THE_SAME, 700_000);
}

#[test]
fn a_change_from_an_older_version_overwrites_a_newer_one() {
    let rules = Rules { version_is_compared: false, ..REAL };
    breaks(rules, TWO, CHANGES_ARE_KEPT);
    breaks(rules, TWO, LEASES_ARE_KEPT);
}

#[test]
fn without_the_change_s_id_a_restored_database_is_overwritten() {
    let rules = Rules { change_id_is_compared: false, ..REAL };
    breaks(rules, TWO, LEASES_ARE_KEPT);
    breaks(rules, TWO, CHANGES_ARE_KEPT);
}

#[test]
fn without_the_revision_a_server_that_does_not_know_of_a_pause_overruns_it() {
    let rules = Rules { revision_is_compared: false, ..REAL };
    breaks(rules, TWO, PAUSES_HOLD);
}

#[test]
fn who_lost_a_race_and_is_told_of_a_win_has_no_lease() {
    let rules = Rules { winners_alone_are_told: false, ..REAL };
    breaks(rules, TWO, TOLD_IS_SO);
}

#[test]
fn a_lost_reply_that_is_not_looked_for_is_told_as_a_failure() {
    let rules = Rules { lost_replies_are_found: false, ..REAL };
    breaks(rules, TWO, TOLD_IS_SO);
}

/// A statement that commits late is not found in time: that its request has a lease is seen at the next choice.
#[test]
fn a_request_whose_lease_is_not_found_gets_another() {
    let rules = Rules { leases_of_requests_are_found: false, one_lease_a_request: false, ..REAL };
    breaks(rules, TWO, ONE_LEASE_A_REQUEST);
}

#[test]
fn a_request_to_two_servers_gets_two_leases_without_the_index() {
    let rules = Rules { one_lease_a_request: false, ..REAL };
    breaks(rules, THE_SAME, ONE_LEASE_A_REQUEST);
}

#[test]
fn a_refusal_by_what_is_remembered_is_of_a_pause_that_is_over() {
    let rules = Rules { refusals_are_fresh: false, ..REAL };
    breaks(rules, TWO, TOLD_IS_SO);
}

/// Visits every state, at least so many.
#[allow(clippy::print_stdout, reason = "how much was looked at is worth a line")]
fn look_everywhere(requests: [usize; 2], at_least: usize) {
    let checker = Protocol { rules: REAL, requests }.checker().spawn_bfs().join();
    let states = checker.unique_state_count();
    println!("{states} states, {} steps, depth {}", checker.state_count(), checker.max_depth());
    let found = checker.discoveries();
    for (name, _) in ALWAYS {
        if let Some(path) = found.get(name) {
            panic!("not so: {name}, after {:#?}", path.clone().into_actions());
        }
    }
    for (name, _) in SOMETIMES {
        assert!(found.contains_key(name), "{name}");
    }
    assert!(checker.is_done(), "states were left out");
    assert!(states >= at_least, "{states} states are not all that there should be");
}

/// Finds a way to break what must always hold.
fn breaks(rules: Rules, requests: [usize; 2], name: &'static str) {
    let until = HasDiscoveries::AnyOf(BTreeSet::from([name]));
    let checker = Protocol { rules, requests }.checker().finish_when(until).spawn_bfs().join();
    let states = checker.unique_state_count();
    assert!(
        checker.discovery(name).is_some(),
        "{rules:?} break nothing of \"{name}\" in {states} states"
    );
}
