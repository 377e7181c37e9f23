//! The principal: who calls, as authentication found it. The caller cannot choose it.

use std::sync::Arc;

/// Who calls. Its name says how that is known: `token:NAME`, `cert:NAME` or `jwt:ISSUER:SUBJECT`. Without
/// authentication every caller is the same one, whose name is empty. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Principal(Arc<str>);

impl Principal {
    /// The caller of a server that asks nobody who they are.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// One of this name.
    pub fn named(name: &str) -> Self {
        Self(name.into())
    }

    /// The name that is kept with what it does.
    pub fn name(&self) -> &str {
        &self.0
    }
}
