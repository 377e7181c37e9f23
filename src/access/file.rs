//! The access file: what certificates and JWTs are granted.
//!
//! ```toml
//! [[grant]]
//! principal = "cert:spiffe://example.org/till/*"
//! role = "redeemer"
//! pools = "shop-*"
//! ```

use std::{
    fmt, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::SystemTime,
};

use anyhow::Context as _;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::domain::access::{Grant, Grants, PoolPattern, Role};

/// No file is longer.
const MAX_BYTES: u64 = 1024 * 1024;
/// The faults that one error names.
const MAX_FAULTS: usize = 20;
const OTHERS_CAN_WRITE: u32 = 0o002;

/// What the access file grants. It is read again when it changes.
#[derive(Debug)]
pub struct Subjects {
    path: Option<PathBuf>,
    granted: RwLock<Arc<[Granted]>>,
    /// What the file was when it was last read, well or not.
    read: Mutex<Option<Stamp>>,
}

type Stamp = (SystemTime, u64);

/// A line of the file, as it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Granted {
    /// A principal's name, or its beginning and `*`.
    principal: String,
    grant: Grant,
}

impl Granted {
    fn names(&self, principal: &str) -> bool {
        match self.principal.strip_suffix('*') {
            Some(start) => principal.starts_with(start),
            None => self.principal == principal,
        }
    }
}

/// What is wrong with a file, and where.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    line: usize,
    message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl Subjects {
    /// Reads the file; without one, nothing is granted.
    ///
    /// # Errors
    /// When it cannot be read, or something in it is wrong. All faults are named.
    pub fn open(path: Option<&Path>) -> anyhow::Result<Self> {
        let (granted, stamp) = match path {
            None => (Vec::new(), None),
            Some(path) => {
                let (granted, stamp) = read(path)?;
                (granted, Some(stamp))
            }
        };
        Ok(Self {
            path: path.map(Path::to_owned),
            granted: RwLock::new(granted.into()),
            read: Mutex::new(stamp),
        })
    }

    /// What a principal is granted.
    pub(super) fn grants(&self, principal: &str) -> Grants {
        let granted = Arc::clone(&self.granted.read().unwrap_or_else(PoisonError::into_inner));
        let its = granted.iter().filter(|granted| granted.names(principal));
        Grants::new(its.map(|granted| granted.grant.clone()).collect())
    }

    /// Reads the file again if it has changed. Answers whether something else is granted now. A file with faults
    /// changes nothing, and is logged.
    pub(super) fn reload(&self) -> bool {
        let Some(path) = &self.path else { return false };
        let now = stamp(path).ok();
        {
            let mut before = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            if now.is_none() || *before == now {
                return false;
            }
            *before = now;
        }
        match read(path) {
            Ok((granted, _)) => {
                let mut current = self.granted.write().unwrap_or_else(PoisonError::into_inner);
                if **current == *granted {
                    return false;
                }
                *current = granted.into();
                tracing::info!(file = %path.display(), "the access file was read again");
                true
            }
            Err(error) => {
                tracing::error!("what was granted before stays so: {error:#}");
                false
            }
        }
    }
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.modified()?, metadata.len()))
}

fn read(path: &Path) -> anyhow::Result<(Vec<Granted>, Stamp)> {
    let cannot = || format!("cannot read the access file {}", path.display());
    let stamp = stamp(path).with_context(cannot)?;
    anyhow::ensure!(stamp.1 <= MAX_BYTES, "{} is longer than {MAX_BYTES} bytes", path.display());
    let mode = fs::metadata(path).with_context(cannot)?.permissions().mode();
    anyhow::ensure!(
        mode & OTHERS_CAN_WRITE == 0,
        "the access file {} is refused: every user of this machine can write it. `chmod o-w` it, and see what it grants",
        path.display()
    );
    let text = fs::read_to_string(path).with_context(cannot)?;
    match parse(&text) {
        Ok(granted) => Ok((granted, stamp)),
        Err(faults) => {
            let count = faults.len();
            let named: Vec<_> = faults.iter().take(MAX_FAULTS).map(ToString::to_string).collect();
            anyhow::bail!(
                "the access file {} has {count} faults: {}",
                path.display(),
                named.join("; ")
            )
        }
    }
}

fn parse(text: &str) -> Result<Vec<Granted>, Vec<Fault>> {
    let mut reader = Reader { text, faults: Vec::new() };
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        reader.fault(at, format!("not TOML: {}", error.message()));
    }
    let mut granted = Vec::new();
    for (key, value) in root.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("grant", DeValue::Array(tables)) => {
                for table in tables {
                    reader.read_grant(table, &mut granted);
                }
            }
            ("grant", _) => reader.fault(key.span().start, "write each grant under [[grant]]"),
            (other, _) => reader.fault(key.span().start, format!("unknown key {other:?}")),
        }
    }
    reader.faults.sort_by_key(|fault| fault.line);
    if reader.faults.is_empty() { Ok(granted) } else { Err(reader.faults) }
}

