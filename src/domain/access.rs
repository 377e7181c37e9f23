//! Access: the roles that principals are granted, and on which pools.

use std::{fmt, time::Duration};

use super::id::TokenName;

/// The most grants of one token.
pub const MAX_GRANTS: usize = 32;
/// How long a token may be valid.
pub const MIN_LIFETIME: Duration = Duration::from_secs(60);
/// See [`MIN_LIFETIME`].
pub const MAX_LIFETIME: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);

/// What a principal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Acquires, renews, releases, redeems; reads what it needs for that.
    Redeemer,
    /// What a redeemer may; changes pools, plans and accounts; settles redemptions; ends the leases of others.
    Operator,
    /// Reads everything, and changes nothing.
    Auditor,
    /// Everything, also tokens and providers.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Redeemer, Self::Operator, Self::Auditor, Self::Admin];

    /// As settings, the database and errors have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redeemer => "redeemer",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }

    /// Reads it as it is written.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether this role may do what `needed` may. An operator reads what an auditor reads.
    pub fn covers(self, needed: Self) -> bool {
        self == needed
            || match self {
                Self::Admin => true,
                Self::Operator => matches!(needed, Self::Redeemer | Self::Auditor),
                Self::Redeemer | Self::Auditor => false,
            }
    }
}

/// What must be granted to do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Need {
    /// Any role.
    Any,
    /// This role, or one that covers it.
    Role(Role),
}

impl Need {
    fn is_met_by(self, role: Role) -> bool {
        match self {
            Self::Any => true,
            Self::Role(needed) => role.covers(needed),
        }
    }

    /// The role to ask for, where it is missing.
    pub fn least(self) -> Role {
        match self {
            // It changes nothing.
            Self::Any => Role::Auditor,
            Self::Role(role) => role,
        }
    }
}

/// The pools that a grant is on: one, those that begin so, or all.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PoolPattern(Box<str>);

impl PoolPattern {
    /// The longest pattern: as long as the id of a pool.
    const MAX: usize = 128;

    /// All pools.
    pub fn all() -> Self {
        Self("*".into())
    }

    /// Reads one: a pool's id, or the beginning of ids and `*`.
    pub fn parse(text: &str) -> Option<Self> {
        let start = text.strip_suffix('*').unwrap_or(text);
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let is_one = (1..=Self::MAX).contains(&text.len()) && start.chars().all(fits);
        is_one.then(|| Self(text.into()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How the ids of the pools begin, where it is not one pool alone.
    fn start(&self) -> Option<&str> {
        self.0.strip_suffix('*')
    }

    fn names(&self, pool_id: &str) -> bool {
        match self.start() {
            Some(start) => pool_id.starts_with(start),
            None => *self.0 == *pool_id,
        }
    }

    fn is_all(&self) -> bool {
        &*self.0 == "*"
    }
}

impl fmt::Debug for PoolPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A role on pools.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// The role.
    pub role: Role,
    /// On these pools.
    pub pools: PoolPattern,
}

/// All that a principal is granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(Vec<Grant>);

/// The pools that a list may show: those in which the caller's need is met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolFilter {
    /// Pools whose ids begin so. An empty start is all of them.
    pub starts: Vec<String>,
    /// These pools.
    pub ids: Vec<String>,
}

impl Grants {
    /// Several grants.
    pub fn new(grants: Vec<Grant>) -> Self {
        Self(grants)
    }

