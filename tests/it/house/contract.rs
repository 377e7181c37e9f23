//! The contract's files: what other languages and gateways need of them, and what proxies are told.

use std::{collections::BTreeSet, fs, path::Path};

use super::collect;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("proto/holdfast"), "proto", &mut files);
    assert!(files.len() > 5);
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_file_has_the_options_of_the_languages() {
    const OPTIONS: [&str; 6] = [
        "csharp_namespace = \"Holdfast.V1\"",
        "go_package = \"example.com/gen/holdfast/v1;holdfastv1\"",
        "java_multiple_files = true",
        "java_package = \"com.holdfast.v1\"",
        "php_namespace = \"Holdfast\\\\V1\"",
        "ruby_package = \"Holdfast::V1\"",
    ];
    for (name, text) in files() {
        for option in OPTIONS {
            assert!(text.contains(&format!("\noption {option};\n")), "{name} has no {option}");
        }
    }
}

/// The RPCs of a file, each with its service, and with what follows its name.
fn rpcs(text: &str) -> Vec<(String, String, String)> {
    let service = text.split("\nservice ").nth(1).and_then(|rest| rest.split(' ').next());
    let Some(service) = service else { return Vec::new() };
    let rpcs = text.split("\n  rpc ").skip(1);
    rpcs.map(|rest| {
        let name = rest.split('(').next().unwrap().to_owned();
        let end = rest.find("\n\n").or(rest.find("\n}\n")).unwrap_or(rest.len());
        (service.to_owned(), name, rest[..end].to_owned())
    })
    .collect()
}

#[test]
fn every_rpc_of_one_message_has_a_path_for_json_with_its_own_name() {
    let mut count = 0;
    for (_, text) in files() {
        for (service, name, rest) in rpcs(&text) {
            let path = format!("post: \"/v1/{service}/{name}\"\n      body: \"*\"");
            let is_stream = rest.lines().next().unwrap().contains("stream ");
            assert_eq!(rest.contains(&path), !is_stream, "{service}.{name}: {rest}");
            count += 1;
        }
    }
    assert!(count > 30);
}

/// What a service config repeats.
fn repeated(path: &str) -> BTreeSet<String> {
    let config: serde_json::Value = serde_json::from_str(&read(path)).unwrap();
    let methods = config["methodConfig"].as_array().unwrap().iter();
    let names = methods.flat_map(|method| method["name"].as_array().unwrap());
    names.map(|name| name["method"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_not_safe_to_repeat_is_in_no_service_config() {
    let ours = repeated("clients/service_config.json");
    let anybodys = repeated("deploy/grpc/service_config.json");
    let only_ours: Vec<_> = ours.difference(&anybodys).map(String::as_str).collect();
    assert_eq!(only_ours, ["AcquireAccount"], "others may send it without a request id");
    for (_, text) in files() {
        for (service, name, rest) in rpcs(&text) {
            let is_stream = rest.lines().next().unwrap().contains("stream ");
            let is_once = ["Create", "Delete", "Rotate"].iter().any(|it| name.starts_with(it));
            let is_safe = !is_stream && !is_once;
            // Our clients have no methods of it.
            let has_methods = service != "SubscriptionService";
            assert_eq!(ours.contains(&name), is_safe && has_methods, "{service}.{name}");
            let is_acquire = name == "AcquireAccount";
            assert_eq!(anybodys.contains(&name), is_safe && !is_acquire, "{service}.{name}");
        }
    }
}

#[test]
fn envoy_repeats_what_the_service_config_does() {
    let envoy = read("deploy/envoy/envoy.yaml");
    for once in
        ["BatchRedeem|WatchRedemptions|ImportAccounts", "AcquireAccount|Create\\\\w+|Delete\\\\w+"]
    {
        assert!(envoy.contains(once), "{once}");
    }
    assert!(envoy.contains("max_retries: 100"));
    for (_, text) in files() {
        for (service, ..) in rpcs(&text) {
            assert!(envoy.contains(&format!("- holdfast.v1.{service}\n")), "{service}");
        }
    }
}

#[test]
fn every_variable_in_deploy_is_a_setting() {
    let book = read("docs/configuration.md");
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy"), "yaml", &mut files);
    let mut count = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for (start, _) in text.match_indices("HOLDFAST_") {
            let name: String =
                text[start..].chars().take_while(|c| c.is_ascii_uppercase() || *c == '_').collect();
            assert!(book.contains(&format!("`{name}`")), "{}: {name}", file.display());
            count += 1;
        }
    }
    assert!(count > 8);
}
