//! The audit trail, read.

use crate::{
    domain::{
        audit::{AuditEvent, AuditFilter},
        page::Page,
    },
    service::Error,
    store::Store,
};

/// The reading of the audit trail. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AuditTrail {
    store: Store,
}

impl AuditTrail {
    /// The audit trail of a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Lists events before the event `before`, newest first, at most `limit`.
    pub async fn list(
        &self,
        filter: &AuditFilter,
        before: i64,
        limit: i64,
    ) -> Result<Page<AuditEvent>, Error> {
        Ok(self.store.list_audit_events(filter, before, limit).await?)
    }
}
