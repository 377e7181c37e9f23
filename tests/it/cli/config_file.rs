//! The config file, as the program reads it: for clients and servers, and what wins over it.

use std::{fs, path::Path, process::Stdio};

use serde_json::Value;
use tokio::process::Command;

use crate::support::{
    program::{Finished, finish},
    world::{POOL, World},
};

async fn run(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("HOLDFAST_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(variables.iter().copied()).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    finish(command.spawn().unwrap()).await
}

#[tokio::test]
async fn a_command_takes_its_server_from_the_file_and_variables_and_options_win() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let server = format!("http://{}", world.server(0).addr());
    fs::write(folder.path().join("hf.toml"), format!("server = \"{server}\"\nformat = \"json\"\n"))
        .unwrap();
    let list = ["pool", "list", "--config", "hf.toml"];
    let done = run(folder.path(), &list, &[]).await;
    done.says(0, &[]);
    let rows: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(rows[0]["pool_id"], POOL);
    let by_variable = [("HOLDFAST_CONFIG", "hf.toml")];
    let done = run(folder.path(), &["pool", "list", "--format", "csv"], &by_variable).await;
    assert!(done.says(0, &[]).stdout.starts_with("pool_id,"), "{done:?}");
    let nowhere = "http://127.0.0.1:1";
    let done = run(folder.path(), &list, &[("HOLDFAST_SERVER", nowhere)]).await;
    done.says(1, &[nowhere]);
    let with_option = [&list[..], &["--server", &server]].concat();
    run(folder.path(), &with_option, &[("HOLDFAST_SERVER", nowhere)]).await.says(0, &[]);
    // No file is read that nobody names.
    fs::write(folder.path().join("holdfast.toml"), "server = 5\n").unwrap();
    run(folder.path(), &["pool", "list", "--server", &server], &[]).await.says(0, &[]);
}

#[tokio::test]
async fn a_file_with_faults_is_refused_with_all_of_them_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("hf.toml"),
        "servr = \"x\"\nlisten = 7\ndatabase-url = \"hush\"\n",
    )
    .unwrap();
    for line in [&["serve"][..], &["pool", "list"], &["config", "check"], &["config", "show"]] {
        let line = [line, &["--config", "hf.toml"]].concat();
        let done = run(folder.path(), &line, &[]).await;
        done.says(
            2,
            &["3 faults", "hf.toml:1:", "do you mean server?", "hf.toml:2:", "hf.toml:3:"],
        );
        assert!(!done.printed.contains("hush"), "{done:?}");
    }
    run(folder.path(), &["pool", "list", "--config", "none.toml"], &[])
        .await
        .says(2, &["none.toml"]);
}

#[tokio::test]
async fn config_show_tells_each_setting_with_where_it_comes_from_and_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let text = "# ours\nlisten = \"127.0.0.1:7\"\nprovider-url = \"https://me:hush@example.com/\"\ntoken-file = \"t\"\n";
    fs::write(folder.path().join("hf.toml"), text).unwrap();
    let variables = [
        ("HOLDFAST_CONFIG", "hf.toml"),
        ("HOLDFAST_DATABASE_URL", "postgres://me:hush@localhost/x"),
        ("HOLDFAST_DRAIN_DELAY", "7s"),
        ("HOLDFAST_TOKEN", "hf_hush"),
    ];
    let done = run(folder.path(), &["config", "show", "--format", "json"], &variables).await;
    done.says(0, &[]);
    assert!(!done.stdout.contains("hush"), "{}", done.stdout);
    let rows: Vec<Value> = serde_json::from_str(&done.stdout).unwrap();
    let row = |name: &str| {
        let row = rows.iter().find(|row| row["setting"] == name).unwrap();
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        (text("value"), text("source"))
    };
    let told = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(row("listen"), told("127.0.0.1:7", "hf.toml:2"));
    assert_eq!(row("provider-url"), told("https://hidden@example.com/", "hf.toml:3"));
    assert_eq!(row("drain-delay"), told("7s", "HOLDFAST_DRAIN_DELAY"));
    assert_eq!(row("shutdown-timeout"), told("25s", "default"));
    assert_eq!(row("database-url"), told("(hidden)", "HOLDFAST_DATABASE_URL"));
    assert_eq!(row("token-file"), told("", "not used: HOLDFAST_TOKEN is set"));
    assert_eq!(row("access-file"), told("", ""));
}

#[tokio::test]
async fn config_check_says_what_a_server_would_not_take_together() {
    let folder = tempfile::tempdir().unwrap();
    let check = ["config", "check", "--config", "hf.toml"];
    let write = |text: &str| fs::write(folder.path().join("hf.toml"), text).unwrap();
    write("provider-timeout = \"9s\"\nprovider-send-window = \"20s\"\n");
    run(folder.path(), &check, &[]).await.says(0, &["2 settings"]);
    write("provider-timeout = \"40s\"\nprovider-send-window = \"20s\"\n");
    run(folder.path(), &check, &[])
        .await
        .says(1, &["HOLDFAST_PROVIDER_TIMEOUT (40s) must be shorter"]);
    write("jwt-issuer = \"i\"\n");
    run(folder.path(), &check, &[]).await.says(1, &["--jwt-audience"]);
}

#[tokio::test]
async fn columns_are_chosen_and_a_wrong_name_is_answered_before_anything_is_sent() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let server = format!("http://{}", world.server(0).addr());
    let list = [
        "pool",
        "list",
        "--server",
        &server,
        "--format",
        "csv",
        "--columns",
        "currency_code,pool_id",
    ];
    let done = run(folder.path(), &list, &[]).await;
    assert_eq!(done.says(0, &[]).stdout, format!("currency_code,pool_id\nEUR,{POOL}\n"));
    for command in [
        &["pool", "list"][..],
        &["token", "list"],
        &["provider", "list"],
        &["audit-log"],
        &["redemption", "list"],
    ] {
        let line = [command, &["--server", "http://127.0.0.1:1", "--columns", "colour"]].concat();
        run(folder.path(), &line, &[])
            .await
            .says(1, &["there is no column \"colour\". The columns are: "]);
    }
}
