//! The program as its callers see it: what it prints where, and its exit codes.

use std::{
    io::Read as _,
    net::{TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    program.env_remove("HOLDFAST_SERVER").stdin(Stdio::null());
    program
}

fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().expect("the program runs")
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has an address").to_string()
}

#[test]
fn arguments_that_cannot_be_read_are_exit_code_2() {
    let done = run(&["pool", "create", "p", "--currency", "euro"]);
    assert_eq!(done.status.code(), Some(2));
    assert!(done.stdout.is_empty());
}

#[test]
fn a_server_that_is_not_there_is_exit_code_1_and_one_error_with_its_causes() {
    let server = format!("http://{}", free_address());
    let done = run(&["pool", "list", "--format", "json", "--server", &server]);
    assert_eq!(done.status.code(), Some(1));
    assert!(done.stdout.is_empty());
    let printed = String::from_utf8(done.stderr).unwrap();
    assert_eq!(printed.matches("error: ").count(), 1, "{printed}");
    assert!(printed.contains(&server) && printed.contains("caused by: "), "{printed}");
}

#[test]
fn the_simulator_serves_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut simulator = program()
        .args(["simulate-provider", "--listen", &address, "--ledger"])
        .arg(folder.path().join("ledger.jsonl"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while TcpStream::connect(&address).is_err() {
        if begun.elapsed() > Duration::from_secs(20) {
            simulator.kill().unwrap();
            let mut printed = String::new();
            simulator.stderr.unwrap().read_to_string(&mut printed).unwrap();
            panic!("the simulator does not listen: {printed}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = rustix::process::Pid::from_raw(simulator.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(simulator.wait().unwrap().success());
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut simulator = program()
        .args(["simulate-provider", "--listen", &address, "--ledger"])
        .arg(folder.path().join("ledger.jsonl"))
        .stderr(full)
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while TcpStream::connect(&address).is_err() {
        assert!(simulator.try_wait().unwrap().is_none(), "it ended");
        assert!(begun.elapsed() < Duration::from_secs(20), "it does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    let id = rustix::process::Pid::from_raw(simulator.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(simulator.wait().unwrap().success());
}
