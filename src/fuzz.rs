//! What is done with input that others made up.

/// Runs one.
pub fn run(target: &str, input: &[u8]) {
    assert!(!target.is_empty() || input.is_empty());
}
