//! `holdfast redemption watch`, as people and scripts run it.

use std::time::Duration;

use rustix::process::Signal;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};

use super::redeem;
use crate::support::{program, watch::Watch, world::World};

const LIMIT: Duration = Duration::from_secs(60);

struct Command {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Command {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let watch = ["redemption", "watch", "--pool", crate::support::world::POOL];
        let arguments = [&watch[..], arguments].concat();
        let mut child = program::program(world, &arguments).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        timeout(LIMIT, self.lines.next_line()).await.expect("no line").unwrap().expect("it ended")
    }

    async fn stop(mut self) {
        program::signal(&self.child, Signal::INT);
        assert_eq!(program::ended(&mut self.child).await.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outcomes_are_printed_as_they_come_and_after_a_restart_from_the_last_one_on() {
    let mut world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(1).await;
    let first = redeem(&mut clients, &world.code("one"), "").await.unwrap();
    let mut command = Command::start(&world, &["--after", "oldest"]);
    assert!(command.line().await.ends_with(",cursor"), "the columns");
    let line = command.line().await;
    assert!(line.starts_with(&format!("{},SUCCEEDED,a-000", first.redemption_id)), "{line}");
    let cursor = line.rsplit_once(',').unwrap().1.to_owned();

    let addr = world.server(0).addr();
    drop(clients);
    world.take_server(0).stop().await.unwrap();
    world.start_server_with(|args| args.listen = addr).await;
    let mut clients = world.clients(0).await;
    let second = redeem(&mut clients, &world.code("two"), "").await.unwrap();
    assert!(command.line().await.starts_with(&second.redemption_id), "once, and nothing else");
    command.stop().await;

    let mut resumed = Command::start(&world, &["--after", &cursor, "--format", "json"]);
    let line = loop {
        let line = resumed.line().await;
        if line.contains("redemption_id") {
            break line;
        }
    };
    assert!(line.contains(&second.redemption_id), "{line}");
    resumed.stop().await;
    let mut watch = Watch::open(&mut clients, &cursor).await.unwrap();
    assert_eq!(watch.outcome().await.unwrap(), second);
}
