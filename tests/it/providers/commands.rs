//! `holdfast provider` and `pool create --provider`, as an operator runs them.

use std::fs;

use serde_json::Value;

use super::{give_secret, line_of, profile, world_with};
use crate::support::program::run;

#[tokio::test]
async fn a_profile_is_applied_listed_and_shown() {
    let (world, _) = world_with(&["shop"]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.toml");
    let file = path.to_str().unwrap();
    fs::write(&path, profile("shop", 1)).unwrap();

    let dry = run(&world, &["provider", "apply", file, "--dry-run", "--format", "json"]).await;
    let dry: Value = serde_json::from_str(&dry.says(0, &[]).stdout).unwrap();
    assert_eq!((&dry["provider_id"], &dry["apply_time"]), (&"shop".into(), &Value::Null));
    let none = run(&world, &["provider", "show", "shop"]).await;
    none.says(1, &["PROVIDER_NOT_FOUND", "next: `holdfast provider list`"]);
    let error =
        run(&world, &["pool", "create", "p", "--currency", "EUR", "--provider", "shop"]).await;
    error.says(1, &["PROVIDER_NOT_FOUND"]);

    let applied = run(&world, &["provider", "apply", file, "--format", "json"]).await;
    let applied: Value = serde_json::from_str(&applied.says(0, &[]).stdout).unwrap();
    assert_eq!(applied["version"], 1);
    assert_eq!(applied["secrets"], serde_json::json!(["token"]));
    assert!(applied["apply_time"].is_string());
    let listed = run(&world, &["provider", "list", "--format", "csv"]).await;
    let listed: Vec<_> = listed.says(0, &[]).stdout.lines().map(str::to_owned).collect();
    assert!(listed[0].starts_with("provider_id,version,built_in,currencies,operations"));
    assert!(listed[1].starts_with("holdfast,1,true,,"), "{listed:?}");
    assert!(listed[2].starts_with("shop,1,false,\"EUR,USD\",send,token,2,"), "{listed:?}");

    fs::write(&path, profile("shop", 2).replace("1m", "2m")).unwrap();
    run(&world, &["provider", "apply", file]).await.says(0, &[]);
    let shown = run(&world, &["provider", "show", "shop", "--format", "table"]).await;
    let text = &shown.says(0, &[]).stdout;
    for part in ["│ version        ┆ 2 ", "\nmax_processing = \"2m\"\n", "# A provider for tests."]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let shown = run(&world, &["provider", "show", "shop", "--version", "1", "--file-only"]).await;
    assert_eq!(shown.says(0, &[]).stdout, profile("shop", 1));
    let shown =
        run(&world, &["provider", "show", "shop", "--version", "1", "--format", "json"]).await;
    let shown: Value = serde_json::from_str(&shown.says(0, &[]).stdout).unwrap();
    assert_eq!(shown["profile"], profile("shop", 1));
    assert_eq!(shown["apply_time"], applied["apply_time"]);

    let pool =
        ["pool", "create", "p", "--currency", "EUR", "--provider", "shop", "--format", "json"];
    let pool: Value = serde_json::from_str(&run(&world, &pool).await.says(0, &[]).stdout).unwrap();
    assert_eq!(pool["provider_id"], "shop");
    let pools = run(&world, &["pool", "list", "--format", "csv"]).await;
    assert!(pools.says(0, &[]).stdout.contains("\np,EUR,shop,"), "{pools:?}");
}

#[tokio::test]
async fn a_profile_that_is_refused_is_told_with_every_fault_in_its_place() {
    let (world, _) = world_with(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.toml");
    let file = path.to_str().unwrap();
    let unknown: String = (0..200).map(|n| format!("key-{n} = 1\n")).collect();
    let wrong = profile("shop", 1).replacen("[http]", &format!("{unknown}[http]"), 1);
    fs::write(&path, &wrong).unwrap();
    for line in [&["provider", "apply", file][..], &["provider", "apply", file, "--dry-run"]] {
        let refused = run(&world, line).await;
        refused.says(1, &["200 faults, and was not applied"]);
        for n in [0, 77, 199] {
            let at = line_of(&wrong, &format!("key-{n} "));
            refused.says(1, &[&format!("{file}:{at}: unknown key key-{n}")]);
        }
        assert_eq!(refused.stdout, "");
    }
    let right = profile("shop", 1);
    fs::write(&path, &right).unwrap();
    let at = line_of(&right, "token");
    let missing = format!("{file}:{at}: secret.token is missing on this server");
    run(&world, &["provider", "apply", file]).await.says(1, &[&missing]);
    give_secret(&world, "shop", "token", "hush");
    run(&world, &["provider", "apply", file]).await.says(0, &[]);
    fs::write(&path, right.replace("1m", "2m")).unwrap();
    let exists = run(&world, &["provider", "apply", file]).await;
    exists.says(1, &["PROVIDER_VERSION_EXISTS", "next: ", "higher version"]);
    fs::write(&path, b"\xff").unwrap();
    run(&world, &["provider", "apply", file]).await.says(1, &["is not UTF-8"]);
}
