//! Watching while servers are killed.

use std::{collections::HashMap, time::Duration};

use holdfast::rpc::pb;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tonic::Status;

use super::redeem;
use crate::support::{
    fleet::{Able, Fleet, Setup},
    wait::eventually,
    watch::Watch,
    world::POOL,
};

const LIMIT: Duration = Duration::from_secs(60);
const ACCOUNTS: usize = 3;
const KILLS: usize = 4;
/// So many outcomes are told between two kills.
const BETWEEN: usize = 12;

/// What a consumer has recorded: each outcome that was told, in that order, and the cursor after the last one.
#[derive(Default)]
struct Consumer {
    cursor: String,
    told: Vec<pb::Redemption>,
}

impl Consumer {
    /// Takes what a server tells, until it is gone or `enough` says so.
    async fn take(
        &mut self,
        fleet: &Fleet,
        place: usize,
        enough: impl Fn(&[pb::Redemption]) -> bool,
    ) -> Result<(), Status> {
        let mut watch = Watch::begin(&mut fleet.clients(place), &self.cursor).await?;
        while !enough(&self.told) {
            let message = watch.message().await?;
            self.told.extend(message.redemption);
            self.cursor = message.cursor;
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_outcome_is_told_in_each_accounts_order_through_kills_and_reconnections() {
    let able = Able { deduplicates: true, looks_up: true, cancels: true };
    let setup = Setup { able, serve: Vec::new(), provider: Vec::new() };
    let mut fleet = Fleet::start(setup).await;
    for _ in 0..2 {
        fleet.start_server(&[]).await;
    }
    let mut clients = fleet.clients(0);
    clients.create_pool(POOL).await;
    clients.create_accounts(ACCOUNTS).await;
    let (stop, stopped) = watch::channel(false);
    let mut callers = Vec::new();
    for caller in 0..6 {
        let (mut clients, stopped) = (fleet.clients(caller % 2), stopped.clone());
        let codes: Vec<_> = (0..400).map(|n| fleet.code(&format!("K{caller}N{n:03}"))).collect();
        callers.push(tokio::spawn(async move {
            for code in codes {
                if *stopped.borrow() {
                    return;
                }
                // One that is cut off is finished by a server, and told all the same.
                if redeem(&mut clients, &code, "").await.is_err() {
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }));
    }
    let mut consumer = Consumer::default();
    for kill in 0..KILLS {
        let (place, wanted) = (kill % 2, consumer.told.len() + BETWEEN);
        timeout(LIMIT, async {
            while consumer.told.len() < wanted {
                if consumer.take(&fleet, place, |told| told.len() >= wanted).await.is_err() {
                    sleep(Duration::from_millis(50)).await;
                }
            }
        })
        .await
        .expect("outcomes are told");
        fleet.servers[place].kill();
        fleet.restart_server(place).await;
    }
    stop.send(true).unwrap();
    for caller in callers {
        caller.await.unwrap();
    }
    // When nothing is open any more, all that there is has to have been told.
    let mut clients = fleet.clients(0);
    let all = eventually(LIMIT, "every redemption has an outcome", async || {
        let request = pb::ListRedemptionsRequest {
            pool_id: POOL.to_owned(),
            page_size: 1000,
            ..Default::default()
        };
        let reply = clients.redemptions.list_redemptions(request).await.ok()?.into_inner();
        reply.redemptions.iter().all(|one| one.finish_time.is_some()).then_some(reply.redemptions)
    })
    .await;
    assert!(all.len() > KILLS * BETWEEN && all.len() < 1000, "{}", all.len());
    let is_all = |told: &[pb::Redemption]| {
        all.iter().all(|one| told.iter().any(|it| it.redemption_id == one.redemption_id))
    };
    timeout(LIMIT, consumer.take(&fleet, 1, is_all)).await.expect("none is missed").unwrap();
    let mut newest = HashMap::new();
    for one in &consumer.told {
        let before = newest.insert(one.account_id.clone(), one.fencing_token);
        assert!(before <= Some(one.fencing_token), "{before:?}, {one:?}");
    }
    let broken = fleet.finish().await;
    assert!(broken.is_empty(), "{broken:?}");
}
