//! `holdfast provider`, without a server.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

fn check(file: &str) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    program.env_remove("HOLDFAST_SERVER").stdin(Stdio::null());
    program.args(["provider", "check", file]).output().expect("the program runs")
}

fn printed(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_profile_that_is_right_is_exit_code_0_and_one_line() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/square.toml");
    let done = check(file);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let text = printed(&done);
    assert!(text.starts_with(file) && text.contains("square version 1 is right"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn every_fault_is_a_line_that_begins_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("p.toml");
    let whole = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/profiles/square.toml"));
    let whole = whole.unwrap();
    let wrong = whole.replacen("dedup = \"replay\"", "dedup = \"maybe\"", 1);
    let wrong = wrong.replacen("version = 1", "version = 1\ncolour = \"red\"", 1);
    fs::write(&file, &wrong).unwrap();
    let done = check(file.to_str().unwrap());
    assert_eq!(done.status.code(), Some(1));
    let line = |part: &str| 1 + wrong.lines().position(|line| line.starts_with(part)).unwrap();
    let text = printed(&done);
    for (at, what) in
        [(line("colour"), "unknown key colour"), (line("dedup"), "identity.dedup must be")]
    {
        let wanted = format!("{}:{at}: {what}", file.display());
        assert!(text.lines().any(|line| line.starts_with(&wanted)), "{wanted}\n{text}");
    }
    // A case that means something else is a fault as well.
    fs::write(&file, whole.replacen("amount_minor = 1000", "amount_minor = 1001", 1)).unwrap();
    let done = check(file.to_str().unwrap());
    assert_eq!(done.status.code(), Some(1));
    assert!(printed(&done).contains("the case's amount is 1000, not 1001"), "{done:?}");
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let done = check("/no/such/file.toml");
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8(done.stderr).unwrap().contains("cannot be read"));
}
