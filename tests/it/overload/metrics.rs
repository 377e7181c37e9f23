//! The metrics, asked for again and again: calls go on beside it, and they are written once for all who ask.

use std::{collections::HashSet, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use crate::support::{steady::Steady, world::World};

/// Connections that ask as soon as they are answered, and for how long.
const CONNECTIONS: usize = 8;
const ASKING: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_that_eight_connections_ask_for_without_end_are_written_once_for_all_of_them() {
    let world = World::start().await;
    let mut clients = world.clients(0).await;
    clients.create_accounts(2).await;
    let url = format!("http://{}/metrics", world.server(0).admin_addr());
    let steady = Steady::begin(&clients);
    let begun = Instant::now();
    let mut asking = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (client, url) = (reqwest::Client::new(), url.clone());
        asking.spawn(async move {
            let mut answers = Vec::new();
            while begun.elapsed() < ASKING {
                answers.push(client.get(&url).send().await.unwrap().text().await.unwrap());
            }
            answers
        });
    }
    let answers = asking.join_all().await.concat();
    steady.was_served().await;
    // Calls are counted meanwhile: two that were written at different times differ.
    let written: HashSet<_> = answers.iter().collect();
    assert!(
        written.len() * 3 <= answers.len(),
        "{} answers were written {} times",
        answers.len(),
        written.len()
    );
}
