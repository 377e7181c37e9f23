//! A token as a row.

use serde_json::Value;

use super::{text, time};
use crate::rpc::pb;

/// A token's columns.
pub(crate) const TOKEN: &[&str] =
    &["name", "grants", "created_by", "create_time", "expire_time", "revoke_time", "last_use_time"];

/// A token's row. Its grants are written `role:pools`.
pub(crate) fn token(token: &pb::Token) -> Vec<Value> {
    let grants: Vec<_> = token.grants.iter().map(grant).collect();
    vec![
        text(&token.name),
        text(&grants.join(" ")),
        text(&token.created_by),
        time(token.create_time.as_ref()),
        time(token.expire_time.as_ref()),
        time(token.revoke_time.as_ref()),
        time(token.last_use_time.as_ref()),
    ]
}

fn grant(grant: &pb::Grant) -> String {
    let role = grant.role().as_str_name().trim_start_matches("ROLE_").to_lowercase();
    format!("{role}:{}", grant.pools)
}
