//! What a database is like: its settings, as a connection of this program sees them.

use std::collections::HashMap;

/// What a connection asks for itself: see `store::Store::open`.
const OWN: [(&str, &str); 3] =
    [("statement_timeout", "15000"), ("lock_timeout", "2000"), ("TimeZone", "UTC")];

/// What a database is like, as a connection of this program sees it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Settings, by name. Durations are in milliseconds.
    pub settings: HashMap<String, String>,
    /// Connections that the role may have; less than 0 for any number.
    pub role_connections: i64,
    /// Standbys that are connected, and for which a commit may wait.
    pub synchronous_standbys: i64,
    /// Standbys of which the role may not see the kind.
    pub unknown_standbys: i64,
    /// Connections that there are.
    pub connections: i64,
    /// The time there, in milliseconds since 1970.
    pub now_ms: i64,
}

impl Facts {
    /// A setting; empty where it is not known.
    pub fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// A setting that is a number; 0 where it is not known.
    pub fn number(&self, name: &str) -> i64 {
        self.setting(name).parse().unwrap_or(0)
    }

    /// The settings that a connection asked for, and has not got: what stands between left them out.
    pub fn not_taken(&self) -> Vec<&'static str> {
        OWN.iter()
            .filter(|(name, asked)| self.setting(name) != *asked)
            .map(|(name, _)| *name)
            .collect()
    }
}
