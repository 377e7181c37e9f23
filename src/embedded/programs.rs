//! The programs of an installed Postgres, and how they are found.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::bail;

use super::environment;

/// The oldest Postgres that the statements are written for.
const OLDEST_MAJOR: u32 = 15;

/// Where packages put Postgres's programs: a directory, and how the names in it that matter begin.
const PACKAGE_DIRS: [(&str, &str); 5] = [
    ("/usr/lib/postgresql", ""),         // Debian, Ubuntu, Gentoo: 17/bin
    ("/usr", "pgsql-"),                  // the packages of the Postgres project for Fedora
    ("/usr/libexec", "postgresql"),      // Alpine: postgresql17
    ("/opt/homebrew/opt", "postgresql"), // Homebrew: postgresql@17/bin
    ("/usr/local/opt", "postgresql"),
];

const HOW_TO_INSTALL: &str = "install one (Debian and Ubuntu: postgresql; Fedora: \
    postgresql-server; Homebrew: postgresql@17), name the directory of its programs in \
    HOLDFAST_POSTGRES_BIN, or use a database that is already there by HOLDFAST_DATABASE_URL";

/// An installed Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Programs {
    /// The directory that holds `initdb` and `postgres`.
    pub(super) bin_dir: PathBuf,
    /// The first number of its version.
    pub(super) major: u32,
}

impl Programs {
    /// Finds an installed Postgres: the first on `PATH` or the newest of the usual directories, or the
    /// one in `bin_dir` when that is given. Data that is there already needs the version it was
    /// `made_by`.
    pub(super) fn find(bin_dir: Option<&Path>, made_by: Option<u32>) -> anyhow::Result<Self> {
        let directories = match bin_dir {
            Some(bin_dir) => vec![bin_dir.to_owned()],
            None => usual_places(),
        };
        let found: Vec<Self> = directories.iter().filter_map(|dir| Self::in_dir(dir)).collect();
        let fits = |programs: &&Self| {
            programs.major >= OLDEST_MAJOR && made_by.is_none_or(|major| programs.major == major)
        };
        if let Some(programs) = found.iter().find(fits) {
            return Ok(programs.clone());
        }
        let seen = describe(&found, bin_dir);
        match made_by {
            Some(major) => bail!(
                "the data was made by Postgres {major}, and no Postgres {major} was found{seen}; \
                 {HOW_TO_INSTALL}"
            ),
            None => bail!(
                "no private Postgres can be started: no Postgres {OLDEST_MAJOR} or later was \
                 found{seen}; {HOW_TO_INSTALL}"
            ),
        }
    }

    /// The Postgres whose programs, or links to them, are in `dir`.
    fn in_dir(dir: &Path) -> Option<Self> {
        let initdb = fs::canonicalize(dir.join("initdb")).ok()?;
        let bin_dir = initdb.parent()?.to_owned();
        let output =
            environment::program(bin_dir.join("postgres")).arg("--version").output().ok()?;
        let major = parse_major(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self { bin_dir, major })
    }
}

/// The first number in what `postgres --version` prints, such as "postgres (PostgreSQL) 17.2
/// (Debian 17.2-1)" or "postgres (PostgreSQL) 18beta1".
fn parse_major(printed: &str) -> Option<u32> {
    let version = printed.split_once("(PostgreSQL) ")?.1;
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..end].parse().ok()
}

fn usual_places() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = env::split_paths(&path).collect();
    for (parent, prefix) in PACKAGE_DIRS {
        let mut installed = installed_under(Path::new(parent), prefix);
        installed.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        for (_, dir) in installed {
            directories.push(dir.join("bin"));
            directories.push(dir);
        }
    }
    directories
}

/// The directories under `parent` whose name is `prefix` and a version: `17`, `postgresql@17`.
fn installed_under(parent: &Path, prefix: &str) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = fs::read_dir(parent) else { return Vec::new() };
    let version_of = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let rest = name.to_str()?.strip_prefix(prefix)?.trim_start_matches('@');
        let version = if rest.is_empty() { Some(0) } else { rest.parse().ok() };
        Some((version?, entry.path()))
    };
    entries.filter_map(Result::ok).filter_map(version_of).collect()
}

fn describe(found: &[Programs], bin_dir: Option<&Path>) -> String {
    match (found, bin_dir) {
        ([], Some(dir)) => format!(" in {}", dir.display()),
        ([], None) => String::new(),
        _ => {
            let seen = found.iter().map(|p| format!("{} in {}", p.major, p.bin_dir.display()));
            format!(" (only {})", seen.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)\n"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL) 17"), Some(17));
        assert_eq!(parse_major("something else 17"), None);
    }

    #[test]
    fn package_directories_are_told_apart_by_version() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["postgresql@9", "postgresql@17", "postgresql", "postgresql-common", "other"] {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        let mut found: Vec<u32> =
            installed_under(parent.path(), "postgresql").into_iter().map(|(v, _)| v).collect();
        found.sort_unstable();
        assert_eq!(found, [0, 9, 17]);
    }

    #[test]
    fn without_programs_the_error_says_what_to_install() {
        let empty = tempfile::tempdir().unwrap();
        let error = Programs::find(Some(empty.path()), None).unwrap_err().to_string();
        for hint in ["postgresql-server", "postgresql@17", "HOLDFAST_DATABASE_URL"] {
            assert!(error.contains(hint), "{error}");
        }
    }
}
