//! The principal: who calls, as authentication found it. The caller cannot choose it.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use super::id::RequestId;

/// Who calls. Its name says how that is known: `token:NAME`, `cert:NAME` or `jwt:ISSUER:SUBJECT`. Without
/// authentication every caller is the same one, whose name is empty. What servers do by themselves is `server`'s.
/// Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(Arc<str>);

impl Principal {
    /// The caller of a server that asks nobody who they are.
    pub fn anonymous() -> Self {
        static ANONYMOUS: LazyLock<Principal> = LazyLock::new(Principal::default);
        ANONYMOUS.clone()
    }

    /// What servers do by themselves: no caller has this name.
    pub fn server() -> Self {
        static SERVER: LazyLock<Principal> = LazyLock::new(|| Principal::named("server"));
        SERVER.clone()
    }

    /// One of this name.
    pub fn named(name: &str) -> Self {
        Self(name.into())
    }

    /// The name that is kept with what it does.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether it is nobody in particular.
    pub fn is_anonymous(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this one may act on what `owner` has begun: its own, and what nobody in particular has.
    pub fn may_use(&self, owner: &Self) -> bool {
        owner.is_anonymous() || self == owner
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who calls, from where, and what else than its own it may touch in the pool that the call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Who.
    pub principal: Principal,
    /// From which network address: behind a proxy it is the proxy's. `None` where it is not known.
    pub peer: Option<IpAddr>,
    /// It may end the leases of others: an operator may.
    pub may_end_others: bool,
    /// It may read the redemptions of others: an operator or an auditor may.
    pub may_read_others: bool,
}

/// Nobody in particular, who may do everything: the caller of a server that asks nobody who they are.
impl Default for Authority {
    fn default() -> Self {
        let principal = Principal::anonymous();
        Self { principal, peer: None, may_end_others: true, may_read_others: true }
    }
}

impl Authority {
    /// One that may touch only its own.
    pub fn of(principal: Principal) -> Self {
        Self { principal, peer: None, may_end_others: false, may_read_others: false }
    }

    /// Whether it may read what `owner` has begun.
    pub fn may_read(&self, owner: &Principal) -> bool {
        self.may_read_others || self.principal.may_use(owner)
    }

    /// The network address, as it is kept; empty where it is not known.
    pub fn peer(&self) -> String {
        self.peer.map(|peer| peer.to_string()).unwrap_or_default()
    }
}

/// A request's name and whose it is: together they are unique in a pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestKey {
    /// Whose request it is.
    pub principal: Principal,
    /// That caller's name for it.
    pub request_id: RequestId,
}

impl RequestKey {
    /// The request of this name of this caller.
    pub fn new(principal: Principal, request_id: RequestId) -> Self {
        Self { principal, request_id }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_uses_its_own_and_what_is_nobodys() {
        let [a, b] = ["token:a", "token:b"].map(Principal::named);
        let nobody = Principal::anonymous();
        assert!(a.may_use(&a) && a.may_use(&nobody) && nobody.may_use(&nobody));
        assert!(!a.may_use(&b) && !nobody.may_use(&a));
        assert!(Authority::default().may_read(&a));
        assert!(!Authority::of(b.clone()).may_read(&a));
        assert!(Authority::of(b.clone()).may_read(&b));
    }
}
