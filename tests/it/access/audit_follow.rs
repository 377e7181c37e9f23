//! `holdfast audit-log --follow`: each event once, whatever order they appear in, and whatever becomes of the server.

use std::time::Duration;

use holdfast::app::App;
use rustix::process::Signal;
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::ChildStdout,
    time::timeout,
};

use crate::support::{program, world::World};

const LIMIT: Duration = Duration::from_secs(60);

/// What the command has printed.
struct Printed {
    lines: Lines<BufReader<ChildStdout>>,
    all: String,
}

impl Printed {
    /// Reads until an event of this subject is printed.
    async fn until(&mut self, subject: &str) {
        let wanted = format!("\"subject\":\"{subject}\"");
        loop {
            let line = timeout(LIMIT, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("no {subject}: {}", self.all));
            let line = line.unwrap().unwrap_or_else(|| panic!("it ended: {}", self.all));
            self.all.push_str(&line);
            if line.contains(&wanted) {
                return;
            }
        }
    }
}

/// An event as another server's statement records it.
async fn record(db: &mut PgConnection, subject: &str) {
    sqlx::query(
        "INSERT INTO audit_events (principal, peer, action, subject, after)
         VALUES ('database', '', 'CreateToken', $1, '{}')",
    )
    .bind(subject)
    .execute(db)
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trail_that_is_followed_has_each_event_once_late_ones_too_and_goes_on_after_a_restart() {
    let mut world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_account("first", |_| {}).await;
    let arguments = ["audit-log", "--follow", "--limit", "1", "--format", "json"];
    let mut child = program::program(&world, &arguments).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut printed = Printed { lines, all: String::new() };
    printed.until("first").await;

    // Its id is before that of the second one, and it appears after that.
    let (mut db, mut other) = (world.sql().await, world.sql().await);
    let mut late = other.begin().await.unwrap();
    record(&mut late, "late").await;
    clients.create_account("second", |_| {}).await;
    printed.until("second").await;
    late.commit().await.unwrap();
    printed.until("late").await;

    let addr = world.server(0).addr();
    drop(clients);
    world.take_server(0).stop().await.unwrap();
    record(&mut db, "third").await;
    let mut args = world.args().clone();
    args.listen = addr;
    let app = App::start(&args).await.unwrap();
    printed.until("third").await;
    record(&mut db, "fourth").await;
    printed.until("fourth").await;

    program::signal(&child, Signal::INT);
    assert_eq!(program::ended(&mut child).await.code(), Some(0));
    while let Some(line) = printed.lines.next_line().await.unwrap() {
        printed.all.push_str(&line);
    }
    let events: Vec<Value> = serde_json::from_str(&printed.all).unwrap();
    let subjects: Vec<_> = events.iter().map(|event| event["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["first", "second", "late", "third", "fourth"]);
    app.stop().await.unwrap();
}

#[tokio::test]
async fn a_trail_that_is_followed_is_no_table_and_has_no_end() {
    let world = World::start().await;
    let table = program::run(&world, &["audit-log", "--follow", "--format", "table"]).await;
    table.says(1, &["use --format csv or json"]);
    let end = ["audit-log", "--follow", "--until", "2030-01-01T00:00:00Z"];
    program::run(&world, &end).await.says(2, &["--until"]);
}
