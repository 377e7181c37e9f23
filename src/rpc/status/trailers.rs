//! Error details: a block of headers that must stay small, whatever the request held.
//!
//! A proxy in front of the server reads the whole block into a buffer (nginx: 4 KiB by default). It answers 502
//! where the block does not fit. Text costs there up to three times its length in `grpc-message`, and four thirds of
//! it in `grpc-status-details-bin`, wherever it is repeated.

use std::collections::HashMap;

use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::service::error::Violation;

/// The most bytes of a block: names and values, and four bytes for what is between them. That is 4
/// KiB without some room for what a proxy adds.
pub(in crate::rpc) const MAX_BLOCK_BYTES: usize = 4096 - 512;
/// How long one text may be, in bytes, where the block would be too large otherwise; one after the other is tried.
const CAPS: [usize; 5] = [512, 256, 128, 64, 24];
/// So many fields tell what is wrong, even where others are only counted.
const ENOUGH: usize = 4;

/// The error, with texts cut where it would be too large.
pub(super) fn fit(code: Code, text: &str, details: ErrorDetails) -> Status {
    let whole = Status::with_error_details(code, text, details.clone());
    if bytes(&whole) <= MAX_BLOCK_BYTES {
        return whole;
    }
    let with = |cap| Status::with_error_details(code, cut(text, cap), cut_details(&details, cap));
    let shorter = CAPS.into_iter().map(with).find(|status| bytes(status) <= MAX_BLOCK_BYTES);
    // Only the reason is left of one that is too large even so.
    shorter.unwrap_or_else(|| Status::with_error_details(code, cut(text, 24), bare(&details)))
}

/// The error that names as many of `violations` as there is room for, and says how many are left out. Where the
/// rules are not told in its text too, they are in its details.
pub(super) fn fit_violations(
    code: Code,
    details: &ErrorDetails,
    violations: &[Violation],
) -> Status {
    let fits = |status: &Status| bytes(status) <= MAX_BLOCK_BYTES;
    let each: Vec<_> = violations.iter().map(|v| format!("{}: {}", v.field, v.rule)).collect();
    let whole = Status::with_error_details(code, each.join("; "), named(details, violations, None));
    if fits(&whole) {
        return whole;
    }
    let with = |cap, most: usize| {
        let (first, left_out) = violations.split_at(most);
        let fields: Vec<_> = first.iter().map(|violation| cut(&violation.field, cap)).collect();
        let more = match left_out.len() {
            0 => String::new(),
            more => format!(", and {more} more"),
        };
        let text = format!("these fields break their rules: {}{more}", fields.join(", "));
        Status::with_error_details(code, text, named(details, first, Some(cap)))
    };
    for cap in CAPS {
        let counts: Vec<_> = (1..=violations.len()).collect();
        let most = counts.partition_point(|most| fits(&with(cap, *most)));
        // Few of many are named in full before more of them are cut.
        if most == violations.len() || most >= ENOUGH || cap == CAPS[CAPS.len() - 1] {
            return with(cap, most);
        }
    }
    whole
}

fn named(details: &ErrorDetails, violations: &[Violation], cap: Option<usize>) -> ErrorDetails {
    let cap = cap.unwrap_or(usize::MAX);
    let mut details = details.clone();
    for violation in violations {
        details.add_bad_request_violation(cut(&violation.field, cap), cut(&violation.rule, cap));
    }
    details
}

