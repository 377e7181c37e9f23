//! The caller that a test says it is: for tests of what belongs to whom. Without the feature `crash-points`, which only
//! tests turn on, this is nothing.
//!
//! It is named by the user agent, which a client sets for a whole connection: `holdfast-test-caller/NAME;ROLE`.

use http::request::Parts;

/// Notes who calls.
#[cfg(feature = "crash-points")]
pub(super) fn note(parts: &mut Parts) {
    use crate::domain::principal::{Authority, Principal};

    let agent = parts.headers.get(http::header::USER_AGENT).and_then(|text| text.to_str().ok());
    let caller = agent.and_then(|agent| agent.strip_prefix("holdfast-test-caller/"));
    let caller = caller.and_then(|caller| caller.split_whitespace().next());
    let Some((name, role)) = caller.and_then(|text| text.split_once(';')) else { return };
    let principal = Principal::named(name);
    parts.extensions.insert(principal.clone());
    parts.extensions.insert(Authority {
        may_end_others: role == "operator",
        may_read_others: matches!(role, "operator" | "auditor"),
        ..Authority::of(principal)
    });
}

/// Nobody is believed.
#[cfg(not(feature = "crash-points"))]
pub(super) fn note(_: &mut Parts) {}
