//! Imports go one way. The map is in `ARCHITECTURE.md`.

use super::imports::{Edges, Modules};

/// Each module, and those that it may use.
const MAY_USE: [(&str, &[&str]); 22] = [
    ("domain", &[]),
    ("access", &["domain"]),
    ("config", &["access", "admission", "domain", "listener", "secret_file"]),
    ("core_dumps", &[]),
    ("failpoints", &[]),
    ("admission", &[]),
    ("secret", &["domain", "secret_file"]),
    ("secret_file", &[]),
    ("embedded", &["secret_file"]),
    ("provider", &["domain", "config", "failpoints", "secret_file"]),
    ("store", &["domain", "failpoints", "admission", "secret_file"]),
    (
        "service",
        &[
            "access",
            "domain",
            "failpoints",
            "admission",
            "secret",
            "provider",
            "store",
            "telemetry",
        ],
    ),
    ("rpc", &["access", "domain", "admission", "listener", "service"]),
    ("health", &["listener", "rpc", "store"]),
    ("listener", &["admission", "secret_file"]),
    ("admin", &["access", "domain", "health", "listener", "telemetry"]),
    ("webhook", &["listener", "service"]),
    ("shutdown", &["health", "rpc"]),
    ("telemetry", &[]),
    (
        "app",
        &[
            "access",
            "admin",
            "config",
            "domain",
            "embedded",
            "health",
            "failpoints",
            "listener",
            "provider",
            "rpc",
            "secret",
            "secret_file",
            "service",
            "shutdown",
            "store",
            "telemetry",
            "webhook",
        ],
    ),
    (
        "cli",
        &[
            "app",
            "config",
            "core_dumps",
            "domain",
            "embedded",
            "listener",
            "provider",
            "rpc",
            "secret_file",
            "telemetry",
        ],
    ),
    ("fuzz", &["access", "cli", "provider", "rpc"]),
];

/// Libraries that only some modules know.
const KNOWN_TO: [(&str, &[&str]); 9] = [
    ("sqlx", &["store"]),
    ("tonic", &["rpc", "health", "listener", "app", "cli"]),
    ("prost", &["rpc", "cli"]),
    ("reqwest", &["access", "provider"]),
    ("toml", &["access", "cli", "provider"]),
    ("jsonwebtoken", &["access"]),
    ("ring", &["access", "listener"]),
    ("axum", &["admin", "webhook"]),
    (
        "tokio",
        &[
            "access",
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
            "store",
            "telemetry",
            "webhook",
        ],
    ),
];

#[test]
fn modules_use_only_those_below_them() {
    for (names, file, used) in Modules::read().uses() {
        let Some(module) = names.first() else { continue };
        let allowed = MAY_USE.iter().find(|(name, _)| name == module);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{module} is not on the map"));
        for name in used.iter().filter_map(|used| used.first()) {
            assert!(
                name == module || allowed.contains(&&**name),
                "{} uses crate::{name}",
                file.display()
            );
        }
    }
}

#[test]
fn libraries_are_used_only_where_they_belong() {
    for (names, file, libraries) in Modules::read().libraries() {
        let Some(module) = names.first() else { continue };
        for (library, knowing) in KNOWN_TO {
            let knows = libraries.contains(library);
            assert!(!knows || knowing.contains(&&**module), "{} knows {library}", file.display());
        }
    }
}

/// The modules of a folder use each other in one direction: none of them is used, over others or not, by what it uses.
/// The folder's own file (`mod.rs`) is not one of them.
#[test]
fn modules_of_a_folder_have_no_cycles() {
    let folders = Modules::read().edges_in_folders();
    let cycles: Vec<_> = folders
        .iter()
        .filter_map(|(folder, edges)| Some(format!("{folder}: {}", edges.cycle()?.join(" → "))))
        .collect();
    assert!(cycles.is_empty(), "{cycles:#?}");
}

#[test]
fn a_cycle_is_found_over_any_number_of_modules() {
    let mut edges = Edges::default();
    for (user, used) in [("a", "b"), ("b", "c"), ("a", "c"), ("c", "d")] {
        edges.add(user, used);
    }
    assert_eq!(edges.cycle(), None);
    edges.add("d", "b");
    assert_eq!(edges.cycle().unwrap(), ["b", "c", "d", "b"]);
    edges.remove("c", "d");
    assert_eq!(edges.cycle(), None);
}
