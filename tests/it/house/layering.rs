//! Imports go one way. The map is in `ARCHITECTURE.md`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each module, and those that it may use.
const MAY_USE: [(&str, &[&str]); 19] = [
    ("domain", &[]),
    ("config", &["domain", "listener", "secret_file"]),
    ("failpoints", &[]),
    ("admission", &[]),
    ("secret", &["domain", "secret_file"]),
    ("secret_file", &[]),
    ("embedded", &["secret_file"]),
    ("provider", &["domain", "config", "failpoints", "secret_file"]),
    ("simulator", &["config", "domain", "listener"]),
    ("store", &["domain", "failpoints", "admission"]),
    ("service", &["domain", "failpoints", "admission", "secret", "provider", "store"]),
    ("rpc", &["domain", "admission", "service", "store"]),
    ("health", &["store"]),
    ("listener", &[]),
    ("admin", &["health", "listener"]),
    ("shutdown", &["health", "rpc"]),
    ("telemetry", &[]),
    (
        "app",
        &[
            "admin",
            "config",
            "embedded",
            "health",
            "failpoints",
            "listener",
            "provider",
            "rpc",
            "secret",
            "service",
            "shutdown",
            "store",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "config",
            "domain",
            "embedded",
            "provider",
            "rpc",
            "simulator",
            "store",
            "telemetry",
        ],
    ),
];

/// Libraries that only some modules know.
const KNOWN_TO: [(&str, &[&str]); 7] = [
    ("sqlx", &["store"]),
    ("tonic", &["rpc", "health", "listener", "app", "cli"]),
    ("prost", &["rpc", "cli"]),
    ("httparse", &["provider"]),
    ("tokio_rustls", &["provider"]),
    ("axum", &["admin", "simulator"]),
    (
        "tokio",
        &[
            "admin",
            "app",
            "cli",
            "embedded",
            "health",
            "failpoints",
            "listener",
            "admission",
            "provider",
            "rpc",
            "service",
            "shutdown",
            "simulator",
            "store",
            "telemetry",
        ],
    ),
];

/// The sources: (module, file, its lines without comments and unit tests).
fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, "rs", &mut files);
    let mut sources = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&root).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs").to_owned();
        let is_test = inside.to_string_lossy().contains("tests.rs")
            || inside.to_string_lossy().contains("fake.rs")
            || inside.to_string_lossy().contains("properties.rs");
        if is_test || module == "lib" || module == "main" {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap().to_owned();
        let code: Vec<_> = text.lines().filter(|line| !line.trim().starts_with("//")).collect();
        sources.push((module, file, code.join("\n")));
    }
    assert!(sources.len() > 50);
    sources
}

/// The files of a folder, and of those in it, whose names end so.
pub(crate) fn collect(folder: &Path, extension: &str, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, extension, files);
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
}

/// The modules of ours that some code names: `crate::x` and the first names of `use crate::{…}`.
fn used(code: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (place, _) in code.match_indices("crate::") {
        let after = &code[place + "crate::".len()..];
        if let Some(list) = after.strip_prefix('{') {
            let mut depth = 1;
            let mut name = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ if depth == 1 => name.push(c),
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
            let names = name.split(',').map(|name| name.split("::").next().unwrap().trim());
            used.extend(names.filter(|name| !name.is_empty()).map(str::to_owned));
        } else {
            let end = after.find(|c: char| !c.is_alphanumeric() && c != '_');
            used.push(after[..end.unwrap_or(after.len())].to_owned());
        }
    }
    used
}

#[test]
fn modules_use_only_those_below_them() {
    for (module, file, code) in sources() {
        let allowed = MAY_USE.iter().find(|(name, _)| *name == module);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{module} is not on the map"));
        for name in used(&code) {
            let known = MAY_USE.iter().any(|(other, _)| *other == name);
            assert!(
                !known || name == module || allowed.contains(&&*name),
                "{} uses crate::{name}",
                file.display()
            );
        }
    }
}

#[test]
fn libraries_are_known_only_where_they_belong() {
    for (module, file, code) in sources() {
        for (library, knowing) in KNOWN_TO {
            let names = [format!("{library}::"), format!("use {library};")];
            let knows = code.lines().any(|line| {
                names.iter().any(|name| {
                    line.match_indices(name.as_str()).any(|(place, _)| {
                        let before = line[..place].chars().next_back();
                        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
                    })
                })
            });
            assert!(!knows || knowing.contains(&&*module), "{} knows {library}", file.display());
        }
    }
}

#[test]
fn the_imports_of_a_braced_use_are_seen() {
    let code =
        "use crate::{\n    domain::{id::PoolId, lease::X},\n    store::Store,\n};\ncrate::rpc::x()";
    assert_eq!(used(code), ["domain", "store", "rpc"]);
}

#[test]
fn only_the_error_table_makes_a_status() {
    for (module, file, code) in sources() {
        let is_table = file.with_extension("").ends_with("rpc/status")
            || file.parent().is_some_and(|folder| folder.ends_with("rpc/status"));
        if module != "rpc" || is_table {
            continue;
        }
        for maker in [
            "Status::new(",
            "Status::internal(",
            "Status::invalid_argument(",
            "with_error_details(",
        ] {
            assert!(!code.contains(maker), "{} makes a Status itself", file.display());
        }
    }
}