/// The bytes of a status as a block.
pub(in crate::rpc) fn bytes(status: &Status) -> usize {
    let block = status.clone().into_http::<Body>();
    block.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// At most `most` bytes of a text, up to the end of a character.
fn cut(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(most);
    format!("{}…", &text[..end])
}

fn cut_details(details: &ErrorDetails, cap: usize) -> ErrorDetails {
    let mut shorter = bare(details);
    if let Some(info) = details.error_info() {
        let metadata: HashMap<_, _> =
            info.metadata.iter().map(|(key, value)| (key.clone(), cut(value, cap))).collect();
        shorter.set_error_info(&info.reason, &info.domain, metadata);
    }
    if let Some(resource) = details.resource_info() {
        let [kind, name] = [&resource.resource_type, &resource.resource_name];
        // It repeats the error's text.
        shorter.set_resource_info(kind, cut(name, cap), "", "");
    }
    for violation in details.bad_request().map_or(&[][..], |bad| &bad.field_violations) {
        let (field, rule) = (cut(&violation.field, cap), cut(&violation.description, cap));
        shorter.add_bad_request_violation(field, rule);
    }
    shorter
}

/// The reason, and when to come again.
fn bare(details: &ErrorDetails) -> ErrorDetails {
    let mut bare = ErrorDetails::new();
    if let Some(info) = details.error_info() {
        bare.set_error_info(&info.reason, &info.domain, HashMap::new());
    }
    if let Some(retry) = details.retry_info() {
        bare.set_retry_info(retry.retry_delay);
    }
    bare
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::{
        domain::id::{AccountId, PoolId, RequestId},
        rpc::status::status,
        service::Error,
    };

    /// Texts, each with characters that cost more than those of the one before.
    fn text() -> impl Strategy<Value = String> {
        let of = |set: &'static str| {
            vec(proptest::sample::select(set.chars().collect::<Vec<_>>()), 0..900)
        };
        prop_oneof![of("ab c"), of("%\"\n~"), of("äß€"), of("😀𝕊")]
            .prop_map(|chars| chars.into_iter().collect())
    }

    fn error() -> impl Strategy<Value = Error> {
        let id = prop_oneof![Just('a'), Just('€'), Just('😀')];
        let ids = (id, 1..100_usize).prop_map(|(char, count)| char.to_string().repeat(count));
        let violations = vec((text(), text()), 1..40);
        prop_oneof![
            violations.prop_map(|all| {
                let all = all.into_iter().map(|(field, rule)| Violation::new(field, rule));
                Error::Invalid(all.collect())
            }),
            (text(), 0..9_u64).prop_map(|(why, seconds)| Error::InquiryFailed {
                why,
                retry_after: Some(Duration::from_secs(seconds)),
            }),
            (text(), text()).prop_map(|(card_country, selector_country)| {
                Error::CountryMismatch { card_country, selector_country }
            }),
            (ids.clone(), ids).prop_filter_map("no ids", |(pool, name)| {
                let pool = PoolId::parse(&pool).ok()?;
                let account = AccountId::parse(&name).ok()?;
                let request_id = RequestId::parse(&name).ok();
                Some(match request_id {
                    Some(request_id) if name.len() % 2 == 0 => {
                        Error::RequestIdReused { request_id, differ: vec!["code", "expected"] }
                    }
                    _ => Error::AccountNotFound(pool, account),
                })
            }),
        ]
    }

    proptest! {
        #[test]
        fn no_errors_block_is_larger_than_a_proxy_reads(error in error()) {
            let status = status(&error);
            prop_assert!(bytes(&status) <= MAX_BLOCK_BYTES, "{} bytes: {status:?}", bytes(&status));
            let details = status.get_error_details();
            prop_assert!(!details.error_info().unwrap().reason.is_empty());
            if let Error::Invalid(violations) = &error {
                let named = details.bad_request().map_or(0, |bad| bad.field_violations.len());
                let more = violations.len() - named;
                let counted = ["and ", &more.to_string(), " more"].concat();
                prop_assert!(more == 0 || status.message().contains(&counted));
                prop_assert!(named > 0);
            }
        }
    }

    #[test]
    fn an_error_that_fits_is_told_in_full() {
        let metadata = HashMap::from([("k".to_owned(), "v".repeat(300))]);
        let mut details = ErrorDetails::with_error_info("R", "holdfast", metadata);
        details.set_resource_info("account", "a".repeat(200), "", "there is no such account");
        let status = fit(Code::NotFound, "there is no such account", details.clone());
        assert_eq!(status.message(), "there is no such account");
        let whole = Status::with_error_details(Code::NotFound, status.message(), details);
        assert_eq!(status.details(), whole.details());
    }

    #[test]
    fn twelve_bad_fields_of_long_names_are_named_or_counted() {
        let violations: Vec<_> = (0..12)
            .map(|n| Violation::new(format!("labels[{}{n}]", "ü".repeat(60)), "must be short"))
            .collect();
        let status = status(&Error::Invalid(violations));
        assert!(bytes(&status) <= MAX_BLOCK_BYTES);
        let named = status.get_error_details().bad_request().unwrap().field_violations.len();
        assert!((ENOUGH..12).contains(&named), "{named}");
        assert!(status.message().ends_with(&format!(", and {} more", 12 - named)));
    }
}