struct Reader<'a> {
    text: &'a str,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn fault(&mut self, at: usize, message: impl Into<String>) {
        let line = 1 + self.text.as_bytes()[..at.min(self.text.len())]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        self.faults.push(Fault { line, message: message.into() });
    }

    fn read_grant(&mut self, table: &Spanned<DeValue<'_>>, granted: &mut Vec<Granted>) {
        let at = table.span().start;
        let DeValue::Table(map) = table.get_ref() else {
            return self.fault(at, "write each grant under [[grant]]");
        };
        let (mut principal, mut role, mut pools) = (None, None, None);
        for (key, value) in map {
            let at = value.span().start;
            match key.get_ref().as_ref() {
                "principal" => principal = self.read_principal(at, value.get_ref()),
                "role" => role = self.read_role(at, value.get_ref()),
                "pools" => pools = self.read_pools(value),
                other => self.fault(key.span().start, format!("unknown key {other:?}")),
            }
        }
        for missing in ["principal", "role", "pools"] {
            if !map.iter().any(|(key, _)| key.get_ref() == missing) {
                self.fault(at, format!("{missing} is missing"));
            }
        }
        if let (Some(principal), Some(role), Some(pools)) = (principal, role, pools) {
            let grant =
                |pools| Granted { principal: principal.clone(), grant: Grant { role, pools } };
            granted.extend(pools.into_iter().map(grant));
        }
    }

    fn read_principal(&mut self, at: usize, value: &DeValue<'_>) -> Option<String> {
        let text = value.as_str().filter(|text| {
            let name = text.strip_prefix("cert:").or_else(|| text.strip_prefix("jwt:"));
            name.is_some_and(|name| !name.is_empty())
        });
        if text.is_none() {
            let how = "principal must be \"cert:NAME\" or \"jwt:ISSUER:SUBJECT\", perhaps with * at its end";
            self.fault(at, how);
        }
        text.map(str::to_owned)
    }

    fn read_role(&mut self, at: usize, value: &DeValue<'_>) -> Option<Role> {
        let role = value.as_str().and_then(Role::parse);
        if role.is_none() {
            self.fault(at, "role must be redeemer, operator, auditor or admin");
        }
        role
    }

    /// One pattern, or a list of them.
    fn read_pools(&mut self, value: &Spanned<DeValue<'_>>) -> Option<Vec<PoolPattern>> {
        let one = std::slice::from_ref(value);
        let values: Vec<&Spanned<DeValue<'_>>> = match value.get_ref() {
            DeValue::Array(list) => list.iter().collect(),
            _ => one.iter().collect(),
        };
        let mut pools = Vec::new();
        for value in &values {
            match value.get_ref().as_str().and_then(PoolPattern::parse) {
                Some(pattern) => pools.push(pattern),
                None => self.fault(
                    value.span().start,
                    "pools must be a pool's id, or the beginning of ids and *, such as \"shop-*\"",
                ),
            }
        }
        if values.is_empty() {
            self.fault(value.span().start, "pools must not be empty");
        }
        (pools.len() == values.len()).then_some(pools)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::access::Need;

    #[test]
    fn a_principal_has_the_grants_of_every_line_that_names_it() {
        let text = "[[grant]]\nprincipal = \"jwt:https://id.example:till-*\"\nrole = \"redeemer\"\npools = [\"eu\", \"us\"]\n\
             [[grant]]\nprincipal = \"jwt:https://id.example:till-7\"\nrole = \"operator\"\npools = \"eu\"\n";
        let granted = parse(text).unwrap();
        let subjects =
            Subjects { path: None, granted: RwLock::new(granted.into()), read: Mutex::default() };
        let (redeem, operate) = (Need::Role(Role::Redeemer), Need::Role(Role::Operator));
        let till = subjects.grants("jwt:https://id.example:till-7");
        assert!(till.may(operate, "eu") && till.may(redeem, "us") && !till.may(operate, "us"));
        let other = subjects.grants("jwt:https://id.example:till-8");
        assert!(other.may(redeem, "eu") && !other.may(operate, "eu"));
        assert_eq!(subjects.grants("jwt:https://id.example:admin"), Grants::default());
    }

    #[test]
    fn every_fault_is_named_with_its_line() {
        let text = "wrong = 1\n[[grant]]\nprincipal = \"token:x\"\nrole = \"king\"\npools = \"a b\"\n\n\
             [[grant]]\nprincipal = \"cert:\"\nsince = 1\n";
        let faults: Vec<_> = parse(text).unwrap_err().iter().map(ToString::to_string).collect();
        let begins = [
            "line 1: unknown key \"wrong\"",
            "line 3: principal must be",
            "line 4: role must be",
            "line 5: pools must be",
            "line 7: role is missing",
            "line 7: pools is missing",
            "line 8: principal must be",
            "line 9: unknown key \"since\"",
        ];
        assert_eq!(faults.len(), begins.len(), "{faults:#?}");
        for (fault, begin) in faults.iter().zip(begins) {
            assert!(fault.starts_with(begin), "{fault}: {begin}");
        }
        assert!(parse("grant = 3").unwrap_err()[0].message.contains("[[grant]]"));
        assert!(parse("[[grant]\n").unwrap_err()[0].message.starts_with("not TOML"));
        assert_eq!(parse("# nothing\n").unwrap(), []);
    }

    #[test]
    fn a_file_that_changes_is_read_again_and_one_with_faults_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.toml");
        let write = |role: &str| {
            let text =
                format!("[[grant]]\nprincipal = \"cert:a\"\nrole = \"{role}\"\npools = \"*\"\n");
            fs::write(&path, text).unwrap();
        };
        write("auditor");
        let subjects = Subjects::open(Some(&path)).unwrap();
        let role = || subjects.grants("cert:a").iter().next().unwrap().role;
        assert!(!subjects.reload());
        write("king-of-all");
        assert!(!subjects.reload());
        assert_eq!(role(), Role::Auditor);
        write("redeemer");
        assert!(subjects.reload());
        assert_eq!(role(), Role::Redeemer);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let refused = format!("{:#}", Subjects::open(Some(&path)).unwrap_err());
        assert!(refused.contains("every user of this machine can write it"), "{refused}");
    }
}
