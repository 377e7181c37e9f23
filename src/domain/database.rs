//! Which database, where in it, and what it is like: its settings, as a connection of this program sees them.

use std::{collections::HashMap, fmt, path::PathBuf, str::FromStr};

use secrecy::SecretString;

/// What every connection asks for, as Postgres shows it. A pooler may leave it out: then the role has to have it.
pub const SETTINGS: [(&str, &str); 10] = [
    // No statement of ours is slow; one that is waits for somebody else.
    ("statement_timeout", "15s"),
    ("lock_timeout", "2s"),
    ("idle_in_transaction_session_timeout", "15s"),
    ("TimeZone", "UTC"),
    // Statements are written for any arguments; planning one anew costs more than running it.
    ("plan_cache_mode", "force_generic_plan"),
    ("jit", "off"),
    // They are written as scans of an index that they name, row by row. Other query plans fit tables of another
    // size: a statement is planned once, perhaps while they are empty. And a bitmap loses the order of the index
    // that the choice scans.
    ("enable_bitmapscan", "off"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
];

/// The longest name that Postgres keeps whole.
const MAX_NAME: usize = 63;

/// The name of a schema, or of a role: what an identifier of SQL may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlName(String);

impl SqlName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As it is written in SQL.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0.replace('"', "\"\""))
    }
}

impl FromStr for SqlName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
            return Err(format!("a name has 1 to {MAX_NAME} bytes, and no control characters"));
        }
        if name.starts_with("pg_") {
            return Err("names that begin with pg_ are Postgres's own".to_owned());
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for SqlName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which database a store opens, and where in it.
#[derive(Clone, Debug)]
pub struct Address {
    /// `postgres://user:password@host/database`.
    pub url: SecretString,
    /// The schema of the tables; where none is given, the first of the connection's search_path.
    pub schema: Option<SqlName>,
    /// A file that holds the password, and is read for each connection.
    pub password_file: Option<PathBuf>,
}

impl From<SecretString> for Address {
    fn from(url: SecretString) -> Self {
        Self { url, schema: None, password_file: None }
    }
}

impl From<String> for Address {
    fn from(url: String) -> Self {
        SecretString::from(url).into()
    }
}

impl From<&str> for Address {
    fn from(url: &str) -> Self {
        SecretString::from(url).into()
    }
}

/// What a database is like, as a connection of this program sees it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Settings, by name, as Postgres shows them.
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
        SETTINGS
            .iter()
            .filter(|(name, asked)| self.setting(name) != *asked)
            .map(|(name, _)| *name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_those_that_postgres_would_cut_are_refused() {
        let name: SqlName = "Two's \"own\"".parse().unwrap();
        assert_eq!(name.quoted(), "\"Two's \"\"own\"\"\"");
        for bad in ["", "pg_temp", "a\nb", &"x".repeat(64)] {
            assert!(bad.parse::<SqlName>().is_err(), "{bad:?}");
        }
    }
}
