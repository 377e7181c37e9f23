//! A provider as a row.

use serde_json::Value;

use super::{text, time};
use crate::rpc::pb;

/// A provider's columns.
pub(crate) const PROVIDER: &[&str] = &[
    "provider_id",
    "version",
    "built_in",
    "currencies",
    "operations",
    "secrets",
    "case_count",
    "apply_time",
];

/// The same, with the file.
pub(crate) const PROVIDER_WITH_FILE: &[&str] = &[
    "provider_id",
    "version",
    "built_in",
    "currencies",
    "operations",
    "secrets",
    "case_count",
    "apply_time",
    "profile",
];

/// A provider's row, without the file.
pub(crate) fn provider(provider: &pb::Provider) -> Vec<Value> {
    vec![
        text(&provider.provider_id),
        provider.version.into(),
        provider.built_in.into(),
        provider.currencies.clone().into(),
        provider.operations.clone().into(),
        provider.secrets.clone().into(),
        provider.case_count.into(),
        time(provider.apply_time.as_ref()),
    ]
}
