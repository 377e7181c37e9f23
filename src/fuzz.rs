//! What is done with input that others made up: a request, a file, an answer, a token.
//!
//! Each target is a function of bytes, which panics when something is so that must never be. libFuzzer calls it with what
//! it makes up (`fuzz/`, `make fuzz`), and the tests with the inputs in `fuzz/corpus/` and variations of these. It stands
//! in the layer whose insides it checks, in a file `fuzz.rs`.

use crate::{access, cli, provider, rpc};

/// A target: its name, and what is done with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets, by the names of their programs and folders.
pub const TARGETS: [Target; 8] = [
    ("requests", rpc::fuzz::requests),
    ("page_token", rpc::fuzz::page_token),
    ("account_csv", cli::fuzz::account_csv),
    ("batch_csv", cli::fuzz::batch_csv),
    ("profile", provider::fuzz::profile),
    ("provider_answer", provider::fuzz::provider_answer),
    ("bearer_token", access::fuzz::bearer_token),
    ("jwt", access::fuzz::jwt),
];

/// The RPCs for which an input is a request that asks a service for something.
pub fn taken_by(input: &[u8]) -> Vec<&'static str> {
    rpc::fuzz::taken_by(input)
}

/// All RPCs.
pub fn rpcs() -> Vec<&'static str> {
    rpc::fuzz::rpcs()
}

/// Gives an input to the target of this name.
///
/// # Panics
/// When something is so that must never be, or there is no such target.
pub fn run(target: &str, input: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    let (_, check) = found.unwrap_or_else(|| panic!("there is no target {target}"));
    check(input);
}
