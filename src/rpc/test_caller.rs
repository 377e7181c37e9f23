//! The caller that a test says it is: for tests of what belongs to whom. Without the feature `crash-points`, which only
//! tests turn on, this is nothing.

use http::request::Parts;

/// Notes who calls, by the header `holdfast-test-caller`: a principal's name, and after a `;` a role.
#[cfg(feature = "crash-points")]
pub(super) fn note(parts: &mut Parts) {
    use crate::domain::principal::{Authority, Principal};

    let header = parts.headers.get("holdfast-test-caller").and_then(|text| text.to_str().ok());
    let Some((name, role)) = header.and_then(|text| text.split_once(';')) else { return };
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
