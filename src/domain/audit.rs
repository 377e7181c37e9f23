//! The audit trail: what people did, and which settings were changed.

use time::OffsetDateTime;

use super::{access::PoolFilter, id::PoolId, principal::Principal};

/// Something that a person did, or a setting that was changed.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    /// Rises with each event.
    pub event_id: i64,
    /// When.
    pub created_at: OffsetDateTime,
    /// Who, as authentication found it.
    pub principal: Principal,
    /// From which network address; empty where it is not known.
    pub peer: String,
    /// What was done: the RPC's name.
    pub action: String,
    /// In which pool; empty where it is of none.
    pub pool_id: String,
    /// Of what: an account, a plan, a redemption, a provider, a token.
    pub subject: String,
    /// The values that changed, as they were: a JSON object, or empty.
    pub before: String,
    /// As they are.
    pub after: String,
    /// The reason that was given, if one was.
    pub reason: String,
}

/// Which events a list is of.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only of this pool.
    pub pool_id: Option<PoolId>,
    /// Only of these pools. `None`: of all.
    pub pools: Option<PoolFilter>,
    /// Only of this principal.
    pub principal: Option<String>,
    /// Only of this subject.
    pub subject: Option<String>,
    /// Only what this RPC did.
    pub action: Option<String>,
    /// Only at this time or later.
    pub from: Option<OffsetDateTime>,
    /// Only before this time.
    pub to: Option<OffsetDateTime>,
}