    /// Everything, everywhere.
    pub fn all() -> Self {
        Self(vec![Grant { role: Role::Admin, pools: PoolPattern::all() }])
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Grant> {
        self.0.iter()
    }

    /// Whether it is met in a pool.
    pub fn may(&self, need: Need, pool_id: &str) -> bool {
        self.0.iter().any(|grant| need.is_met_by(grant.role) && grant.pools.names(pool_id))
    }

    /// Whether it is met in all pools, those that are yet to be made too.
    pub fn may_everywhere(&self, need: Need) -> bool {
        self.0.iter().any(|grant| need.is_met_by(grant.role) && grant.pools.is_all())
    }

    /// Whether it is met in some pool.
    pub fn may_somewhere(&self, need: Need) -> bool {
        self.0.iter().any(|grant| need.is_met_by(grant.role))
    }

    /// The pools in which it is met.
    pub fn pools(&self, need: Need) -> PoolFilter {
        let mut filter = PoolFilter::default();
        for grant in self.0.iter().filter(|grant| need.is_met_by(grant.role)) {
            match grant.pools.start() {
                Some(start) => filter.starts.push(start.to_owned()),
                None => filter.ids.push(grant.pools.as_str().to_owned()),
            }
        }
        filter
    }
}

impl PoolFilter {
    /// All pools.
    pub fn all() -> Self {
        Self { starts: vec![String::new()], ids: Vec::new() }
    }
}

/// A token, without its secret.
#[derive(Clone, Debug)]
pub struct Token {
    /// Its name. Its principal is `token:NAME`.
    pub name: TokenName,
    /// What it may do.
    pub grants: Grants,
    /// The principal that made it.
    pub created_by: String,
    /// When.
    pub created_at: time::OffsetDateTime,
    /// When it stops to work by itself.
    pub expires_at: Option<time::OffsetDateTime>,
    /// When it was revoked.
    pub revoked_at: Option<time::OffsetDateTime>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<time::OffsetDateTime>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(list: &[(Role, &str)]) -> Grants {
        let grant = |(role, pools): &(Role, &str)| Grant {
            role: *role,
            pools: PoolPattern::parse(pools).unwrap(),
        };
        Grants::new(list.iter().map(grant).collect())
    }

    #[test]
    fn a_role_covers_itself_and_what_it_includes() {
        use Role::{Admin, Auditor, Operator, Redeemer};
        let covered = |role: Role| Role::ALL.map(|needed| role.covers(needed));
        assert_eq!(Role::ALL, [Redeemer, Operator, Auditor, Admin]);
        assert_eq!(covered(Redeemer), [true, false, false, false]);
        assert_eq!(covered(Operator), [true, true, true, false]);
        assert_eq!(covered(Auditor), [false, false, true, false]);
        assert_eq!(covered(Admin), [true; 4]);
    }

    #[test]
    fn a_pattern_is_one_pool_or_a_beginning_or_all() {
        let names = |pattern: &str, pool: &str| PoolPattern::parse(pattern).unwrap().names(pool);
        assert!(names("shop", "shop") && !names("shop", "shop-1") && !names("shop", "sho"));
        assert!(names("shop-*", "shop-1") && names("shop-*", "shop-") && !names("shop-*", "shop"));
        assert!(names("*", "anything") && names("*", ""));
        for bad in ["", "a*b", "**", "a b", "ä*", "shop-?", &"x".repeat(129)] {
            assert!(PoolPattern::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_grant_is_on_its_pools_alone() {
        let mixed = grants(&[(Role::Redeemer, "shop-*"), (Role::Operator, "eu")]);
        let need = Need::Role;
        assert!(mixed.may(need(Role::Redeemer), "shop-7") && mixed.may(need(Role::Redeemer), "eu"));
        assert!(!mixed.may(need(Role::Operator), "shop-7") && mixed.may(Need::Any, "shop-7"));
        assert!(!mixed.may(Need::Any, "us") && !mixed.may_everywhere(Need::Any));
        assert!(mixed.may_somewhere(need(Role::Operator)));
        assert!(!mixed.may_somewhere(need(Role::Admin)));
        let shown = mixed.pools(Need::Any);
        assert_eq!(shown, PoolFilter { starts: vec!["shop-".into()], ids: vec!["eu".into()] });
        assert!(Grants::all().may_everywhere(need(Role::Admin)));
        assert_eq!(Grants::all().pools(Need::Any), PoolFilter::all());
        assert!(!Grants::default().may(Need::Any, "eu"));
    }
}
