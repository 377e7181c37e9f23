//! Each command of a client, where no server answers: one error in plain words, soon, with what to do.

use std::{fs, path::Path, process::Stdio, time::Duration};

use clap::{
    Arg, Command as Definition, CommandFactory as _,
    error::{ContextKind, ContextValue},
};
use futures_util::{StreamExt as _, stream};
use holdfast::cli::Cli;
use tokio::{net::TcpListener, process::Command, time::timeout};

use crate::support::{
    program::{Finished, finish},
    secrets::write_secret,
};

/// How long a command may take, on a machine that does other things too.
const LIMIT: Duration = Duration::from_secs(60);
const ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// A line for each command that has a server: with no more than it must have.
fn lines(command: &Definition, words: &[String], found: &mut Vec<Vec<String>>) {
    for inner in command.get_subcommands() {
        let words = [words, &[inner.get_name().to_owned()]].concat();
        lines(inner, &words, found);
    }
    let has_server = command.get_arguments().any(|arg| arg.get_long() == Some("server"));
    // It goes on where no server answers, and has tests of its own.
    if !has_server || command.get_name() == "doctor" {
        return;
    }
    let mut line = words.to_vec();
    let groups = command.get_groups().filter(|group| group.is_required_set());
    let first = groups.filter_map(|group| group.get_args().next().cloned());
    let of_groups: Vec<_> = first.collect();
    for arg in command.get_arguments() {
        if arg.is_required_set() || of_groups.contains(arg.get_id()) {
            line.extend(arg.get_long().map(|long| format!("--{long}")));
            if arg.get_action().takes_values() {
                line.push(sample(words, arg));
            }
        }
    }
    for name in still_missing(&line) {
        let arg =
            command.get_arguments().find(|arg| arg.get_long() == Some(name.as_str())).unwrap();
        line.push(format!("--{name}={}", sample(words, arg)));
    }
    found.push(line);
}

/// The options that a line lacks because of what else is, or is not, on it.
fn still_missing(line: &[String]) -> Vec<String> {
    let words = ["holdfast"].into_iter().chain(line.iter().map(String::as_str));
    let Err(error) = Cli::command().try_get_matches_from(words) else { return Vec::new() };
    let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
        panic!("{line:?}: {error}")
    };
    let names = missing.iter().filter_map(|text| text.strip_prefix("--")?.split(' ').next());
    names.map(str::to_owned).collect()
}

/// A value that an argument takes.
fn sample(words: &[String], arg: &Arg) -> String {
    if let Some(value) = arg.get_possible_values().first() {
        return value.get_name().to_owned();
    }
    let value = match (words[0].as_str(), arg.get_id().as_str()) {
        ("provider", "file") => concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/square.toml"),
        ("redeem-batch", "file") => "cards.csv",
        (_, "file") => "accounts.csv",
        (_, "credentials_file") => "credentials",
        (_, "currency") => "EUR",
        (_, "redemption") => ID,
        (_, "delivery") => concat!("out_", "000000000000000000000000000000000000000000000001"),
        (_, "from") => "2026-01-01T00:00:00Z",
        (_, "to") => "2026-01-02T00:00:00Z",
        (_, "op") => "inquire",
        (_, name) if name.ends_with("lease") => "30s",
        (_, name) if name == "target" || name.ends_with("minor") => "1000",
        (_, name) if name.contains("url") => "https://example.com/hook",
        _ => "shop",
    };
    value.to_owned()
}

async fn run(folder: &Path, line: &[String], server: &str) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("HOLDFAST_")) {
        command.env_remove(name);
    }
    command.args(line).args(["--server", server]).current_dir(folder);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let child = command.spawn().unwrap();
    timeout(LIMIT, finish(child)).await.unwrap_or_else(|_| panic!("{line:?} hangs"))
}

async fn each_command_says(server: &str, words: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("accounts.csv"), "account_id\nanna\n").unwrap();
    fs::write(folder.path().join("cards.csv"), "code,amount_minor\nABCD-1234,1000\n").unwrap();
    write_secret(folder.path().join("credentials"), "login=anna\n");
    let (mut all, mut root) = (Vec::new(), Cli::command());
    root.build();
    lines(&root, &[], &mut all);
    assert!(all.len() > 35, "{all:?}");
    let (folder, server) = (folder.path(), server);
    let runs = all.iter().map(|line| async move { (line, run(folder, line, server).await) });
    let mut runs = stream::iter(runs).buffer_unordered(8);
    while let Some((line, done)) = runs.next().await {
        let is_one_error = done.printed.matches("error: ").count() == 1;
        assert!(
            done.code == Some(1) && is_one_error && done.printed.contains(words),
            "{line:?}: {done:#?}"
        );
    }
}

#[tokio::test]
async fn each_command_says_that_nobody_listens_and_what_to_do() {
    each_command_says("http://127.0.0.1:1", "start one with `holdfast serve`").await;
}

#[tokio::test]
async fn each_command_says_that_something_takes_the_connection_and_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((tcp, _)) = listener.accept().await {
            open.push(tcp);
        }
    });
    each_command_says(&server, "says nothing: the server hangs").await;
}
